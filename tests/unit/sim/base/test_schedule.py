"""Virtual time: the order of events, and endless loops."""

import pytest

from pydsm.sim.base.schedule import STEPS_AT_ONE_TIME_MAX, EventSchedule
from pydsm.sim.base.violation import Violation


def test_events_run_in_the_order_of_their_times_and_then_as_they_were_scheduled() -> None:
    schedule, ran = EventSchedule(), list[tuple[int, str]]()
    for delay_us, name in ((5, "b"), (3, "a"), (5, "c")):
        schedule.after(delay_us, lambda name: ran.append((schedule.now, name)), name)
    while schedule:
        schedule.step()
    assert ran == [(3, "a"), (5, "b"), (5, "c")]


def test_events_that_schedule_others_at_the_same_time_for_ever_end_the_run() -> None:
    schedule = EventSchedule()

    def again() -> None:
        schedule.after(0, again)

    schedule.after(7, again)
    for _ in range(STEPS_AT_ONE_TIME_MAX + 1):
        schedule.step()
    with pytest.raises(Violation, match="events at 7 us, without an end"):
        schedule.step()
