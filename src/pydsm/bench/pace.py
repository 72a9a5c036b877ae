"""Computes when requests of an open loop are due, and wakes the event loop at these times.

The event loop's own timers have a resolution of milliseconds, which is more than an answer takes here; a sleeping
thread is woken ten times as precisely. The schedule never waits for answers: a delay counts as latency.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.core.types.errors import UsageError

_TICKS_PER_SECOND_MAX = 2000


@dataclass(frozen=True, slots=True)
class ArrivalSchedule:
    """Requests at even intervals. Raises UsageError if the rate or the duration is invalid."""

    per_second: float
    seconds: float

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.seconds <= 0:
            raise UsageError(
                f"a rate and its time must be above 0, got {self.per_second:g}/s for {self.seconds:g} seconds"
            )

    @property
    def requests(self) -> int:
        """How many there are."""
        return max(1, round(self.per_second * self.seconds))

    def due_at(self, number: int) -> float:
        """The time at which a request is due, in seconds since the start; the first request is number 0."""
        return number / self.per_second

    def due_by(self, seconds: float) -> int:
        """The number of requests that are due this long after the start."""
        return min(self.requests, int(seconds * self.per_second + 1e-9) + 1) if seconds >= 0 else 0

    @property
    def tick_seconds(self) -> float:
        """The interval between ticks: one per request, up to a maximum rate."""
        return max(1 / self.per_second, 1 / _TICKS_PER_SECOND_MAX)


class Ticker:
    """Calls `tick` on the loop at this interval from `start` (of `time.perf_counter`) on, until it is closed."""

    def __init__(self, start: float, seconds: float, tick: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = start
        self._seconds = seconds
        self._tick = tick
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._closed:
            now = time.perf_counter()
            wait = self._start + number * self._seconds - now
            if wait > 0:
                time.sleep(min(wait, 0.1))
                continue
            self._loop.call_soon_threadsafe(self._tick)
            number = int((now - self._start) / self._seconds) + 1

    def close(self) -> None:
        """Stop. Only a call that the loop has already scheduled may follow."""
        self._closed = True
        self._thread.join()
