"""Messages that can wait: which they are, and that they leave with others, in order, and in time."""

import asyncio

import pytest

from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.messages import NOP, Commit, Frontier, Message, PreAcceptOk, StateDigest
from pydsm.transport.coalescing import FlushTimer, can_wait
from pydsm.transport.limits import TransportLimits
from tests.unit.transport.groups import group, small
from tests.waiting import eventually

FIRST = InstanceId(ReplicaId(0), 1)
DEPS = (0, 0, 0)
COMMIT = Commit(FIRST, NOP, DEPS)
WITHOUT_END = TransportLimits(linger_seconds_max=3600)

over_a_network = pytest.mark.parametrize("kind", ["tcp", "tls", "zeromq"])


@pytest.mark.parametrize(
    ("message", "waits"),
    [
        (COMMIT, True),
        (Frontier(DEPS, DEPS), True),
        (StateDigest(1, ()), True),
        (PreAcceptOk(FIRST, DEPS), False),
        (small(1), False),
    ],
)
def test_only_notifications_can_wait(message: Message, waits: bool) -> None:
    assert can_wait(message) is waits


@pytest.mark.asyncio
async def test_patience_ends_once_for_all_that_wait_and_begins_again() -> None:
    ended: list[None] = []
    patience = FlushTimer(0.001, lambda: ended.append(None))
    for times in (1, 2):
        patience.begin()
        patience.begin()
        await eventually(lambda times=times: len(ended) == times, "it ends")  # type: ignore[misc]


@pytest.mark.asyncio
async def test_patience_that_is_stopped_does_not_end() -> None:
    ended: list[str] = []
    stopped, later = (
        FlushTimer(0.001, lambda: ended.append("stopped")),
        FlushTimer(0.002, lambda: ended.append("later")),
    )
    stopped.begin()
    stopped.stop()
    later.begin()
    await eventually(lambda: bool(ended), "the later one ends")
    assert ended == ["later"]


@over_a_network
@pytest.mark.asyncio
async def test_message_that_can_wait_is_taken_along_by_the_next_one_for_its_peer_in_order(kind: str) -> None:
    async with group(kind, limits=WITHOUT_END) as ends:
        ends[0].transport.send((ReplicaId(1), ReplicaId(2)), COMMIT)
        await asyncio.sleep(0)  # the turn ends
        ends[0].transport.send((ReplicaId(2),), small(1))
        await eventually(lambda: len(ends[2].received) == 2, "both arrive")
        assert ends[2].received == [(0, COMMIT), (0, small(1))]
        assert ends[1].received == []


@over_a_network
@pytest.mark.asyncio
async def test_a_single_message_is_sent_when_the_timer_expires(kind: str) -> None:
    async with group(kind) as ends:
        ends[0].transport.send((ReplicaId(1),), COMMIT)
        await eventually(lambda: ends[1].received == [(0, COMMIT)], "it arrives")


@over_a_network
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "limits",
    [
        TransportLimits(linger_seconds_max=0),
        TransportLimits(linger_seconds_max=3600, linger_bytes_max=1),
    ],
)
async def test_nothing_waits_without_patience_or_beyond_its_bytes(kind: str, limits: TransportLimits) -> None:
    async with group(kind, limits=limits) as ends:
        ends[0].transport.send((ReplicaId(1),), COMMIT)
        await eventually(lambda: ends[1].received == [(0, COMMIT)], "it arrives")


@pytest.mark.asyncio
async def test_waiting_messages_are_sent_when_the_replica_stops() -> None:
    async with group("tcp", limits=WITHOUT_END) as ends:
        ends[0].transport.send((ReplicaId(1),), COMMIT)
        await ends[0].transport.stop()
        await eventually(lambda: ends[1].received == [(0, COMMIT)], "it arrives")
