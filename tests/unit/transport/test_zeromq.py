"""ZeroMQ beyond the contract: unauthenticated peers of all kinds refused, queues bounded, and both event loops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvloop
import zmq
import zmq.asyncio
from msgspec.structs import replace

from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import ReplicaId
from pydsm.transport.address import Address
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    PREAMBLE,
    Claim,
    Confirmation,
    Stamp,
    decode_handshake,
    encode_handshake,
    encode_messages,
    open_frame,
)
from pydsm.transport.limits import TransportLimits
from pydsm.transport.zeromq import ZeroMqTransport
from tests.unit.transport.groups import (
    QUICK,
    START,
    End,
    Network,
    admit_all,
    group,
    hello,
    hello_of,
    large,
    small,
    started,
    who,
)
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

MIB = 1 << 20


@asynccontextmanager
async def lonely_end() -> AsyncIterator[tuple[End, int]]:
    """One replica whose peers are not started, and its port."""
    network = Network("zeromq", 3)
    end = network.end(who(0))
    async with started(end):
        yield end, network.ports[0]


@asynccontextmanager
async def stranger(port: int) -> AsyncIterator[zmq.asyncio.Socket]:
    """A DEALER of another process."""
    context = zmq.asyncio.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    try:
        yield dealer
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([b"hello?"], "does not speak this protocol"),
        ([b""], "its handshake message is cut short"),
        ([PREAMBLE], "its handshake message is cut short"),
        ([hello("test", 1, 3)[:-1]], "its handshake message is cut short"),
        ([bytes(20_000)], "its handshake message has 20000 bytes, the limit is 16384"),
        ([b"PyDSM\0\0\1" + hello("test", 1, 3)[8:]], "it speaks version 1 of the protocol, we speak 3"),
        ([hello("other", 1, 3)], "r2 is of group 'other', r1 of 'test'"),
        ([hello("test", 0, 3)], "two replicas were started as r1"),
        ([hello("test", 1, 3), b"more"], "it sent a message of 2 parts; messages have one"),
    ],
)
async def test_an_unauthenticated_connection_receives_the_reason(
    sent: list[bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with lonely_end() as (end, port), stranger(port) as dealer:
        await dealer.send_multipart(sent)
        answer = await asyncio.wait_for(dealer.recv(), 5)
        assert reason.encode() in answer
        assert reason in caplog.text
        assert end.transport.traffic.refused == 1


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "a frame is cut short"),
        (bytes(8) + b"x", "a frame claims 0 bytes and has 1"),
        (encode_messages([b"hi"], Stamp(1, 0))[:-1] + b"?", "the checksum of a frame differs"),
        (encode_messages([b"\xff"], Stamp(1, 0)), "a message does not parse: it has format version 255"),
    ],
)
async def test_a_peer_that_violates_the_format_is_refused_and_ignored(
    sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with lonely_end() as (end, port), stranger(port) as dealer:
        await dealer.send(hello("test", 1, 3))
        assert (await asyncio.wait_for(dealer.recv(), 5)).startswith(PREAMBLE)
        await dealer.send(encode_handshake(Claim(7, START)))
        assert isinstance(decode_handshake(open_frame(await asyncio.wait_for(dealer.recv(), 5))), Confirmation)
        await dealer.send(sent)
        assert reason.encode() in await asyncio.wait_for(dealer.recv(), 5)
        assert f"refused r2 over ZeroMQ: {reason}" in caplog.text
        for _ in range(100):
            await dealer.send(sent)
        async with stranger(port) as another:
            await another.send(b"")
            await asyncio.wait_for(another.recv(), 5)
        assert end.transport.traffic.refused == 2
        assert end.received == []


async def test_message_beyond_the_limit_ends_the_connection_before_it_is_kept() -> None:
    async with lonely_end() as (end, port), stranger(port) as dealer:
        lost = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        await dealer.send(bytes(FRAME_BYTES_MAX + 1000))
        await asyncio.wait_for(lost.recv_multipart(), 10)
        assert end.received == []
        lost.close(0)


HELLO_OVER_TCP = PREAMBLE + encode_handshake(replace(hello_of(who(1)), nonce=bytes(32)))


@pytest.mark.parametrize("sent", [b"\xff" * 200, b"\xff", HELLO_OVER_TCP * 5])
async def test_connections_without_zeromq_are_closed_logged_and_counted(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with lonely_end() as (end, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await eventually(lambda: end.transport.traffic.refused >= 1, "it is counted")
        assert "refused a connection" in caplog.text
        assert end.received == []


async def test_garbage_that_zeromq_takes_for_an_old_dialect_is_cut_off_and_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with lonely_end() as (end, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        await eventually(lambda: f"a connection to 127.0.0.1:{port} has ended" in caplog.text, "it is cut off")
        writer.transport.abort()
        async with stranger(port) as dealer:
            await dealer.send(hello("test", 1, 3))
            assert (await asyncio.wait_for(dealer.recv(), 5)).startswith(PREAMBLE)
        assert end.received == []


async def test_replica_behind_a_peers_address_must_be_that_peer(caplog: pytest.LogCaptureFixture) -> None:
    network = Network("zeromq", 3)
    other = network.end(who(2))
    here, _, there = (Address("127.0.0.1", port) for port in network.ports)
    dialler = End(ZeroMqTransport(who(0), here, {ReplicaId(1): there}, admit_all, PlainStarts(ReplicaId(0)), QUICK))
    async with started(other, dialler):
        said = f"r3 answers at {there}, where r2 should be: correct the address of r2 in --peers of r1"
        await eventually(lambda: f"no connection to r2 at {there}: {said}" in caplog.text, "the mistake is named")
        await eventually(lambda: f"it refuses us: {said}" in caplog.text, "at the other end as well")
        assert dialler.transport.connected == ()


async def test_unfinished_handshakes_block_no_replica_and_use_bounded_memory() -> None:
    network = Network("zeromq", 2)
    first, second = network.end(who(0, 2)), network.end(who(1, 2))
    async with started(first), AsyncExitStack() as strangers:
        for _ in range(70):
            dealer = await strangers.enter_async_context(stranger(network.ports[0]))
            await dealer.send(hello("test", 1, 2))
            await asyncio.wait_for(dealer.recv(), 5)
        assert len(first.transport._handshakes) == QUICK.unauthenticated_connections_max  # type: ignore[attr-defined]
        async with started(second):
            await eventually(lambda: second.transport.connected == (0,), "they are connected")


async def test_silent_connections_never_keep_a_replica_out() -> None:
    network = Network("zeromq", 2)
    first, second = network.end(who(0, 2)), network.end(who(1, 2))
    async with started(first):
        silent = [await asyncio.open_connection("127.0.0.1", network.ports[0]) for _ in range(100)]
        async with started(second):
            await eventually(lambda: second.transport.connected == (0,), "they are connected")
        for _, writer in silent:
            writer.transport.abort()


async def test_peer_that_does_not_read_costs_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    async with group("zeromq", 2, TransportLimits(peer_queue_bytes_max=8 * MIB)) as ends:
        deaf = ends[1].transport._running[0]  # type: ignore[attr-defined]
        deaf.cancel()

        def drops() -> bool:
            ends[0].transport.send((ReplicaId(1),), large(1, MIB))
            return ends[0].transport.traffic.messages_dropped >= 30

        await eventually(drops, "what does not fit is dropped")
        assert caplog.text.count("is too slow") == 1
        assert ends[0].transport.traffic.bytes_sent < 100 * MIB


async def test_a_peer_that_connects_is_dialled_immediately() -> None:
    network = Network("zeromq", 2)
    first = network.end(who(0, 2), limits=TransportLimits(backoff_seconds_min=60, backoff_seconds_max=60))
    second = network.end(who(1, 2))
    async with started(first):
        await eventually(lambda: bool(first.transport._links[1]._last_reason), "it found nobody")  # type: ignore[attr-defined]
        async with started(second):
            await eventually(lambda: first.transport.connected == (1,), "it does not wait for its own turn")


async def test_port_in_use_is_a_clear_error() -> None:
    network = Network("zeromq", 3)
    async with started(network.end(who(0))):
        second = network.end(who(0))
        with pytest.raises(
            OperationalError,
            match=f"cannot listen for replicas on 127.0.0.1:{network.ports[0]}: Address already in use; free",
        ):
            await second.transport.start(second.receive)
        await second.transport.stop()


async def test_unreachable_peer_is_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    network = Network("zeromq", 2)
    async with started(network.end(who(0, 2))):
        attempts = 0

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            writer.close()

        server = await asyncio.start_server(count, "127.0.0.1", network.ports[1])
        await eventually(lambda: attempts >= 4, "it is dialled again and again")
        assert caplog.text.count("no connection to r2") == 1
        server.close()


async def test_a_peer_that_connects_later_receives_the_latest_messages() -> None:
    network = Network("zeromq", 3)
    first, second = network.end(who(0)), network.end(who(1))
    async with started(first):
        for index in range(1, 4):
            first.transport.send((ReplicaId(1),), large(index, 400_000))
        async with started(second):
            await eventually(lambda: len(second.received) == 2, "the newest messages arrive")
            assert [message for _, message in second.received] == [large(2, 400_000), large(3, 400_000)]
            assert first.transport.traffic.messages_dropped == 1


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_messages_flow_both_ways_on_either_loop(runner: object) -> None:
    async def story() -> None:
        async with group("zeromq") as ends:
            for index in range(1, 501):
                for sender in range(3):
                    others = tuple(ReplicaId(other) for other in range(3) if other != sender)
                    ends[sender].transport.send(others, small(index))
                if index % 50 == 0:
                    await asyncio.sleep(0)
            await eventually(lambda: all(len(end.received) == 1000 for end in ends), "everything arrives")

    runner(story())  # type: ignore[operator]
