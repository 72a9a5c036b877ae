"""Changes beyond noise."""

from collections.abc import Sequence

import pytest

from pydsm.bench.compare import Verdict, compare
from tests.unit.bench.made import measurement, results

OLD = [100.0, 101.0, 102.0, 103.0, 104.0]


def verdict_of(figure: str, old: Sequence[float], new: Sequence[float]) -> Verdict:
    (difference,) = compare(results(measurement("m", figure, old)), results(measurement("m", figure, new))).differences
    return difference.verdict


@pytest.mark.parametrize(
    ("figure", "factor", "verdict"),
    [
        ("commands_per_second", 1.2, Verdict.BETTER),
        ("commands_per_second", 0.8, Verdict.WORSE),
        ("p50_ms", 1.2, Verdict.WORSE),
        ("p99_ms", 0.8, Verdict.BETTER),
        ("replicas_us_per_command", 1.2, Verdict.WORSE),
        ("throughput_ratio", 1.2, Verdict.BETTER),
        ("most_bytes_per_key", 1.2, Verdict.WORSE),
    ],
)
def test_a_clear_change_is_better_or_worse_by_what_the_figure_means(
    figure: str, factor: float, verdict: Verdict
) -> None:
    assert verdict_of(figure, OLD, [factor * value for value in OLD]) is verdict


def test_a_difference_within_noise_is_no_change() -> None:
    assert verdict_of("commands_per_second", OLD, [90, 103, 120, 130, 99]) is Verdict.SAME


def test_a_difference_below_five_percent_is_no_change_however_significant() -> None:
    assert verdict_of("commands_per_second", OLD, [1.045 * value for value in OLD]) is Verdict.SAME


def test_three_runs_are_too_few_for_a_verdict_and_four_are_enough() -> None:
    assert verdict_of("commands_per_second", OLD[:3], [200, 201, 202]) is Verdict.TOO_FEW
    assert verdict_of("commands_per_second", OLD[:4], [200, 201, 202, 203]) is Verdict.BETTER


@pytest.mark.parametrize("figure", ["seconds", "generator_cores", "load_average", "max_ms", "late_p50_ms"])
def test_figures_without_a_better_direction_are_not_compared(figure: str) -> None:
    assert compare(results(measurement("m", figure, OLD)), results(measurement("m", figure, OLD))).differences == []


def test_measurements_of_only_one_file_are_named() -> None:
    comparison = compare(results(measurement("a", "p50_ms", OLD)), results(measurement("b", "p50_ms", OLD)))
    assert (comparison.only_old, comparison.only_new) == (["a"], ["b"])


def test_another_machine_or_a_slower_calibration_is_a_warning() -> None:
    (other,) = compare(results(), results(cpu="another")).warnings
    assert other == "not the same machine: cpu was a processor, is another"
    (slower,) = compare(results(), results(loop_ms=4.5)).warnings
    assert "a fixed piece of Python took 3 ms, now 4.5 ms (1.50 times)" in slower
    assert compare(results(), results()).warnings == []
