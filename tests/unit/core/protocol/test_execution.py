"""The order in which committed instances are executed, what each one waits for, and what wakes it."""

from collections.abc import Callable

import pytest

from pydsm.core.log.conflicts import DeclaredKeys, NothingConflicts, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.protocol.execution import Execution
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.core.types.messages import NOP, Batch, Value
from pydsm.core.types.status import Status
from tests.unit.core.helpers import at, ballot, barrier, reading, writing

NONE: Deps = (0, 0, 0)
KEY = writing("key")
APART = writing("apart")


class Bench:
    """A log and its execution; `order` lists the executed instances."""

    backlog_instances_min = 256

    def __init__(self, relation: Relation | None = None) -> None:
        self.order: list[InstanceId] = []
        self.log = Log(3, relation or DeclaredKeys(), 10_000, self.backlog_instances_min)
        self.execution = Execution(self.log, lambda instance: self.order.append(instance.id))

    def commit(self, id: InstanceId, deps: Deps, value: Value = KEY) -> list[InstanceId]:
        """Decide an instance; returns the instances that are executed because of it."""
        instance = self.log.instance(id)
        self.log.commit(instance, value, deps)
        return self._new(lambda: self.execution.committed(instance))

    def pre_accept(self, id: InstanceId, batch: Batch = KEY, deps: Deps = NONE) -> list[InstanceId]:
        """Learn a batch from its leader."""
        self.log.pre_accept(self.log.instance(id), batch, deps, deps)
        return self._new(lambda: self.execution.wake(id))

    def accept(self, id: InstanceId, value: Value, round: int = 1) -> list[InstanceId]:
        """Vote."""
        self.log.accept(self.log.instance(id), ballot(round, 0), value, NONE)
        return self._new(lambda: self.execution.wake(id))

    def _new(self, event: Callable[[], None]) -> list[InstanceId]:
        before = len(self.order)
        event()
        return self.order[before:]


