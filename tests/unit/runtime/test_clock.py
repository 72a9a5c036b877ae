"""The time of the group at one replica, and its report about its own clock."""

import logging

import pytest

from pydsm.core.clocks.agreed_time import TimeLimits
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId, Tick
from pydsm.runtime.clock import GroupClock

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class Bench:
    def __init__(self, replicas: int = 3) -> None:
        self.now = Tick(0)
        self.off_ms = 0
        self.sessions = Sessions()
        self.clock = GroupClock(
            ReplicaId(0), replicas, self.sessions, lambda: self.now, lambda: NOW_MS + self.now + self.off_ms, 1000
        )

    def record(self, *peers: int, off_ms: int = 0) -> None:
        for peer in peers:
            self.clock.record(ReplicaId(peer), NOW_MS + self.now + off_ms)

    def wait(self, ticks: int) -> None:
        self.now = Tick(self.now + ticks)

    def checkpoint(self) -> None:
        """Execute a checkpoint with the current readings."""
        self.sessions.expire(self.clock.for_checkpoint()[1])


def test_a_group_of_one_uses_its_own_clock() -> None:
    bench = Bench(1)
    bench.checkpoint()
    assert bench.clock.batch_ms() == NOW_MS


def test_nothing_is_stamped_before_a_majority_of_the_clocks_is_known() -> None:
    bench = Bench()
    bench.sessions.expire([NOW_MS - 60_000] * 3)
    assert bench.clock.batch_ms() is None
    bench.record(2)
    assert bench.clock.batch_ms() == NOW_MS


def test_before_agreed_time_is_set_there_are_no_timestamps_and_a_checkpoint_is_due() -> None:
    bench = Bench()
    assert not bench.clock.checkpoint_is_due()
    bench.record(1)
    assert bench.clock.batch_ms() is None
    assert bench.clock.checkpoint_is_due()
    bench.checkpoint()
    assert bench.clock.batch_ms() == NOW_MS
    assert not bench.clock.checkpoint_is_due()


@pytest.mark.parametrize("off_ms", [HOUR_MS, -HOUR_MS, 50 * HOUR_MS])
def test_a_wrong_own_clock_stamps_nothing(off_ms: int) -> None:
    bench = Bench()
    bench.off_ms = off_ms
    bench.record(1, 2)
    bench.checkpoint()
    assert bench.clock.batch_ms() == bench.clock.session_ms() == NOW_MS
    assert bench.clock.for_checkpoint() == (NOW_MS, (NOW_MS + off_ms, NOW_MS, NOW_MS))


def test_a_new_group_with_contradictory_clocks_waits_for_a_third_one_and_reports_it() -> None:
    bench = Bench()
    bench.record(1, off_ms=-5 * HOUR_MS)
    bench.checkpoint()
    assert bench.clock.batch_ms() is None
    assert not bench.clock.checkpoint_is_due()
    fault = bench.clock.report().fault
    assert fault is not None
    assert "the clocks that are known contradict each other" in fault
    assert "-18000.0 s at replica 1" in fault
    bench.record(2)
    assert bench.clock.report().fault is None
    bench.checkpoint()
    assert bench.clock.batch_ms() == NOW_MS


def test_nothing_is_stamped_while_agreed_time_is_far_behind() -> None:
    bench = Bench()
    bench.record(1, 2)
    bench.sessions.expire([NOW_MS - 60 * HOUR_MS])
    assert bench.clock.batch_ms() is None
    assert bench.clock.checkpoint_is_due()
    while bench.clock.checkpoint_is_due():
        bench.sessions.expire(bench.clock.for_checkpoint()[1])
    assert bench.clock.batch_ms() == NOW_MS


def test_sessions_begin_later_than_all_expired_ones() -> None:
    bench = Bench()
    bench.record(1, 2)
    bench.sessions._expired_ms = NOW_MS + HOUR_MS
    assert bench.clock.session_ms() == NOW_MS + HOUR_MS + 1


@pytest.mark.parametrize(("off_ms", "word"), [(5000, "5.0 s ahead of"), (-HOUR_MS, "3600.0 s behind")])
def test_a_clock_that_differs_too_much_is_a_fault_with_both_times_and_those_of_the_others(
    off_ms: int, word: str
) -> None:
    bench = Bench()
    bench.record(1, 2)
    assert bench.clock.report().fault is None
    bench.off_ms = off_ms
    fault = bench.clock.report().fault
    assert fault is not None
    assert word in fault
    assert "2023-11-14T22:13:20.000+00:00" in fault
    assert f"{-off_ms / 1000:+.1f} s at replica 1, {-off_ms / 1000:+.1f} s at replica 2" in fault
    bench.off_ms = 999
    assert bench.clock.report().fault is None


def test_a_wrong_clock_is_logged_immediately_and_every_minute_and_when_it_is_right_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pydsm.clock")
    bench = Bench()
    bench.off_ms = HOUR_MS
    for _ in range(1210):
        bench.record(1, 2)
        bench.clock.check()
        bench.wait(100)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    bench.off_ms = 0
    for _ in range(20):
        bench.record(1, 2)
        bench.clock.check()
        bench.wait(100)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3 + ["INFO"]


def test_agreed_time_is_reported() -> None:
    bench = Bench()
    bench.record(1)
    bench.sessions.expire([NOW_MS - TimeLimits().lag_ms_max])
    report = bench.clock.report()
    assert (report.agreed_ms, report.group_ms) == (NOW_MS - TimeLimits().lag_ms_max, NOW_MS)
    assert report.differences_ms == {1: 0}


def test_a_limit_that_cannot_work_is_refused() -> None:
    with pytest.raises(UsageError, match="above 0"):
        GroupClock(ReplicaId(0), 1, Sessions(), lambda: Tick(0), difference_ms_max=0)
