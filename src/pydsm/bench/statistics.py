"""How sure a difference is: the Mann-Whitney test, exact for the few runs that there are."""

import math
from collections.abc import Sequence
from itertools import combinations

_ARRANGEMENTS_MAX = 200_000


def ratio_of(new: float, old: float) -> float:
    """New by old; 1 when both are 0."""
    if old:
        return new / old
    return math.inf if new else 1.0


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """How probable a separation at least as clear as this one is, if both came from the same source (two-sided p).

    Exact, with ties, by trying every arrangement; by the normal approximation where those are too many. 1 when there
    is nothing to compare.
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
    """The least that so many runs on either side can give."""
    return min(1.0, 2 / math.comb(one + other, one)) if one and other else 1.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1 on; equal values share the mean of their places."""
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
