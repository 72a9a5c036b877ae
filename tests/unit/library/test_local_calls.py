"""Calls of a replica in the process: ids, repetition, outcomes; against a node that a test answers for."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pydsm import (
    CommandAborted,
    OutcomeUnknown,
    ReplicaOverloaded,
    RequestExpiredError,
    SessionExpiredError,
    UsageError,
)
from pydsm.client_protocol.answers import Aborted, Overloaded
from pydsm.core.sessions.grants import Grant, Grants
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.ids import ReplicaId, sequence_of, session_of
from pydsm.core.types.messages import Run
from pydsm.library.local_calls import LocalCalls
from pydsm.runtime.node import Node
from tests.waiting import eventually


@dataclass
class Submitted:
    """What reached the node."""

    run: Run
    commands: Sequence[bytes]
    reply: Callable[[int, Sequence[Any]], None]
    is_retry: bool


@dataclass
class FakeNode:
    """Takes requests, and answers nothing by itself."""

    submitted: list[Submitted] = field(default_factory=list)
    grants: Grants = field(default_factory=lambda: Grants(ReplicaId(0), 7))

    def grant(self) -> Grant:
        return self.grants.grant(1_700_000_000_000)

    def submit_requests(self, run: Run, commands: Sequence[bytes], reply: Any, *, is_retry: bool) -> None:
        self.submitted.append(Submitted(run, list(commands), reply, is_retry))

    async def next(self, number: int) -> Submitted:
        await eventually(lambda: len(self.submitted) > number, "it is submitted")
        return self.submitted[number]


def calls_of(node: FakeNode, timeout: float = 10.0) -> LocalCalls:
    calls = LocalCalls(timeout)
    calls.use(cast(Node, node))
    return calls


def start(calls: LocalCalls, command: bytes, timeout: float | None = None) -> "asyncio.Task[Any]":
    return asyncio.ensure_future(calls.execute(command, timeout))


async def test_calls_of_one_turn_are_one_run_of_new_ids() -> None:
    node = FakeNode()
    calls = calls_of(node)
    tasks = [start(calls, b"%d" % n) for n in range(3)]
    first = await node.next(0)
    assert (first.run.count, first.commands, first.is_retry) == (3, [b"0", b"1", b"2"], False)
    first.reply(0, [b"a", b"b"])
    first.reply(2, [None])
    assert await asyncio.gather(*tasks) == [b"a", b"b", None]
    other = start(calls, b"3")
    second = await node.next(1)
    assert sequence_of(second.run.first) == sequence_of(first.run.first) + 3 == second.run.acknowledged
    second.reply(0, [b"c"])
    assert await other == b"c"


async def test_nothing_is_acknowledged_that_is_waited_for() -> None:
    node = FakeNode()
    calls = calls_of(node)
    slow = start(calls, b"slow")
    first = await node.next(0)
    fast = start(calls, b"fast")
    second = await node.next(1)
    second.reply(0, [b"f"])
    await fast
    last = start(calls, b"last")
    assert (await node.next(2)).run.acknowledged == sequence_of(first.run.first)
    first.reply(0, [b"s"])
    node.submitted[2].reply(0, [b"l"])
    assert [await slow, await last] == [b"s", b"l"]


@pytest.mark.parametrize("refusal", [Aborted("nop"), Overloaded("full")])
async def test_a_refused_call_is_sent_again_under_its_id_as_a_retry(refusal: object) -> None:
    node = FakeNode()
    call = start(calls_of(node), b"x")
    first = await node.next(0)
    first.reply(0, [refusal])
    again = await node.next(1)
    assert (again.run.first, again.commands, again.is_retry) == (first.run.first, [b"x"], True)
    again.reply(0, [b"done"])
    assert await call == b"done"


async def test_a_call_that_was_only_refused_is_definitely_not_executed() -> None:
    node = FakeNode()
    call = start(calls_of(node), b"x", 0.05)
    while not call.done():
        for one in node.submitted:
            one.reply(0, [Overloaded("full")])
        await asyncio.sleep(0)
    with pytest.raises(ReplicaOverloaded, match="full"):
        await call


async def test_a_call_that_is_refused_many_times_tries_another_session() -> None:
    node = FakeNode()
    call = start(calls_of(node), b"x")
    number = 0
    while session_of((await node.next(number)).run.first) == session_of(node.submitted[0].run.first):
        node.submitted[number].reply(0, [Overloaded("this session is full")])
        number += 1
        assert number < 20
    assert not node.submitted[number].is_retry
    node.submitted[number].reply(0, [b"x"])
    assert await call == b"x"


async def test_a_call_before_a_node_is_there_waits_for_it_or_is_aborted() -> None:
    node, calls = FakeNode(), LocalCalls(10.0)
    with pytest.raises(CommandAborted, match="not executed"):
        await calls.execute(b"x", 0.01)
    call = start(calls, b"y")
    await asyncio.sleep(0)
    calls.use(cast(Node, node))
    (await node.next(0)).reply(0, [b"y"])
    assert await call == b"y"
    assert not node.submitted[0].is_retry


async def test_a_call_that_a_node_before_has_taken_is_sent_to_the_next_one_under_its_id() -> None:
    before, after = FakeNode(), FakeNode()
    calls = calls_of(before)
    call = start(calls, b"x")
    taken = await before.next(0)
    calls.use(cast(Node, after))
    again = await after.next(0)
    assert (again.run.first, again.is_retry) == (taken.run.first, True)
    again.reply(0, [Aborted("nop")])
    (await after.next(1)).reply(0, [b"x"])
    assert await call == b"x"


async def test_a_call_that_a_node_before_has_taken_stays_uncertain_when_the_next_refuses_it() -> None:
    before, after = FakeNode(), FakeNode()
    calls = calls_of(before)
    call = start(calls, b"x", 0.1)
    await before.next(0)
    calls.use(cast(Node, after))
    (await after.next(0)).reply(0, [Overloaded("full")])
    with pytest.raises(OutcomeUnknown):
        await call


async def test_a_first_attempt_in_a_forgotten_session_gets_another_one() -> None:
    node = FakeNode()
    call = start(calls_of(node), b"x")
    first = await node.next(0)
    first.reply(0, [SessionExpired()])
    again = await node.next(1)
    assert session_of(again.run.first) != session_of(first.run.first)
    assert not again.is_retry
    again.reply(0, [b"x"])
    assert await call == b"x"


@pytest.mark.parametrize(
    ("answer", "expected"), [(SessionExpired(), SessionExpiredError), (RequestExpired(), RequestExpiredError)]
)
async def test_a_repeated_call_whose_result_is_gone_says_so(answer: object, expected: type[Exception]) -> None:
    node = FakeNode()
    calls = calls_of(node)
    with pytest.raises(OutcomeUnknown) as unknown:
        await calls.execute(b"x", 0.01)
    repeated = asyncio.ensure_future(unknown.value.again())
    again = await node.next(1)
    assert (again.run.first, again.is_retry) == (node.submitted[0].run.first, True)
    again.reply(0, [answer])
    with pytest.raises(expected):
        await repeated


async def test_the_answer_to_the_first_attempt_settles_a_repetition() -> None:
    node = FakeNode()
    calls = calls_of(node)
    with pytest.raises(OutcomeUnknown) as unknown:
        await calls.execute(b"x", 0.01)
    repeated = asyncio.ensure_future(unknown.value.again())
    await node.next(1)
    with pytest.raises(UsageError, match="being repeated already"):
        await unknown.value.again()
    node.submitted[0].reply(0, [b"late"])
    assert await repeated == b"late"


async def test_calls_from_another_loop_are_refused() -> None:
    calls = calls_of(FakeNode())

    def elsewhere() -> None:
        asyncio.run(calls.execute(b"x", None))

    with pytest.raises(UsageError, match=r"another event loop: use pydsm\.blocking"):
        await asyncio.to_thread(elsewhere)
