"""Passes agreed batches to the machine: executed immediately, or held while the machine is stopped.

Decides when the machine is started and stopped, and holds batches meanwhile. Guarantees the order: batches and
checkpoints reach the machine in the agreed order, whether they were held or not. Held batches need not survive the
process: their records are on the disk, and a restart executes them again. So holding them costs only memory, which
`ApplyQueueLimits` limits. Who may pause a replica, and how clients are answered meanwhile, is left to `maintenance`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from pydsm.core.types.effects import Execute, TakeCheckpoint
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.machines.base import SupportsLifecycle

_SLICE_SECONDS = 0.005
"""How long held batches are executed before the event loop gets a turn for other work."""
_MACHINE_SECONDS_MAX = 60.0
"""How long a machine may take to start or to stop."""

Agreed = Execute | TakeCheckpoint


class MachinePhase(Enum):
    """How agreed batches are handled."""

    CLOSED = "closed"
    """The replica does not run: batches are ignored."""
    RUNNING = "running"
    """Each batch is executed immediately."""
    PAUSING = "pausing"
    """Each batch is executed immediately; new commands are refused until the accepted ones are answered."""
    PAUSED = "paused"
    """Each batch is held; the machine is stopped."""
    RESUMING = "resuming"
    """Each batch is held behind the earlier ones, which are executed in slices; the machine runs."""


@dataclass(frozen=True, slots=True)
class ApplyQueueLimits:
    """Limits on what is held in memory for a stopped machine. Raises UsageError for a value below 1.

    At either limit the replica stops taking part in agreement until it is resumed, as if it were disconnected: the
    other replicas need a majority without it, and it catches up afterwards.
    """

    commands_max: int = 1_000_000
    """Commands; a batch without any counts as one."""
    bytes_max: int = 256 << 20
    """Bytes of these commands."""

    def __post_init__(self) -> None:
        if self.commands_max < 1 or self.bytes_max < 1:
            raise UsageError("limits on held batches must be above 0, in commands and in bytes")


class ApplyGate:
    """`perform` executes a batch or takes a checkpoint; an exception from it is fatal for the replica."""

    def __init__(
        self, machine: object, perform: Callable[[Agreed], None], limits: ApplyQueueLimits | None = None
    ) -> None:
        self._machine = machine
        self._perform = perform
        self._limits = limits or ApplyQueueLimits()
        self._held: deque[Agreed] = deque()
        self._held_commands = 0
        self.held_bytes = 0
        """Bytes of held commands."""
        self._machine_runs = False
        self.phase = MachinePhase.CLOSED
        self.fault: str | None = None
        """The error of the last start or stop of the machine, or None."""

    @property
    def held(self) -> int:
        """Number of held batches and checkpoints: agreed on, not executed yet."""
        return len(self._held)

    @property
    def runs(self) -> bool:
        """Whether batches are executed immediately and clients are served."""
        return self.phase is MachinePhase.RUNNING

    @property
    def full(self) -> bool:
        """Whether a limit is reached and this replica should not take part in agreement (`ApplyQueueLimits`)."""
        return self._held_commands >= self._limits.commands_max or self.held_bytes >= self._limits.bytes_max

    def take(self, agreed: Agreed) -> None:
        """Execute or hold the next one, in the agreed order. Ignored after `shut`: the next start executes it."""
        if self.phase is MachinePhase.CLOSED:
            return
        # While RESUMING, new batches are held although the machine runs: executing one now would put it before the
        # held ones, and this replica would apply conflicting commands in another order than the others. `catch_up`
        # changes the phase to RUNNING only when nothing is held, and does not await between that check and the change.
        if self.phase is MachinePhase.PAUSED or self.phase is MachinePhase.RESUMING:
            commands, size = _cost(agreed)
            self._held_commands += commands
            self.held_bytes += size
            self._held.append(agreed)
        else:
            self._perform(agreed)

    async def open(self) -> None:
        """Start the machine when its replica starts. Raises OperationalError if the machine raises."""
        await self._start()
        self.phase = MachinePhase.RUNNING

    def begin_pause(self) -> None:
        """Prepare for `pause`, which must follow. Raises UsageError if the phase is not RUNNING."""
        self._expect(MachinePhase.RUNNING)
        self.phase = MachinePhase.PAUSING

    def give_up_pause(self) -> None:
        """Return to RUNNING: `pause` does not follow."""
        if self.phase is MachinePhase.PAUSING:
            self.phase = MachinePhase.RUNNING

    async def pause(self) -> None:
        """Hold batches from now on, and stop the machine.

        Raises OperationalError if the machine raises; the phase is PAUSED in that case too.
        """
        self._expect(MachinePhase.PAUSING)
        self.phase = MachinePhase.PAUSED
        await self._stop()

    async def restart(self) -> None:
        """Start the machine; `catch_up` must follow. Raises OperationalError if it raises; the phase stays PAUSED."""
        self._expect(MachinePhase.PAUSED)
        self.phase = MachinePhase.RESUMING
        try:
            await self._start()
        except BaseException:
            if self.phase is MachinePhase.RESUMING:
                self.phase = MachinePhase.PAUSED
            raise

    async def catch_up(self) -> int:
        """Execute the held batches, with turns of the event loop in between; returns how many.

        Raises what `perform` raises. Ends early when the gate is shut.
        """
        done = 0
        try:
            while self._held and self.phase is MachinePhase.RESUMING:
                done += self._execute_some()
                await asyncio.sleep(0)
        finally:
            if self.phase is MachinePhase.RESUMING:  # if cancelled, the next resume executes the remaining ones
                self.phase = MachinePhase.PAUSED if self._held else MachinePhase.RUNNING
        return done

    def _execute_some(self) -> int:
        """Execute as many held batches as fit into a slice, at least one; returns how many."""
        done = 0
        until = time.perf_counter() + _SLICE_SECONDS
        while self._held and (not done or time.perf_counter() < until):
            agreed = self._held.popleft()
            commands, size = _cost(agreed)
            self._held_commands -= commands
            self.held_bytes -= size
            self._perform(agreed)
            done += 1
        return done

    def shut(self) -> None:
        """Execute nothing more: the replica stops or has failed. `close` follows."""
        self.phase = MachinePhase.CLOSED

    async def close(self) -> None:
        """Stop the machine if it runs. Raises OperationalError if the machine raises."""
        self.shut()
        if self._machine_runs:
            await self._stop()

    def _expect(self, phase: MachinePhase) -> None:
        if self.phase is not phase:
            raise UsageError(f"the machine is {self.phase.value}, not {phase.value}: wait and try again")

    async def _start(self) -> None:
        if isinstance(self._machine, SupportsLifecycle) and not self._machine_runs:
            await self._ask(self._machine.start(), "start")
        self._machine_runs = True

    async def _stop(self) -> None:
        self._machine_runs = False
        if isinstance(self._machine, SupportsLifecycle):
            await self._ask(self._machine.stop(), "stop")

    async def _ask(self, answer: Awaitable[None], verb: str) -> None:
        self.fault = None
        try:
            async with asyncio.timeout(_MACHINE_SECONDS_MAX):
                await answer
        except TimeoutError as error:
            self.fault = f"the machine did not {verb} within {_MACHINE_SECONDS_MAX:g} s"
            raise OperationalError(self.fault) from error
        except Exception as error:
            self.fault = f"the machine did not {verb}: {type(error).__name__}: {error}"
            raise OperationalError(self.fault) from error


def _cost(agreed: Agreed) -> tuple[int, int]:
    """The commands and bytes that count towards the limits while this is held."""
    if isinstance(agreed, Execute):
        commands = agreed.batch.commands
        return max(1, len(commands)), sum(map(len, commands))
    return 1, 0
