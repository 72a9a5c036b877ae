"""The limit of commands in flight: who waits, and who is woken."""

import asyncio

import pytest

from pydsm.client.capacity import Capacity
from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import ClientClosed


def begin(capacity: Capacity, commands: int, size_bytes: int) -> "asyncio.Task[None]":
    return asyncio.ensure_future(capacity.wait(commands, size_bytes))


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_call_waits_while_commands_or_bytes_are_over_the_limit() -> None:
    capacity = Capacity(ClientLimits(in_flight_commands_max=2, in_flight_bytes_max=100))
    await capacity.wait(5, 500)
    capacity.add(1, 60)
    many, large = begin(capacity, 2, 1), begin(capacity, 1, 60)
    small = begin(capacity, 1, 40)
    await turns()
    assert [task.done() for task in (many, large, small)] == [False, False, True]
    capacity.remove(1, 60)
    await many
    capacity.remove(0, 0)
    await large


async def test_a_cancelled_call_passes_its_turn_to_the_next() -> None:
    capacity = Capacity(ClientLimits(in_flight_commands_max=1))
    capacity.add(1, 0)
    first, second = begin(capacity, 1, 0), begin(capacity, 1, 0)
    await turns()
    capacity.remove(1, 0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_closing_ends_all_waiting_calls() -> None:
    capacity = Capacity(ClientLimits(in_flight_commands_max=1))
    capacity.add(1, 0)
    waiting = [begin(capacity, 1, 0) for _ in range(2)]
    await turns()
    capacity.close()
    for task in waiting:
        with pytest.raises(ClientClosed):
            await task
