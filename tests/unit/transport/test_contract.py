"""The contract of every transport: one suite for all of them."""

from dataclasses import replace
from functools import partial

import pytest

from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message
from pydsm.transport.base import LocalIdentity
from pydsm.transport.members import Member
from tests.unit.transport.groups import End, Network, group, large, small, started, who
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

SECRET = b"a secret of this group, long enough"
pytestmark = [pytest.mark.asyncio, pytest.mark.parametrize("kind", ["memory", "tcp", "tls", "zeromq"])]


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


async def test_messages_to_a_stopped_peer_use_bounded_memory_and_reach_the_others(kind: str) -> None:
    async with group(kind) as ends:
        await ends[1].transport.stop()
        await eventually(lambda: ends[0].transport.connected == (2,), "it is seen to be gone")
        for index in range(1, 4):
            ends[0].transport.send((ReplicaId(1), ReplicaId(2)), large(index, 1_000_000))
        await eventually(lambda: len(ends[2].received) == 3, "the other one gets them")
        assert ends[0].transport.traffic.messages_dropped >= 2


async def test_peer_that_sends_nonsense_is_refused_and_counted(kind: str) -> None:
    async with group(kind) as ends:
        ends[1].fault = PeerProtocolError("nonsense")
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


async def test_bytes_and_messages_are_counted_at_both_ends(kind: str) -> None:
    async with group(kind) as ends:
        for index in range(1, 6):
            ends[0].transport.send((ReplicaId(1), ReplicaId(2)), small(index))
        await eventually(lambda: len(ends[1].received) == len(ends[2].received) == 5, "all arrive")
        sent, received = ends[0].transport.traffic, ends[1].transport.traffic
        assert (sent.messages_sent, received.messages_received) == (10, 5)
        assert sent.bytes_sent > received.bytes_received > 0
        assert (sent.messages_dropped, sent.refused, received.refused) == (0, 0, 0)


async def test_a_peer_that_never_connected_only_causes_dropped_messages(kind: str) -> None:
    network = Network(kind, 3)
    first, second = network.end(who(0)), network.end(who(1))
    async with started(first, second):
        await eventually(lambda: first.transport.connected == (1,), "those that are there are connected")
        for index in range(1, 4):
            first.transport.send((ReplicaId(1), ReplicaId(2)), large(index, 1_000_000))
        await eventually(lambda: len(second.received) == 3, "the other one gets them")
        assert first.transport.traffic.messages_dropped >= 2


async def test_a_restarted_peer_is_connected_again(kind: str) -> None:
    network = Network(kind, 2)
    first = network.end(who(0, 2))
    async with started(first):
        for life in (network.end(who(1, 2)), network.end(who(1, 2))):
            async with started(life):
                await eventually(lambda: first.transport.connected == (1,), "they are connected")
                first.transport.send((ReplicaId(1),), small(1))
                await eventually(partial(bool, life.received), "a message arrives")
            await eventually(lambda: first.transport.connected == (), "the loss is noticed")


