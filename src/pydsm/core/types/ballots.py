"""Ballots: the numbers under which replicas may decide an instance.

An instance has two of them at a replica, in two variables: `promised`, the highest ballot joined, and `voted`, the
ballot in which the current value was accepted (docs/reference/protocol.md, section 2).
"""

from typing import NamedTuple

from pydsm.core.types.ids import InstanceId, ReplicaId


class Ballot(NamedTuple):
    """Ordered by round, then replica. Round 0 belongs to the instance's leader and needs no Prepare."""

    round: int
    replica: ReplicaId

    def __str__(self) -> str:
        return f"b{self.round}.{self.replica}"


def initial_ballot(instance: InstanceId) -> Ballot:
    """The leader's own implicit ballot."""
    return Ballot(0, instance.leader)


def next_ballot(above: Ballot, replica: ReplicaId) -> Ballot:
    """The ballot of `replica` in the round after that of `above`, the highest ballot seen."""
    return Ballot(above.round + 1, replica)
