"""Virtual time: events in order of their moment, and of their making where moments are equal."""

from collections.abc import Callable
from heapq import heappop, heappush

Event = tuple[int, int, Callable[..., None], tuple[object, ...]]


class EventSchedule:
    """A heap of events. `now` is in microseconds."""

    def __init__(self) -> None:
        self.now = 0
        self.steps = 0
        self._made = 0
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def after(self, delay_us: int, act: Callable[..., None], *given: object) -> None:
        """Call `act(*given)` so much later; at the same moment, after everything made before."""
        self._made += 1
        heappush(self._events, (self.now + delay_us, self._made, act, given))

    def step(self) -> None:
        """Let the next event happen. There must be one."""
        self.now, _, act, given = heappop(self._events)
        self.steps += 1
        act(*given)

    def next_at(self) -> int:
        """When the next event happens. There must be one."""
        return self._events[0][0]
