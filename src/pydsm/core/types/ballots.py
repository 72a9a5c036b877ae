"""Ballots: who may decide an instance, in which order.

An instance has two of them at a replica, and they are never one variable: `promised`, the highest joined, and
`voted`, the one in which the current value was accepted (PROTOCOL 2 and 9).
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
    """The lowest ballot of `replica` in a round above every ballot seen."""
    return Ballot(above.round + 1, replica)
