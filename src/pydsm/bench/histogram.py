"""A histogram of latencies with an error below one percent, from microseconds to hours, in little memory."""

from collections import Counter
from collections.abc import Iterable

_MANTISSA_BITS = 8


class Histogram:
    """Counts by microseconds; each value is rounded up to eight significant binary digits."""

    def __init__(self, counted: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: Counter[int] = Counter(dict(counted))

    def add(self, seconds: float, times: int = 1) -> None:
        """Count this number of operations with this latency."""
        microseconds = max(1, int(seconds * 1e6 + 0.999))
        shift = microseconds.bit_length() - _MANTISSA_BITS
        if shift > 0:
            microseconds = -(-microseconds >> shift) << shift
        self._counts[microseconds] += times

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        self._counts.update(other._counts)

    @property
    def total(self) -> int:
        """The number of counted operations."""
        return self._counts.total()

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Pairs of rounded microseconds and a count, in ascending order."""
        return sorted(self._counts.items())

    def percentile_ms(self, percent: float) -> float:
        """The latency in ms that `percent` of the operations did not exceed; 0 without operations."""
        wanted, seen = self.total * percent / 100, 0
        for microseconds, count in self.counts:
            seen += count
            if seen >= wanted:
                return microseconds / 1000
        return 0.0
