"""One process of a simulated replica, from its start to its crash: the production core and performer.

Disk, network and machine are simulated, and every call to one of them is a point at which the process may crash.
A process is never called after its crash. `host` decides when a process starts and crashes.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import msgspec

from pydsm.client_protocol.answers import Aborted, Answer
from pydsm.core.protocol.proposer import PipelineFull
from pydsm.core.replica import Replica
from pydsm.core.sessions.grants import Grant
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.checkpoint import Checkpoint, checkpoint_batch
from pydsm.core.types.effects import Abort, Effects, Execute, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import InstanceId, ReplicaId, RequestId, SessionId, Tick, session_of
from pydsm.core.types.messages import Batch, Message, Run, SnapshotPiece
from pydsm.machines.base import Result, StateMachine, SupportsSnapshots
from pydsm.machines.failures import GuardedApply
from pydsm.runtime.batching import Batcher, BatchLimits
from pydsm.runtime.clock import GroupClock
from pydsm.runtime.command_queue import Stream
from pydsm.runtime.perform import Performer
from pydsm.runtime.replicated import ReplicatedState
from pydsm.runtime.results import decode_results, encode_results
from pydsm.sim.base import describe
from pydsm.sim.base.context import Context
from pydsm.sim.base.settings import NEVER, TICK_US
from pydsm.sim.checkers.invariants import Invariants
from pydsm.sim.checkers.restarts import RestartRecord
from pydsm.sim.checkers.validate_checker import check_validate_answers
from pydsm.sim.cluster.adversary import Adversary, Sender
from pydsm.sim.cluster.starts import ProcessStarts
from pydsm.sim.devices.disk import SimulatedDisk, SimulatedSnapshot
from pydsm.sim.devices.transfers import SimulatedTransfers


class ClientSubmission:
    """A client's command at a replica, and the methods that receive its outcome; see `clients.PendingRequest`."""

    __slots__ = ()

    request_id: RequestId
    command: bytes
    acknowledged: int
    """The sequence below which the client has the answers of this session."""
    after: int
    """The earlier request of the session that must be executed first; 0 for none."""
    in_row: bool
    """Whether it came over a connection without ids, whose commands take effect in the order of sending."""

    def answered(self, result: Result) -> None:
        """The command was executed."""

    def aborted(self) -> None:
        """This proposal was not executed, and never will be."""

    def refused(self) -> None:
        """The replica did not accept the request."""

    def broken(self) -> None:
        """The replica crashed, so the outcome is unknown."""


class Died(Exception):
    """Raised through the performer when a process crashes in the middle of its effects."""


class ReplicaFactory:
    """Creates the components of a host's processes; `make_replica` and `make_machine` are called once per process."""

    def __init__(
        self,
        context: Context,
        invariants: Invariants,
        network: Adversary,
        make_replica: Callable[[int], Replica],
        make_machine: Callable[[], StateMachine],
        took_part: Callable[[ProcessStarts], None] = lambda starts: None,
    ) -> None:
        self.took_part = took_part
        self.context = context
        self.invariants = invariants
        self.network = network
        self.make_replica = make_replica
        self.make_machine = make_machine


