"""Checks promises, votes and quorums (`docs/reference/protocol.md`, sections 2, 3, 4 and 6), from messages and disks.

Guards: promises and votes never decrease; a vote is for the value that was proposed in its ballot; a decision has its
votes in one ballot, or a fast quorum of equal vectors; and the content of a message is on its sender's disk.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.core.types.status import Status
from pydsm.sim.base import describe
from pydsm.sim.base.violation import Violation
from pydsm.sim.devices.disk import SimulatedDisk


@dataclass(slots=True)
class _Shown:
    """The ballots that one replica has reported for one instance."""

    promised: Ballot
    voted: Ballot | None = None


class VoteChecker:
    """Checks one run. Every method raises Violation if an invariant is broken."""

    def __init__(self, replicas: int, disks: Sequence[SimulatedDisk]) -> None:
        self._disks = disks
        down_max = (replicas - 1) // 2
        self._slow_quorum = replicas - down_max
        self._fast_quorum = replicas - min(down_max, (down_max + 2) // 2)
        self._voters: dict[InstanceId, dict[Ballot, set[int]]] = {}
        self._agreeing: dict[InstanceId, dict[Deps, set[int]]] = {}
        """The replicas that reported a vote, by ballot; and those that reported a vector in round 0, by vector."""
        self._shown: dict[InstanceId, dict[int, _Shown]] = {}
        self._asked: dict[InstanceId, dict[Ballot, tuple[m.Value, Deps]]] = {}

    def _record(
        self, replica: int, message: m.PreAcceptOk | m.Accept | m.AcceptOk | m.PrepareOk | m.ValidateOk
    ) -> InstanceRecord:
        record = self._disks[replica].instances.get(message.id)
        if record is None:
            raise Violation(
                "durable",
                f"r{replica} sends {describe.message(message)}, but its disk has no record of it",
                (message.id,),
            )
        return record

    def _not_durable(self, replica: int, message: m.Message, record: InstanceRecord) -> Violation:
        return Violation(
            "durable",
            f"r{replica} sends {describe.message(message)}; its disk: {describe.record(record)}",
            (record.id,),
        )

    def show_promise(self, replica: int, id: InstanceId, promised: Ballot, message: m.Message) -> _Shown:
        """Check the promise in a message: it is durable, and not below an earlier one."""
        of_replicas = self._shown.setdefault(id, {})
        shown = of_replicas.get(replica)
        if shown is None:
            shown = of_replicas[replica] = _Shown(promised)
        elif promised < shown.promised:
            raise Violation(
                "promise", f"r{replica} sends {describe.message(message)} after it had promised {shown.promised}", (id,)
            )
        shown.promised = promised
        return shown

    def pre_accepted(self, replica: int, message: m.PreAcceptOk) -> None:
        """Check that the vector is on disk; a leader's own one is durable with the record of its decision or vote."""
        self.show_promise(replica, message.id, initial_ballot(message.id), message)
        self._agreeing.setdefault(message.id, {}).setdefault(message.deps, set()).add(replica)
        if message.id.leader == replica:
            return  # it becomes visible only together with the record for which it was counted
        record = self._record(replica, message)
        if record.status is Status.PRE_ACCEPTED and record.deps == message.deps:
            return
        if record.status <= Status.PRE_ACCEPTED:
            raise self._not_durable(replica, message, record)

    def accept_asked(self, replica: int, message: m.Accept) -> None:
        """Check that a ballot has one value, and that a leader's own vote in round 0 is durable before it asks."""
        if message.ballot.replica != replica:
            raise Violation(
                "ballot", f"r{replica} asks for votes in {message.ballot} of another replica", (message.id,)
            )
        in_ballots = self._asked.setdefault(message.id, {})
        asked = in_ballots.setdefault(message.ballot, (message.value, message.deps))
        if asked[1] != message.deps or (asked[0] is not message.value and asked[0] != message.value):
            raise Violation("agreement", f"two values for {message.id} in one ballot {message.ballot}", (message.id,))
        if message.ballot == initial_ballot(message.id):
            record = self._record(replica, message)
            if record.status < Status.ACCEPTED:
                raise self._not_durable(replica, message, record)

    def voted(self, replica: int, message: m.AcceptOk) -> None:
        """Check that the vote is on disk, and not below an earlier one."""
        shown = self.show_promise(replica, message.id, message.ballot, message)
        if shown.voted is not None and message.ballot < shown.voted:
            raise Violation(
                "vote", f"r{replica} votes {message.id} {message.ballot} after {shown.voted}", (message.id,)
            )
        shown.voted = message.ballot
        self._voters.setdefault(message.id, {}).setdefault(message.ballot, set()).add(replica)
        record = self._record(replica, message)
        if record.status < Status.COMMITTED and (
            record.status < Status.ACCEPTED or record.voted is None or record.voted < message.ballot
        ):
            raise self._not_durable(replica, message, record)

    def check_vote(self, replica: int, record: InstanceRecord) -> None:
        """Check that a vote is for the value and vector that were proposed in its ballot."""
        if record.voted is None:
            raise Violation("vote", f"r{replica} has accepted {record.id} in no ballot", (record.id,))
        asked = self._asked.get(record.id, {}).get(record.voted)
        if asked is None and record.id.leader == replica and record.voted == initial_ballot(record.id):
            assert record.value is not None
            asked = (record.value, record.deps)  # the leader sends Accept when this record is durable
            self._asked.setdefault(record.id, {})[record.voted] = asked
        if asked is None and len(self._disks) > 1:
            what = f"r{replica} has accepted {record.id} in {record.voted}, in which no replica asked for votes"
            raise Violation("vote", what, (record.id,))
        if asked is not None and (asked[0] != record.value or asked[1] != record.deps):
            what = f"r{replica} has accepted {record.id} in {record.voted} with another value than the proposed one"
            raise Violation("vote", what, (record.id,))

    def prepared(self, replica: int, message: m.PrepareOk) -> None:
        """Check that a PrepareOk reports the highest vote, and that its promise is durable."""
        shown = self.show_promise(replica, message.id, message.ballot, message)
        if shown.voted is not None and (message.voted is None or message.voted < shown.voted):
            raise Violation(
                "vote", f"r{replica} omits its vote {shown.voted}: {describe.message(message)}", (message.id,)
            )
        shown.voted = message.voted
        record = self._record(replica, message)
        if record.promised < message.ballot and record.status < Status.COMMITTED:
            raise self._not_durable(replica, message, record)
        if record.status < message.status or (
            record.status is message.status and record.voted == message.voted and record.deps != message.deps
        ):
            raise self._not_durable(replica, message, record)

    def check_quorum(self, replica: int, id: InstanceId, value: m.Value, deps: Deps) -> None:
        """Check that a decision has a quorum of votes in one ballot, or a fast quorum of equal vectors."""
        agreeing = set(self._agreeing.get(id, {}).get(deps, ()))
        led = self._disks[id.leader].instances.get(id)
        if led is not None and led.initial_batch is not None and led.initial_deps == deps:
            agreeing.add(id.leader)
        if len(agreeing) >= self._fast_quorum and id.leader in agreeing and isinstance(value, m.Batch):
            return
        for ballot, who in self._voters.get(id, {}).items():
            if len(who) >= self._slow_quorum:
                asked = self._asked.get(id, {}).get(ballot)
                if asked is None or asked[0] == value:
                    return
        what = f"r{replica} makes {id} visible as {describe.value(value)}, for which there was no quorum"
        raise Violation("quorum", what, (id,))

    def check_kept(self, replica: int, id: InstanceId, value: m.Value, deps: Deps) -> None:
        """Check that a visible decision survives crashes: its sender's disk has the commit, or a quorum accepted it.

        A process on an older copy of a disk is refused, and its newest disk is restored; so that one counts.
        """
        own = self._disks[replica].instances.get(id)
        if own is not None and own.status is Status.COMMITTED:
            return
        votes = 0
        for disk in self._disks:
            record = (disk.newest or disk).instances.get(id)
            if record is not None and record.status >= Status.ACCEPTED and record.value == value:
                votes += record.deps == deps or value == m.NOP
        if votes < self._slow_quorum:
            raise Violation(
                "durable",
                f"r{replica} makes the decision of {id} visible, but only {votes} disks have it after a crash",
                (id,),
            )

    def validated(self, replica: int, message: m.ValidateOk) -> None:
        """Check that the validated value and the promise are on disk."""
        self.show_promise(replica, message.id, message.ballot, message)
        record = self._record(replica, message)
        if record.status < Status.COMMITTED and (record.promised < message.ballot or record.initial_batch is None):
            raise self._not_durable(replica, message, record)

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Remove these instances: no replica sends messages about them any more."""
        kept: tuple[MutableMapping[InstanceId, Any], ...] = (self._voters, self._agreeing, self._shown, self._asked)
        for one in kept:
            for id in gone:
                one.pop(id, None)
