"""Between agreement and the machine: what was agreed is executed at once, or held while the machine is stopped.

Decides when the machine is started and stopped, and what happens meanwhile. Guards the order: batches and checkpoints
reach the machine as they came, whether they were held or not. Held batches may be forgotten at any time with the
process: their records are on the disk, and a restart executes them again. So holding them costs memory alone, and
`ApplyQueueLimits` says how much. Who may pause, and what clients are told, is `maintenance`'s business.
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
"""How long held batches are executed in a row before the loop has a turn for other things."""
_MACHINE_SECONDS_MAX = 60.0
"""How long a machine may take to start or to stop."""

Agreed = Execute | TakeCheckpoint


class MachinePhase(Enum):
    """What becomes of agreed batches."""

    CLOSED = "closed"
    """The replica does not run: nothing comes."""
    RUNNING = "running"
    """Each is executed at once."""
    PAUSING = "pausing"
    """So it is, and clients are refused, until what they have sent is answered."""
    PAUSED = "paused"
    """Each is held; the machine is stopped."""
    RESUMING = "resuming"
    """Each is held behind the others, and they are executed little by little; the machine runs."""


@dataclass(frozen=True, slots=True)
class ApplyQueueLimits:
    """What is held in memory for a machine that is stopped. Raises UsageError for a value that cannot work.

    At either limit the replica takes no more part in agreement until it is resumed, as if it was cut off: the
    others need a majority without it, and it catches up afterwards.
    """

    commands_max: int = 1_000_000
    """Commands; a batch without any counts as one."""
    bytes_max: int = 256 << 20
    """Bytes of these commands."""

    def __post_init__(self) -> None:
        if self.commands_max < 1 or self.bytes_max < 1:
            raise UsageError("what is held has limits above 0, in commands and in bytes")


class ApplyGate:
    """`perform` executes a batch or takes a checkpoint; what it raises is fatal for the replica."""

    def __init__(
        self, machine: object, perform: Callable[[Agreed], None], limits: ApplyQueueLimits | None = None
    ) -> None:
        self._machine = machine
        self._perform = perform
        self._limits = limits or ApplyQueueLimits()
        self._held: deque[Agreed] = deque()
        self._held_commands = 0
        self.held_bytes = 0
        """Bytes of commands that are held."""
        self._machine_runs = False
        self.phase = MachinePhase.CLOSED
        self.fault: str | None = None
        """What the machine raised when it was last started or stopped."""

    @property
    def held(self) -> int:
        """Batches and checkpoints that are agreed on and not executed."""
        return len(self._held)

    @property
    def runs(self) -> bool:
        """Whether each is executed at once, and clients are served."""
        return self.phase is MachinePhase.RUNNING

    @property
    def full(self) -> bool:
        """Whether nothing more should be agreed on here, see `ApplyQueueLimits`."""
        return self._held_commands >= self._limits.commands_max or self.held_bytes >= self._limits.bytes_max

    def take(self, agreed: Agreed) -> None:
        """The next one, in the agreed order. Nothing is executed once it is shut: a restart does."""
        if self.phase is MachinePhase.CLOSED:
            return
        if self.phase is MachinePhase.PAUSED or self.phase is MachinePhase.RESUMING:
            commands, size = _cost(agreed)
            self._held_commands += commands
            self.held_bytes += size
            self._held.append(agreed)
        else:
            self._perform(agreed)

    async def open(self) -> None:
        """Start the machine of a replica that starts. Raises OperationalError when the machine raises."""
        await self._start()
        self.phase = MachinePhase.RUNNING

    def begin_pause(self) -> None:
        """`pause` will follow. Only while it is running."""
        self._expect(MachinePhase.RUNNING)
        self.phase = MachinePhase.PAUSING

    def give_up_pause(self) -> None:
        """`pause` will not follow."""
        if self.phase is MachinePhase.PAUSING:
            self.phase = MachinePhase.RUNNING

    async def pause(self) -> None:
        """Hold what comes from now on, and stop the machine.

        Raises OperationalError when that raises, and is paused.
        """
        self._expect(MachinePhase.PAUSING)
        self.phase = MachinePhase.PAUSED
        await self._stop()

    async def restart(self) -> None:
        """Start the machine; `catch_up` must follow. Raises OperationalError when that raises, and is still paused."""
        self._expect(MachinePhase.PAUSED)
        self.phase = MachinePhase.RESUMING
        try:
            await self._start()
        except BaseException:
            if self.phase is MachinePhase.RESUMING:
                self.phase = MachinePhase.PAUSED
            raise

    async def catch_up(self) -> int:
        """Execute what is held, with turns of the loop between; gives how many there were. Raises what `perform` does.

        Ends early when the gate is shut.
        """
        done = 0
        try:
            while self._held and self.phase is MachinePhase.RESUMING:
                done += self._execute_some()
                await asyncio.sleep(0)
        finally:
            if (
                self.phase is MachinePhase.RESUMING
            ):  # what is left when this was cancelled is executed by the next resume
                self.phase = MachinePhase.PAUSED if self._held else MachinePhase.RUNNING
        return done

    def _execute_some(self) -> int:
        """As many as fit into a slice, and one at least."""
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
        """The replica stops, perhaps because it failed: execute nothing more. `close` follows."""
        self.phase = MachinePhase.CLOSED

    async def close(self) -> None:
        """Stop the machine, unless that is done. Raises OperationalError when the machine raises."""
        self.shut()
        if self._machine_runs:
            await self._stop()

    def _expect(self, phase: MachinePhase) -> None:
        if self.phase is not phase:
            raise UsageError(f"the machine is {self.phase.value}, and not {phase.value}: wait and try again")

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
    """What holding it counts for: commands and bytes."""
    if isinstance(agreed, Execute):
        commands = agreed.batch.commands
        return max(1, len(commands)), sum(map(len, commands))
    return 1, 0
