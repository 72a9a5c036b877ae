"""What the components of one simulated world share: settings, virtual time, counts and the trace."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pydsm.sim.base import describe
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.schedule import EventSchedule
from pydsm.sim.base.settings import Settings
from pydsm.sim.checkers.wall_clocks import WallClocks

Trace = Callable[[str], None]
"""Receives one readable line per event."""


@dataclass(slots=True)
class Context:
    """Created once per run. Check `tracing` before you format a line, since most runs have no trace."""

    settings: Settings
    trace: Trace | None = None
    schedule: EventSchedule = field(default_factory=EventSchedule)
    counts: Counts = field(default_factory=lambda: Counts(seeds=1))
    healed: bool = False
    """Whether the phase of faults has ended: from then on, only batches for which a client waits are proposed."""
    walls: WallClocks = field(init=False)

    def __post_init__(self) -> None:
        self.walls = WallClocks(self.schedule, self.settings)

    @property
    def tracing(self) -> bool:
        """Whether the run has a trace."""
        return self.trace is not None

    def log(self, subject: str, event: str) -> None:
        """Write one line to the trace: the virtual time, the replica or client that it concerns, and the event."""
        if self.trace is not None:
            self.trace(f"{describe.time(self.schedule.now)} {subject:<9} {event}")
