"""The generated requests."""

import pytest

from pydsm.bench.workload import BenchmarkWorkload
from pydsm.core.types.errors import UsageError
from pydsm.machines.kv import KeyValue, encode


def test_without_conflicts_every_request_writes_a_different_key() -> None:
    requests = BenchmarkWorkload().requests(100, seed=1)
    footprints = {KeyValue().footprint((request,)).writes for request in requests}
    assert len(footprints) == 100


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    workload = BenchmarkWorkload(conflict=0.5, reads=0.5)
    assert workload.requests(50, seed=3) == workload.requests(50, seed=3)
    assert workload.requests(50, seed=3) != workload.requests(50, seed=4)


def test_all_conflicts_are_on_one_key() -> None:
    assert len(set(BenchmarkWorkload(conflict=1).requests(50, seed=1))) == 1


def test_reads_read() -> None:
    requests = BenchmarkWorkload(reads=1).requests(2, seed=1)
    assert requests == [encode((b"GET", b"00000000")), encode((b"GET", b"00000001"))]


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_values_have_the_requested_size(size: int) -> None:
    (request,) = BenchmarkWorkload(value_bytes=size).requests(1, seed=7)
    (other,) = BenchmarkWorkload(value_bytes=size + 8).requests(1, seed=7)
    assert size <= len(request) < len(other)


def test_keys_are_limited_or_numbered_from_a_given_one() -> None:
    assert len(set(BenchmarkWorkload(keys=3).requests(9, seed=1))) == 3
    assert not set(BenchmarkWorkload().requests(5, seed=1)) & set(BenchmarkWorkload().requests(5, seed=1, first=5))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conflict": 1.1}, "share of conflicts must be between 0 and 1"),
        ({"reads": -1}, "share of reads must be between 0 and 1"),
        ({"value_bytes": 0}, "values must have between 1 and"),
        ({"keys": -1}, "there may be up to"),
    ],
)
def test_invalid_workloads_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        BenchmarkWorkload(**changes)  # type: ignore[arg-type]
