"""Scenarios that once violated an invariant, or that reach rare states."""

import msgspec
import pytest

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.sim.base.plan import Crash, CrashInside, Pause, PowerCut
from tests.sim.stories import FOR_LONG, MS, ask, calm, cut, play, reached


def test_a_command_known_only_to_its_crashed_leader_is_decided_nop_at_its_restart() -> None:
    counts = play(calm(3), cut(0, [0], [1, 2]), ask(10, 0, "write k0 1"), Crash(30 * MS, 0, 500 * MS))
    assert reached(counts, Rule.LEADER_UNDECIDED) >= 1


def test_a_fast_commit_survives_the_crash_of_its_leader_right_after_it() -> None:
    for calls in range(1, 12):
        counts = play(calm(3), CrashInside(9 * MS, 0, calls, 1000 * MS), ask(10, 0, "write k0 1"))
        assert counts.crashes_inside == 1


def test_a_group_of_one_finishes_its_instances_after_a_crash() -> None:
    settings = msgspec.structs.replace(calm(1), sync_us=5000)
    play(settings, ask(10, 0, "write k0 1"), Crash(17 * MS, 0, 50 * MS), ask(100, 0, "read k0"))


def test_a_power_cut_loses_nothing_that_was_answered() -> None:
    story = [ask(10 + number, number % 3, f"add k0 {1 << number}") for number in range(30)]
    counts = play(calm(3), *story, PowerCut(45 * MS, (200 * MS, 10 * MS, 400 * MS)), ask(800, 2, "read k0"))
    assert counts.calls_done >= 10


def test_a_replica_that_was_paused_during_many_commits_catches_up() -> None:
    story = [ask(10 + 2 * number, number % 2, f"add k0 {1 << number}") for number in range(40)]
    counts = play(calm(3), Pause(5 * MS, 2, 1000 * MS, deaf=True), *story)
    assert counts.calls_done == 40 + 3


def test_a_minority_cut_off_for_the_whole_time_agrees_after_the_heal() -> None:
    story = [ask(10 + 3 * number, number % 5, f"write k{number % 3} {number}") for number in range(40)]
    counts = play(calm(5), cut(5, [0, 1], [2, 3, 4], FOR_LONG), cut(5, [2, 3, 4], [0, 1], FOR_LONG), *story)
    assert counts.calls_done >= 20


@pytest.mark.parametrize("replicas", [3, 5])
def test_leaders_that_die_and_come_back_never_use_an_index_twice(replicas: int) -> None:
    story = [ask(10 + 7 * number, 0, f"add k0 {number + 1}") for number in range(40)]
    crashes = [Crash((20 + 23 * number) * MS, 0, 9 * MS) for number in range(10)]
    counts = play(calm(replicas), *story, *crashes)
    assert counts.restarts >= 9
