"""Virtual time: events in the order of their times; events of equal time in the order in which they were scheduled."""

from collections.abc import Callable
from heapq import heappop, heappush

from pydsm.sim.base.violation import Violation

STEPS_AT_ONE_TIME_MAX = 100_000
"""More events at one time than this are taken for an endless loop, which would use up all memory."""

Event = tuple[int, int, Callable[..., None], tuple[object, ...]]


class EventSchedule:
    """A heap of events. `now` is in microseconds."""

    def __init__(self) -> None:
        self.now = 0
        self.steps = 0
        self._steps_before_now = 0
        self._made = 0
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def after(self, delay_us: int, act: Callable[..., None], *given: object) -> None:
        """Schedule `act(*given)` in `delay_us` microseconds, behind all events already scheduled for that time."""
        self._made += 1
        heappush(self._events, (self.now + delay_us, self._made, act, given))

    def step(self) -> None:
        """Run the next event. Requires at least one. Raises Violation if time stands still."""
        time, _, act, given = heappop(self._events)
        if time != self.now:
            self.now, self._steps_before_now = time, self.steps
        elif self.steps - self._steps_before_now > STEPS_AT_ONE_TIME_MAX:
            what = f"{STEPS_AT_ONE_TIME_MAX:,} events at {self.now} us, without an end"
            raise Violation("time stands still", what)
        self.steps += 1
        act(*given)

    def next_at(self) -> int:
        """The time of the next event in microseconds. Requires at least one event."""
        return self._events[0][0]
