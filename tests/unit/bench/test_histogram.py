"""Histograms of latencies, with an error below one percent."""

import pytest

from pydsm.bench.histogram import Histogram


@pytest.mark.parametrize("seconds", [1e-6, 0.000123, 0.0127, 0.9, 77.7])
def test_a_latency_is_rounded_up_by_less_than_one_percent(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert seconds <= histogram.percentile_ms(100) / 1000 + 1e-9
    assert histogram.percentile_ms(50) / 1000 <= seconds * 1.01 + 1e-6


def test_percentiles_count_operations() -> None:
    histogram = Histogram()
    histogram.add(0.001, times=98)
    histogram.add(0.1, times=2)
    assert histogram.total == 100
    assert histogram.percentile_ms(50) == pytest.approx(1.0, rel=0.01)
    assert histogram.percentile_ms(98) == pytest.approx(1.0, rel=0.01)
    assert histogram.percentile_ms(99) == pytest.approx(100, rel=0.01)


def test_an_empty_histogram_has_no_latency() -> None:
    assert Histogram().percentile_ms(99) == 0


def test_a_histogram_is_restored_from_its_counts_and_can_be_merged() -> None:
    one = Histogram([(100, 3)])
    one.merge(Histogram([(100, 2), (200, 1)]))
    assert Histogram(one.counts).counts == [(100, 5), (200, 1)]
