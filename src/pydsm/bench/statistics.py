"""The significance of a difference: the Mann-Whitney test, exact for small numbers of runs."""

import math
from collections.abc import Sequence
from itertools import combinations

_ARRANGEMENTS_MAX = 200_000


def ratio_of(new: float, old: float) -> float:
    """New divided by old; 1 if both are 0."""
    if old:
        return new / old
    return math.inf if new else 1.0


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p-value: the probability of at least this separation if both samples have the same distribution.

    Exact, with ties, by enumerating all arrangements; uses the normal approximation if there are too many. Returns 1 if
    a sample is empty.
    """
    if not one or not other:
        return 1.0
    ranks = _ranks([*one, *other])
    observed = sum(ranks[: len(one)])
    expected = len(one) * (len(ranks) + 1) / 2
    distance = abs(observed - expected) - 1e-9
    if math.comb(len(ranks), len(one)) > _ARRANGEMENTS_MAX:
        return _normal(ranks, len(one), distance)
    sums = [sum(chosen) for chosen in combinations(ranks, len(one))]
    return sum(abs(each - expected) >= distance for each in sums) / len(sums)


def smallest_p(one: int, other: int) -> float:
    """The smallest p-value that is possible with these numbers of runs."""
    return min(1.0, 2 / math.comb(one + other, one)) if one and other else 1.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks."""
    order = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(order)))}
    times = {value: order.count(value) for value in first}
    return [first[value] + (times[value] + 1) / 2 for value in values]


def _normal(ranks: Sequence[float], taken: int, distance: float) -> float:
    total = len(ranks)
    mean = (total + 1) / 2
    spread = sum((rank - mean) ** 2 for rank in ranks) / (total - 1)
    deviation = math.sqrt(spread * taken * (total - taken) / total)
    return math.erfc(max(0.0, distance - 0.5) / deviation / math.sqrt(2)) if deviation else 1.0
