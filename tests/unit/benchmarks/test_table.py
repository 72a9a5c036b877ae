"""The verdicts on goals, and the conditions that stop a long run."""

import pytest

from benchmarks.long_run import LongRun, last_by_second, stop_reason
from benchmarks.table import ROWS, Goal, ratio_of_rounds
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.core.types.errors import UsageError


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("x", 300, must=200, aim=400), "must"),
        (Goal("x", 400, must=200, aim=400), "aim"),
        (Goal("x", 199, must=200, aim=400), "MISSED"),
        (Goal("x", 0.4, must=0.5, aim=0.3, at_least=False), "must"),
        (Goal("x", 0.6, must=0.5, at_least=False), "MISSED"),
        (Goal("x", None, must=1, why="missing"), "NOT MEASURED"),
    ],
)
def test_a_goal_has_a_verdict(goal: Goal, verdict: str) -> None:
    assert goal.verdict == verdict


def test_rows_have_different_names() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    one, other = (
        Measurement("m", {}, [BenchmarkRun({"commands_per_second": value}) for value in values])
        for values in ([50, 5, 80], [100, 10, 100])
    )
    assert ratio_of_rounds(one, other) == 0.5


def minute(per_second: float, mib: float, *notes: str) -> BenchmarkRun:
    return BenchmarkRun({"commands_per_second": per_second, "replica_1_resident_mib": mib}, notes=[*notes])


def test_the_last_minute_is_compared_with_the_second() -> None:
    minutes = [minute(1, 1), minute(100, 1000), minute(70, 1050), minute(98, 1100)]
    assert last_by_second(Measurement("m", {}, minutes)) == {"throughput": 0.98, "resident memory": 1.1}
    assert last_by_second(Measurement("m", {}, minutes[:1])) == {}


def test_a_long_run_stops_if_the_rate_or_the_memory_is_too_high() -> None:
    plan = LongRun(memory_gib_max=1)
    assert stop_reason(minute(1, 900), plan) is None
    assert "over --memory-gib 1" in (stop_reason(minute(1, 1100), plan) or "")
    assert "lower --rate" in (stop_reason(minute(1, 1, "did not keep up: stopped"), plan) or "")


def test_a_long_run_has_minutes_to_compare() -> None:
    with pytest.raises(UsageError, match="--minutes must be between 3"):
        LongRun(minutes=2)