class ProcessHost(Sender, Protocol):
    """The host of a process, as the process uses it."""

    disk: SimulatedDisk
    process: "ReplicaProcess | None"

    def crash_point(self) -> None:
        """A point at which a scheduled crash may happen. Raises Died."""
        ...

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Write records of the present process, and call `done` when they are durable."""
        ...

    def call(self, process: "ReplicaProcess", act: Callable[..., None], *given: object) -> None:
        """Run a callback of a process, if that is still running."""
        ...

    def restart_from_snapshot(self) -> None:
        """Replace the records by the fetched snapshot, and start a new process from it."""
        ...

    def snapshot_written(self, process: "ReplicaProcess", checkpoint: Checkpoint) -> None:
        """A snapshot of this process is durable."""
        ...


class ReplicaProcess:
    """One process. It is the disk, network and application of its performer, and calls the checkers for its core."""

    def __init__(self, host: ProcessHost, parts: ReplicaFactory, number: int) -> None:
        self._host = host
        self._context = parts.context
        self._invariants = parts.invariants
        self._network = parts.network
        self.name = f"r{host.id}" if number == 1 else f"r{host.id}#{number}"
        self.replica = ReplicaId(host.id)
        self.core = parts.make_replica(host.id)
        check_validate_answers(self.name, self.core._state.log, parts.invariants)
        self.machine = parts.make_machine()
        self._apply = GuardedApply(self.machine, self._note_raised)
        self.watched: RestartRecord = parts.invariants.begin_process(self.name, host.id)
        self.performer = Performer(
            self.replica, self, self, self, self, lazy_records_max=self._context.settings.lazy_records_max
        )
        self.sessions = Sessions(self._context.settings.session_limits, encode_results, decode_results)
        self.sessions.time.ms = self._context.settings.agreed_ms
        self.clock = GroupClock(
            self.replica,
            self._context.settings.replicas,
            self.sessions,
            lambda: Tick(self._context.schedule.now // TICK_US),
            lambda: self._context.walls.show(host.id),
        )
        self._used: dict[SessionId, int] = {}
        """Per session with requests that were executed here, when their last batch was proposed."""
        self.grants: dict[SessionId, Grant] = {}
        """The grants of clients that began a session at this process."""
        settings = self._context.settings
        self.batcher = Batcher(
            self.replica,
            self.machine,
            self._propose,
            _nothing,
            self.clock.batch_ms,
            BatchLimits(
                batch_commands_max=settings.batch_requests_max,
                partial_instances_max=NEVER,
                attempts_max=settings.proposals_max,
            ),
            has_settled=self._has_settled,
            has_room=lambda: self.has_room,
            session=0,
        )
        self._streams: dict[SessionId, Stream] = {}
        self._open: dict[int, ClientSubmission] = {}
        """The requests of clients that wait, in the order of their arrival."""
        self._taken = 0
        self.clock_us = 0
        self.gathering = False
        self.starts: ProcessStarts | None = None
        """None if starts are not checked."""
        if self._context.settings.starts_checked:
            self.starts = ProcessStarts(
                self.replica, self.core, host.disk, self._context, self._network.network, parts.took_part
            )
        self._taking = False
        self._transfers = SimulatedTransfers(self, host.disk, self._context, self.name)

    def _note_raised(self, error: BaseException) -> None:
        self._context.counts.raised += 1
        if self._context.tracing:
            self._context.log(self.name, f"a command raised {error!r}")

    # called by the performer

    def receive(self, sender: ReplicaId, message: Message) -> None:
        """Deliver a message of the core to itself, which was returned when it became durable."""
        self._host.crash_point()
        self._invariants.sent(sender, message)
        if self._context.tracing:
            self._context.log(self.name, f"to itself: {describe.message(message)}")
        self.core.receive(sender, message)

    def take_effects(self) -> Effects:
        """Take the effects of the core."""
        return self.core.take_effects()

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Write to the disk. A crash at this point happens while the group is being written."""
        if self._context.tracing:
            self._context.log(self.name, "writes " + "; ".join(map(describe.record, records)))
        self._host.write(records, done)
        self._host.crash_point()

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send over the network."""
        self._host.crash_point()
        self._invariants.sent(self.replica, message)
        self._network.send(self._host, to, message)

    def execute(self, execution: Execute) -> None:
        """Execute on the machine, and answer the clients of own instances."""
        self._host.crash_point()
        batch = execution.batch
        applied: list[bytes] = []

        def apply(commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
            applied.extend(commands)
            return self._apply(commands, timestamp_ms)

        walls = self._context.walls
        walls.executed(self.name, execution.id, self.sessions.time.of_batch(batch.timestamp_ms))
        results = self.sessions.execute(batch, apply)
        if (proposed_ms := walls.last_use_ms(execution.id)) is not None:
            self._used |= {session: max(proposed_ms, self._used.get(session, 0)) for session in sorted(batch.sessions)}
        counts = self._context.counts
        counts.sessions_expired += sum(isinstance(result, SessionExpired) for result in results)
        counts.found_executed += len(results) - len(applied)
        counts.postponed += sum(result is POSTPONED for result in results)
        if batch.footprint.barrier:
            self._expire(batch.clocks)
        if self._context.tracing:
            self._context.log(self.name, f"executes {execution.id} {describe.value(batch)} -> {results}")
        self._invariants.executed(self.replica, self.watched, execution, results, applied)
        if execution.id.leader == self.replica:
            self.batcher.executed(execution.id, results)

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        """Begin to take a snapshot, unless one is being taken."""
        self._host.crash_point()
        checkpoint = taken.checkpoint
        self._context.log(self.name, f"is at {checkpoint}")
        self._context.counts.checkpoints += 1
        self._expire(checkpoint.clocks)
        state = self.machine.digest() + self.sessions.digest()
        self._invariants.checkpointed(self.replica, self.watched, checkpoint, state)
        if isinstance(self.machine, SupportsSnapshots) and not self._taking:
            self._taking = True
            watched = self.watched.fork("snapshot")
            self._invariants.at_checkpoint.setdefault(checkpoint.number, watched)
            self._take(checkpoint, ReplicatedState(self.machine, self.sessions).snapshot(), [], watched)

    def _expire(self, clocks: tuple[int, ...]) -> None:
        """Expire sessions at a barrier."""
        walls, sessions = self._context.walls, self.sessions
        before_ms = sessions.time.ms
        before = [session for session in self._used if session in sessions]
        sessions.expire(clocks)
        walls.sessions_expired(self.name, before, sessions, self._used)
        walls.advanced(self.name, before_ms, sessions.time.ms)

    def _take(
        self, checkpoint: Checkpoint, steps: Iterator[bytes], chunks: list[bytes], watched: RestartRecord
    ) -> None:
        """Take one step of a snapshot, and schedule the next one."""
        if self._host.process is not self:
            return
        chunk = next(steps, None)
        if chunk is not None:
            chunks += [chunk] if chunk else []
            step_us = self._context.settings.snapshot_step_us
            self._context.schedule.after(step_us, self._take, checkpoint, steps, chunks, watched)
            return
        self._context.log(self.name, f"writes the snapshot of {checkpoint}")
        snapshot = SimulatedSnapshot(checkpoint, tuple(chunks), watched)
        self._host.disk.write_snapshot(snapshot, lambda: self._host.snapshot_written(self, checkpoint))

    def taken(self, checkpoint: Checkpoint) -> None:
        """The snapshot is durable: pass its digests to the core."""
        self._taking = False
        chunks = self._host.disk.snapshots[-1].chunks
        self.core.snapshot_durable(checkpoint, [hashlib.sha256(chunk).digest() for chunk in chunks])
        self.performer.pump()

    def load_disk(self, snapshots: list[SimulatedSnapshot]) -> None:
        """Load the newest snapshot and the records; `watched` continues that of the process that took the snapshot."""
        if snapshots:
            assert isinstance(self.machine, SupportsSnapshots)
            ReplicatedState(self.machine, self.sessions).restore(snapshots[-1].chunks)
            watched = snapshots[-1].watched
            assert isinstance(watched, RestartRecord)
            self.watched = watched.fork(self.name)
            self._context.counts.snapshots_restored += 1
            self._context.log(self.name, f"loads the snapshot of {snapshots[-1].checkpoint}")
        records = self._host.disk.load()
        self._context.log(self.name, f"starts again with {len(records)} records")
        self.core.restore(records, [one.checkpoint for one in snapshots])

    def propose_checkpoint(self) -> None:
        """Propose a checkpoint if one is due. After the heal, only if requests wait or enough was executed."""
        time_is_due = (bool(self.batcher.queued) or not self._context.healed) and self.clock.checkpoint_is_due()
        if self.core.checkpoint_due(time_is_due=time_is_due):
            now_ms, clocks = self.clock.for_checkpoint()
            id = self.core.propose_checkpoint(now_ms, clocks)
            if isinstance(id, InstanceId):
                self._context.log(self.name, f"proposes checkpoint {id}")
                self._invariants.proposed(id, checkpoint_batch(now_ms, clocks))

    def abort(self, abort: Abort) -> None:
        """Answer the clients of an instance that became a nop."""
        self._host.crash_point()
        if self._context.tracing:
            self._context.log(self.name, f"aborts {abort.id}")
        self._invariants.aborted(self.replica, abort)
        self.batcher.aborted(abort.id)

    def transfer(self, transfer: Transfer) -> None:
        """Perform one step of a snapshot transfer."""
        self._host.crash_point()
        if self._context.tracing:
            self._context.log(self.name, describe.transfer(transfer))
        self._transfers.begin(transfer)

    def later(self, delay_us: int, act: Callable[..., None], *given: object) -> None:
        """See `transfers.TransferHost`."""
        self._context.schedule.after(delay_us, self._host.call, self, act, *given)

    def send_piece(self, to: ReplicaId, piece: SnapshotPiece) -> None:
        """See `transfers.TransferHost`."""
        self.send((to,), piece)

    def restart_from_snapshot(self) -> None:
        """See `transfers.TransferHost`."""
        self._host.restart_from_snapshot()

    def _later(self, notify: Callable[..., None], *given: object) -> None:
        self._context.schedule.after(self._context.settings.client_us, notify, *given)

    # called by the host

    def take(self, submission: ClientSubmission) -> None:
        """Queue a client's request for a proposal."""
        id = submission.request_id
        ticket = self.note(submission)
        run = Run(id, 1, submission.acknowledged, submission.after)
        stream = self._streams.setdefault(session_of(id), Stream()) if submission.in_row else None
        again = not submission.in_row and not self.is_first(id)
        reply = partial(self._answered, ticket)
        self.batcher.submit_requests(run, (submission.command,), reply, is_retry=again, stream=stream)

    def note(self, submission: ClientSubmission) -> int:
        """Record that a client waits here, and return a number for its request."""
        self._taken += 1
        self._open[self._taken] = submission
        return self._taken

    def _answered(self, ticket: int, offset: int, answers: Sequence[Answer]) -> None:
        submission, answer = self._open.pop(ticket), answers[0]
        if isinstance(answer, Aborted):
            self._later(submission.aborted)
        else:
            self._later(submission.answered, answer)

    def flush(self) -> None:
        """Propose the queued requests in batches, as far as the pipeline accepts them."""
        self.gathering = False
        while self.batcher.propose_next():
            self.performer.pump()
        if self.batcher.queued and not self.has_room:
            self._context.counts.pipeline_full += 1

    def _has_settled(self, session: SessionId, sequence: int) -> bool:
        return self.sessions.has_settled(session, sequence)

    def _propose(self, batch: Batch) -> InstanceId | None:
        if batch.footprint.barrier:
            batch = msgspec.structs.replace(batch, clocks=self.clock.for_checkpoint()[1])
        id = self.core.propose(batch)
        if isinstance(id, PipelineFull):
            return None
        self._invariants.proposed(id, batch)
        self._context.walls.proposed(self.name, id, batch, self.sessions.time.ms)
        if self._context.tracing:
            self._context.log(self.name, f"proposes {id} {describe.value(batch)}")
        self._context.counts.barriers += batch.footprint.barrier
        return id

    def begin_session(self, id: RequestId) -> None:
        """Grant a client the session of this id."""
        self.grants[session_of(id)] = Grant(id)

    def is_first(self, id: RequestId) -> bool:
        """Whether a request that arrives now cannot be in an instance yet."""
        grant = self.grants.get(session_of(id))
        return grant is not None and grant.takes(id, 1)

    @property
    def has_room(self) -> bool:
        """Whether the core would accept one more proposal."""
        if self.starts is not None and not self.starts.takes_part:
            return False
        return self.core.in_flight < self._context.settings.pipeline_instances_max

    @property
    def idle(self) -> bool:
        """Whether no client waits here, and all effects of the core were performed."""
        return not self.batcher.waiting and not self.performer.turns_waiting

    def end(self) -> None:
        """End all connections of clients."""
        for submission in self._open.values():
            self._later(submission.broken)
        del (
            self.watched
        )  # the watchers keep what processes in use have not given up, and a process is in cycles of references


def _nothing() -> None:
    """Does nothing: the host flushes whenever anything has changed."""
