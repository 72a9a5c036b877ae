"""What the parts of one world share: its settings, its time, its counts, and where its lines go."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pydsm.sim.base import describe
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.schedule import EventSchedule
from pydsm.sim.base.settings import Settings
from pydsm.sim.checkers.wall_clocks import WallClocks

Trace = Callable[[str], None]
"""Takes one readable line per thing that happens."""


@dataclass(slots=True)
class Context:
    """Made once per run. Lines are made only when somebody reads them: ask for `tracing` before making one."""

    settings: Settings
    trace: Trace | None = None
    schedule: EventSchedule = field(default_factory=EventSchedule)
    counts: Counts = field(default_factory=lambda: Counts(seeds=1))
    healed: bool = False
    """Faults are over: nothing is proposed any more that nobody waits for."""
    walls: WallClocks = field(init=False)

    def __post_init__(self) -> None:
        self.walls = WallClocks(self.schedule, self.settings)

    @property
    def tracing(self) -> bool:
        """Whether anybody reads lines."""
        return self.trace is not None

    def log(self, who: str, what: str) -> None:
        """One line, with the moment and the replica or client that it is about."""
        if self.trace is not None:
            self.trace(f"{describe.time(self.schedule.now)} {who:<9} {what}")