@pytest.fixture(params=[1, 256], ids=["by key", "compared"], autouse=True)
def ways_to_find_conflicts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule holds whether conflicts are found by key or by comparing each with each."""
    monkeypatch.setattr(Bench, "backlog_instances_min", request.param)


# Order


def test_an_instance_that_depends_on_nothing_runs_when_it_is_decided() -> None:
    assert Bench().commit(at(0, 1), NONE) == [at(0, 1)]


def test_a_conflicting_instance_is_executed_after_the_instances_it_covers() -> None:
    bench = Bench()
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1)]


def test_a_chain_runs_from_its_end_whatever_the_order_of_its_decisions() -> None:
    bench = Bench()
    assert bench.commit(at(2, 1), (1, 1, 0)) == []
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1), at(2, 1)]


def test_a_component_is_ordered_by_index_and_then_by_leader() -> None:
    bench = Bench()
    assert bench.commit(at(0, 2), (2, 1, 1)) == []
    assert bench.commit(at(2, 1), (2, 1, 1)) == []
    assert bench.commit(at(1, 1), (2, 1, 1)) == []
    assert bench.commit(at(0, 1), (2, 1, 1)) == [at(0, 1), at(1, 1), at(2, 1), at(0, 2)]


def test_a_component_runs_after_the_component_that_it_reaches() -> None:
    bench = Bench()
    bench.commit(at(0, 2), (2, 2, 0))  # 0.2 and 1.2 in a circle, after 0.1 and 1.1, in a circle
    bench.commit(at(1, 2), (2, 2, 0))
    assert bench.order == []
    bench.commit(at(1, 1), (1, 1, 0))
    assert bench.commit(at(0, 1), (1, 1, 0)) == [at(0, 1), at(1, 1), at(0, 2), at(1, 2)]


def test_a_longer_cycle_is_one_component() -> None:
    """2.1 → 1.1 → 0.1 → 2.1, and a second way from 1.1 into the circle."""
    bench = Bench()
    bench.commit(at(2, 1), (0, 1, 1))
    bench.commit(at(1, 1), (1, 1, 1))
    assert bench.commit(at(0, 1), (1, 0, 1)) == [at(0, 1), at(1, 1), at(2, 1)]


def test_a_component_that_reaches_an_undecided_instance_waits_and_its_own_dependencies_are_executed() -> None:
    bench = Bench()
    bench.pre_accept(at(2, 1))
    bench.commit(at(1, 1), (1, 1, 1))
    assert bench.commit(at(0, 1), NONE) == [at(0, 1)]
    assert bench.commit(at(2, 1), NONE) == [at(2, 1), at(1, 1)]


def test_an_instance_that_covers_itself_and_later_ones_of_its_leader_runs() -> None:
    bench = Bench()
    assert bench.commit(at(0, 1), (2, 0, 0)) == []
    assert bench.commit(at(0, 2), (1, 0, 0)) == [at(0, 1), at(0, 2)]


def test_two_readers_of_a_key_have_no_order() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), reading("key"))
    assert bench.commit(at(1, 1), (1, 0, 0), reading("key")) == [at(1, 1)]


def test_a_barrier_waits_for_everything_that_it_covers() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), APART)
    assert bench.commit(at(1, 1), (1, 0, 0), barrier()) == []
    assert bench.commit(at(0, 1), NONE, APART) == [at(0, 1), at(1, 1)]


def test_an_order_is_not_a_matter_of_recursion_depth() -> None:
    bench, length = Bench(), 5000
    for index in range(length, 1, -1):
        assert bench.commit(at(0, index), (index - 1, 0, 0)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, index) for index in range(1, length + 1)]


def test_a_large_component_is_executed_in_one_call() -> None:
    bench, length = Bench(), 200
    for index in range(1, length):
        assert bench.commit(at(0, index), (length, 0, 0)) == []
    assert bench.commit(at(0, length), (length, 0, 0)) == [at(0, index) for index in range(1, length + 1)]


# Instances that execution does not wait for


def test_a_covered_instance_that_is_known_not_to_conflict_is_not_waited_for() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), APART)
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]


def test_a_decided_one_that_does_not_conflict_makes_no_order() -> None:
    bench = Bench()
    bench.pre_accept(at(2, 1), APART)
    bench.commit(at(0, 1), (0, 0, 1), APART)
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]


def test_becoming_known_not_to_conflict_is_enough() -> None:
    bench = Bench()
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.pre_accept(at(0, 1), APART) == [at(1, 1)]


def test_becoming_known_to_conflict_is_not_enough() -> None:
    bench = Bench()
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.pre_accept(at(0, 1)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1)]


def test_a_nop_is_executed_immediately_and_orders_nothing() -> None:
    bench = Bench()
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.commit(at(0, 1), (0, 0, 9), NOP) == [at(0, 1), at(1, 1)]
    assert bench.log.instance(at(0, 1)).status is Status.EXECUTED


def test_a_nop_not_yet_reached_by_a_restart_orders_nothing() -> None:
    bench = Bench()
    nop = Instance(at(0, 1), NONE)
    nop.status, nop.value = Status.COMMITTED, NOP
    bench.log.restore(nop)
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]


def test_execution_waits_for_an_accepted_nop_because_its_batch_may_be_restored() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1))
    bench.accept(at(0, 1), NOP)
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1)]


def test_an_accepted_nop_whose_batch_does_not_conflict_is_not_waited_for() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), APART)
    bench.accept(at(0, 1), NOP)
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]


def test_an_accepted_nop_of_which_no_batch_is_known_is_waited_for() -> None:
    bench = Bench()
    bench.accept(at(0, 1), APART)
    bench.accept(at(0, 1), NOP, round=2)
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.execution.blocker(at(1, 1)) == at(0, 1)
    assert bench.commit(at(0, 1), NONE, NOP) == [at(0, 1), at(1, 1)]


def test_a_relation_without_conflicts_waits_only_for_batches_to_be_known() -> None:
    bench = Bench(NothingConflicts())
    assert bench.commit(at(1, 1), (2, 0, 0)) == []
    assert bench.pre_accept(at(0, 2)) == []
    assert bench.pre_accept(at(0, 1)) == [at(1, 1)]


def with_snapshot(barrier: InstanceId) -> Bench:
    """A replica that began with the snapshot of a peer that contains this barrier and no covered instance."""
    bench = Bench()
    bench.log.begin_at(Checkpoint(4, barrier, Position(NONE, (barrier,)), NONE, 7), NONE, (barrier,))
    return bench


def test_execution_does_not_wait_for_instances_of_a_snapshot() -> None:
    bench = with_snapshot(at(0, 1))
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]


def test_an_instance_before_those_of_a_snapshot_wakes_the_instance_that_covers_both() -> None:
    bench = with_snapshot(at(0, 2))
    assert bench.commit(at(1, 1), (2, 0, 0)) == []
    assert bench.execution.blocker(at(1, 1)) == at(0, 1)
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1)]


def test_an_instance_after_those_of_a_snapshot_wakes_the_instance_that_covers_all() -> None:
    bench = with_snapshot(at(0, 2))
    assert bench.commit(at(1, 1), (3, 0, 0)) == []
    assert bench.pre_accept(at(0, 1), APART) == []
    assert bench.execution.blocker(at(1, 1)) == at(0, 3)
    assert bench.pre_accept(at(0, 3), APART) == [at(1, 1)]


# Blocking and waking


def test_the_blocker_is_the_first_instance_of_a_leader_whose_batch_is_unknown() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), APART)
    bench.commit(at(1, 1), (4, 0, 0))
    assert bench.execution.blocker(at(1, 1)) == at(0, 2)
    bench.pre_accept(at(0, 3), APART)
    bench.pre_accept(at(0, 2), APART)
    assert bench.execution.blocker(at(1, 1)) == at(0, 4)


def test_the_blocker_is_the_open_conflicting_instance_once_all_batches_are_known() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1), APART)
    bench.pre_accept(at(0, 2))
    bench.commit(at(1, 1), (2, 0, 0))
    assert bench.execution.blocker(at(1, 1)) == at(0, 2)


def test_executed_and_undecided_instances_have_no_blocker() -> None:
    bench = Bench()
    bench.commit(at(1, 1), (1, 0, 0))
    bench.commit(at(0, 1), NONE)
    assert bench.execution.blocker(at(1, 1)) is None
    assert bench.execution.blocker(at(2, 5)) is None


def test_an_instance_that_reaches_a_waiting_one_waits_for_the_same_instance() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1))
    bench.commit(at(1, 1), (1, 0, 0))
    bench.commit(at(2, 1), (0, 1, 0))
    assert bench.execution.blocker(at(2, 1)) == at(0, 1)
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1), at(2, 1)]


def test_an_instance_blocked_again_by_the_next_one_is_woken_again() -> None:
    bench = Bench()
    bench.pre_accept(at(0, 1))
    bench.pre_accept(at(0, 2))
    bench.commit(at(1, 1), (2, 0, 0))
    assert bench.commit(at(0, 1), NONE) == [at(0, 1)]
    assert bench.execution.blocker(at(1, 1)) == at(0, 2)
    assert bench.commit(at(0, 2), (1, 0, 0)) == [at(0, 2), at(1, 1)]


def test_waking_an_instance_without_waiters_changes_nothing() -> None:
    bench = Bench()
    bench.commit(at(1, 1), (2, 0, 0))
    bench.execution.wake(at(0, 2))
    bench.execution.wake(at(2, 7))
    assert bench.order == []


def test_a_waiter_that_another_waiter_took_along_is_not_run_again() -> None:
    """1.1 and 2.1 in a circle, both waiting for 0.1: woken together, run once."""
    bench = Bench()
    bench.pre_accept(at(0, 1))
    bench.commit(at(1, 1), (1, 1, 1))
    bench.commit(at(2, 1), (1, 1, 1))
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1), at(2, 1)]


def test_the_decision_that_closes_a_circle_wakes_those_that_wait_for_it() -> None:
    bench = Bench()
    bench.commit(at(1, 1), (1, 1, 0))
    assert bench.execution.blocker(at(1, 1)) == at(0, 1)
    assert bench.commit(at(0, 1), (1, 1, 0)) == [at(0, 1), at(1, 1)]


def test_one_that_waits_for_a_later_index_is_not_woken_by_an_earlier_one() -> None:
    bench = Bench()
    bench.commit(at(1, 1), (3, 0, 0))
    bench.commit(at(2, 1), (1, 0, 0), writing("other"))
    assert bench.pre_accept(at(0, 1), APART) == [at(2, 1)]
    assert bench.pre_accept(at(0, 2), APART) == []
    assert bench.pre_accept(at(0, 3), APART) == [at(1, 1)]


def test_a_decision_in_a_gap_that_covers_instances_after_the_gap_wakes_later_ones() -> None:
    """Running 0.1 sees that 0.1 to 0.3 are known, before the wait of 1.1 for 0.3 was looked at."""
    bench = Bench()
    bench.pre_accept(at(0, 2), APART)
    bench.pre_accept(at(0, 3), APART)
    bench.commit(at(1, 1), (3, 0, 0))
    assert bench.commit(at(0, 1), (3, 0, 0)) == [at(0, 1), at(1, 1)]


def test_an_executed_barrier_is_the_floor_of_later_vectors() -> None:
    bench = Bench()
    for index in (1, 2):
        bench.commit(at(0, index), NONE, APART)
    bench.commit(at(1, 1), (2, 0, 0), barrier())
    assert bench.log.conflicts(writing("elsewhere")) == (2, 1, 0)


def test_a_long_executed_history_is_not_looked_at_again() -> None:
    """Each of many later instances covers all of it; only the newest few may be compared."""
    compared: list[int] = []

    class Counting(DeclaredKeys):
        def conflict(self, left: Batch, right: Batch) -> bool:
            compared.append(1)
            return super().conflict(left, right)

    bench = Bench(Counting())
    for index in range(1, 1001):
        bench.commit(at(0, index), NONE, APART)
    for index in range(1, 101):
        assert bench.commit(at(1, index), (1000, index - 1, 0)) == [at(1, index)]
    assert compared == []


@pytest.mark.parametrize("leaders", [(0, 1, 2), (2, 1, 0)])
def test_work_that_does_not_conflict_leaves_nothing_behind(leaders: tuple[int, ...]) -> None:
    bench = Bench()
    for index in range(1, 50):
        for leader in leaders:
            bench.commit(at(leader, index), NONE, writing(f"{leader}.{index}"))
    assert bench.log.frontier == (49, 49, 49)
    assert all(not unexecuted for unexecuted in bench.log.unexecuted)


def test_a_nop_that_hides_a_known_batch_still_blocks_instances_that_cover_it() -> None:
    bench = Bench()
    bench.accept(at(0, 1), KEY)
    bench.accept(at(0, 1), NOP, round=2)
    assert bench.commit(at(1, 1), (1, 0, 0)) == []
    assert bench.commit(at(0, 1), NONE) == [at(0, 1), at(1, 1)]


def test_a_batch_received_again_after_a_nop_is_found_again() -> None:
    bench = Bench()
    bench.accept(at(0, 1), KEY)
    bench.accept(at(0, 1), NOP, round=2)
    bench.accept(at(0, 1), APART, round=3)
    assert bench.commit(at(1, 1), (1, 0, 0)) == [at(1, 1)]
    assert bench.commit(at(2, 1), (1, 0, 0), APART) == []
    assert bench.commit(at(0, 1), NONE, APART) == [at(0, 1), at(2, 1)]
