from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.steady_state import SteadyStatePlan, directory_bytes, grown, minutes_of
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.core.types.errors import UsageError


def run(resident: float = 60.0, data: float = 20.0, p99: float = 5.0, rate: float = 500.0) -> BenchmarkRun:
    figures = {"replica_1_resident_mib": resident, "replica_1_data_mib": data, "p99_ms": p99}
    return BenchmarkRun({**figures, "commands_per_second": rate})


def minutes(*runs: BenchmarkRun) -> list[Sequence[BenchmarkRun]]:
    return [[each] * 6 for each in runs]


def test_equal_minutes_show_no_growth() -> None:
    assert grown(minutes(run(resident=10), run(), run(), run())) == []


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (run(resident=90), "resident"),
        (run(data=50), "data"),
        (run(p99=500), "p99"),
        (run(rate=400), "throughput"),
    ],
)
def test_growth_from_the_third_to_the_last_minute_is_named(last: BenchmarkRun, word: str) -> None:
    (said,) = grown(minutes(run(), run(), run(), run(), last))
    assert said.startswith(word)


def test_the_minutes_before_the_third_do_not_count() -> None:
    assert grown(minutes(run(resident=10), run(resident=20), run(), run())) == []


def test_an_incomplete_minute_is_ignored() -> None:
    measurement = Measurement("m", {}, [run()] * 15)
    assert [len(each) for each in minutes_of(measurement)] == [6, 6]


def test_one_minute_cannot_be_compared() -> None:
    assert grown(minutes(run())) == ["there are no two whole minutes to compare"]


def test_a_directory_has_the_bytes_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b").write_bytes(b"4567")
    assert directory_bytes(tmp_path) == 7


def test_a_run_that_is_too_short_is_refused() -> None:
    with pytest.raises(UsageError):
        SteadyStatePlan(minutes=1)
