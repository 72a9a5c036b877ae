"""The times at which requests of an open loop are due."""

import asyncio
import time

import pytest

from pydsm.bench.pace import ArrivalSchedule, Ticker
from pydsm.core.types.errors import UsageError


def test_requests_are_due_at_even_intervals_from_the_start() -> None:
    schedule = ArrivalSchedule(per_second=4, seconds=2)
    assert schedule.requests == 8
    assert [schedule.due_at(number) for number in range(4)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("seconds", "due"), [(-0.1, 0), (0, 1), (0.24, 1), (0.25, 2), (1.0, 5), (100, 8)])
def test_the_number_of_due_requests_depends_only_on_the_clock(seconds: float, due: int) -> None:
    assert ArrivalSchedule(per_second=4, seconds=2).due_by(seconds) == due


def test_each_request_is_due_at_its_time_and_not_before() -> None:
    schedule = ArrivalSchedule(per_second=999, seconds=3)
    assert all(schedule.due_by(schedule.due_at(number)) == number + 1 for number in range(schedule.requests))


def test_ticks_come_for_each_request_up_to_a_limit() -> None:
    assert ArrivalSchedule(100, 1).tick_seconds == 0.01
    assert ArrivalSchedule(1_000_000, 1).tick_seconds == 0.0005


@pytest.mark.parametrize(("per_second", "seconds"), [(0, 1), (-1, 1), (10, 0)])
def test_an_invalid_rate_is_refused(per_second: float, seconds: float) -> None:
    with pytest.raises(UsageError, match="must be above 0"):
        ArrivalSchedule(per_second, seconds)


async def test_ticker_wakes_the_loop_until_it_is_closed() -> None:
    ticks, enough = [0], asyncio.Event()

    def tick() -> None:
        ticks[0] += 1
        if ticks[0] == 3:
            enough.set()

    ticker = Ticker(time.perf_counter(), 0.001, tick)
    async with asyncio.timeout(10):
        await enough.wait()
    ticker.close()
    await asyncio.sleep(0)
    before = ticks[0]
    await asyncio.sleep(0)
    assert ticks[0] == before
