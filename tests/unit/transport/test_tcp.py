"""What TCP adds to the contract: strangers refused, peers checked, connections made again, queues bounded."""

import asyncio
import logging
from functools import partial

import pytest

from pydsm.core.faults import WorldFault
from pydsm.core.ids import ReplicaId
from pydsm.transport.address import Address
from pydsm.transport.frames import PREAMBLE, Stamp, encode_messages
from pydsm.transport.limits import TransportLimits
from pydsm.transport.tcp import TcpTransport
from tests.ports import free_ports
from tests.unit.transport.groups import admit_all, group, hello, large, small, tcp_end, who
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

MIB = 1 << 20


async def answer_to(port: int, data: bytes) -> bytes:
    """What a stranger that sends `data` is told before the connection is closed or cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (PREAMBLE + b"\xff\xff\xff\xff" + bytes(4), "claims 4294967295 bytes"),
        (hello("other", 1, 3, 0), "of group 'other', we are of 'test'"),
        (hello("test", 1, 5, 0), "a group of 5, ours has 3"),
        (hello("test", 0, 3, 0), "none of our peers"),
        (hello("test", 3, 3, 0), "none of our peers"),
        (b"", "did not say who it is in time"),
    ],
)
async def test_stranger_is_told_why_it_is_refused_and_the_group_goes_on(
    sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    ports = free_ports(3)
    end = tcp_end(who(0), ports)
    await end.transport.start(end.receive)
    assert reason.encode() in await answer_to(ports[0], sent)
    assert reason in caplog.text
    await end.transport.stop()


async def test_frame_that_breaks_the_format_after_a_good_greeting_closes_the_connection() -> None:
    ports = free_ports(3)
    end = tcp_end(who(0), ports)
    await end.transport.start(end.receive)
    answer = await answer_to(ports[0], hello("test", 1, 3, 7) + encode_messages([b"\xff"], Stamp(1, 0)))
    assert b"format version 255" in answer
    assert end.received == []
    await end.transport.stop()


async def test_too_many_silent_strangers_are_turned_away() -> None:
    ports = free_ports(3)
    end = tcp_end(who(0), ports, limits=TransportLimits(strangers_max=1, greeting_seconds_max=30))
    await end.transport.start(end.receive)
    _, silent = await asyncio.open_connection("127.0.0.1", ports[0])
    assert await answer_to(ports[0], b"") == b""
    silent.close()
    await end.transport.stop()


async def test_peer_with_a_wrong_incarnation_is_refused_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    def lost_its_data(peer: ReplicaId, incarnation: int) -> str | None:
        return f"replica {peer} has lost its data" if incarnation == 8 else None

    ports = free_ports(2)
    ends = [
        tcp_end(who(0, 2, incarnation=7), ports, lost_its_data),
        tcp_end(who(1, 2, incarnation=8), ports, admit_all),
    ]
    for end in ends:
        await end.transport.start(end.receive)
    await eventually(lambda: "it refuses us: replica 1 has lost its data" in caplog.text, "the peer is told")
    assert ends[0].transport.connected == ends[1].transport.connected == ()
    for end in ends:
        await end.transport.stop()


async def test_replica_behind_a_peers_address_must_be_that_peer(caplog: pytest.LogCaptureFixture) -> None:
    ports = free_ports(3)
    dialler = tcp_end(who(0), [ports[0], ports[2], ports[1]])
    other = tcp_end(who(2), ports)
    for end in (dialler, other):
        await end.transport.start(end.receive)
    await eventually(lambda: "replica 2 answers there: check --peers" in caplog.text, "the mistake is named")
    for end in (dialler, other):
        await end.transport.stop()


async def test_restarted_peer_is_reached_again() -> None:
    ports = free_ports(2)
    first, second = tcp_end(who(0, 2), ports), tcp_end(who(1, 2), ports)
    await first.transport.start(first.receive)
    for life in (second, tcp_end(who(1, 2), ports)):
        await life.transport.start(life.receive)
        await eventually(lambda: first.transport.connected == (1,), "they are connected")
        first.transport.send((ReplicaId(1),), small(1))
        await eventually(partial(bool, life.received), "a message arrives")
        await life.transport.stop()
        await eventually(lambda: first.transport.connected == (), "the loss is noticed")
    await first.transport.stop()


async def test_peer_that_dials_us_is_dialled_at_once() -> None:
    ports = free_ports(2)
    patient = TransportLimits(backoff_seconds_min=60, backoff_seconds_max=60)
    first, second = tcp_end(who(0, 2), ports, limits=patient), tcp_end(who(1, 2), ports)
    await first.transport.start(first.receive)
    await second.transport.start(second.receive)
    await eventually(lambda: first.transport.connected == (1,), "it does not wait for its own turn")
    for end in (first, second):
        await end.transport.stop()


async def test_peer_that_comes_later_finds_what_was_said_lately() -> None:
    ports = free_ports(3)
    first, second = tcp_end(who(0), ports), tcp_end(who(1), ports)
    await first.transport.start(first.receive)
    for index in range(1, 4):
        first.transport.send((ReplicaId(1),), large(index, 400_000))
    await second.transport.start(second.receive)
    await eventually(lambda: len(second.received) == 2, "the newest messages arrive")
    assert [message for _, message in second.received] == [large(2, 400_000), large(3, 400_000)]
    assert first.transport.traffic.messages_dropped == 1
    for end in (first, second):
        await end.transport.stop()


async def test_second_connection_of_a_peer_replaces_the_first() -> None:
    ports = free_ports(3)
    end = tcp_end(who(0), ports)
    await end.transport.start(end.receive)
    greeting = hello("test", 1, 3, 7)
    first_reader, first = await asyncio.open_connection("127.0.0.1", ports[0])
    first.write(greeting)
    await first_reader.readexactly(len(end.transport._doorkeeper.hello(ReplicaId(1))))  # type: ignore[attr-defined]
    _, second = await asyncio.open_connection("127.0.0.1", ports[0])
    second.write(greeting)
    assert await asyncio.wait_for(first_reader.read(), 5) == b""
    for writer in (first, second):
        writer.close()
    await end.transport.stop()


async def test_peer_that_does_not_read_costs_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    async with group("tcp", 2, TransportLimits(peer_queue_bytes_max=8 * MIB)) as ends:
        ends[1].transport._incoming[ReplicaId(0)].transport.pause_reading()  # type: ignore[attr-defined]
        for index in range(1, 41):
            ends[0].transport.send((ReplicaId(1),), large(index, MIB))
        assert ends[0].transport.traffic.messages_dropped >= 30
        assert caplog.text.count("is too slow") == 1


async def test_port_in_use_is_a_clear_error() -> None:
    ports = free_ports(3)
    first, second = tcp_end(who(0), ports), tcp_end(who(0), ports)
    await first.transport.start(first.receive)
    with pytest.raises(WorldFault, match=f"cannot listen for replicas on 127.0.0.1:{ports[0]}.*free the port"):
        await second.transport.start(second.receive)
    await first.transport.stop()


async def test_unreachable_peer_is_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ports = free_ports(2)
    end = tcp_end(who(0, 2), ports)
    await end.transport.start(end.receive)
    attempts = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", ports[1])
    await eventually(lambda: attempts >= 4, "it is dialled again and again")
    assert caplog.text.count("closed the connection before it said who it is") == 1
    server.close()
    await end.transport.stop()


async def test_transport_that_is_about_to_dial_again_stops_when_told() -> None:
    ports = free_ports(2)
    end = TcpTransport(
        who(0, 2),
        Address("127.0.0.1", ports[0]),
        {ReplicaId(1): Address("127.0.0.1", ports[1])},
        admit_all,
        PlainStarts(ReplicaId(0), 2),
    )
    await end.start(lambda sender, message: None)
    link = end._links[ReplicaId(1)]
    await eventually(lambda: bool(link._last_complaint), "the first attempt has failed")
    link.dial_now()
    async with asyncio.timeout(5):
        await end.stop()
