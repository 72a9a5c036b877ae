"""Maintenance of a running replica by its operator: pause, resume, snapshot.

Decides in which order commands are refused, snapshots abandoned and the machine stopped, and the time limits of each
step. Guarantees that no command is lost: accepted commands are answered before the pause or after it; commands that
arrive meanwhile are refused, definitely not executed. Holding agreed batches is left to `apply_gate`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.runtime.apply_gate import ApplyGate, MachinePhase
from pydsm.runtime.snapshots import SnapshotTaker
from pydsm.storage.snapshots import SnapshotFile

log = logging.getLogger("pydsm.maintenance")

_FULL_PIPELINE_SECONDS = 0.02
"""How long to wait before proposing again when too many own instances are in flight."""


class PauseReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a pause."""

    already: bool
    """Whether the replica was paused before."""
    commands_unanswered: int
    """Accepted commands that are answered when the replica is resumed."""


class ResumeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a resume."""

    already: bool
    """Whether the replica was running before."""
    batches: int
    """Batches that were agreed on during the pause, and were executed by the resume."""
    seconds: float
    """Duration of the resume."""


class SnapshotReport(msgspec.Struct, frozen=True, kw_only=True):
    """A durable snapshot."""

    number: int
    """Number of the checkpoint."""
    position: Deps
    """Per leader, the index up to which the snapshot has all instances."""
    chunks: int
    bytes: int
    """Size of the file."""
    seconds: float
    """From the call until it was durable, agreement on the checkpoint included."""
    path: str


@dataclass(frozen=True, slots=True)
class NodeControls:
    """The functions of a node that maintenance calls."""

    refuse: Callable[[str], None]
    """Refuse new commands, with this reason."""
    accept: Callable[[], None]
    """Accept commands again."""
    drain: Callable[[float], Awaitable[int]]
    """Wait at most this many seconds until all commands are answered; returns how many are not."""
    propose_checkpoint: Callable[[], InstanceId | None]
    """Propose a checkpoint; returns None when too many instances are in flight."""
    fail: Callable[[Exception], None]
    """Stop the node permanently."""


class Maintenance:
    """Pauses and resumes one replica, and takes snapshots on request. Used on the replica's loop."""

    def __init__(self, gate: ApplyGate, controls: NodeControls) -> None:
        self._gate = gate
        self.taker: SnapshotTaker | None = None
        """None where no snapshots are taken."""
        self._controls = controls
        self._awaited: tuple[InstanceId, asyncio.Future[Checkpoint | None]] | None = None
        self.snapshot_requested = False
        """Whether an operator waits for a snapshot, so that the next checkpoint must have one."""
        self._last_file: SnapshotFile | None = None

    async def pause(self, drain_seconds_max: float = 5.0) -> PauseReport:
        """Stop the machine inside the running replica, which still takes part in agreement and holds agreed batches.

        New commands are refused as `Overloaded`; those accepted before are answered first, if that takes at most
        `drain_seconds_max`, otherwise after `resume`. The replica stays paused until `resume` or the end of the
        process; a replica always starts running. Limits on held batches: `apply_gate.ApplyQueueLimits`.

        Raises:
            UsageError: the replica is pausing or resuming, or does not run; nothing was changed.
            OperationalError: the machine's `stop` raised; the replica is paused in that case too.
        """
        gate = self._gate
        if gate.phase is MachinePhase.PAUSED:
            return PauseReport(already=True, commands_unanswered=await self._controls.drain(0))
        gate.begin_pause()
        self._controls.refuse("this replica is paused for maintenance; submit elsewhere")
        try:
            unanswered = await self._controls.drain(drain_seconds_max)
            if self.taker is not None:
                await self.taker.stop()  # it reads a machine that is about to stop
        except BaseException:
            gate.give_up_pause()
            self._serve_again()
            raise
        await gate.pause()
        log.info("paused; %d commands are answered when the replica is resumed", unanswered)
        return PauseReport(already=False, commands_unanswered=unanswered)

    async def resume(self) -> ResumeReport:
        """Start the machine again, execute the held batches, and accept commands again, in this order.

        Raises:
            UsageError: the replica is pausing or resuming, or does not run; nothing was changed.
            OperationalError: the machine's `start` raised, and the replica stays paused; or the replica failed or
            stopped meanwhile.
        """
        gate = self._gate
        if gate.runs:
            return ResumeReport(already=True, batches=0, seconds=0.0)
        began = time.monotonic()
        await gate.restart()
        if self.taker is not None:
            self.taker.resume()  # before `catch_up`, which executes the held checkpoints
        try:
            batches = await gate.catch_up()
        except Exception as error:
            self._controls.fail(error)
            raise OperationalError(f"the replica failed while it executed the held batches: {error}") from error
        if self._gate.phase is not MachinePhase.RUNNING:
            raise OperationalError("the replica stopped while it resumed: start it again, nothing is lost")
        self._serve_again()
        log.info("resumed; %d held batches were executed", batches)
        return ResumeReport(already=False, batches=batches, seconds=round(time.monotonic() - began, 3))

    def _serve_again(self) -> None:
        if self._gate.runs:
            if self.taker is not None:
                self.taker.resume()
            self._controls.accept()

    async def snapshot(self, seconds_max: float = 60.0) -> SnapshotReport:
        """Agree on a checkpoint now, and wait until this replica's snapshot of it is durable.

        Raises:
            UsageError: the replica takes no snapshots, is not running, or another snapshot was requested already;
            nothing was changed.
            OperationalError: no snapshot was durable within `seconds_max`, it could not be written, or the replica
            stopped.
        """
        if self.taker is None:
            raise UsageError(
                "this replica takes no snapshots: its data are in memory, or its machine does not support them"
            )
        if self.snapshot_requested:
            raise UsageError("another snapshot was requested already: try again when it is done")
        self.snapshot_requested = True
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds_max):
                file = await self._snapshot(self.taker)
                size = await asyncio.to_thread(lambda: file.path.stat().st_size)
        except TimeoutError as error:
            raise OperationalError(
                f"no snapshot was durable within {seconds_max:g} s: check with pydsm status whether a majority is up; "
                "the snapshot is still in progress"
            ) from error
        finally:
            self.snapshot_requested = False
            self._awaited = None
        checkpoint = file.checkpoint
        return SnapshotReport(
            number=checkpoint.number,
            position=checkpoint.position.up_to,
            chunks=len(file.digests),
            bytes=size,
            seconds=round(time.monotonic() - began, 3),
            path=str(file.path),
        )

    async def _snapshot(self, taker: SnapshotTaker) -> SnapshotFile:
        """Propose checkpoints until a snapshot of one of them, or of a later checkpoint, is durable."""
        while True:
            await taker.settled()
            failed = taker.counters.failed
            checkpoint = await self._next_checkpoint()
            await taker.settled()
            if taker.counters.failed > failed:
                raise OperationalError("the snapshot could not be written: see the replica's log; no records are lost")
            file = self._last_file
            if checkpoint is not None and file is not None and file.checkpoint.number >= checkpoint.number:
                return file

    async def _next_checkpoint(self) -> Checkpoint | None:
        """Propose a checkpoint and wait until the state has reached it; None if it was decided nop or not proposed."""
        if not self._gate.runs:
            raise UsageError(f"the replica is {self._gate.phase.value}: resume it first, with pydsm resume")
        id = self._controls.propose_checkpoint()
        if id is None:
            await asyncio.sleep(_FULL_PIPELINE_SECONDS)
            return None
        placed: asyncio.Future[Checkpoint | None] = asyncio.get_running_loop().create_future()
        self._awaited = (id, placed)
        return await placed

    # Called by the node

    def checkpoint_reached(self, checkpoint: Checkpoint) -> None:
        """The state is that of this checkpoint, and its snapshot was begun if possible."""
        if self._awaited is not None and checkpoint.position.has(self._awaited[0]):
            self._settle(checkpoint)

    def aborted(self, id: InstanceId) -> None:
        """An own instance was decided nop."""
        if self._awaited is not None and id == self._awaited[0]:
            self._settle(None)

    def snapshot_taken(self, file: SnapshotFile) -> None:
        """This snapshot is durable."""
        self._last_file = file

    def failed(self, reason: str) -> None:
        """The replica has failed or was stopped: a waiting snapshot request fails."""
        if self._awaited is not None and not self._awaited[1].done():
            self._awaited[1].set_exception(OperationalError(f"the replica stopped meanwhile: {reason}"))

    def _settle(self, checkpoint: Checkpoint | None) -> None:
        assert self._awaited is not None
        if not self._awaited[1].done():
            self._awaited[1].set_result(checkpoint)
