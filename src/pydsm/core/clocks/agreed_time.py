"""Agreed time: the one clock of the replicated state, which no wrong clock of a minority can move (PROTOCOL 7).

A checkpoint carries the readings of the members' wall clocks, and its execution sets agreed time from them, so that it
is the same at every replica. With m the smallest majority, two readings of the vector bound what is right as long as at
most f clocks are wrong: the m-th largest, which a majority of the clocks has reached, and the m-th smallest, which a
majority has not passed. Of an odd number of clocks that are all known both are the middle one. Where some are not known
they may differ; then agreed time itself, which was right at the last checkpoint, tells a clock that is behind.

Guards that agreed time never goes back while at most f clocks are wrong, that it advances by a bounded amount per
checkpoint, and that the time at which a batch is executed stays within a bounded distance of it. Reading clocks is left
to `clocks` and to the runtime.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CLOCK_MS_MAX = (1 << 48) - 1
"""The highest reading of a clock, as in request ids."""


class Bounds(NamedTuple):
    """What is right is not before the first and not behind the last of these readings."""

    readings: tuple[int, ...]
    """The known ones from the one bound to the other, ascending."""

    @property
    def first(self) -> int:
        """A majority of the clocks has reached it."""
        return self.readings[0]

    @property
    def last(self) -> int:
        """A majority of the clocks has not passed it."""
        return self.readings[-1]


def bounds(clocks: Sequence[int]) -> Bounds | None:
    """Where the right time is; 0 stands for a clock that is not known. None when fewer than a majority are known."""
    known = sorted(clock for clock in clocks if clock)
    majority = len(clocks) // 2 + 1
    if len(known) < majority:
        return None
    return Bounds(tuple(known[len(known) - majority : majority]))


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How far times may be apart. The same at every replica of a group: it decides results."""

    advance_ms_max: int = 1_800_000
    """How far one checkpoint may move agreed time. The next one may move it twice as far as long as it is behind the
    clocks, so that a group that was down for a year catches up in 15 checkpoints."""
    lag_ms_max: int = 600_000
    """How far agreed time may be behind the clocks before a checkpoint is due, also in an idle group; and how far a
    clock may be behind agreed time and still be asked."""
    distance_ms_max: int = 3_600_000
    """How far after agreed time a batch may be executed. What is proposed for later is executed at this distance.
    Agreed time that is farther ahead of a majority of the clocks was set by wrong ones, and is set back."""


class AgreedTime:
    """The state is `ms` and `step_ms`; it changes only at checkpoints, which are ordered with everything."""

    def __init__(self, limits: TimeLimits | None = None) -> None:
        self.limits = limits or TimeLimits()
        self.ms = 0
        """Unix time in milliseconds; 0 until the first checkpoint whose readings agree."""
        self.step_ms = self.limits.advance_ms_max
        """How far the next checkpoint may move it."""

    def reading(self, clocks: Sequence[int]) -> int | None:
        """What these clocks say of the time now: the earliest that is possible. None when too few are known."""
        possible = bounds(clocks)
        if possible is None:
            return None
        oldest_ms = self.ms - self.limits.lag_ms_max
        return next((reading for reading in possible.readings if reading >= oldest_ms), possible.last)

    def is_uncertain(self, clocks: Sequence[int]) -> bool:
        """Whether the clocks contradict each other, and there is no agreed time yet to decide between them."""
        possible = bounds(clocks)
        return not self.ms and possible is not None and possible.last - possible.first > self.limits.distance_ms_max

    def advance(self, clocks: Sequence[int]) -> None:
        """A checkpoint with these readings is executed. Readings of less than a majority change nothing."""
        reading, possible = self.reading(clocks), bounds(clocks)
        if reading is None or possible is None or self.is_uncertain(clocks):
            return
        step_ms, self.step_ms = self.step_ms, self.limits.advance_ms_max
        if not self.ms:
            self.ms = reading
        elif self._is_ahead_of(possible):
            self.ms = possible.last
        elif reading > self.ms + step_ms:
            self.ms, self.step_ms = self.ms + step_ms, 2 * step_ms
        else:
            self.ms = max(self.ms, reading)

    def _is_ahead_of(self, possible: Bounds) -> bool:
        """Whether a majority of wrong clocks has set it: a minority can bring it neither here nor back."""
        return possible.last < self.ms - self.limits.distance_ms_max

    def of_batch(self, timestamp_ms: int) -> int:
        """The time at which a batch with this timestamp is executed; one without a timestamp has 0."""
        if not self.ms:
            return timestamp_ms
        return max(self.ms, min(timestamp_ms, self.ms + self.limits.distance_ms_max))

    def admits(self, timestamp_ms: int) -> bool:
        """Whether a batch that is proposed now would be executed at this time, or at most `distance_ms_max` later.

        None is before there is agreed time: a checkpoint that was proposed long ago, and is not decided yet, may still
        be executed first, and set agreed time so far back that the batch is executed too early.
        """
        return self.ms > 0 and abs(timestamp_ms - self.ms) <= self.limits.distance_ms_max

    def is_due(self, clocks: Sequence[int]) -> bool:
        """Whether a checkpoint with these readings should be proposed for the sake of time alone."""
        reading, possible = self.reading(clocks), bounds(clocks)
        if reading is None or possible is None:
            return False
        if not self.ms:
            return not self.is_uncertain(clocks)
        return reading > self.ms + self.limits.lag_ms_max or self._is_ahead_of(possible)
