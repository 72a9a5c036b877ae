"""Latencies, counted in steps of less than one percent: percentiles from microseconds to hours in little memory."""

from collections import Counter
from collections.abc import Iterable

_MANTISSA_BITS = 8


class Histogram:
    """Counts by microseconds, of which the eight leading binary digits are kept, rounded up."""

    def __init__(self, counted: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: Counter[int] = Counter(dict(counted))

    def add(self, seconds: float, times: int = 1) -> None:
        """So many operations took this long."""
        microseconds = max(1, int(seconds * 1e6 + 0.999))
        shift = microseconds.bit_length() - _MANTISSA_BITS
        if shift > 0:
            microseconds = -(-microseconds >> shift) << shift
        self._counts[microseconds] += times

    def take_in(self, other: "Histogram") -> None:
        """Add the counts of another one to these."""
        self._counts.update(other._counts)

    @property
    def total(self) -> int:
        """Operations counted."""
        return self._counts.total()

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Microseconds and how many took about so long, in rising order."""
        return sorted(self._counts.items())

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` of the operations did not exceed; 0 when there were none."""
        wanted, seen = self.total * percent / 100, 0
        for microseconds, count in self.counts:
            seen += count
            if seen >= wanted:
                return microseconds / 1000
        return 0.0
