"""Percentiles and histograms."""

from pydsm.bench.latency import LatencyEstimates


def test_no_operation_has_no_percentile_and_no_histogram() -> None:
    assert LatencyEstimates().percentile_ms(50) == 0
    assert LatencyEstimates().histogram() == []


def test_percentiles_are_upper_ends_of_tenths_of_a_millisecond() -> None:
    latencies = LatencyEstimates()
    latencies.add(0.00101, 98)
    latencies.add(0.5, 2)
    assert latencies.percentile_ms(50) == 1.1
    assert latencies.percentile_ms(98) == 1.1
    assert latencies.percentile_ms(99) == 500.1


def test_histogram_runs_from_the_first_to_the_last_range_in_use() -> None:
    latencies, more = LatencyEstimates(), LatencyEstimates()
    latencies.add(0.0006, 3)
    more.add(0.003, 2)
    latencies.merge(more)
    assert latencies.total == 5
    assert latencies.histogram() == [("0.5 - 1 ms", 3), ("1 - 2 ms", 0), ("2 - 5 ms", 2)]


def test_histogram_has_open_ends() -> None:
    latencies = LatencyEstimates()
    latencies.add(0)
    latencies.add(9)
    assert latencies.histogram()[0] == ("< 0.5 ms", 1)
    assert latencies.histogram()[-1] == (">= 5000 ms", 1)
