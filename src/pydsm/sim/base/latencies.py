"""One-way latencies between replicas: named presets as matrices.

The wide-area ones are rounded from the figures that public clouds publish for their regions. A run needs distances
that differ as real ones do, not exact ones.
"""

from random import Random
from typing import Protocol

from pydsm.core.types.errors import UsageError

Latencies = tuple[tuple[int, ...], ...]
"""Row: sender; column: receiver; microseconds."""

PRESETS = ("rack", "building", "uneven", "continents")
"""One rack; one building; near pairs that are far from each other; cities around the world."""

CITIES = ("Frankfurt", "Virginia", "Tokyo", "Oregon", "Sydney", "Sao Paulo", "Mumbai", "London", "Singapore")
"""Cities of the replicas of `continents`, in order; the tenth replica is in Frankfurt again."""

_CITY_MS = (
    (0, 44, 112, 72, 144, 102, 60, 7, 80),
    (44, 0, 78, 34, 99, 57, 92, 38, 108),
    (112, 78, 0, 48, 52, 128, 65, 106, 35),
    (72, 34, 48, 0, 69, 88, 108, 67, 82),
    (144, 99, 52, 69, 0, 156, 76, 132, 46),
    (102, 57, 128, 88, 156, 0, 150, 92, 164),
    (60, 92, 65, 108, 76, 150, 0, 56, 30),
    (7, 38, 106, 67, 132, 92, 56, 0, 84),
    (80, 108, 35, 82, 46, 164, 30, 84, 0),
)
_SAME_CITY_US = 800


def latencies(preset: str, replicas: int, random: Random) -> Latencies:
    """The matrix of a preset. Raises UsageError if the preset does not exist."""
    match preset:
        case "rack":
            return _matrix(replicas, lambda one, other: 150)
        case "building":
            return _matrix(replicas, lambda one, other: 2000)
        case "uneven":
            sites = [random.randrange(max(2, replicas // 2)) for _ in range(replicas)]
            return _matrix(replicas, lambda one, other: 300 if sites[one] == sites[other] else 12_000)
        case "continents":
            return _matrix(replicas, _between_cities)
        case unknown:
            raise UsageError(f"there are no latencies {unknown!r}: use {', '.join(PRESETS)}")


class _Distance(Protocol):
    def __call__(self, one: int, other: int) -> int: ...


def _matrix(replicas: int, distance: _Distance) -> Latencies:
    connections = range(replicas)
    return tuple(tuple(0 if one == other else distance(one, other) for other in connections) for one in connections)


def _between_cities(one: int, other: int) -> int:
    return _CITY_MS[one % len(CITIES)][other % len(CITIES)] * 1000 or _SAME_CITY_US
