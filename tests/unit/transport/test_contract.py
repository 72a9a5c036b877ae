"""What every transport promises: one suite for all of them."""

import pytest

from pydsm.core.faults import PeerFault
from pydsm.core.ids import ReplicaId
from pydsm.core.messages import Message
from tests.unit.transport.groups import group, large, small
from tests.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.parametrize("kind", ["memory", "tcp"])]


async def test_message_arrives_with_its_sender(kind: str) -> None:
    async with group(kind) as ends:
        ends[0].transport.send((ReplicaId(2),), small(1))
        await eventually(lambda: bool(ends[2].received), "the message arrives")
        assert ends[2].received == [(0, small(1))]
        assert ends[1].received == []


async def test_message_for_several_peers_arrives_at_each(kind: str) -> None:
    async with group(kind) as ends:
        ends[1].transport.send((ReplicaId(0), ReplicaId(2)), small(1))
        await eventually(lambda: bool(ends[0].received and ends[2].received), "it arrives at both")
        assert ends[0].received == ends[2].received == [(1, small(1))]


async def test_nothing_arrives_before_the_sender_has_ended_its_turn(kind: str) -> None:
    async with group(kind) as ends:
        ends[0].transport.send((ReplicaId(1),), small(1))
        assert ends[1].received == []
        await eventually(lambda: bool(ends[1].received), "the message arrives")


async def test_many_messages_of_one_turn_arrive_in_order(kind: str) -> None:
    messages: list[Message] = [small(index) for index in range(1, 2001)]
    async with group(kind) as ends:
        for message in messages:
            ends[0].transport.send((ReplicaId(1),), message)
        await eventually(lambda: len(ends[1].received) == len(messages), "all arrive")
        assert [message for _, message in ends[1].received] == messages


async def test_large_messages_arrive_whole(kind: str) -> None:
    async with group(kind) as ends:
        for index in range(1, 4):
            ends[0].transport.send((ReplicaId(1),), large(index, 3_000_000))
        await eventually(lambda: len(ends[1].received) == 3, "all arrive")
        assert ends[1].received[2] == (0, large(3, 3_000_000))


async def test_messages_to_a_peer_that_is_gone_cost_bounded_memory_and_reach_the_others(kind: str) -> None:
    async with group(kind) as ends:
        await ends[1].transport.stop()
        await eventually(lambda: ends[0].transport.connected == (2,), "it is seen to be gone")
        for index in range(1, 4):
            ends[0].transport.send((ReplicaId(1), ReplicaId(2)), large(index, 1_000_000))
        await eventually(lambda: len(ends[2].received) == 3, "the other one gets them")
        assert ends[0].transport.traffic.messages_dropped >= 2


async def test_peer_that_sends_nonsense_is_refused_and_counted(kind: str) -> None:
    async with group(kind) as ends:
        ends[1].fault = PeerFault("nonsense")
        ends[0].transport.send((ReplicaId(1),), small(1))
        await eventually(lambda: ends[1].transport.traffic.refused == 1, "it is refused")
        ends[1].fault = None

        def arrives() -> bool:
            ends[0].transport.send((ReplicaId(1),), small(2))
            return bool(ends[1].received)

        await eventually(arrives, "a later message arrives")


async def test_stopping_twice_is_allowed(kind: str) -> None:
    async with group(kind) as ends:
        await ends[0].transport.stop()
        await ends[0].transport.stop()
        ends[0].transport.send((ReplicaId(1),), small(1))
        assert ends[0].transport.connected == ()
