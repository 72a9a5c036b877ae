"""Whole nodes, one with a wrong clock: nothing expires early, sessions stay valid, and that node reports it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pydsm.client_protocol.answers import Answer
from pydsm.core.clocks.agreed_time import TimeLimits
from pydsm.core.types.config import Config
from pydsm.core.types.ids import ReplicaId, request_at
from pydsm.core.types.messages import Run
from pydsm.machines.kv import KeyValue, encode
from pydsm.runtime.clock import unix_ms
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, not_ready_reason
from pydsm.storage.memory import MemoryStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

HOUR_MS = 3_600_000
LIMITS = ReadyLimits()


class Group:
    """Three nodes with clocks of their own."""

    def __init__(self, *off_ms: int) -> None:
        self.off_ms = list(off_ms)
        self.hub = MemoryHub()
        self.nodes = [self._make(replica) for replica in range(len(off_ms))]

    def _make(self, replica: int) -> Node:
        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> MemoryTransport:
            me = LocalIdentity("test", ReplicaId(replica), len(self.off_ms), incarnation)
            return MemoryTransport(me, self.hub, admit, starts)

        config = Config(ReplicaId(replica), len(self.off_ms), gossip_ticks=20, checkpoint_instances_max=3)
        clock = lambda: unix_ms() + self.off_ms[replica]  # noqa: E731 (it follows what a test sets later)
        return Node(config, NodeComponents(KeyValue(), MemoryStore(), transport, wall_clock_ms=clock))

    async def ask(self, replica: int, line: str) -> Answer:
        """Submit and wait for the answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.nodes[replica].submit(encode([word.encode() for word in line.split()]), answer.set_result)
        async with asyncio.timeout(20):
            return await answer

    async def request(self, replica: int, run: Run, *lines: str) -> list[Answer]:
        """The same as a request of a session."""
        done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        commands = [encode([word.encode() for word in line.split()]) for line in lines]
        self.nodes[replica].submit_requests(run, commands, lambda at, some: done.set_result(list(some)), is_retry=False)
        async with asyncio.timeout(20):
            return await done

    async def checkpoint(self, least: int) -> None:
        """Have so many checkpoints everywhere, by executing enough for each of them."""
        while min(node.observe().checkpoint for node in self.nodes) < least:
            await self.ask(least % 2, "INCR something")

    def reason(self, replica: int) -> str | None:
        """Why it is not ready."""
        return not_ready_reason(self.nodes[replica].observe(), LIMITS)


@asynccontextmanager
async def group(*off_ms: int) -> AsyncIterator[Group]:
    """A running group; stopped at the end."""
    made = Group(*off_ms)
    for node in made.nodes:
        await node.start()
    try:
        yield made
    finally:
        for node in made.nodes:
            await node.stop(drain_seconds_max=0)


async def knows_all(made: Group) -> None:
    await eventually(
        lambda: all(len(node.observe().clock.differences_ms) == len(made.nodes) - 1 for node in made.nodes),
        "every replica knows every clock",
    )


@pytest.mark.parametrize("off_ms", [5 * HOUR_MS, -5 * HOUR_MS, 24 * 365 * HOUR_MS])
async def test_checkpoints_of_a_replica_with_a_wrong_clock_expire_no_session(off_ms: int) -> None:
    async with group(0, 0, off_ms) as made:
        await knows_all(made)
        grant = made.nodes[0].grant()
        assert await made.request(0, Run(request_at(grant.id, 1), 1), "INCR a") == [1]
        before = made.nodes[0].observe().checkpoint
        wrong = made.nodes[2]
        for _ in range(3):
            assert wrong._ask_for_checkpoint() is not None
        await made.checkpoint(before + 4)
        assert await made.request(0, Run(request_at(grant.id, 2), 1), "INCR a") == [2]
        for node in made.nodes:
            assert abs(node.observe().clock.agreed_ms - unix_ms()) < TimeLimits().lag_ms_max


@pytest.mark.parametrize("off_ms", [5 * HOUR_MS, -5 * HOUR_MS])
async def test_keys_set_or_read_through_a_wrong_clock_live_as_long_as_they_should(off_ms: int) -> None:
    async with group(0, off_ms, 0) as made:
        await knows_all(made)
        assert await made.ask(1, "SET a 1 EX 3600") == "OK"
        assert await made.ask(0, "SET b 1 EX 3600") == "OK"
        assert await made.ask(0, f"SET c 1 PXAT {unix_ms() + HOUR_MS}") == "OK"
        for replica in range(3):
            for key in "abc":
                left = await made.ask(replica, f"PTTL {key}")
                assert isinstance(left, int)
                assert HOUR_MS - 60_000 < left <= HOUR_MS + 60_000
        assert await made.ask(1, "SET d 1 PX 1") == "OK"
        while await made.ask(1, "GET d") is not None:
            pass


async def test_a_session_that_a_wrong_clock_grants_begins_now() -> None:
    async with group(5 * HOUR_MS, 0, 0) as made:
        await knows_all(made)
        assert abs(made.nodes[0].session_ms() - unix_ms()) < 60_000


@pytest.mark.parametrize("off_ms", [HOUR_MS, -HOUR_MS])
async def test_a_replica_with_a_wrong_clock_is_not_ready_until_it_is_put_right(
    off_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with group(0, 0, off_ms) as made:
        await eventually(lambda: "its clock shows" in (made.reason(2) or ""), "it says that its clock is wrong")
        await eventually(lambda: made.reason(0) is made.reason(1) is None, "the others are ready")
        await eventually(lambda: "replica 2 is not ready: its clock shows" in caplog.text, "it is logged")
        made.off_ms[2] = 0
        await eventually(lambda: made.reason(2) is None, "it is ready again", seconds=30)


async def test_with_one_replica_down_a_wrong_clock_stops_no_client() -> None:
    async with group(0, -5 * HOUR_MS, 0) as made:
        await knows_all(made)
        await made.checkpoint(1)
        await made.nodes[2].stop(drain_seconds_max=0)
        assert await made.ask(0, "SET a 1 EX 3600") == "OK"
        left = await made.ask(1, "PTTL a")
        assert isinstance(left, int)
        assert HOUR_MS - 60_000 < left <= HOUR_MS + 60_000


async def test_a_group_whose_agreed_time_is_far_behind_catches_up_before_it_executes_anything() -> None:
    """The group was down for a week: the first keys must not expire when agreed time has caught up."""
    async with group(0, 0, 0) as made:
        for node in made.nodes:
            node._sessions.expire([unix_ms() - 7 * 24 * HOUR_MS] * 3)
        assert await made.ask(0, "SET a 1 EX 60") == "OK"
        for node in made.nodes:
            await eventually(
                lambda node=node: unix_ms() - node.observe().clock.agreed_ms < TimeLimits().distance_ms_max,  # type: ignore[misc]
                "agreed time has caught up",
            )
        left = await made.ask(1, "TTL a")
        assert isinstance(left, int)
        assert left > 0


async def test_an_expired_session_is_refused_without_an_instance() -> None:
    async with group(0) as made:
        grant = made.nodes[0].grant()
        made.nodes[0]._sessions._expired_ms = unix_ms() + HOUR_MS
        proposed = made.nodes[0].observe().counters.proposed
        answers = await made.request(0, Run(request_at(grant.id, 1), 2), "INCR a", "INCR a")
        assert [type(answer).__name__ for answer in answers] == ["SessionExpired"] * 2
        assert made.nodes[0].observe().counters.proposed == proposed
        other = made.nodes[0].grant()
        assert await made.request(0, Run(request_at(other.id, 1), 1), "INCR a") == [1]