GIVE = "give --peers the same names in the same order everywhere"
OURS = "r1 has r1=r1.example:7000, r2=r2.example:7000"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (who(1, 2, group="other"), "r2 is of group 'other', r1 of 'test': check --group on both"),
        (who(1, 2, incarnation=8), "replica 1 has lost its data"),
        (
            who(1, 3),
            "r2 and r1 were given different members: r2 has r1=r1.example:7000, r2=r2.example:7000, "
            f"r3=r3.example:7000; {OURS}; {GIVE}",
        ),
        (who(1, 2, names=("r2", "r1")), f"r1 has r2=r2.example:7000, r1=r1.example:7000; {OURS}; {GIVE}"),
        (who(1, 2, names=("r1", "two")), f"two has r1=r1.example:7000, two=two.example:7000; {OURS}; {GIVE}"),
        (
            who(1, 2, names=("r1", "\x1b[2J\nr9 INFO ready")),
            f"has r1=r1.example:7000, \\x1b[2J\\x0ar9 INFO ready=\\x1b[2J\\x0ar9 INFO ready.example:7000; {OURS}",
        ),
        (who(1, 2, secret=SECRET), "r2 was given a group secret and r1 was not: give --secret-file to all or to none"),
    ],
)
async def test_replica_that_does_not_belong_is_refused_with_a_reason_and_carries_nothing(
    kind: str, other: LocalIdentity, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = fingerprint(7)

    def known_incarnation(peer: ReplicaId, mark: int) -> str | None:
        return None if mark == known else f"replica {peer} has lost its data"

    network = Network(kind, 2)
    ours, theirs = network.end(who(0, 2), known_incarnation), network.end(other)
    async with started(ours, theirs):
        await eventually(lambda: reason in caplog.text, "the reason is logged")
        await eventually(lambda: "it refuses us: " in caplog.text, "the other one says who refused it")
        ours.transport.send((ReplicaId(1),), small(1))
        theirs.transport.send((ReplicaId(0),), small(1))
        await eventually(lambda: ours.transport.traffic.refused > 0, "it is counted")
        assert ours.transport.connected == theirs.transport.connected == ()
        assert ours.received == theirs.received == []
        assert ours.transport.fingerprints == {}
    assert "\x1b" not in caplog.text
    assert all("\n" not in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (SECRET, SECRET[::-1], "r2 and r1 have different group secrets: give the same --secret-file to all"),
        (SECRET, None, "r1 was given a group secret and r2 was not: give --secret-file to all or to none"),
    ],
)
async def test_peer_that_does_not_prove_the_group_secret_is_refused_on_both_sides_and_counted(
    kind: str, ours: bytes, theirs: bytes | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(kind, 2)
    first, second = network.end(who(0, 2, secret=ours)), network.end(who(1, 2, secret=theirs))
    async with started(first, second):
        await eventually(lambda: reason in caplog.text, "the one that refuses says why")
        await eventually(lambda: f"it refuses us: {reason}" in caplog.text, "the other one says why as well")
        await eventually(lambda: bool(first.transport.traffic.refused), "it is counted")
        await eventually(lambda: bool(second.transport.traffic.refused), "it is counted at both")
        second.transport.send((ReplicaId(0),), small(1))
        assert first.transport.connected == second.transport.connected == ()
        assert first.received == []
    assert ours.decode() not in caplog.text


async def test_a_group_with_one_secret_exchanges_messages(kind: str) -> None:
    async with group(kind, secret=SECRET) as ends:
        ends[1].transport.send((ReplicaId(0), ReplicaId(2)), small(1))
        await eventually(lambda: bool(ends[0].received and ends[2].received), "it arrives at both")
        assert ends[0].received == ends[2].received == [(1, small(1))]


async def test_members_may_reach_each_other_by_different_addresses(kind: str) -> None:
    network = Network(kind, 2)
    there = replace(who(1, 2), members=(Member("r1", "10.0.0.1:7000"), Member("r2", "0.0.0.0:1")))
    first, second = network.end(who(0, 2)), network.end(there)
    async with started(first, second):
        await eventually(lambda: first.transport.connected == (1,), "they are connected")
        await eventually(lambda: second.transport.connected == (0,), "both ways")


async def test_fingerprint_of_each_peers_data_is_known_and_the_incarnation_is_not(kind: str) -> None:
    admitted: list[int] = []

    def admit(peer: ReplicaId, mark: int) -> str | None:
        admitted.append(mark)
        return None

    network = Network(kind, 2)
    first, second = network.end(who(0, 2, 5), admit), network.end(who(1, 2, 1 << 63), admit)
    async with started(first, second):
        await eventually(lambda: first.transport.fingerprints == {1: fingerprint(1 << 63)}, "the one that dials")
        await eventually(lambda: second.transport.fingerprints == {0: fingerprint(5)}, "and the other")
    assert set(admitted) == {fingerprint(5), fingerprint(1 << 63)}


@pytest.mark.parametrize("size", [2, 3])
async def test_a_peer_in_another_epoch_is_accepted_and_its_epoch_stored(
    kind: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(kind, 2)
    behind, ahead = network.end(who(0, 2, epoch=1)), network.end(who(1, size, epoch=4))
    async with started(behind, ahead):
        await eventually(lambda: behind.transport.connected == (1,), "they are connected")
        ahead.transport.send((ReplicaId(0),), small(1))
        await eventually(lambda: bool(behind.received), "its messages arrive")
        assert behind.transport.epochs == {1: 4}
        assert ahead.transport.epochs == {0: 1}
        assert caplog.text.count("r2 is in epoch 4, this replica in 1") == 1


def starts_of(replica: int) -> PlainStarts:
    return PlainStarts(ReplicaId(replica))


async def test_a_peer_receives_the_report_about_it_in_the_handshake(kind: str) -> None:
    network, known = Network(kind, 3), [starts_of(replica) for replica in range(3)]
    async with started(*(network.end(who(replica), starts=known[replica]) for replica in range(3))):
        everybody = [{1, 2}, {0, 2}, {0, 1}]
        await eventually(lambda: [{one.by for one in starts.reports} for starts in known] == everybody, "all tell")
        for replica, starts in enumerate(known):
            assert starts.reports[0] == known[starts.reports[0].by].report_on(ReplicaId(replica))


def _has_received(end: End, count: int) -> bool:
    return len(end.received) == count


async def test_each_message_has_the_start_and_position_of_its_sender(kind: str) -> None:
    network, known = Network(kind, 2), [PlainStarts(ReplicaId(replica), 2, number=5) for replica in range(2)]
    ends = [network.end(who(replica, 2), starts=known[replica]) for replica in range(2)]
    async with started(*ends):
        await eventually(lambda: all(end.transport.connected for end in ends), "they are connected")
        for place, position in enumerate((10, 20), 1):
            known[0].position = position
            ends[0].transport.send((ReplicaId(1),), small(position))
            await eventually(partial(_has_received, ends[1], place), "it arrives")
        assert known[1].stamps == [(0, 5, 10), (0, 5, 20)]


async def test_a_refused_start_receives_the_report_and_none_of_its_messages_is_accepted(kind: str) -> None:
    network, known = Network(kind, 2), [PlainStarts(ReplicaId(replica), 2) for replica in range(2)]
    known[1].reasons[ReplicaId(0)] = "its data directory is an older copy"
    ends = [network.end(who(replica, 2), starts=known[replica]) for replica in range(2)]
    async with started(*ends):
        await eventually(lambda: bool(known[0].reports), "it is told")
        ends[0].transport.send((ReplicaId(1),), small(1))
        assert known[0].reports[0] == known[1].report_on(ReplicaId(0))
        assert not ends[1].transport.connected
        assert not ends[1].received


async def test_messages_of_an_earlier_start_are_rejected(kind: str) -> None:
    network, known = Network(kind, 2), [PlainStarts(ReplicaId(replica), 2) for replica in range(2)]
    ends = [network.end(who(replica, 2), starts=known[replica]) for replica in range(2)]
    async with started(*ends):
        await eventually(lambda: all(end.transport.connected for end in ends), "they are connected")
        known[1].late_reasons[ReplicaId(0)] = "start 2 of it has been here"
        ends[0].transport.send((ReplicaId(1),), small(1))
        await eventually(lambda: ends[1].transport.traffic.refused > 0, "it is refused")
        assert not ends[1].received
