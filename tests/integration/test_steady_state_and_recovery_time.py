"""Short runs of the two measurements with real processes: they test the reports, not the figures."""

from collections.abc import Callable, Sequence

import pytest

from benchmarks import recovery_time, steady_state
from benchmarks.recovery_time import RecoveryPlan, measure_recovery
from benchmarks.steady_state import SteadyStatePlan, measure_steady_state


async def test_a_steady_state_run_reports_memory_data_and_checkpoints() -> None:
    plan = SteadyStatePlan(minutes=2, rate=100, checkpoint_instances=10, minute_seconds=3.0)
    said: list[str] = []
    measurement = await measure_steady_state(plan, said.append)
    last = measurement.runs[-1].figures
    assert len(measurement.runs) == 12
    assert len(said) == 2
    assert last["snapshots"] > 1
    assert all(last[f"replica_{place}_data_mib"] > 0 for place in (1, 2, 3))


async def test_a_recovery_run_reports_when_the_replica_serves_again_and_its_log() -> None:
    plan = RecoveryPlan(down_minutes=0.03, rate=100, before_seconds=1.0, checkpoint_instances=20)
    measurement, lines = await measure_recovery(plan, lambda _: None)
    back = measurement.runs[-1].figures
    assert 0 < back["listens_seconds"] <= back["ready_seconds"] <= back["caught_up_seconds"]
    assert back["missed_instances"] > 0
    assert any("its status now: ready" in line for line in lines)


@pytest.mark.parametrize(
    ("main", "wrong"),
    [
        (steady_state.main, ["--minutes", "1"]),
        (recovery_time.main, ["--down-minutes", "0"]),
        (recovery_time.main, ["--replicas", "2"]),
    ],
)
def test_wrong_usage_is_one_line(
    main: Callable[[Sequence[str]], int], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(wrong) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
