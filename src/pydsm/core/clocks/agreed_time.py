"""Agreed time: the clock of the replicated state, which wrong clocks of a minority cannot move.

See docs/reference/protocol.md, section 7. A checkpoint carries the readings of the members' wall clocks, and its
execution sets agreed time from them, so it is the same at every replica. While at most f clocks are wrong, two of the
readings are bounds of the right time, with m the smallest majority: the m-th largest, which a majority of the clocks
has reached, and the m-th smallest, which a majority has not passed. If n is odd and all clocks are known, both are the
median. If some are not known, the bounds may differ; then a reading far behind agreed time, which was right at the last
checkpoint, is recognised as wrong.

Guarantees that agreed time never goes back while at most f clocks are wrong, that it advances by a bounded amount per
checkpoint, and that the execution time of a batch stays within a bounded distance of it. `clock_readings` and the
runtime read the clocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CLOCK_MS_MAX = (1 << 48) - 1
"""The highest reading of a clock, as in request ids."""


class Bounds(NamedTuple):
    """The readings that may be right: the right time is between the first and the last."""

    readings: tuple[int, ...]
    """The known readings between the bounds, both included, ascending."""

    @property
    def first(self) -> int:
        """Lower bound: a majority of the clocks has reached it."""
        return self.readings[0]

    @property
    def last(self) -> int:
        """Upper bound: a majority of the clocks has not passed it."""
        return self.readings[-1]


def bounds(clocks: Sequence[int]) -> Bounds | None:
    """The bounds of the right time; None if less than a majority is known. A reading of 0 is an unknown clock."""
    known = sorted(clock for clock in clocks if clock)
    majority = len(clocks) // 2 + 1
    if len(known) < majority:
        return None
    return Bounds(tuple(known[len(known) - majority : majority]))


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits on differences of time. Must be the same at every replica of a group, because they affect results."""

    advance_ms_max: int = 1_800_000
    """How far one checkpoint may move agreed time. While it is behind the clocks, each next one may move it twice as
    far, so a group that was down for a year catches up in 15 checkpoints."""
    lag_ms_max: int = 600_000
    """How far agreed time may be behind the clocks before a checkpoint is due, even in an idle group; and how far a
    clock may be behind agreed time and still be used."""
    distance_ms_max: int = 3_600_000
    """How far after agreed time a batch may be executed; later timestamps are reduced to this. If agreed time is
    farther ahead of a majority of the clocks than this, it was set by wrong clocks, and is set back."""


class AgreedTime:
    """The state is `ms` and `step_ms`. It changes only at checkpoints, which are ordered against every instance."""

    def __init__(self, limits: TimeLimits | None = None) -> None:
        self.limits = limits or TimeLimits()
        self.ms = 0
        """Unix time in milliseconds; 0 until the first checkpoint whose readings agree."""
        self.step_ms = self.limits.advance_ms_max
        """How far the next checkpoint may move `ms`."""

    def reading(self, clocks: Sequence[int]) -> int | None:
        """The time now according to these readings: the earliest possible one. None if too few are known."""
        possible = bounds(clocks)
        if possible is None:
            return None
        oldest_ms = self.ms - self.limits.lag_ms_max
        return next((reading for reading in possible.readings if reading >= oldest_ms), possible.last)

    def is_uncertain(self, clocks: Sequence[int]) -> bool:
        """Whether the readings contradict each other, and no agreed time is set yet to decide between them."""
        possible = bounds(clocks)
        return not self.ms and possible is not None and possible.last - possible.first > self.limits.distance_ms_max

    def advance(self, clocks: Sequence[int]) -> None:
        """Call when a checkpoint with these readings is executed. Readings of less than a majority change nothing."""
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
        """Whether agreed time was set by a majority of wrong clocks. A minority can neither cause nor undo this."""
        return possible.last < self.ms - self.limits.distance_ms_max

    def of_batch(self, timestamp_ms: int) -> int:
        """The time in ms at which a batch is executed. `timestamp_ms` is 0 for a batch without a timestamp."""
        if not self.ms:
            return timestamp_ms
        return max(self.ms, min(timestamp_ms, self.ms + self.limits.distance_ms_max))

    def admits(self, timestamp_ms: int) -> bool:
        """Whether a batch proposed now would be executed at this time, or at most `distance_ms_max` later.

        False before agreed time is set: a checkpoint that was proposed long ago and is not decided yet may be executed
        first, and set agreed time so early that the batch is executed too early.
        """
        return self.ms > 0 and abs(timestamp_ms - self.ms) <= self.limits.distance_ms_max

    def is_due(self, clocks: Sequence[int]) -> bool:
        """Whether a checkpoint with these readings should be proposed only to set agreed time."""
        reading, possible = self.reading(clocks), bounds(clocks)
        if reading is None or possible is None:
            return False
        if not self.ms:
            return not self.is_uncertain(clocks)
        return reading > self.ms + self.limits.lag_ms_max or self._is_ahead_of(possible)
