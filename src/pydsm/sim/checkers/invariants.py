"""Checks the invariants (`docs/reference/protocol.md`, section 10) at every effect of a replica.

Every record that becomes durable, every message that is sent, every execution and every abort is passed to this
module, and compared with the earlier ones. State is not scanned at every step. Checks per event:

- agreement: one value per instance over all replicas and processes; one value per instance and ballot, in the requests
  for votes and in the votes;
- visibility and order (`ordering`): conflicting instances are ordered, in the same way everywhere; no instance and no
  request is executed twice in a process; a repeated request gets its first result; requests that a client sends in a
  row are executed in their order; only submitted commands are decided and executed; an aborted instance is a nop;
  results are equal everywhere;
- promises, votes and quorums (`vote_checker`): none decreases, also across restarts; a decision has its votes in one
  ballot, or a fast quorum of equal vectors that includes its leader; the content of a message is on its sender's disk;
- durable before visible: a decision that is visible cannot be lost; no index is used twice, and no ballot by two starts
  of a replica (`ballot_checker`); instances that are compacted early are in a durable snapshot;
- exactness: Validate is answered as by a replica that compacts nothing (`validate_checker`).

With every tick: instances that all replicas have executed leave memory in time (`cluster.memory_checker`).
Every `scan_events` events, and at the end: the memory of all replicas is compared with the decisions and with their
disks. At the end only: everything decided is executed everywhere, digests are equal, and client histories are
linearizable (`cluster.world`).
"""

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from functools import reduce
from itertools import islice
from typing import Any, assert_never
from weakref import WeakSet

from pydsm.core.log.conflicts import Relation
from pydsm.core.log.instance import Instance
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types import messages as m
from pydsm.core.types.checkpoint import Checkpoint, checkpoint_batch, is_checkpoint
from pydsm.core.types.effects import (
    Abort,
    Execute,
    FrontierRecord,
    InstanceRecord,
    PurgeRecord,
    Record,
    ReservationRecord,
)
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId, SessionId, covers, merge, session_of
from pydsm.core.types.status import Status
from pydsm.machines.base import Result
from pydsm.sim.base import describe
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers import ordering
from pydsm.sim.checkers.ballot_checker import BallotChecker
from pydsm.sim.checkers.reply_checker import ReplyChecker
from pydsm.sim.checkers.restarts import RestartRecord
from pydsm.sim.checkers.vote_checker import VoteChecker
from pydsm.sim.devices.disk import SimulatedDisk


