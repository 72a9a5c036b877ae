"""Wrong wall clocks in the simulator, in ordinary seeds and in scenarios."""

from collections.abc import Sequence

import msgspec
import pytest

from pydsm.core.types.quorums import quorums
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.plan import ClockJump, Crash, Fault, Operation
from pydsm.sim.tools.search import Search
from pydsm.sim.workload.planner import KINDS
from pydsm.sim.workload.planning import make_lagging_members, make_plan
from tests.sim.stories import MS, ask, calm, cut, play

HOUR_MS = 3_600_000


def wrong(plan_faults: Sequence[Fault]) -> set[int]:
    return {fault.replica for fault in plan_faults if isinstance(fault, ClockJump)}


def story(replicas: int, *more: Fault | Operation) -> Counts:
    """A scenario of one second with frequent checkpoints, and sessions that may be idle for half a second."""
    settings = msgspec.structs.replace(
        calm(replicas),
        checkpoint_instances=3,
        checkpoint_turn_ticks=5,
        session_idle_ms_max=500,
        time_lag_ms=200,
        time_advance_ms=400,
        time_distance_ms=2000,
    )
    asked = [
        Operation((10 + 8 * number) * MS, number % 6, number % replicas, b"add k%d 1" % (number % 2))
        for number in range(110)
    ]
    return play(settings, *asked, *more)


def test_ordinary_seeds_have_wrong_clocks_and_never_more_than_f() -> None:
    for make in (make_plan, make_lagging_members):
        for replicas in (3, 5, 7):
            plans = [make(seed, replicas, 4000) for seed in range(25)]
            counts = [len(wrong(plan.faults)) for plan in plans]
            assert sum(map(bool, counts)) >= 4
            assert max(counts) == quorums(replicas).f
    assert not any(wrong(make_plan(seed, 2, 4000).faults) for seed in range(40))


def test_wrong_clocks_do_not_change_the_rest_of_a_plan() -> None:
    for seed in range(20):
        usual = make_plan(seed, 3, 4000)
        without = make_plan(seed, 3, 4000, [kind for kind in KINDS if kind != "wall-clock"])
        assert usual.operations == without.operations
        assert tuple(fault for fault in usual.faults if not isinstance(fault, ClockJump)) == without.faults


def test_seeds_with_wrong_clocks_still_advance_agreed_time_and_expire_sessions() -> None:
    totals = Counts()
    for seed in range(40):
        run = Search(replicas=3, steps=4000).play(make_plan(seed, 3, 4000))
        if wrong(run.plan.faults):
            assert run.finding is None
            totals.add(run.counts)
    assert min(totals.clock_jumps, totals.checkpoints, totals.sessions_expired) > 20


@pytest.mark.parametrize("offset_ms", [5 * HOUR_MS, -5 * HOUR_MS])
@pytest.mark.parametrize("replicas", [3, 5])
def test_one_clock_that_is_hours_off_has_no_effect(replicas: int, offset_ms: int) -> None:
    counts = story(replicas, ClockJump(0, 1, offset_ms))
    assert counts.checkpoints > 20 * replicas
    assert counts.calls_done == counts.calls


def test_a_clock_that_jumps_there_and_back_and_drifts_has_no_effect() -> None:
    jumps = [ClockJump(number * 90 * MS, 2, (-1) ** number * number * HOUR_MS, 2.0) for number in range(10)]
    counts = story(3, *jumps)
    assert counts.clock_jumps == 10
    assert counts.calls_done == counts.calls


def test_two_wrong_clocks_of_five_and_two_that_crash_leave_time_to_agreed_time() -> None:
    """More than f are down or wrong: of the three remaining clocks, agreed time follows the right one."""
    counts = story(
        5,
        ClockJump(300 * MS, 0, 7 * HOUR_MS),
        ClockJump(300 * MS, 1, -7 * HOUR_MS),
        Crash(500 * MS, 3, 200 * MS),
        Crash(520 * MS, 4, 200 * MS),
    )
    assert counts.restarts == 2


def test_a_group_without_checkpoints_for_long_catches_up() -> None:
    """Two cuts leave no majority for longer than batches may be ahead of agreed time."""
    settings = msgspec.structs.replace(
        calm(3),
        checkpoint_instances=3,
        checkpoint_turn_ticks=5,
        time_lag_ms=100,
        time_advance_ms=50,
        time_distance_ms=200,
    )
    asked = [ask(10 + number, number % 3, f"write k0 {number}") for number in range(40)]
    later = [ask(900 + number, number % 3, f"write k0 {number}") for number in range(20)]
    counts = play(settings, *asked, cut(100, [0, 1, 2], [0, 1, 2], 700 * MS), ClockJump(0, 1, HOUR_MS), *later)
    assert counts.calls_done == counts.calls
    assert counts.checkpoints > 20
