"""TCP beyond the contract: unauthenticated peers refused, peers checked, connections made again, queues bounded."""

import asyncio
import logging
from contextlib import suppress
from functools import partial

import pytest
from msgspec.structs import replace

from pydsm.core.types.errors import OperationalError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import ReplicaId
from pydsm.transport.address import Address
from pydsm.transport.frames import PREAMBLE, Claim, Stamp, encode_handshake, encode_messages
from pydsm.transport.limits import TransportLimits
from pydsm.transport.tcp import TcpTransport
from tests.ports import free_ports
from tests.unit.transport.groups import (
    QUICK,
    START,
    Network,
    admit_all,
    group,
    hello,
    hello_of,
    large,
    say,
    small,
    started,
    tcp_end,
    who,
)
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

MIB = 1 << 20


async def answer_to(port: int, data: bytes) -> bytes:
    """The bytes that an unauthenticated connection receives after it sent `data`, until it is closed."""
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
        (hello("other", 1, 3), "r2 is of group 'other', r1 of 'test'"),
        (hello("test", 1, 5), "r2 and r1 were given different members"),
        (hello("test", 0, 3), "two replicas were started as r1: give each its own --name"),
        (
            PREAMBLE + encode_handshake(replace(hello_of(who(1)), replica=3)),
            "replica 3 (r2) is none of the peers of r1",
        ),
        (
            PREAMBLE + encode_handshake(replace(hello_of(who(1)), name="x\ny")),
            "its name is x\\x0ay, and member 1 is r2",
        ),
        (PREAMBLE + encode_handshake(Claim(7, START)), "it does not begin with a Hello"),
        (hello("test", 1, 3) + encode_messages([b"\xff"], Stamp(1, 0)), "the handshake message does not parse"),
        (hello("test", 1, 3) + encode_handshake(hello_of(who(1))), "it sends an unexpected handshake message"),
        (b"", "handshake timed out"),
    ],
)
async def test_an_unauthenticated_connection_receives_the_reason_and_the_group_continues(
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
    frames = encode_handshake(Claim(7, START)) + encode_messages([b"\xff"], Stamp(1, 0))
    answer = await answer_to(ports[0], hello("test", 1, 3) + frames)
    assert b"format version 255" in answer
    assert end.received == []
    await end.transport.stop()


@pytest.mark.parametrize(
    ("kind", "said"), [("tcp", b""), ("tcp", hello("test", 1, 2)), ("tls", b""), ("tls", b"\x16\x03\x01")]
)
async def test_silent_connections_never_keep_a_replica_out(
    kind: str, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(kind, 2)
    patient = TransportLimits(handshake_seconds_max=60, backoff_seconds_min=0.01, backoff_seconds_max=0.05)
    first, second = network.end(who(0, 2), limits=patient), network.end(who(1, 2), limits=patient)
    async with started(first):
        silent = [await asyncio.open_connection("127.0.0.1", network.ports[0]) for _ in range(64)]
        for _, writer in silent:
            writer.write(said)
        pending = first.transport.pending  # type: ignore[attr-defined]
        await eventually(lambda: len(pending) == patient.unauthenticated_per_address_max, "only so many are kept")
        with suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                await silent[0][0].read()  # ends because the oldest was closed
        async with started(second):
            await eventually(lambda: first.transport.connected == (1,), "they are connected")
            await eventually(lambda: second.transport.connected == (0,), "both ways")
        for _, writer in silent:
            writer.transport.abort()
    closed = [line for line in caplog.messages if "too many connections have not completed the handshake" in line]
    assert len(closed) == 3, "a flood is three lines in the log"
    assert first.transport.traffic.refused >= 48


async def test_peer_with_a_wrong_incarnation_is_refused_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    def lost_its_data(peer: ReplicaId, mark: int) -> str | None:
        return f"replica {peer} has lost its data" if mark == fingerprint(8) else None

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
    said = (
        f"no connection to r2 at 127.0.0.1:{ports[2]}: r3 answers at 127.0.0.1:{ports[2]}, where r2 should be: "
        "correct the address of r2 in --peers of r1"
    )
    await eventually(lambda: said in caplog.text, "the mistake is named")
    await eventually(lambda: "it refuses us: r3 answers at" in caplog.text, "at the other end as well")
    for end in (dialler, other):
        await end.transport.stop()


async def test_a_peer_address_that_is_the_replicas_own_is_named(caplog: pytest.LogCaptureFixture) -> None:
    ports = free_ports(2)
    end = tcp_end(who(0, 2), [ports[0], ports[0]])
    async with started(end):
        said = f"no connection to r2 at 127.0.0.1:{ports[0]}: it refuses us: this is r1 itself: correct the address"
        await eventually(lambda: said in caplog.text, "the mistake is named")


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
@pytest.mark.parametrize(("secret", "warns"), [(None, True), (b"sixteen bytes or more", False)])
async def test_port_that_others_can_reach_without_a_proof_is_warned_about(
    listen: str, secret: bytes | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_ports(1)[0]
    end = TcpTransport(who(0, 2, secret=secret), Address(listen, port), {}, admit_all, PlainStarts(ReplicaId(0), 2))
    await end.start(lambda sender, message: None)
    await end.stop()
    assert (f"any process that can reach the port for replicas on {listen} can take part" in caplog.text) is warns


async def test_port_on_the_loopback_address_needs_no_proof(caplog: pytest.LogCaptureFixture) -> None:
    async with group("tcp", 2):
        assert "any process that can reach" not in caplog.text


async def test_an_unresolvable_host_is_reported_as_text(caplog: pytest.LogCaptureFixture) -> None:
    here = Address("127.0.0.1", free_ports(1)[0])
    peers, starts = {ReplicaId(1): Address("no-such-host.invalid", 7000)}, PlainStarts(ReplicaId(0), 2)
    end = TcpTransport(who(0, 2), here, peers, admit_all, starts, QUICK)
    await end.start(lambda sender, message: None)
    await eventually(lambda: "no connection to r2 at no-such-host.invalid:7000" in caplog.text, "it is said")
    assert "Unknown error" not in caplog.text
    await end.stop()


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


async def test_a_peer_that_connects_is_dialled_immediately() -> None:
    ports = free_ports(2)
    patient = TransportLimits(backoff_seconds_min=60, backoff_seconds_max=60)
    first, second = tcp_end(who(0, 2), ports, limits=patient), tcp_end(who(1, 2), ports)
    await first.transport.start(first.receive)
    await second.transport.start(second.receive)
    await eventually(lambda: first.transport.connected == (1,), "it does not wait for its own turn")
    for end in (first, second):
        await end.transport.stop()


async def test_a_peer_that_connects_later_receives_the_latest_messages() -> None:
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
    first_reader, first = await asyncio.open_connection("127.0.0.1", ports[0])
    await say(first, first_reader, who(1))
    second_reader, second = await asyncio.open_connection("127.0.0.1", ports[0])
    await say(second, second_reader, who(1))
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
    with pytest.raises(OperationalError, match=f"cannot listen for replicas on 127.0.0.1:{ports[0]}.*free the port"):
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
    assert caplog.text.count("closed the connection during the handshake") == 1
    server.close()
    await end.transport.stop()


async def test_a_transport_that_waits_to_dial_again_stops_immediately() -> None:
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
    await eventually(lambda: bool(link._last_reason), "the first attempt has failed")
    link.dial_now()
    async with asyncio.timeout(5):
        await end.stop()
