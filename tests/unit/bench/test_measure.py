"""The figures and notes of a run."""

import pytest

from pydsm.bench.loads import Closed, FixedRate, Flood, Load, LoadResult, lanes
from pydsm.bench.measure import BenchmarkPlan, Usage, figures_of_run, name_of
from pydsm.bench.target import Target
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.client import NoReplicaReachable
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.machines.base import CommandFailed
from pydsm.transport.address import Address

IDLE = Usage(seconds=2.0, generator=0.2, replicas=0.6, others=0.0, resident=[1 << 20, 2 << 20])


def result(answered: int = 1000, failed: int = 0, unsent: int = 0) -> LoadResult:
    made = LoadResult(answered=answered, seconds=2.0, failed=failed, unsent=unsent)
    made.latencies.add(0.001, answered)
    made.lateness.add(0.0001)
    return made


def test_figures_are_by_command_and_by_second() -> None:
    figures = figures_of_run(result(), IDLE, {"fast": 30, "slow": 10}, FixedRate(500, 2)).figures
    assert figures["commands_per_second"] == 500
    assert figures["replicas_us_per_command"] == pytest.approx(600)
    assert figures["generator_us_per_command"] == pytest.approx(200)
    assert figures["generator_cores"] == pytest.approx(0.1)
    assert figures["resident_mib_max"] == 2
    assert (figures["fast_share"], figures["commands_per_instance"]) == (0.75, 25)
    assert figures["p50_ms"] == pytest.approx(1.0, rel=0.01)


def test_figures_that_a_remote_group_does_not_provide_are_omitted() -> None:
    figures = figures_of_run(result(), Usage(2.0, 0.2, None, None, []), {}, Flood(1000)).figures
    assert not {"replicas_cores", "other_cores", "fast_share", "resident_mib_max"} & set(figures)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        (Usage(2.0, 1.9, 0.1, 0.0, []), "limited by the load generator"),
        (Usage(2.0, 1.0, 999.0, 0.0, []), "replicas and load generator used all"),
        (Usage(2.0, 0.2, 0.1, 1.0, []), "other programs were at work"),
    ],
)
def test_a_run_that_was_limited_by_something_else_has_a_note(costs: Usage, said: str) -> None:
    assert any(said in note for note in figures_of_run(result(), costs, {}, Flood(1000)).notes)


def test_a_quiet_run_has_no_notes() -> None:
    assert figures_of_run(result(), IDLE, {}, FixedRate(500, 2)).notes == []


def test_failed_and_unsent_requests_are_noted() -> None:
    failed, behind = figures_of_run(result(failed=3, unsent=7), IDLE, {}, FixedRate(500, 2)).notes
    assert failed.startswith("3 requests FAILED")
    assert behind.startswith("did not keep up: stopped with 7 requests not sent")


def test_a_large_delay_of_the_load_generator_is_noted() -> None:
    late = result()
    late.lateness.add(0.0009, times=10)
    (note,) = figures_of_run(late, IDLE, {}, FixedRate(500, 2)).notes
    assert "a delay of the load generator itself" in note


def test_a_run_without_answers_fails() -> None:
    with pytest.raises(OperationalError, match="no request was answered"):
        figures_of_run(LoadResult(), IDLE, {}, Flood(10))


def test_outcomes_without_a_result_are_not_counted_as_answers() -> None:
    made = LoadResult()
    made.take(["OK", b"value", None])
    made.take(["OK", CommandFailed("wrong"), NoReplicaReachable("gone")])
    assert (made.answered, made.failed, made.example) == (4, 2, "CommandFailed: wrong")


@pytest.mark.parametrize(("pipeline", "parts"), [(1, [1]), (8, [1] * 8), (10, [2, 2] + [1] * 6), (1000, [125] * 8)])
def test_a_client_divides_its_requests_in_flight_among_lanes(pipeline: int, parts: list[int]) -> None:
    assert lanes(pipeline) == parts


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (Flood(1000), "3 replicas, memory, flood of 1,000"),
        (FixedRate(2000, 1), "3 replicas, memory, 2,000/s"),
        (Closed(10, 4, 1), "3 replicas, memory, 10 clients x 4"),
    ],
)
def test_measurements_are_named_by_the_settings_in_which_they_differ(load: Load, name: str) -> None:
    target = Target([Address("h", 1)], setting={"replicas": 3, "storage": "memory", "thrifty": False})
    assert name_of(target, BenchmarkPlan(load)) == name
    busy = BenchmarkWorkload(conflict=0.02, reads=0.5, value_bytes=100, keys=1000)
    assert (
        name_of(target, BenchmarkPlan(load, busy)) == f"{name}, 2 % on one key, 50 % reads, 100 byte values, 1,000 keys"
    )


def test_invalid_loads_are_refused() -> None:
    for make in (lambda: Flood(0), lambda: Closed(0, 1, 1), lambda: Closed(1, 0, 1), lambda: Closed(1, 1, 0)):
        with pytest.raises(UsageError):
            make()
