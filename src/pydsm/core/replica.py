"""One replica of the protocol: methods take events, and `take_effects` returns effects. Start reading here.

`propose` leads a batch, `receive` handles a message of a member, `advance` sets the time, `tick` does what is due by
then, `restore` loads the records of the disk, and `take_effects` returns what the runtime must do. The other methods
report progress of checkpoints and snapshots, or only read. The modules in `core/protocol` decide the rest: `acceptor`
how to answer, `proposer` how to lead, `recoverer` and `recovery_rules` how to finish what other replicas began,
`execution` in which order batches are executed, `restoration` how to continue after a restart.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from pydsm.core.log.conflicts import DeclaredKeys, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.observer import InstanceObserver
from pydsm.core.log.session_conflicts import with_sessions
from pydsm.core.protocol.acceptor import Acceptor
from pydsm.core.protocol.divergence import Divergence, fold
from pydsm.core.protocol.proposer import PipelineFull, Proposer
from pydsm.core.protocol.recoverer import Recoverer
from pydsm.core.protocol.restoration import execute_decided, restore
from pydsm.core.protocol.snapshot_fetch import SnapshotFetcher
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types import messages as m
from pydsm.core.types.checkpoint import Checkpoint, checkpoint_batch
from pydsm.core.types.config import Config
from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.effects import Effects, PurgeRecord, Record
from pydsm.core.types.errors import Diverged, PeerProtocolError, UsageError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers, merge, with_instance

__all__ = ["PipelineFull", "Replica"]


class Replica:
    """Owned by one loop; not thread-safe. Call `take_effects` after each call of another method."""

    def __init__(self, config: Config, relation: Relation | None = None) -> None:
        self._state = ReplicaState(config, with_sessions(relation or DeclaredKeys()))
        self._acceptor = Acceptor(self._state)
        self._proposer = Proposer(self._state, self._acceptor)
        self._recoverer = Recoverer(self._state, self._acceptor, self._proposer)
        self._fetcher = SnapshotFetcher(self._state)
        self._next_scan = Tick(0)
        self._next_gossip = Tick(0)
        self._clock_ms = 0
        self._divergence = Divergence(self._state.me, self._state.quorums)
        self._digest: m.StateDigest | None = None
        """The digest of the newest snapshot here, sent to peers from time to time."""
        self._next_digest = Tick(0)
        self._purged: Deps = self._state.log.no_deps
        self._snapshots: list[Checkpoint] = []
        """The last two checkpoints with a durable snapshot, the older one first."""

    def propose(self, batch: m.Batch) -> InstanceId | PipelineFull:
        """Lead a new instance that agrees on `batch`; its outcome is an Execute or an Abort effect."""
        id = self._proposer.propose(batch)
        self._recoverer.settle()
        return id

    def receive(self, sender: ReplicaId, message: m.Message) -> None:
        """Handle a message of a member of the group; the replica's own messages come back here once they are durable.

        Raises:
            PeerProtocolError: no correct replica sends this. The instances that it names may count as existing.
            InvariantViolation: the replica must stop.
        """
        if not 0 <= sender < self._state.config.replicas:
            raise PeerProtocolError(
                f"a message of replica {sender}, which is not in this group of {self._state.config.replicas}"
            )
        if isinstance(message, m.MEMBER_MESSAGES):
            self._dispatch_about_members(sender, message)
        else:
            if isinstance(message, m.PreAccept) and sender != message.id.leader:
                raise PeerProtocolError(
                    f"replica {sender} sent a PreAccept for {message.id}, which only its leader may send"
                )
            if self._is_compacted(sender, message.id):
                return
            self._note_named_instances(message)
            self._dispatch_about_instance(sender, message)
        self._recoverer.settle()

    def _is_compacted(self, sender: ReplicaId, id: InstanceId) -> bool:
        """Whether an instance has left memory: then a sender that has not executed it needs a snapshot."""
        if not self._state.log.is_dropped(id):
            return False
        if self._state.window.lacks(sender, id):
            self._send_compacted(sender)
        return True

    def _send_compacted(self, member: ReplicaId) -> None:
        """Offer the newest snapshot of this replica to a member that lacks compacted instances."""
        if self._snapshots:
            last = self._snapshots[-1]
            self._state.outbox.send((member,), m.Compacted(last.number, last.position.up_to))

    def _note_named_instances(self, message: m.InstanceMessage) -> None:
        """Every instance that a message names exists, so it must be decided, by recovery if necessary."""
        log = self._state.log
        match message:
            case m.PreAccept() | m.PreAcceptOk() | m.Accept() | m.Commit() | m.Validate():
                log.note_exists(with_instance(message.deps, message.id))
            case m.AcceptOk() | m.Prepare() | m.Waiting() | m.Refuse():
                log.note_exists(with_instance(log.no_deps, message.id))
            case m.PrepareOk():
                log.note_exists(with_instance(message.deps, message.id))
                log.note_exists(message.initial_deps)
            case m.ValidateOk():
                for id in (message.id, *(invalidator.id for invalidator in message.invalidators)):
                    log.note_exists(with_instance(log.no_deps, id))
            case unreachable:
                assert_never(unreachable)

    def _dispatch_about_instance(self, sender: ReplicaId, message: m.InstanceMessage) -> None:
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
                recoverer.on_waiting(sender, message)
            case m.Refuse():
                recoverer.on_refuse(sender, message)
            case unreachable:
                assert_never(unreachable)

    def _dispatch_about_members(self, sender: ReplicaId, message: m.MemberMessage) -> None:
        state = self._state
        match message:
            case m.Frontier():
                state.log.note_gossiped(message.known)
                self._measure(sender, message)
                state.window.report(sender, message.executed, message.known)
                if state.window.lacks_some(sender, state.log.dropped):
                    self._send_compacted(sender)
            case m.CommitQuery():
                self._acceptor.on_commit_query(sender, message)
            case m.StateDigest():
                self._compare(sender, message)
            case m.Compacted():
                self._fetcher.on_compacted(sender, message)
            case m.FetchSnapshot():
                self._fetcher.on_fetch(sender, message)
            case m.SnapshotPiece():
                self._fetcher.on_piece(sender, message)
            case unreachable:
                assert_never(unreachable)

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
        """Set the time to `now`, without doing what is due: the next `tick` does that. Call it before each event.

        After a pause of its process, a loop handles messages before its next tick. At the time of the last tick before
        the pause, instances of these messages would be late immediately, and no measured round trip would include the
        pause.
        """
        state = self._state
        if now < state.now:
            raise UsageError(f"time went back from tick {state.now} to {now}: use a monotonic clock")
        state.now = state.log.now = now

    def tick(self, now: Tick, clock_ms: int = 0) -> None:
        """Set the time to `now`, repeat unanswered requests, recover late instances, and gossip.

        `clock_ms` is the reading of the wall clock. It is only sent to peers: nothing in the core depends on it.
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
        self._fetcher.tick()
        self._compact()
        self._recoverer.settle()

    def _gossip(self) -> None:
        """Report what is executed, as far as it is durable.

        The replica's own report comes back like those of its peers, when its record is durable.
        """
        state = self._state
        echoes = state.distances.take_echoes(state.now)
        report = m.Frontier(state.record_frontier(), state.log.known, self._clock_ms, state.now, echoes)
        state.outbox.send(state.members, report)

    def _compact(self) -> None:
        """Remove what is not needed any more from memory, conflict index and disk, a little in each call."""
        # Memory first, then the index, then the disk: each may go only as far as the one before. An instance leaves
        # memory when nothing undecided can conflict with it (`window`), or when the compaction checkpoint has it. Its
        # record is purged when it has left memory and the OLDER of two durable snapshots has it: with the newer one
        # alone, one damaged file would leave this replica without a state to start from.
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
        """Whether this replica should propose the next checkpoint now (`CheckpointSchedule.is_due`).

        `time_is_due`: agreed time needs a checkpoint (`agreed_time.AgreedTime.is_due`).
        """
        return self._state.schedule.is_due(self._state.now, early=early, time_is_due=time_is_due)

    def propose_checkpoint(self, timestamp_ms: int, clocks: tuple[int, ...] = ()) -> InstanceId | PipelineFull:
        """Lead a checkpoint with this Unix time and these readings of the members' clocks (see `core/clocks`).

        Every replica that executes it gives a TakeCheckpoint effect.
        """
        id = self.propose(checkpoint_batch(timestamp_ms, clocks))
        if isinstance(id, InstanceId):
            self._state.schedule.proposed(id)
        return id

    def snapshot_durable(self, checkpoint: Checkpoint, digests: Sequence[bytes] = ()) -> None:
        """A snapshot is durable: a restart may begin with it, or with the one before it.

        Args:
            checkpoint: the checkpoint of the snapshot.
            digests: one for each chunk, to compare with those of peers; none are not compared.

        Raises Diverged when a majority of the members has another state at this checkpoint.
        """
        self._snapshots = [*self._snapshots[-1:], checkpoint]
        if digests:
            self._digest = m.StateDigest(checkpoint.number, fold(digests))
            self._next_digest = self._state.now
            self._compare(self._state.me, self._digest)

    def is_disputed(self, number: int, digests: Sequence[bytes]) -> bool:
        """Whether members have reported states of this checkpoint that differ from the one with these digests.

        A replica that installed such a state would decide which of them is the agreed one.
        """
        return self._divergence.disputes(m.StateDigest(number, fold(digests)))

    def fetched(self, number: int, offset: int, *, damaged: bool = False) -> None:
        """The disk has the first `offset` bytes of the snapshot of checkpoint `number`, without damage.

        The answer to BeginFetch and KeepPiece, and to an InstallSnapshot that found the snapshot `damaged`.
        """
        self._fetcher.kept(number, offset, damaged=damaged)

    def cannot_keep(self, number: int) -> None:
        """The disk cannot store the snapshot that is fetched: the fetch is tried again later."""
        self._fetcher.give_up(number)

    def cannot_serve(self, to: ReplicaId) -> None:
        """The snapshot that a ServePiece effect names does not exist any more."""
        self._send_compacted(to)

    def _compare(self, member: ReplicaId, digest: m.StateDigest) -> None:
        verdict = self._divergence.record(member, digest)
        if verdict is not None:
            raise Diverged(str(verdict), verdict.number, verdict.part)

    def take_effects(self) -> Effects:
        """All effects requested since the last call, in the legal order (see `core/types/effects`)."""
        return self._state.outbox.take()

    def restore(self, records: Iterable[Record], snapshots: Sequence[Checkpoint] = ()) -> None:
        """Load the state of an earlier start, and execute what is committed. Once, before any other method.

        Args:
            records: all records of the disk.
            snapshots: the last two checkpoints with a good snapshot, the older one first. The machine has the state of
                the newer one.

        Raises OperationalError if a decision is missing on the disk.
        """
        restored = restore(self._state, records, snapshots)
        self._snapshots = list(snapshots)
        self._purged = restored.purged
        self._proposer.restore(restored.reserved)
        execute_decided(self._state)

    def watch(self, observer: InstanceObserver) -> None:
        """Notify an observer of every change of an instance from now on."""
        self._state.log.observer = observer

    @property
    def relation(self) -> Relation:
        """The conflict relation, including the conflicts of sessions."""
        return self._state.log.relation

    @property
    def frontier(self) -> Deps:
        """Per leader, the contiguous prefix executed here."""
        return self._state.log.frontier

    @property
    def known(self) -> Deps:
        """Per leader, the highest index of an instance that is known to exist."""
        return self._state.log.known

    @property
    def dropped(self) -> Deps:
        """Per leader, the prefix that has left memory: executed by all, or in the compaction checkpoint."""
        return self._state.log.dropped

    @property
    def fetching(self) -> tuple[int, int, int | None] | None:
        """The snapshot that is fetched, or None: checkpoint, bytes received, size in bytes if it is known."""
        return self._fetcher.progress

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
        """Instances that this replica has proposed since its start and not executed yet."""
        return self._state.in_flight

    @property
    def reserved(self) -> int:
        """Own indexes up to this one may have been used; no peer can know of a higher one."""
        return self._proposer.reserved

    @property
    def recorded(self) -> Deps:
        """Per leader, the executed prefix of the newest frontier record, which may be reported to peers."""
        return self._state.recorded

    def remembered(self, member: ReplicaId) -> tuple[int, Deps]:
        """The highest known index of this member, and the frontier that it has reported."""
        return self._state.log.known[member], self._state.window.reported(member)

    @property
    def counters(self) -> ProtocolCounters:
        """Events since this object was created."""
        return self._state.counters

    @property
    def instances(self) -> Mapping[InstanceId, Instance]:
        """All instances in memory, read-only, for tools and the simulator's invariants."""
        return MappingProxyType(self._state.log.instances)
