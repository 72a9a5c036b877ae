"""What a trace stores about instances, how a request is found, and what is dropped."""

from collections.abc import Callable

import pytest

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.log.instance import Instance
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import InstanceId, ReplicaId, RequestId, request_at, request_id
from pydsm.core.types.messages import NOP, Batch, Footprint, Run
from pydsm.core.types.status import Status
from pydsm.runtime.traces import InstanceTrace, TraceLimits, Traces, show

SESSION = request_id(5000, ReplicaId(1), 7, 0)
NO_DEPS = (0, 0, 0)


def first(place: int) -> RequestId:
    return request_at(SESSION, place)


class Bench:
    def __init__(self, limits: TraceLimits | None = None) -> None:
        self.now = 100.0
        self.traces = Traces(limits, lambda: self.now)
        self.instances: dict[InstanceId, Instance] = {}

    def change(self, index: int, status: Status, change: Callable[[Instance], None] | None = None) -> Instance:
        """The instance reaches a status, a millisecond after the last event."""
        self.now += 0.001
        id = InstanceId(ReplicaId(1), index)
        instance = self.instances.setdefault(id, Instance(id, NO_DEPS))
        if change is not None:
            change(instance)
        instance.status = status
        self.traces.changed(instance)
        return instance

    def pre_accept(self, index: int, sequence: int, count: int = 1, *, writes: bytes = b"k") -> None:
        def take(instance: Instance) -> None:
            batch = Batch((Run(first(sequence), count),), (b"c",) * count, Footprint(writes=(writes,)), 6000)
            instance.value = instance.initial_batch = batch

        self.change(index, Status.PRE_ACCEPTED, take)

    def commit(self, index: int, change: Callable[[Instance], None] | None = None) -> None:
        self.change(index, Status.COMMITTED, change)
        self.change(index, Status.EXECUTED)

    def find(self, sequence: int) -> list[InstanceTrace]:
        return self.traces.find(first(sequence), DeclaredKeys())


def test_a_request_is_found_by_its_place_in_a_run() -> None:
    bench = Bench()
    bench.pre_accept(1, 5, count=3)
    bench.commit(1)
    assert [len(bench.find(sequence)) for sequence in (4, 5, 7, 8)] == [0, 1, 1, 0]
    (found,) = bench.find(7)
    assert (found.id, found.name, found.commands, found.proposed_ms) == ("1.1", show(first(5)), 3, 6000)


def test_stages_are_reported_relative_to_the_first_message() -> None:
    bench = Bench()
    bench.pre_accept(1, 1)
    bench.change(1, Status.ACCEPTED)
    bench.commit(1)
    (found,) = bench.find(1)
    assert found.stages_ms == {"pre-accepted": 0.0, "accepted": 1.0, "committed": 2.0, "executed": 3.0}
    assert found.status == "executed"


def voted(round: int) -> Callable[[Instance], None]:
    def vote(instance: Instance) -> None:
        instance.voted = Ballot(round, ReplicaId(1))

    return vote


def decided_nop(instance: Instance) -> None:
    instance.value = NOP


def other_deps(instance: Instance) -> None:
    instance.deps = (3, 0, 0)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (None, "fast"),
        (voted(0), "slow"),
        (voted(1), "recovered"),
        (decided_nop, "nop"),
        (other_deps, "slow or recovered, without this replica"),
    ],
)
def test_the_path_follows_from_the_vote_and_the_vector(change: Callable[[Instance], None] | None, path: str) -> None:
    bench = Bench()
    bench.pre_accept(1, 1)
    assert bench.find(1)[0].path == "undecided"
    bench.commit(1, change)
    assert bench.find(1)[0].path == path


def test_instances_of_one_request_are_listed_in_execution_order() -> None:
    bench = Bench()
    for index in (1, 2, 3):
        bench.pre_accept(index, 1)
    bench.commit(3)
    bench.commit(1)
    assert [found.id for found in bench.find(1)] == ["1.3", "1.1", "1.2"]


def test_only_stored_and_covered_conflicts_are_listed() -> None:
    bench = Bench()
    bench.pre_accept(1, 1)
    bench.pre_accept(2, 2, writes=b"other")
    bench.pre_accept(3, 3)

    def after_both(instance: Instance) -> None:
        instance.deps = (0, 2, 0)

    bench.commit(3, after_both)
    assert bench.find(3)[0].conflicts == ("1.1",)


def test_batches_are_stored_for_a_shorter_time() -> None:
    bench = Bench(TraceLimits(batches_bytes_max=100))
    bench.pre_accept(1, 1)
    assert bench.find(1)[0].conflicts == ()
    bench.pre_accept(2, 2)
    bench.pre_accept(3, 3)
    assert bench.find(1)[0].conflicts is None
    assert bench.find(3)[0].conflicts == ()


def test_the_oldest_instances_are_dropped_by_number_and_by_runs() -> None:
    by_number = Bench(TraceLimits(instances_max=2))
    by_runs = Bench(TraceLimits(runs_max=2))
    for bench in (by_number, by_runs):
        for index in (1, 2, 3):
            bench.pre_accept(index, index)
        assert [len(bench.find(sequence)) for sequence in (1, 2, 3)] == [0, 1, 1]
        assert bench.traces.remembered == 2
        assert bench.traces.remembered_seconds == pytest.approx(0.001)


def test_a_small_batch_is_dropped_with_its_instance() -> None:
    bench = Bench(TraceLimits(instances_max=2))
    for index in range(1, 6):
        bench.pre_accept(index, index)
    assert bench.traces.remembered == len(bench.traces._batches) == 2
    assert bench.traces._batches_bytes == sum(size for _, size in bench.traces._batches)
