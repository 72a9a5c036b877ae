"""Which readings of its peers' clocks a replica uses."""

from pydsm.core.clocks.clock_readings import Clocks
from pydsm.core.types.ids import ReplicaId, Tick

ME, ONE, TWO = map(ReplicaId, range(3))
NOW_MS = 1_700_000_000_000


def clocks() -> Clocks:
    return Clocks(ME, 3)


def test_a_reading_ages_with_the_monotonic_clock() -> None:
    one = clocks()
    one.record(ONE, NOW_MS, Tick(100))
    assert one.readings(5, Tick(350)) == (5, NOW_MS + 250, 0)


def test_an_absent_reading_and_an_own_one_are_ignored() -> None:
    one = clocks()
    one.record(ONE, 0, Tick(100))
    one.record(ME, NOW_MS, Tick(100))
    assert one.readings(5, Tick(100)) == (5, 0, 0)


def test_the_reading_that_was_delayed_least_is_used() -> None:
    one = clocks()
    one.record(ONE, NOW_MS, Tick(0))
    one.record(ONE, NOW_MS + 1000 - 700, Tick(1000))
    one.record(ONE, NOW_MS, Tick(1001))
    assert one.readings(5, Tick(2000)) == (5, NOW_MS + 2000, 0)


def test_a_clock_that_is_set_back_shows_after_a_few_seconds() -> None:
    one = clocks()
    one.record(ONE, NOW_MS + 3_600_000, Tick(0))
    for second in range(1, 7):
        one.record(ONE, NOW_MS + 1000 * second, Tick(1000 * second))
    assert one.readings(5, Tick(6000)) == (5, NOW_MS + 6000, 0)


def test_a_member_without_recent_readings_is_not_counted() -> None:
    one = clocks()
    one.record(ONE, NOW_MS, Tick(0))
    one.record(TWO, NOW_MS, Tick(10_000))
    assert one.readings(5, Tick(30_001)) == (5, 0, NOW_MS + 20_001)


def test_readings_are_discarded_after_a_suspension_of_the_computer() -> None:
    """Its monotonic clock stood still: earlier readings would make the others' clocks look late."""
    one = clocks()
    one.record(ONE, NOW_MS, Tick(0))
    one.update(NOW_MS, Tick(0))
    one.update(NOW_MS + 10, Tick(10))
    assert one.readings(5, Tick(10))[ONE]
    one.update(NOW_MS + 3_600_000, Tick(20))
    assert not one.readings(5, Tick(20))[ONE]


def test_an_own_clock_that_jumps_does_not_hide_the_others() -> None:
    one = clocks()
    one.update(NOW_MS, Tick(0))
    one.update(NOW_MS + 5000, Tick(5))
    one.record(ONE, NOW_MS, Tick(10))
    for now in range(15, 1000, 5):
        one.update(NOW_MS + (now % 2) * 10_000, Tick(now))
    assert one.readings(5, Tick(1000))[ONE]
