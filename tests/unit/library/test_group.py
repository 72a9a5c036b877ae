"""Replicas of a class in one process: calls, outcomes, maintenance."""

import asyncio
import gc

import pytest

from pydsm import (
    CommandAborted,
    DeclarationError,
    NotDeterministic,
    OperationalError,
    OutcomeUnknown,
    Replica,
    RequestExpiredError,
    StateMachine,
    UsageError,
)
from pydsm.testing import Group
from tests.unit.machines.declared.shops import Careless, Inventory, OutOfStock


async def test_a_command_at_one_replica_is_seen_by_a_query_at_another() -> None:
    async with Group(Inventory, 3) as group:
        await group[0].add("bolt", 5)
        assert await group[2].left("bolt") == 5
        assert await group[1].take("bolt", 2) == 3
        with pytest.raises(OutOfStock):
            await group[0].take("bolt", 4)
        assert [await inventory.left("bolt") for inventory in group] == [3, 3, 3]
        assert await group.same_state()


async def test_many_calls_at_once_are_executed_once_each() -> None:
    async with Group(Inventory, 3, guard=False) as group:
        await asyncio.gather(*(group[n % 3].add("bolt", 1) for n in range(3000)))
        assert await group[0].left("bolt") == 3000
        assert await group.same_state()


async def test_a_wrong_argument_is_an_error_of_the_caller_before_anything_is_sent() -> None:
    async with Group(Inventory, 1) as group:
        before = group.replicas[0].observe()
        with pytest.raises(TypeError, match="at `n`"):
            await group[0].add("bolt", "five")  # type: ignore[call-overload]
        after = group.replicas[0].observe()
        assert after.commands_waiting == before.commands_waiting
        assert after.known == before.known


async def test_a_command_that_is_not_the_same_everywhere_fails_in_a_test() -> None:
    async with Group(Careless, 2) as group:
        with pytest.raises(NotDeterministic, match="calls time"):
            await group[0].clock()
        assert await group[0].agreed() != await group[1].agreed()


async def test_the_outcome_of_a_command_that_nobody_answers_is_unknown_until_it_is_repeated() -> None:
    async with Group(Inventory, 3) as group:
        await group.replicas[0].pause()
        paused = asyncio.create_task(group[0].add("bolt", 1))
        with pytest.raises(CommandAborted, match="paused"):
            await group[0].add("nut", 1, timeout=0.05)
        await group.replicas[0].resume()
        await paused
        await group.replicas[1].stop(drain=0)
        await group.replicas[2].stop(drain=0)
        with pytest.raises(OutcomeUnknown) as unknown:
            await group[0].add("bolt", 1, timeout=0.05)
        assert unknown.value.request_id is not None
        with pytest.raises(OutcomeUnknown) as still:
            await unknown.value.again(timeout=0.05)
        assert still.value.request_id == unknown.value.request_id


async def test_a_repeated_command_is_executed_once_and_gives_its_first_result() -> None:
    async with Group(Inventory, 2) as group:
        await group[0].add("bolt", 5)
        with group.cut(1), pytest.raises(OutcomeUnknown) as unknown:
            await group[0].take("bolt", 1, timeout=0.05)
        await group[1].add("bolt", 10)
        for _ in range(20):
            await group[0].add("nut", 1)
        assert await unknown.value.again() == await unknown.value.again()
        assert await group[0].left("bolt") == 14


async def test_the_result_of_an_unknown_outcome_is_kept_only_while_the_program_has_it() -> None:
    async with Group(Inventory, 2) as group:
        await group[0].add("bolt", 5)
        repeat = None
        with group.cut(1):
            try:
                await group[0].take("bolt", 1, timeout=0.05)
            except OutcomeUnknown as unknown:
                repeat = unknown.repeat
        await group[0].left("bolt")
        gc.collect()
        for _ in range(3):
            await group[0].add("nut", 1)
        assert repeat is not None
        with pytest.raises(RequestExpiredError):
            await repeat(1.0)


async def test_a_stopped_replica_refuses_calls_and_can_be_stopped_again() -> None:
    async with Group(Inventory, 1) as group:
        await group.replicas[0].stop()
        await group.replicas[0].stop()
        with pytest.raises(CommandAborted, match="stopped"):
            await group[0].add("bolt", 1)
        with pytest.raises(OperationalError, match="not running"):
            await group.replicas[0].pause()


async def test_a_cancelled_call_does_not_disturb_others() -> None:
    async with Group(Inventory, 3) as group:
        calls = [asyncio.create_task(group[0].add("bolt", 1)) for _ in range(10)]
        await asyncio.sleep(0)
        calls[3].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes.count(None) == 9
        assert await group[0].left("bolt") in {9, 10}


async def test_a_handle_says_what_it_does_not_have() -> None:
    async with Group(Inventory, 1) as group:
        with pytest.raises(AttributeError, match="write a @query"):
            _ = group[0].stock
        with pytest.raises(AttributeError, match="Inventory has no command or query lefft"):
            _ = group[0].lefft  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="write a @command"):
            group[0].total = 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": ""}, "is not a name"),
        ({"listen": "nowhere"}, "nowhere"),
        ({"peers": {"b": "127.0.0.1:7000"}}, "two replicas have one address"),
        ({"clients": "127.0.0.1:7000"}, "cannot both connect"),
        ({"timeout": 0}, "timeout must be above 0"),
    ],
)
def test_a_replica_with_settings_that_cannot_work_is_refused(options: dict[str, object], text: str) -> None:
    given = {"name": "a", "listen": "127.0.0.1:7000", "peers": {}, "data_dir": None, **options}
    with pytest.raises(UsageError, match=text):
        Replica(Inventory, **given)  # type: ignore[arg-type]


def test_only_a_class_of_a_state_machine_can_be_replicated() -> None:
    for wrong in (StateMachine, int, Inventory()):
        with pytest.raises(DeclarationError, match="inherits from StateMachine"):
            Group(wrong, 1)  # type: ignore[arg-type, type-var]