class Invariants:
    """Checks one run. Every method raises Violation if an invariant is broken."""

    def __init__(
        self,
        replicas: int,
        relation: Relation,
        disks: Sequence[SimulatedDisk],
        *,
        forgets_early: bool = False,
        in_order: bool = False,
        purge_max: int | None = None,
    ) -> None:
        self._disks = disks
        self._forgets_early = forgets_early
        self._votes = VoteChecker(replicas, disks)
        self._ballots = BallotChecker(replicas)
        self._purge_max = purge_max
        self._purged_up_to = [(0,) * replicas] * replicas
        """Per replica, the prefix that was purged from its disk."""
        self._dropped = [(0,) * replicas] * replicas
        """Per replica, the prefix that was dropped from its memory."""
        self._order = ordering.make_ordering(relation, self._ordered_by_barrier if forgets_early else ordering.never)
        self._led: set[InstanceId] = set()
        self._aborted: set[InstanceId] = set()
        self._checkpoints: dict[int, tuple[Checkpoint, bytes]] = {}
        self._in_order: list[InstanceId] = []
        """All decisions, in the order in which they became visible."""
        self._reported = [(0,) * replicas] * replicas
        """Per replica, the executed frontier that it last reported."""
        self._adopted = [(0,) * replicas] * replicas
        """Per replica, the position of the last snapshot that it fetched from a peer."""
        self.at_checkpoint: dict[int, RestartRecord] = {}
        """Per checkpoint, the record of one process as it was at the checkpoint."""
        self.submitted: dict[InstanceId, m.Batch] = {}
        self.decided: dict[InstanceId, tuple[m.Value, Deps]] = {}
        self.results: dict[InstanceId, list[Result]] = {}
        self.answers = ReplyChecker(in_order=in_order)
        self.forgotten: Deps = (0,) * replicas
        """Instances up to this vector left all disks long ago, and their records were removed from this checker too."""
        self._processes: WeakSet[RestartRecord] = WeakSet()

    def _ordered_by_barrier(self, earlier: InstanceId, later: InstanceId, later_deps: Deps) -> bool:
        """Whether a checkpoint has the earlier instance, and the later one is ordered after its barrier.

        A replica that has compacted the instances of a checkpoint depends on its barrier only.
        """
        return any(
            one.position.has(earlier) and covers(later_deps, one.barrier) and not one.position.has(later)
            for one, _ in self._checkpoints.values()
        )

    def begin_process(self, name: str, replica: int | None = None) -> RestartRecord:
        """Record that a replica starts a process."""
        if replica is not None:
            self._ballots.started(replica)
            self._dropped[replica] = (0,) * len(self._disks)
        return RestartRecord(name, self._order.begin_process(name), self._processes)

    def proposed(self, id: InstanceId, batch: m.Batch) -> None:
        """Check an instance that its leader proposes: its index must be new."""
        if id in self._led or id in self.decided:
            raise Violation("index used twice", f"{id} is proposed again, by a later process of its leader", (id,))
        self.submitted[id] = batch

    # records that become durable

    def written(self, replica: int, records: Sequence[Record]) -> None:
        """Check records that became durable on the disk of `replica`."""
        for record in records:
            match record:
                case InstanceRecord():
                    if record.status is Status.COMMITTED:
                        assert record.value is not None
                        self._decide(replica, record.id, record.value, record.deps)
                    elif record.status is Status.ACCEPTED:
                        self._votes.check_vote(replica, record)
                case PurgeRecord():
                    self._purged(replica, record)
                case ReservationRecord() | FrontierRecord():
                    pass  # checked when a PreAccept or a Frontier that needs it leaves
                case unreachable:
                    assert_never(unreachable)

    def _purged(self, replica: int, record: PurgeRecord) -> None:
        """Check a purge: its instances are in the snapshots here, and every replica has reported them as executed."""
        reported = tuple(map(min, zip(*self._reported, strict=True)))
        snapshots = self._disks[replica].snapshots
        reached = min((one.checkpoint.position.up_to for one in snapshots), default=(0,) * len(reported))
        reached = merge(reached, self._adopted[replica])
        bounds = [("its oldest snapshot has", reached)]
        if not self._forgets_early:
            bounds.append(("every replica has reported as executed", reported))
        for what, bound in bounds:
            if any(map(int.__gt__, record.up_to, bound)):
                line = f"r{replica} is {describe.record(record)}; {what} {describe.vector(bound)}"
                raise Violation("purge", line)
        before = self._purged_up_to[replica]
        self._purged_up_to[replica] = merge(before, record.up_to)
        if self._purge_max is not None and any(
            last - first > self._purge_max for first, last in zip(before, record.up_to, strict=True)
        ):
            line = f"r{replica} is {describe.record(record)}, before {describe.vector(before)}"
            raise Violation("purge", f"{line}: more than {self._purge_max} of one leader at once")

    def dropped(self, replica: int, dropped: Deps) -> None:
        """Check instances that left memory: every replica has reported them, or they are in a durable snapshot here.

        Otherwise a replica that lacks them might find them on no disk after a crash of this one.
        """
        if dropped == self._dropped[replica]:
            return
        self._dropped[replica] = dropped
        reported = tuple(map(min, zip(*self._reported, strict=True)))
        durable = [one.checkpoint.position.up_to for one in self._disks[replica].snapshots]
        allowed = reduce(merge, durable, reported)
        if merge(allowed, dropped) != allowed:
            bound = describe.vector(reported)
            what = f"r{replica} has dropped {describe.vector(dropped)}; every replica has reported {bound}"
            raise Violation("early drop", f"{what}; its snapshots on disk have up to {describe.vector(allowed)}")

    def adopted(self, replica: int, checkpoint: Checkpoint) -> None:
        """Check a fetched snapshot that replaces the records of a replica up to its checkpoint."""
        known = self._checkpoints.get(checkpoint.number)
        if known is None or known[0] != checkpoint:
            raise Violation("checkpoint", f"r{replica} installs {checkpoint}, which no replica has reached")
        self._adopted[replica] = checkpoint.position.up_to
        self._purged_up_to[replica] = merge(self._purged_up_to[replica], checkpoint.position.up_to)

    def checkpointed(self, replica: int, process: RestartRecord, checkpoint: Checkpoint, state: bytes) -> None:
        """Check a machine at a checkpoint: it has executed exactly its instances, and its state is equal everywhere."""
        id = checkpoint.barrier
        self._decide(
            replica, id, checkpoint_batch(checkpoint.timestamp_ms, checkpoint.clocks), self._own_deps(replica, id)
        )
        if id in process.executed:
            raise Violation("executed twice", f"{process.name} executes {id} again", (id,))
        if not process.grows(checkpoint.position):
            raise Violation(
                "checkpoint", f"{process.name} is at {checkpoint}, which has less than {process.position}", (id,)
            )
        has = checkpoint.position.has
        fresh = [*process.not_in_it, *islice(self._in_order, process.compared, None)]
        batches = [(one, value) for one in fresh if isinstance(value := self.decided[one][0], m.Batch)]
        for one in sorted(one for one, value in batches if is_checkpoint(value) and has(one)):
            if one not in process.executed:
                process.executed.add(one)
                process.order.execute(one)
        process.pass_barrier()
        first = self._checkpoints.setdefault(checkpoint.number, (checkpoint, state))
        if first[0] != checkpoint:
            raise Violation("checkpoint", f"{process.name} is at {checkpoint}, and another was at {first[0]}", (id,))
        if first[1] != state:
            raise Violation("digest", f"{process.name} has another state than others at {checkpoint}", (id,))
        for other, _ in batches:
            if has(other) != (other in process.executed):
                said = "has not" if has(other) else "has"
                raise Violation("checkpoint", f"{process.name} {said} executed {other} at {checkpoint}", (id, other))
        process.pass_checkpoint(checkpoint.position, len(self._in_order), [one for one, _ in batches if not has(one)])
        for disk in self._disks[replica : replica + 1]:
            purged = disk.purged.up_to if disk.purged is not None else (0,) * len(checkpoint.floor)
            for leader, (before, last) in enumerate(zip(purged, checkpoint.position.up_to, strict=True)):
                for index in range(before + 1, last + 1):
                    one = InstanceId(ReplicaId(leader), index)
                    record = disk.instances.get(one)
                    if disk.purged is not None and one in disk.purged.exceptions:
                        continue
                    if record is None or record.status is not Status.COMMITTED:
                        what = f"r{replica} takes {checkpoint}, and its disk has no decision of {leader}.{index}"
                        raise Violation("durable", what, (id,))

    # messages that are sent

    def sent(self, replica: int, message: m.Message) -> None:
        """Check a message that is sent, to other replicas or to the sender itself."""
        match message:
            case m.PreAccept():
                self._ballots.asked(replica, message)
                self._pre_accept_asked(replica, message)
            case m.PreAcceptOk():
                self._votes.pre_accepted(replica, message)
            case m.Prepare() | m.Validate():
                self._ballots.asked(replica, message)
            case m.Accept():
                self._ballots.asked(replica, message)
                self._votes.accept_asked(replica, message)
            case m.AcceptOk():
                self._votes.voted(replica, message)
            case m.Commit():
                self._decide(replica, message.id, message.value, message.deps)
            case m.PrepareOk():
                self._votes.prepared(replica, message)
            case m.ValidateOk():
                self._votes.validated(replica, message)
            case m.Refuse():
                self._votes.show_promise(replica, message.id, message.promised, message)
            case m.Frontier():
                self._check_reported_frontier(replica, message)
            case m.Waiting() | m.CommitQuery() | m.FetchSnapshot():
                pass  # no peer relies on what their sender has stored
            case m.StateDigest() | m.Compacted() | m.SnapshotPiece():
                pass  # the states of the replicas are compared at each checkpoint
            case unreachable:
                assert_never(unreachable)

    def _pre_accept_asked(self, replica: int, message: m.PreAccept) -> None:
        self._led.add(message.id)
        if self._disks[replica].reserved < message.id.index:
            raise Violation("durable", f"PreAccept {message.id} leaves before its index is reserved", (message.id,))

    def _check_reported_frontier(self, replica: int, message: m.Frontier) -> None:
        """Check a report: peers compact instances that all replicas reported, so the own disk must have them."""
        disk = self._disks[replica]
        instances = disk.instances
        for leader, (before, now) in enumerate(zip(self._reported[replica], message.executed, strict=True)):
            if now < before:
                what = (
                    f"r{replica} reports {describe.message(message)} after {describe.vector(self._reported[replica])}"
                )
                raise Violation("frontier", what)
            for index in range(before + 1, now + 1):
                id = InstanceId(ReplicaId(leader), index)
                record = instances.get(id)
                if self._forgets_early and any(one.checkpoint.position.has(id) for one in disk.snapshots):
                    continue
                if record is None or record.status is not Status.COMMITTED:
                    what = f"r{replica} reports {leader}.{index} as executed, but its disk has no decision"
                    raise Violation("durable", what, (InstanceId(ReplicaId(leader), index),))
        self._reported[replica] = message.executed

    # decisions

    def _decide(self, replica: int, id: InstanceId, value: m.Value, deps: Deps) -> None:
        known = self.decided.get(id)
        if known is None:
            self._decide_first(replica, id, value, deps)
            return
        known_value, known_deps = known
        same_value = known_value is value or known_value == value
        if same_value and (known_deps == deps or value == m.NOP):
            return
        raise Violation(
            "agreement",
            f"{id} is decided as {describe.value(known_value)} {describe.vector(known_deps)} "
            f"and, at r{replica}, as {describe.value(value)} {describe.vector(deps)}",
            (id,),
        )

    def _decide_first(self, replica: int, id: InstanceId, value: m.Value, deps: Deps) -> None:
        self.decided[id] = (value, deps)
        self._in_order.append(id)
        self._votes.check_quorum(replica, id, value, deps)
        self._votes.check_kept(replica, id, value, deps)
        if not isinstance(value, m.Batch):
            return
        submitted = self.submitted.get(id)
        if submitted is not value and submitted != value:
            raise Violation(
                "never submitted", f"{id} is decided as {describe.value(value)}, which no client proposed", (id,)
            )
        if id in self._aborted:
            raise Violation("abort", f"{id} is decided as a batch after an abort was reported to its clients", (id,))
        self._order.commit(id, value, deps)

    def executed(
        self, replica: int, process: RestartRecord, execution: Execute, results: list[Result], applied: Sequence[bytes]
    ) -> None:
        """Check an execution; `applied` are the commands that the machine received, because they were new."""
        id, batch = execution.id, execution.batch
        self._decide(replica, id, batch, self.decided[id][1] if id in self.decided else self._own_deps(replica, id))
        if id in process.executed:
            raise Violation("executed twice", f"{process.name} executes {id} again", (id,))
        process.executed.add(id)
        process.order.execute(id)
        self.answers.check(process, execution, results, applied)
        process.acknowledge(batch, results)
        first = self.results.get(id)
        if first is None:
            self.results[id] = results
        elif not _same_results(batch, first, results):
            raise Violation(
                "results", f"{id} had the results {first} before, and has {results} at {process.name}", (id,)
            )

    def _own_deps(self, replica: int, id: InstanceId) -> Deps:
        """The vector of an execution that is visible before its commit, from the disk of the replica or a voter."""
        for disk in (self._disks[replica], *self._disks):
            record = disk.instances.get(id)
            if record is not None and record.status >= Status.ACCEPTED:
                return record.deps
        raise Violation("durable", f"r{replica} executes {id}, for which no disk has a vote", (id,))

    def aborted(self, replica: int, abort: Abort) -> None:
        """Check an abort that is reported to clients: the instance must be a nop."""
        self._aborted.add(abort.id)
        known = self.decided.get(abort.id)
        if known is not None and known[0] != m.NOP:
            raise Violation("abort", f"r{replica} aborts {abort.id}, which is decided as a batch", (abort.id,))

    # at intervals

    def scan(self, replica: int, instances: Mapping[InstanceId, Instance], dropped: Deps) -> None:
        """Check all instances in one replica's memory: compacted ones are absent, and the others match its disk."""
        disk = self._disks[replica].instances
        for id in instances:
            if covers(dropped, id):
                raise Violation(
                    "memory", f"r{replica} has {id} in memory again, after every replica had executed it", (id,)
                )
        for id in disk:
            if id not in instances and not covers(dropped, id):
                raise Violation("memory", f"r{replica} lost {describe.record(disk[id])}", (id,))
        for id, instance in instances.items():
            known = self.decided.get(id)
            if instance.decided and known is not None and instance.value is not None:
                self._decide(replica, id, instance.value, instance.deps)
            record = disk.get(id)
            if record is None or instance.decided:
                continue
            if record.status is Status.COMMITTED or record.promised > instance.promised:
                raise Violation("memory", f"r{replica} lost {describe.record(record)}; it has {instance!r}", (id,))

    def _forget_checkpoints(self) -> None:
        """Remove the records of checkpoints for which no disk has a snapshot, complete or partial."""
        numbers = [one.checkpoint.number for disk in self._disks for one in disk.snapshots]
        numbers += [disk.fetched.number for disk in self._disks if disk.fetched is not None]
        for number in [one for one in self.at_checkpoint if one < min(numbers, default=0)]:
            del self.at_checkpoint[number]

    def forget(self, up_to: Deps, wanted: Collection[RequestId], is_over: Callable[[SessionId], bool]) -> None:
        """Remove instances that left all disks long ago, and requests that were given up; for endurance runs.

        Every process has executed these instances, and no replica sends messages about them. `wanted` requests are
        kept. Requests of sessions for which `is_over` is true never arrive again.
        """
        gone = [
            InstanceId(ReplicaId(leader), index)
            for leader, (before, last) in enumerate(zip(self.forgotten, up_to, strict=True))
            for index in range(before + 1, last + 1)
        ]
        self.forgotten = up_to
        kept: tuple[MutableMapping[InstanceId, Any], ...] = (self.submitted, self.decided, self.results)
        self._votes.forget(gone)
        self._ballots.forget(gone)
        for id in gone:
            for one in kept:
                one.pop(id, None)
        self._led.difference_update(gone)
        self._aborted.difference_update(gone)
        self._order.forget(gone)
        self._forget_checkpoints()
        processes = list(self._processes)
        compared = min([len(self._in_order), *(process.compared for process in processes)])
        del self._in_order[:compared]
        for process in processes:
            process.executed.difference_update(gone)
            process.compared -= compared
        self.answers.forget(processes, wanted, is_over)

    def settled(self, replica: int, process: RestartRecord) -> None:
        """Check a replica at the end: it has executed everything that was decided as a batch."""
        for id, (value, _) in self.decided.items():
            if isinstance(value, m.Batch) and id not in process.executed:
                raise Violation(
                    "lost", f"r{replica} never executed {id}, which was decided as {describe.value(value)}", (id,)
                )


def _same_results(batch: m.Batch, left: list[Result], right: list[Result]) -> bool:
    """Whether results are equal. The first attempt of a request that was acknowledged may have any result."""
    if left == right:
        return True
    return all(
        one == other or (session_of(request) not in batch.retried and (RequestExpired() in (one, other)))
        for request, one, other in zip(batch.request_ids, left, right, strict=True)
    )
