"""One replica in a process: the loop that owns the core, and everything that the core's effects reach.

Decides when the core is called: messages and submitted commands when they arrive, time every few milliseconds, effects
once per turn of the loop, so that what arrives together is written and sent together. Guarantees that a failure of the
disk or of an invariant stops the replica immediately: nothing is acknowledged, sent or executed after it. The order of
effects is left to `perform`, the time at which batches are proposed to `batching`.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto

from pydsm.client_protocol.answers import Overloaded
from pydsm.core.log.conflicts import UserRelation
from pydsm.core.replica import Replica
from pydsm.core.sessions.grants import Grant, Grants
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.config import Config
from pydsm.core.types.effects import PurgeRecord, Record
from pydsm.core.types.errors import (
    Diverged,
    FarAhead,
    InvariantViolation,
    OperationalError,
    PeerProtocolError,
    PyDSMError,
)
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import InstanceId, ReplicaId, RequestId, Tick, session_of
from pydsm.core.types.messages import Batch, Frontier, Message, Run
from pydsm.logs import printable
from pydsm.machines.base import SupportsScheduledCommands, SupportsSnapshots
from pydsm.runtime.admission import needs_checkpoint, rejection_reason
from pydsm.runtime.application import ReplicatedApplication
from pydsm.runtime.applied import restore_newest, tracker_of
from pydsm.runtime.apply_gate import MachinePhase
from pydsm.runtime.batching import Batcher
from pydsm.runtime.clock import GroupClock
from pydsm.runtime.command_queue import Stream
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.disk import InlineDisk, ThreadedDisk
from pydsm.runtime.divergence_report import write_divergence
from pydsm.runtime.file_checks import FileChecks
from pydsm.runtime.maintenance import NodeControls
from pydsm.runtime.observation import Observation, as_info
from pydsm.runtime.peers import PeerIncarnations, takes_part
from pydsm.runtime.perform import Performer
from pydsm.runtime.replicated import ReplicatedState
from pydsm.runtime.replies import Reply, ReplyMany
from pydsm.runtime.results import decode_results, encode_results
from pydsm.runtime.scheduled_commands import SCHEDULED_COMMANDS_SECONDS, ScheduledCommandProposer
from pydsm.runtime.snapshot_transfer import RestartRequired, SnapshotTransfers, TransferContext
from pydsm.runtime.snapshots import SnapshotTaker
from pydsm.runtime.starts import StartContext, StartLimits, Starts
from pydsm.runtime.traces import RequestTrace, Traces, show
from pydsm.storage.snapshots import SnapshotFile

log = logging.getLogger("pydsm.node")

_TICK_SECONDS = 0.005
_MESSAGE_CHARACTERS_MAX = 4000


class NodePhase(Enum):
    """The phase of a node. It only advances, in this order."""

    NEW = auto()
    RUNNING = auto()
    STOPPING = auto()
    """New commands are refused; those that were accepted are still agreed on, executed and answered."""
    ENDED = auto()
    """It failed, or its state is replaced by a snapshot: nothing is written, sent or executed any more."""
    STOPPED = auto()


class Node:
    """One replica: start it, submit commands, await `failure`, stop it. All calls from one event loop."""

    def __init__(self, config: Config, parts: NodeComponents) -> None:
        self._config = config
        self._machine = parts.machine
        self._store = parts.store
        self._make_transport = parts.transport
        self._names = parts.names
        self._name_of = parts.name_of
        self._with_names = parts.with_names
        self._files = parts.snapshots
        self._start_limits = parts.starts or StartLimits()
        self._core = Replica(config, parts.relation)
        self._sessions = Sessions(encode=encode_results, decode=decode_results)
        clock = self._clock = GroupClock(
            config.replica,
            config.replicas,
            self._sessions,
            self._now,
            parts.wall_clock_ms,
            parts.clock_difference_ms_max,
            parts.name_of,
        )
        self.session_ms = clock.session_ms
        """Returns the timestamp of a session that begins now (`GroupClock.session_ms`)."""
        self._batcher = Batcher(
            config.replica,
            parts.machine,
            self._propose,
            self._wake,
            clock.batch_ms,
            parts.limits,
            check=parts.relation.check if isinstance(parts.relation, UserRelation) else _no_check,
            has_settled=self._sessions.has_settled,
            has_room=lambda: self._core.in_flight < config.pipeline_instances_max,
        )
        self._traces = Traces()
        self._core.watch(self._traces)
        controls = NodeControls(self._batcher.refuse, self._accept, self._drain, self._ask_for_checkpoint, self._fail)
        self._application = ReplicatedApplication(
            config.replica, parts.machine, self._sessions, self._batcher, controls, parts.hold
        )
        self._gate = self._application.gate
        self.maintenance = self._application.maintenance
        """Pause, resume, snapshot."""
        self._grants = Grants(config.replica, secrets.randbits(30))
        self._phase = NodePhase.NEW
        self._turn_is_due = False
        self._drained: asyncio.Event | None = None
        self._far_behind = False
        self._replaced: asyncio.Future[None] | None = None
        self._reported_at_seconds: dict[ReplicaId, float] = {}

    def _end(self) -> None:
        self._phase = NodePhase.ENDED if self._phase is NodePhase.RUNNING else NodePhase.STOPPED

    @property
    def _running(self) -> bool:
        """Whether the core is called, and its effects are performed."""
        return self._phase is NodePhase.RUNNING or self._phase is NodePhase.STOPPING

    async def start(self) -> None:
        """Load and execute what the store holds, then listen, and take part in agreement when the start is confirmed.

        Raises OperationalError when the store is damaged, the port is taken, or the machine does not start.
        """
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[Exception] = self._loop.create_future()
        """Set when the replica stopped without a call of `stop`. This object cannot be started again. With
        `RestartRequired`, create a new node from the same data immediately."""
        disk = ThreadedDisk if self._store.is_slow else InlineDisk
        self._disk = disk(self._store, self._fail)
        self._peers = PeerIncarnations(self._store.peers(), self._save_peer, self._name_of)
        self._starts = await self._begin_start()
        self._transport = self._make_transport(self._store.incarnation, self._peers.admit, self._starts)
        self._performer = Performer(self._config.replica, self._core, self, self._transport, self._application)
        self._phase = NodePhase.RUNNING
        self._transfers = self._application.transfers = SnapshotTransfers(
            TransferContext(
                core=self._core,
                files=self._files if isinstance(self._machine, SupportsSnapshots) else None,
                send=lambda to, piece: self._transport.send((to,), piece),
                call_core=self._call_core,
                may_replace=lambda: self._gate.phase is MachinePhase.RUNNING,
                replace=self._replace,
                restart=self._restart_required,
                name_of=self._name_of,
            )
        )
        self._epoch = self._loop.time()
        await self._restore()
        self._performer.pump()
        await self._transport.start(self._receive)
        self._tick()
        checks = FileChecks(self._disk, self._store, self._files, lambda: self._running)
        checks.begin(self._loop)
        if isinstance(self._machine, SupportsScheduledCommands):
            self._propose_scheduled_commands(
                ScheduledCommandProposer(self._machine, self._config.replica, self._batcher.submit)
            )

    async def _begin_start(self) -> Starts:
        def run_on_disk(job: Callable[[], None]) -> None:
            self._disk.run(job, _nothing)

        context = StartContext(self._core, self._store, run_on_disk, self._fail, self._loop.time)
        return await asyncio.to_thread(Starts, self._config.replica, self._config.replicas, context, self._start_limits)

    async def _restore(self) -> None:
        """Start the machine, then restore the newest good snapshot and execute the records after it."""
        await self._gate.open()
        application = self._application
        application.tracker = tracker_of(self._machine, application.apply, self._store.incarnation)
        if application.tracker is not None:
            application.tracker.begin()
        snapshots: list[SnapshotFile] = []
        if self._files is not None and isinstance(self._machine, SupportsSnapshots):
            self._files.check()
        records = await asyncio.to_thread(self._store.load)
        if self._files is not None and isinstance(self._machine, SupportsSnapshots):
            state = ReplicatedState(self._machine, self._sessions)
            taker = application.taker = SnapshotTaker(state, self._files, self._snapshot_taken)
            for record in records:
                if isinstance(record, PurgeRecord):
                    await asyncio.to_thread(self._files.adopt, record.up_to)
            snapshots = await asyncio.to_thread(self._files.load)
            if snapshots:
                await restore_newest(state, snapshots, application.tracker)
                taker.begin_at(snapshots[-1].checkpoint.number)
        self.maintenance.taker = application.taker
        self._core.restore(records, [one.checkpoint for one in snapshots])

    async def stop(self, drain_seconds_max: float = 5.0) -> None:
        """Refuse new commands, answer the accepted ones if that succeeds in time, then close everything."""
        if self._phase is NodePhase.RUNNING:
            self._phase = NodePhase.STOPPING
        elif self._phase is NodePhase.ENDED:
            self._phase = NodePhase.STOPPED
        else:
            return
        self._batcher.refuse("this replica is stopping; submit elsewhere")
        await self._drain(0 if self._gate.phase is MachinePhase.PAUSED else drain_seconds_max)
        self._guard(self._performer.finish)
        self._phase = NodePhase.STOPPED
        self._application.shut("the replica is stopping")
        if self._application.taker is not None:
            await self._application.taker.stop()
        await self._transfers.stop()
        await self._transport.stop()
        await self._disk.close()
        try:
            await self._gate.close()
        except OperationalError as fault:
            log.error("%s; its replica has stopped", fault)

    async def _drain(self, seconds_max: float) -> int:
        """Wait at most `seconds_max` until the accepted commands are answered; returns how many are not."""
        drained = self._drained = self._drained or asyncio.Event()
        self._wake()
        if self._running and self._batcher.waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds_max):
                    await drained.wait()
        return self._batcher.waiting

    def _accept(self) -> None:
        if self._phase is NodePhase.RUNNING:
            self._drained = None
            self._batcher.accept()

    def submit(self, command: bytes, reply: Reply) -> None:
        """See `batching.Submit`."""
        self._batcher.submit(command, reply)

    def submit_many(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """See `batching.SubmitMany`."""
        self._batcher.submit_many(commands, reply, stream)

    def submit_requests(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool) -> None:
        """See `batching.SubmitRequests`. Answers `Overloaded` beyond the limits of `admission`."""
        full = rejection_reason(self._sessions, run)
        if self._sessions.has_expired(session_of(run.first)):
            reply(0, [SessionExpired()] * len(commands))
        elif full is None:
            self._batcher.submit_requests(run, commands, reply, is_retry=is_retry)
        else:
            reply(0, [Overloaded(full)] * len(commands))

    def grant(self) -> Grant:
        """Grant a session to one client, for the requests that it sends through this replica."""
        return self._grants.grant(self.session_ms())

    def trace(self, id: RequestId) -> RequestTrace:
        """The data that this replica has about one request."""
        return RequestTrace(
            request=show(id),
            replica=self._config.replica,
            state=self._sessions.state_of(id).value,
            instances=tuple(self._traces.find(id, self._core.relation)),
            remembered_instances=self._traces.remembered,
            remembered_seconds=round(self._traces.remembered_seconds, 3),
        )

    def info(self) -> dict[str, str]:
        """The observation of this moment as text, for people."""
        return as_info(self.observe())

    def observe(self) -> Observation:
        """The state of this replica at this moment, for tools. Only after `start`."""
        counters, taker, now = self._core.counters, self._application.taker, self._loop.time()
        return Observation(
            replica=self._config.replica,
            replicas=self._config.replicas,
            fingerprint=fingerprint(self._store.incarnation),
            stopping=self._phase is NodePhase.STOPPING or self._phase is NodePhase.STOPPED,
            start=self._starts.start.number,
            position=self._store.position,
            not_participating_reason=self._starts.waits_for,
            failure=" ".join(self._with_names(str(self.failure.result())).split()) if self.failure.done() else None,
            connected=self._transport.connected,
            last_report_age_seconds={peer: now - at for peer, at in sorted(self._reported_at_seconds.items())},
            frontier=self._core.frontier,
            known=self._core.known,
            commands_waiting=self._batcher.waiting,
            disk_queue_turns=self._performer.turns_waiting,
            counters=replace(counters, branches=dict(counters.branches)),
            traffic=replace(self._transport.traffic),
            epochs=dict(self._transport.epochs),
            instances=len(self._core.instances),
            checkpoint=self._core.checkpoint,
            snapshot=0 if taker is None else taker.counters.last_number,
            purged=self._core.purged,
            fetching=self._core.fetching,
            pieces=replace(self._transfers.counters),
            phase=self._gate.phase,
            machine_fault=self._gate.fault,
            commands_raised=self._application.apply.raised,
            apply_queue_batches=self._gate.held,
            apply_queue_bytes=self._gate.held_bytes,
            names=self._names,
            clock=self._clock.report(),
        )

    # Events, from outside to the core

    def _receive(self, sender: ReplicaId, message: Message) -> None:
        """Pass a decoded message to the core, and schedule a turn; ignored while this replica does not take part."""
        if not self._running or self._gate.full or not self._starts.takes_part:
            return
        try:
            self._core.advance(self._now())
            self._core.receive(sender, message)
        except FarAhead as fault:
            if not self._far_behind:
                log.warning("from %s: %s", self._name_of(sender), self._with_names(str(fault)))
            self._far_behind = True
        except PeerProtocolError as fault:
            raise PeerProtocolError(self._with_names(str(fault))) from fault
        except Exception as error:
            text = printable(repr(message), _MESSAGE_CHARACTERS_MAX)
            log.critical("the message that caused the failure, from %s: %s", self._name_of(sender), text)
            self._fail(error)
        else:
            if not self._peers.has(sender) and takes_part(message):
                self._peers.took_part(sender, self._transport.fingerprints[sender])
            if isinstance(message, Frontier):
                self._reported_at_seconds[sender] = self._loop.time()
                self._clock.record(sender, message.clock_ms)
            self._wake()

    def _propose(self, batch: Batch) -> InstanceId | None:
        self._core.advance(self._now())
        proposed = self._core.propose(batch)
        return proposed if isinstance(proposed, InstanceId) else None

    def _now(self) -> Tick:
        return Tick(int((self._loop.time() - self._epoch) * 1000))

    def _tick(self) -> None:
        if self._running:
            self._loop.call_later(_TICK_SECONDS, self._tick)
            self._clock.update()
            self._clock.check()
            self._guard(self._starts.save)
            if self._gate.full or not self._starts.takes_part:
                return
            self._guard(lambda: self._core.tick(self._now(), self._clock.wall_ms()))
            self._guard(self._propose_checkpoint)
            self._wake()

    def _propose_checkpoint(self) -> None:
        due = self._gate.runs and self._clock.checkpoint_is_due()
        if self._core.checkpoint_due(early=needs_checkpoint(self._sessions), time_is_due=due):
            self._core.propose_checkpoint(*self._clock.for_checkpoint())

    def _ask_for_checkpoint(self) -> InstanceId | None:
        if not self._starts.takes_part:
            return None
        self._core.advance(self._now())
        proposed = self._core.propose_checkpoint(*self._clock.for_checkpoint())
        self._wake()
        return proposed if isinstance(proposed, InstanceId) else None

    def _propose_scheduled_commands(self, proposer: ScheduledCommandProposer) -> None:
        if self._running:
            self._loop.call_later(SCHEDULED_COMMANDS_SECONDS, self._propose_scheduled_commands, proposer)
            group_ms = self._clock.group_ms()
            if self._gate.phase is MachinePhase.RUNNING and group_ms is not None:
                proposer.propose_due(group_ms)

    def _wake(self) -> None:
        if self._running and not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Propose what was submitted in this turn of the loop, then perform the core's effects."""
        self._turn_is_due = False
        if self._starts.takes_part:
            self._guard(self._batcher.flush)
        self._guard(self._performer.pump)
        if self._drained is not None and not (self._running and self._batcher.waiting):
            self._drained.set()

    def _at_current_time(self, action: Callable[[], None]) -> None:
        """Set the core's time first: after a pause of the process, the last tick is long ago."""
        self._core.advance(self._now())
        action()

    def _guard(self, action: Callable[[], None]) -> None:
        if self._running:
            try:
                action()
            except Exception as error:
                self._fail(error)

    # Effects, from the core to outside (`perform.Disk` and `perform.Application`)

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `perform.Disk`."""
        self._disk.write(records, lambda: self._guard(lambda: self._at_current_time(done)))

    def _snapshot_taken(self, file: SnapshotFile) -> None:
        self.maintenance.snapshot_taken(file)
        if self._application.tracker is not None:
            self._application.tracker.snapshot_durable(file.checkpoint)
        if self._running:
            self._guard(lambda: self._core.snapshot_durable(file.checkpoint, file.digests))
            log.info("checkpoint %d has a durable snapshot, digest %s", file.checkpoint.number, file.digest.hex()[:16])

    def _call_core(self, action: Callable[[], None]) -> None:
        self._guard(lambda: self._at_current_time(action))
        self._wake()

    async def _replace(self, record: PurgeRecord) -> None:
        """Write the last record of this node: pending writes come before it, and nothing after it."""
        self._end()
        self._application.shut()
        self._batcher.refuse("this replica restarts from a snapshot; submit elsewhere")
        written = self._replaced = self._loop.create_future()
        self._disk.write([record], lambda: written.set_result(None))
        await written

    def _restart_required(self, reason: RestartRequired) -> None:
        log.info("%s", reason)
        self.maintenance.failed(str(reason))
        if self._drained is not None:
            self._drained.set()
        if not self.failure.done():
            self.failure.set_result(reason)

    def _save_peer(self, peer: ReplicaId, mark: int) -> None:
        log.info("%s takes part with the data of fingerprint %016x", self._name_of(peer), mark)
        self._disk.run(lambda: self._store.save_peer(peer, mark), _nothing)

    def _fail(self, error: Exception) -> None:
        """Stop the replica: from here on nothing is written, sent or executed, and the failure is reported."""
        if not self._running:
            if self._replaced is not None and not self._replaced.done():
                self._replaced.set_exception(error)
                self.failure.set_result(error)
            return
        self._end()
        self._application.shut(self._with_names(str(error)))
        self._batcher.refuse("this replica has failed; submit elsewhere")
        if isinstance(error, Diverged):
            text = write_divergence(error, self._files, self._machine, self._with_names)
            log.critical("%s has diverged: %s", self._name_of(self._config.replica), self._with_names(text))
        if isinstance(error, PyDSMError) and not isinstance(error, InvariantViolation):
            log.critical("%s stops: %s", self._name_of(self._config.replica), self._with_names(str(error)))
        else:
            log.critical(
                "%s stops to protect the data; frontier %s, known %s, %s",
                self._name_of(self._config.replica),
                self._core.frontier,
                self._core.known,
                self._core.counters,
                exc_info=error,
            )
        if self._drained is not None:
            self._drained.set()
        if not self.failure.done():
            self.failure.set_result(error)


def _nothing() -> None:
    pass


def _no_check(commands: Sequence[bytes]) -> None:
    pass
