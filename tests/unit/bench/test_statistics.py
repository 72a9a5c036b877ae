"""The Mann-Whitney test against values worked out by hand."""

import pytest

from pydsm.bench.statistics import mann_whitney, ratio_of, smallest_p


def test_complete_separation_gives_the_smallest_p_there_is() -> None:
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert smallest_p(5, 5) == pytest.approx(2 / 252)


def test_the_order_of_the_sides_does_not_matter() -> None:
    one, other = [3.0, 1.0, 4.0, 1.5], [9.0, 2.6, 5.0, 3.5]
    assert mann_whitney(one, other) == mann_whitney(other, one)


def test_one_exchange_counts_all_arrangements_that_are_as_clear() -> None:
    # 1 2 4 | 3 5 6: rank sums 7 and 14; of 20 arrangements, 2 are clearer and 2 as clear
    assert mann_whitney([1, 2, 4], [3, 5, 6]) == pytest.approx(4 / 20)


def test_equal_runs_are_no_difference() -> None:
    assert mann_whitney([5, 5, 5], [5, 5, 5]) == 1.0


def test_an_empty_sample_is_no_difference() -> None:
    assert mann_whitney([], [1.0]) == 1.0
    assert smallest_p(0, 3) == 1.0


def test_many_runs_are_approximated_closely() -> None:
    one = [float(number) for number in range(30)]
    assert mann_whitney(one, [value + 0.5 for value in one]) > 0.5
    assert mann_whitney(one, [value + 30 for value in one]) < 1e-6


@pytest.mark.parametrize(("new", "old", "ratio"), [(3, 2, 1.5), (0, 0, 1), (1, 0, float("inf"))])
def test_ratio_is_defined_for_zero(new: float, old: float, ratio: float) -> None:
    assert ratio_of(new, old) == ratio
