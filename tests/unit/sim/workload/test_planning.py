import msgspec
import pytest

from pydsm.core.types.errors import UsageError
from pydsm.sim.base.plan import Crash, Cut, Plan, SlowLinks
from pydsm.sim.tools.search import group_size
from pydsm.sim.workload.adversary_planning import make_adversary
from pydsm.sim.workload.planner import KINDS
from pydsm.sim.workload.planning import make_pipelines, make_plan, parse_kinds
from pydsm.sim.workload.slow_worlds import make_slow


def test_a_seed_always_gives_the_same_plan() -> None:
    assert make_plan(7, 5) == make_plan(7, 5)
    assert make_plan(7, 5) != make_plan(8, 5)


def test_a_plan_can_be_saved_and_loaded() -> None:
    for seed in range(20):
        plan = make_plan(seed, 3, steps=500)
        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_faults_and_operations_come_in_order_of_time_within_the_group() -> None:
    for seed in range(20):
        plan = make_plan(seed, 5)
        for elements in (plan.faults, plan.operations):
            times = [element.at_us for element in elements]
            assert times == sorted(times)
        assert all(0 <= operation.replica < 5 for operation in plan.operations)
        for fault in plan.faults:
            if isinstance(fault, Cut | SlowLinks):
                assert all(0 <= one < 5 and 0 <= other < 5 and one != other for one, other in fault.links)


def test_only_the_faults_asked_for_are_planned() -> None:
    crashes = [fault for seed in range(10) for fault in make_plan(seed, 3, kinds=("crash",)).faults]
    assert crashes
    assert all(isinstance(fault, Crash) for fault in crashes)
    assert not any(make_plan(seed, 3, kinds=()).faults for seed in range(10))


def test_every_kind_of_fault_is_planned_by_some_seed() -> None:
    for kind in KINDS:
        plans = [make_plan(seed, 5, steps=500, kinds=(kind,)) for seed in range(10)]
        assert any(plan.faults or plan.settings.loss or plan.settings.duplication for plan in plans), kind


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_clients_wait_for_a_while_before_they_send_again(replicas: int) -> None:
    """Without a wait, a client that never gives up would retry endlessly at one virtual time."""
    for seed in range(200):
        plans = [make_plan(seed, replicas, 50), make_slow(seed, replicas, 50), make_pipelines(seed, replicas, 50)]
        if replicas > 1:
            plans.append(make_adversary(seed, replicas, 50))
        assert all(plan.settings.patience_us >= 10_000 for plan in plans)


def test_kinds_are_parsed_from_a_list() -> None:
    assert parse_kinds("loss, crash,loss") == ("loss", "crash")
    assert parse_kinds("all") == KINDS
    assert parse_kinds("none") == ()
    with pytest.raises(UsageError, match="'earthquake'"):
        parse_kinds("loss,earthquake")


@pytest.mark.parametrize(("replicas", "steps"), [(0, 100), (3, 0)])
def test_a_world_without_replicas_or_steps_is_refused(replicas: int, steps: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        make_plan(1, replicas, steps)


def test_sizes_are_mostly_three_five_and_seven_and_sometimes_others() -> None:
    sizes = [group_size(seed) for seed in range(400)]
    assert set(sizes) == {1, 2, 3, 4, 5, 6, 7, 9}
    assert sum(size in {3, 5, 7} for size in sizes) > 300
