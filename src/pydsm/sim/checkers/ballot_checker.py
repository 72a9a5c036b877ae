"""Checks that only one start of a replica uses a ballot (`docs/reference/protocol.md`, sections 4 and 6).

A ballot that two starts of a replica use may carry two values, or count an answer to the other start. Therefore the
promise of a Prepare is durable before the message is sent, and a later start begins above all promises that it finds.
No other check detects a violation early: answers to one start are rarely taken for answers to the other.
"""

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.ids import InstanceId
from pydsm.sim.base import describe
from pydsm.sim.base.violation import Violation


class BallotChecker:
    """Checks one run. Every method raises Violation if an invariant is broken."""

    def __init__(self, replicas: int) -> None:
        self._starts = [0] * replicas
        self._used: dict[InstanceId, dict[Ballot, int]] = {}

    def started(self, replica: int) -> None:
        """Record that a replica starts, for the first time or again."""
        self._starts[replica] += 1

    def asked(self, replica: int, message: m.PreAccept | m.Prepare | m.Validate | m.Accept) -> None:
        """Check a request that is sent: its ballot must be the sender's, and no other start may have used it."""
        ballot = initial_ballot(message.id) if isinstance(message, m.PreAccept) else message.ballot
        if ballot.replica != replica:
            raise Violation(
                "ballot", f"r{replica} sends {describe.message(message)} in {ballot} of another replica", (message.id,)
            )
        start = self._starts[replica]
        first = self._used.setdefault(message.id, {}).setdefault(ballot, start)
        if first != start:
            what = (
                f"r{replica} uses {ballot} in its start {start} and in its start {first}: {describe.message(message)}"
            )
            raise Violation("ballot", what, (message.id,))

    def forget(self, gone: list[InstanceId]) -> None:
        """Remove the records of these instances: no replica sends messages about them any more."""
        for id in gone:
            self._used.pop(id, None)
