"""What may be done to a running replica by whoever is responsible for it: pause, resume, snapshot.

Decides in which order clients are refused, snapshots given up and the machine stopped, and how long is waited for what.
Guards that no command is lost: what was taken is answered before the pause or after it, what comes meanwhile is
refused, definitely not executed. Holding agreed batches is the gate's business (`lifecycle`).
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
"""How long to wait for room when too many own instances are under way to propose another."""


class PauseReport(msgspec.Struct, frozen=True, kw_only=True):
    """A replica is paused."""

    already: bool
    """It was before."""
    commands_unanswered: int
    """Commands that it had taken and that are answered when it is resumed."""


class ResumeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A replica runs again."""

    already: bool
    """It was not paused."""
    batches: int
    """Batches that were agreed on meanwhile, and are executed now."""
    seconds: float
    """How long that took."""


class SnapshotReport(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is durable."""

    number: int
    """Of the checkpoint."""
    position: Deps
    """Per leader, the index up to which it has everything."""
    chunks: int
    bytes: int
    """Of the file."""
    seconds: float
    """From the call until it was durable, agreement on the checkpoint included."""
    path: str


@dataclass(frozen=True, slots=True)
class NodeControls:
    """What maintenance may do to its replica."""

    refuse: Callable[[str], None]
    """Take no more commands, for this reason."""
    accept: Callable[[], None]
    """Take commands again."""
    drain: Callable[[float], Awaitable[int]]
    """Wait so many seconds at most until all commands are answered; gives how many are not."""
    propose_checkpoint: Callable[[], InstanceId | None]
    """None when there is no room for another instance."""
    fail: Callable[[Exception], None]
    """Stop for good."""


class Maintenance:
    """Of one replica, on its loop."""

    def __init__(self, gate: ApplyGate, hands: NodeControls) -> None:
        self._gate = gate
        self.taker: SnapshotTaker | None = None
        """None where no snapshots are taken."""
        self._hands = hands
        self._awaited: tuple[InstanceId, asyncio.Future[Checkpoint | None]] | None = None
        self.snapshot_wanted = False
        """Somebody waits for a snapshot, and the next checkpoint must have one."""
        self._last_file: SnapshotFile | None = None

    async def pause(self, drain_seconds_max: float = 5.0) -> PauseReport:
        """Stop the machine inside the running replica, which goes on agreeing, and holds what it would execute.

        Commands are refused from now on as `Overloaded`; those taken before are answered first, if that succeeds in
        time (seconds), else after `resume`. It stays paused until `resume` or the end of the process; a replica always
        starts running. What happens when much is held: `lifecycle.ApplyQueueLimits`.

        Raises:
            UsageError: it is pausing or resuming, or does not run; nothing happened.
            OperationalError: the machine's `stop` raised; the replica is paused all the same.
        """
        gate = self._gate
        if gate.phase is MachinePhase.PAUSED:
            return PauseReport(already=True, commands_unanswered=await self._hands.drain(0))
        gate.begin_pause()
        self._hands.refuse("this replica is paused for maintenance; submit elsewhere")
        try:
            unanswered = await self._hands.drain(drain_seconds_max)
            if self.taker is not None:
                await self.taker.stop()  # it reads a machine that is about to stop; the next checkpoint has another
        except BaseException:
            gate.give_up_pause()
            self._serve_again()
            raise
        await gate.pause()
        log.info("paused; %d commands are answered when the replica is resumed", unanswered)
        return PauseReport(already=False, commands_unanswered=unanswered)

    async def resume(self) -> ResumeReport:
        """Start the machine again, execute what was held, and take commands again, in this order.

        Raises:
            UsageError: it is pausing or resuming, or does not run; nothing happened. OperationalError: the machine's
            `start` raised, and the replica stays paused; or the replica failed or stopped.
        """
        gate = self._gate
        if gate.runs:
            return ResumeReport(already=True, batches=0, seconds=0.0)
        began = time.monotonic()
        await gate.restart()
        if self.taker is not None:
            self.taker.go_on()  # already for checkpoints that were held
        try:
            batches = await gate.catch_up()
        except Exception as error:
            self._hands.fail(error)
            raise OperationalError(f"the replica failed while it executed what was held: {error}") from error
        if self._gate.phase is not MachinePhase.RUNNING:
            raise OperationalError("the replica stopped while it resumed: start it again, nothing is lost")
        self._serve_again()
        log.info("resumed; %d batches that were held are executed", batches)
        return ResumeReport(already=False, batches=batches, seconds=round(time.monotonic() - began, 3))

    def _serve_again(self) -> None:
        if self._gate.runs:
            if self.taker is not None:
                self.taker.go_on()
            self._hands.accept()

    async def snapshot(self, seconds_max: float = 60.0) -> SnapshotReport:
        """Agree on a checkpoint now, and wait until this replica's snapshot of it is durable.

        Raises:
            UsageError: it takes no snapshots, is not running, or somebody else waits for one; nothing happened.
            OperationalError: it was not durable within so many seconds, could not be written, or the replica stopped.
        """
        if self.taker is None:
            raise UsageError("this replica takes no snapshots: it keeps its data in memory, or its machine has none")
        if self.snapshot_wanted:
            raise UsageError("somebody else waits for a snapshot already: try again when that is done")
        self.snapshot_wanted = True
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds_max):
                file = await self._snapshot(self.taker)
                size = await asyncio.to_thread(lambda: file.path.stat().st_size)
        except TimeoutError as error:
            raise OperationalError(
                f"no snapshot was durable within {seconds_max:g} s: see by pydsm status whether a majority is up; "
                "what was begun goes on"
            ) from error
        finally:
            self.snapshot_wanted = False
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
        """Propose a checkpoint until a snapshot of one that was asked for is durable. Others may come between."""
        while True:
            await taker.settled()
            failed = taker.counters.failed
            checkpoint = await self._next_checkpoint()
            await taker.settled()
            if taker.counters.failed > failed:
                raise OperationalError("the snapshot could not be written: see the log of the replica; records stay")
            file = self._last_file
            if checkpoint is not None and file is not None and file.checkpoint.number >= checkpoint.number:
                return file

    async def _next_checkpoint(self) -> Checkpoint | None:
        """Propose one and wait until the state is there; None when it was decided nop."""
        if not self._gate.runs:
            raise UsageError(f"the replica is {self._gate.phase.value}: resume it first, by pydsm resume")
        id = self._hands.propose_checkpoint()
        if id is None:
            await asyncio.sleep(_FULL_PIPELINE_SECONDS)
            return None
        placed: asyncio.Future[Checkpoint | None] = asyncio.get_running_loop().create_future()
        self._awaited = (id, placed)
        return await placed

    # News of the replica

    def checkpoint_reached(self, checkpoint: Checkpoint) -> None:
        """The state is that of this checkpoint, and its snapshot was begun if that was possible."""
        if self._awaited is not None and checkpoint.position.has(self._awaited[0]):
            self._settle(checkpoint)

    def aborted(self, id: InstanceId) -> None:
        """An own instance was decided nop."""
        if self._awaited is not None and id == self._awaited[0]:
            self._settle(None)

    def snapshot_taken(self, file: SnapshotFile) -> None:
        """It is durable."""
        self._last_file = file

    def failed(self, reason: str) -> None:
        """The replica has stopped by itself, or was told to: nothing more will come."""
        if self._awaited is not None and not self._awaited[1].done():
            self._awaited[1].set_exception(OperationalError(f"the replica stopped meanwhile: {reason}"))

    def _settle(self, checkpoint: Checkpoint | None) -> None:
        assert self._awaited is not None
        if not self._awaited[1].done():
            self._awaited[1].set_result(checkpoint)
