"""One replica of the protocol: six verbs in, effects out. Start reading here.

`propose` leads a batch, `receive` takes a peer's message, `advance` says what time it is, `tick` does what is due by
then, `restore` brings what the disk kept, and `take_effects` hands out what is to be done. What the rooms behind it
decide: `acceptor` how to answer, `commit` how to lead, `recoverer` and `recovery` how to finish what others began,
`execution` in which order to execute.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from pydsm.core.log.conflicts import DeclaredKeys, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.observer import InstanceObserver
from pydsm.core.log.session_conflicts import with_sessions
from pydsm.core.protocol.acceptor import Acceptor
from pydsm.core.protocol.divergence import Divergence, fold
from pydsm.core.protocol.proposer import PipelineFull, Proposer
from pydsm.core.protocol.recoverer import Recoverer
from pydsm.core.protocol.snapshot_fetch import SnapshotFetcher
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types import messages as m
from pydsm.core.types.checkpoint import Checkpoint, checkpoint_batch, first_missing
from pydsm.core.types.config import Config
from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.effects import Effects, FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import Diverged, OperationalError, PeerProtocolError, UsageError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers, merge, with_instance
from pydsm.core.types.status import Status

__all__ = ["PipelineFull", "Replica"]


class Replica:
    """Owned by one loop; not thread-safe. Call `take_effects` after each of the other verbs."""

    def __init__(self, config: Config, relation: Relation | None = None) -> None:
        self._state = ReplicaState(config, with_sessions(relation or DeclaredKeys()))
        self._acceptor = Acceptor(self._state)
        self._proposer = Proposer(self._state, self._acceptor)
        self._recoverer = Recoverer(self._state, self._acceptor, self._proposer)
        self._transfers = SnapshotFetcher(self._state)
        self._next_scan = Tick(0)
        self._next_gossip = Tick(0)
        self._clock_ms = 0
        self._divergence = Divergence(self._state.me, self._state.quorums)
        self._digest: m.StateDigest | None = None
        self._next_digest = Tick(0)
        self._purged: Deps = self._state.log.no_deps
        self._snapshots: list[Checkpoint] = []
        """The last two of which there is a durable snapshot, the older one first."""

    def propose(self, batch: m.Batch) -> InstanceId | PipelineFull:
        """Lead a new instance that agrees on `batch`; its fate comes back as an Execute or an Abort effect."""
        id = self._proposer.propose(batch)
        self._recoverer.settle()
        return id

    def receive(self, sender: ReplicaId, message: m.Message) -> None:
        """Take a message of a member of the group; one of its own comes back through here once it is durable.

        Raises:
            PeerProtocolError: no correct replica sends this; at most some instances that it names were taken to exist.
            InvariantViolation: the replica must stop.
        """
        if not 0 <= sender < self._state.config.replicas:
            raise PeerProtocolError(
                f"a message of replica {sender}, which is not in this group of {self._state.config.replicas}"
            )
        if isinstance(message, m.PreAccept) and sender != message.id.leader:
            raise PeerProtocolError(
                f"replica {sender} sent a PreAccept for {message.id}, which only its leader may send"
            )
        if self._is_forgotten(sender, message):
            return
        self._hear_of(message)
        self._dispatch(sender, message)
        self._recoverer.settle()

    def _is_forgotten(self, sender: ReplicaId, message: m.Message) -> bool:
        """About an instance that has left memory. Who executed it sent this before; who did not needs a snapshot."""
        id: InstanceId | None = getattr(message, "id", None)
        if id is None or not self._state.log.is_dropped(id):
            return False
        if self._state.window.lacks(sender, id):
            self._tell_purged(sender)
        return True

    def _tell_purged(self, member: ReplicaId) -> None:
        """What it lacks is in the last snapshot here."""
        if self._snapshots:
            last = self._snapshots[-1]
            self._state.outbox.send((member,), m.Compacted(last.number, last.position.up_to))

    def _hear_of(self, message: m.Message) -> None:
        """Every instance that a message names exists, so it must be decided, and is recovered if need be."""
        log = self._state.log
        match message:
            case m.Frontier():
                log.note_exists(message.known)
            case m.StateDigest() | m.FetchSnapshot() | m.SnapshotPiece() | m.Compacted():
                pass
            case m.PrepareOk():
                log.note_exists(with_instance(message.deps, message.id))
                log.note_exists(message.initial_deps)
            case m.PreAccept() | m.PreAcceptOk() | m.Accept() | m.Commit() | m.Validate():
                log.note_exists(with_instance(message.deps, message.id))
            case m.CommitQuery():
                pass
            case m.ValidateOk():
                for id in (message.id, *(invalidator.id for invalidator in message.invalidators)):
                    log.note_exists(with_instance(log.no_deps, id))
            case _:
                log.note_exists(with_instance(log.no_deps, message.id))

    def _dispatch(self, sender: ReplicaId, message: m.Message) -> None:
        acceptor, recoverer = self._acceptor, self._recoverer
        match message:
            case m.PreAccept():
                acceptor.on_pre_accept(sender, message)
            case m.PreAcceptOk():
                self._proposer.on_pre_accept_ok(sender, message)
            case m.Commit():
                recoverer.on_commit(message.id)
                acceptor.on_commit(message)
            case m.Accept():
                if message.ballot.round > 0:
                    recoverer.on_activity(sender, message.id)
                acceptor.on_accept(sender, message)
            case m.AcceptOk():
                self._proposer.on_accept_ok(sender, message)
            case m.Prepare():
                recoverer.on_activity(sender, message.id)
                acceptor.on_prepare(sender, message)
            case m.PrepareOk():
                recoverer.on_prepare_ok(sender, message)
            case m.Validate():
                recoverer.on_activity(sender, message.id)
                acceptor.on_validate(sender, message)
            case m.ValidateOk():
                recoverer.on_validate_ok(sender, message)
            case m.Waiting():
                recoverer.on_activity(sender, message.id)
                recoverer.on_waiting(message)
            case m.Refuse():
                recoverer.on_refuse(sender, message)
            case m.CommitQuery():
                acceptor.on_inquire(sender, message)
            case _:
                self._dispatch_gossip(sender, message)

    def _dispatch_gossip(
        self, sender: ReplicaId, message: m.Frontier | m.StateDigest | m.Compacted | m.FetchSnapshot | m.SnapshotPiece
    ) -> None:
        """What is about a member, and not about an instance."""
        match message:
            case m.Frontier():
                self._measure(sender, message)
                self._state.window.report(sender, message.executed, message.known)
                if self._state.window.lacks_some(sender, self._state.log.dropped):
                    self._tell_purged(sender)
            case m.StateDigest():
                self._compare(sender, message)
            case m.Compacted():
                self._transfers.on_purged(sender, message)
            case m.FetchSnapshot():
                self._transfers.on_fetch(sender, message)
            case m.SnapshotPiece():
                self._transfers.on_piece(sender, message)

    def _measure(self, sender: ReplicaId, message: m.Frontier) -> None:
        state = self._state
        if sender == state.me:
            return
        state.distances.heard(sender, Tick(message.sent_at), state.now)
        if message.echoes:
            echo = message.echoes[state.me]
            state.distances.echoed(sender, echo, state.now)
            state.repeats.echoed(sender, echo)

    def advance(self, now: Tick) -> None:
        """Time has come to `now`, and what is late is left to the next `tick`. Before events that come between ticks.

        A loop that got no processor handles messages before its next tick. With the time of the tick before, what it
        hears of would count as late at once, and the pause would be in no measured round trip.
        """
        state = self._state
        if now < state.now:
            raise UsageError(f"time went back from tick {state.now} to {now}: use a monotonic clock")
        state.now = state.log.now = now

    def tick(self, now: Tick, clock_ms: int = 0) -> None:
        """Time has come to `now`: repeat what is unanswered, look into what is late, gossip.

        `clock_ms` is what the wall clock shows. It is only told to others: nothing here depends on it.
        """
        state = self._state
        self._clock_ms = clock_ms
        self.advance(now)
        if state.repeats.waiting:
            state.repeats.flush(now)
        for id, phase in list(state.leading.items()):
            if phase.deadline <= now and state.leading.get(id) is phase:
                self._recoverer.on_deadline(id, phase)
        if now >= self._next_scan:
            self._next_scan = Tick(now + state.config.scan_ticks)
            self._recoverer.scan()
        if now >= self._next_gossip:
            self._next_gossip = Tick(now + state.config.gossip_ticks)
            self._gossip()
        if self._digest is not None and now >= self._next_digest:
            self._next_digest = Tick(now + state.config.digest_ticks)
            state.outbox.send(state.peers, self._digest)
        self._transfers.tick()
        self._forget()
        self._recoverer.settle()

    def _gossip(self) -> None:
        """Tell what is executed, once the disk could execute it again.

        The own report comes back like those of others, when it is durable.
        """
        state = self._state
        echoes = state.distances.take_echoes(state.now)
        report = m.Frontier(state.record_frontier(), state.log.known, self._clock_ms, state.now, echoes)
        state.outbox.send(state.members, report)

    def _forget(self) -> None:
        """Let go of what is not needed any more, a little at a time: memory, index, disk."""
        state, config = self._state, self._state.config
        gone = state.window.advance()
        if state.log.kept_bytes > config.window_bytes_max and self._snapshots:
            state.log.compaction_checkpoint = self._snapshots[-1]
            gone = merge(gone, state.log.compaction_checkpoint.position.up_to)
        if gone != state.log.dropped:
            state.log.drop(tuple(map(min, gone, state.log.frontier)), config.drop_instances_max)
        state.log.discard(config.discard_entries_max)
        if len(self._snapshots) > 1:
            gone = tuple(map(min, self._snapshots[0].position.up_to, state.log.dropped))
            if gone == self._purged:
                return
            purged = merge(
                self._purged, tuple(map(min, gone, (one + config.drop_instances_max for one in self._purged)))
            )
            if purged != self._purged:
                self._purged = purged
                exceptions = tuple(id for id in sorted(state.log.absent) if not covers(purged, id))
                state.outbox.persist_lazily(PurgeRecord(purged, exceptions))

    def checkpoint_due(self, *, early: bool = False, time_is_due: bool = False) -> bool:
        """Whether this replica should propose the next checkpoint now: see `propose_checkpoint`, `Schedule.is_due`.

        `time_is_due` if agreed time needs one (`agreed_time.AgreedTime.is_due`).
        """
        return self._state.schedule.is_due(self._state.now, early=early, time_is_due=time_is_due)

    def propose_checkpoint(self, timestamp_ms: int, clocks: tuple[int, ...] = ()) -> InstanceId | PipelineFull:
        """Lead a checkpoint, with this Unix time and these readings of the members' clocks (see `clocks`).

        Each that is executed comes back as a TakeCheckpoint, everywhere.
        """
        id = self.propose(checkpoint_batch(timestamp_ms, clocks))
        if isinstance(id, InstanceId):
            self._state.schedule.proposed(id)
        return id

    def snapshot_durable(self, checkpoint: Checkpoint, digests: Sequence[bytes] = ()) -> None:
        """A restart could begin with this checkpoint's snapshot, or with that of the one given before it.

        Args:
            checkpoint: what the snapshot is of.
            digests: one for each chunk of it, to compare with those of others; none are not compared.

        Raises Diverged when others have told of another state at this checkpoint.
        """
        self._snapshots = [*self._snapshots[-1:], checkpoint]
        if digests:
            self._digest = m.StateDigest(checkpoint.number, fold(digests))
            self._next_digest = self._state.now
            self._compare(self._state.me, self._digest)

    def is_disputed(self, number: int, digests: Sequence[bytes]) -> bool:
        """Whether the state with these digests is not what members have told of this checkpoint, as far as is known.

        Who took it over from one of them would decide which is the agreed one.
        """
        return self._divergence.disputes(m.StateDigest(number, fold(digests)))

    def fetched(self, number: int, offset: int, *, damaged: bool = False) -> None:
        """The disk has the first `offset` bytes of the snapshot of checkpoint `number`, and they are good.

        The answer to BeginFetch and KeepPiece, and to an InstallSnapshot that found it `damaged`.
        """
        self._transfers.kept(number, offset, damaged=damaged)

    def cannot_keep(self, number: int) -> None:
        """The disk does not take the snapshot that is fetched: it will be tried again after a while."""
        self._transfers.give_up(number)

    def cannot_serve(self, to: ReplicaId) -> None:
        """The snapshot that a ServePiece names is not there any more."""
        self._tell_purged(to)

    def _compare(self, member: ReplicaId, digest: m.StateDigest) -> None:
        verdict = self._divergence.told(member, digest)
        if verdict is not None:
            raise Diverged(str(verdict), verdict.number, verdict.part)

    def take_effects(self) -> Effects:
        """Everything asked for since the last call, in its legal order (see `effects`)."""
        return self._state.outbox.take()

    def restore(self, records: Iterable[Record], snapshots: Sequence[Checkpoint] = ()) -> None:
        """Begin as the replica whose records these are. Once, before any other verb; executes what is committed.

        Args:
            records: everything on the disk.
            snapshots: the last two checkpoints of which the disk has a good snapshot, the older one first. The machine
                has been given the last one's.
        """
        state = self._state
        reserved = 0
        absent: tuple[InstanceId, ...] = ()
        instances: list[InstanceRecord] = []
        for record in records:
            match record:
                case ReservationRecord():
                    reserved = max(reserved, record.up_to)
                case FrontierRecord():
                    state.recorded = record.executed
                case PurgeRecord():
                    self._purged = record.up_to
                    absent = record.exceptions
                case _:
                    instances.append(record)
        self._begin_at(snapshots, absent)
        self._check_covered(instances)
        for one in instances:
            self._restore(Instance.from_record(one))
        self._check_kept(state.recorded)
        reserved = max(reserved, state.log.known[state.me])
        if reserved:
            last = InstanceId(state.me, reserved)
            state.log.hear_of_restored(with_instance(state.log.no_deps, last))
            state.log.forgot(last)
        self._proposer.restore(reserved)
        decided = [one for one in state.log.instances.values() if one.status is Status.COMMITTED]
        for instance in sorted(decided, key=self._place_in_history):
            state.execution.committed(instance)

    def _begin_at(self, snapshots: Sequence[Checkpoint], absent: Sequence[InstanceId]) -> None:
        state = self._state
        self._snapshots = list(snapshots)
        if snapshots:
            state.log.begin_at(snapshots[-1], self._purged, absent)
            state.schedule.begin(snapshots[-1], state.now)
        covered = snapshots[-1].position.up_to if snapshots else state.log.no_deps
        if merge(covered, self._purged) != covered:
            raise OperationalError(
                f"records up to {self._purged} were purged, and the newest good snapshot reaches to {covered}: "
                "this replica must rejoin with an empty disk"
            )

    def _restore(self, instance: Instance) -> None:
        log = self._state.log
        if log.is_dropped(instance.id):
            return
        if self._snapshots and not instance.decided and self._snapshots[-1].position.has(instance.id):
            raise OperationalError(
                f"instance {instance.id} is in the snapshot of checkpoint {self._snapshots[-1].number}, and its record "
                "is not decided: this replica must rejoin with an empty disk"
            )
        log.restore(instance)

    def _check_covered(self, instances: Sequence[InstanceRecord]) -> None:
        """The disk had a record of everything in a snapshot when that was taken.

        Raises OperationalError if some is gone.
        """
        if not self._snapshots:
            return
        there = {one.id for one in instances} | self._state.log.absent
        missing = first_missing(self._snapshots[-1].position, self._purged, there.__contains__)
        if missing is not None:
            raise OperationalError(
                f"the record of instance {missing} is missing, and the snapshot of checkpoint "
                f"{self._snapshots[-1].number} has it: the records are older than the snapshot. This replica must "
                "rejoin with an empty disk"
            )

    def _check_kept(self, executed: Deps) -> None:
        """Others may have forgotten what this replica reported as executed.

        Raises OperationalError if some is missing.
        """
        instances = self._state.log.instances
        for leader, last in enumerate(executed):
            for index in range(self._purged[leader] + 1, last + 1):
                id = InstanceId(ReplicaId(leader), index)
                instance = instances.get(id)
                if id not in self._state.log.absent and (instance is None or not instance.decided):
                    raise OperationalError(
                        f"the record of instance {leader}.{index} is missing, though others were told that it is "
                        "executed here: this replica must rejoin with an empty disk"
                    )

    def _place_in_history(self, instance: Instance) -> float:
        """How much of what is known the instance comes after, 0 to 1.

        Execution finds the agreed order by itself; near to it, each step finds little that is not executed yet.
        """
        return max(dep / max(known, 1) for dep, known in zip(instance.deps, self._state.log.known, strict=True))

    def watch(self, watch: InstanceObserver) -> None:
        """Let somebody see what becomes of every instance from now on."""
        self._state.log.watch = watch

    @property
    def relation(self) -> Relation:
        """What conflicts, with what sessions demand."""
        return self._state.log.relation

    @property
    def frontier(self) -> Deps:
        """Per leader, the contiguous prefix executed here."""
        return self._state.log.frontier

    @property
    def known(self) -> Deps:
        """Per leader, the highest index heard of."""
        return self._state.log.known

    @property
    def dropped(self) -> Deps:
        """Per leader, the prefix that every member has executed and that has left memory."""
        return self._state.log.dropped

    @property
    def fetching(self) -> tuple[int, int, int | None] | None:
        """The snapshot that is fetched, if one is: checkpoint, bytes that are there, bytes in all if that is known."""
        return self._transfers.progress

    @property
    def checkpoint(self) -> int:
        """The number of the last checkpoint executed here; 0 for none."""
        return self._state.schedule.number

    @property
    def purged(self) -> Deps:
        """Per leader, the prefix that has left the disk."""
        return self._purged

    @property
    def in_flight(self) -> int:
        """Own instances of this life that are not executed yet."""
        return self._state.in_flight

    @property
    def reserved(self) -> int:
        """Own indexes up to here may have been used; nobody can have heard of a higher one."""
        return self._proposer.reserved

    @property
    def recorded(self) -> Deps:
        """Per leader, what has been noted as executed for the disk, so that peers may be told."""
        return self._state.recorded

    def remembered(self, member: ReplicaId) -> tuple[int, Deps]:
        """The highest index of this member that was heard of, and what it has reported as executed."""
        return self._state.log.known[member], self._state.window.reported(member)

    @property
    def counters(self) -> ProtocolCounters:
        """What this replica has done since it was made."""
        return self._state.counters

    @property
    def instances(self) -> Mapping[InstanceId, Instance]:
        """Read-only, for tools and the simulator's invariants."""
        return MappingProxyType(self._state.log.instances)
