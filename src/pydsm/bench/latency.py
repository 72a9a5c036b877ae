"""Latencies counted to a tenth of a millisecond: percentiles and a histogram."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

_STEPS_PER_SECOND = 10_000
_BOUNDS_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(slots=True)
class LatencyEstimates:
    """Counts per tenth of a millisecond."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float, times: int = 1) -> None:
        """So many operations took this long."""
        self.counts[int(seconds * _STEPS_PER_SECOND)] += times

    def merge(self, other: "LatencyEstimates") -> None:
        """Add the counts of another one to these."""
        self.counts.update(other.counts)

    @property
    def total(self) -> int:
        """Operations counted."""
        return self.counts.total()

    def percentile_ms(self, percent: float) -> float:
        """The latency in milliseconds that `percent` of the operations did not exceed; 0 when there were none."""
        wanted = self.total * percent / 100
        seen = 0
        for step in sorted(self.counts):
            seen += self.counts[step]
            if seen >= wanted:
                return (step + 1) * 1000 / _STEPS_PER_SECOND
        return 0.0

    def histogram(self) -> list[tuple[str, int]]:
        """Ranges of latency and how many operations fell into each, from the first used to the last."""
        counts = [0] * (len(_BOUNDS_MS) + 1)
        for step, count in self.counts.items():
            ms = step * 1000 / _STEPS_PER_SECOND
            counts[sum(bound <= ms for bound in _BOUNDS_MS)] += count
        labels = [f"< {_BOUNDS_MS[0]:g} ms"]
        labels += [f"{low:g} - {high:g} ms" for low, high in pairwise(_BOUNDS_MS)]
        labels += [f">= {_BOUNDS_MS[-1]:g} ms"]
        used = [position for position, count in enumerate(counts) if count]
        return [(labels[position], counts[position]) for position in range(used[0], used[-1] + 1)] if used else []
