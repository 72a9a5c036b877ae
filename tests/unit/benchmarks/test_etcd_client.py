"""The client of etcd, tested with the bytes that etcd sends."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from benchmarks.etcd_client import EtcdClient, frame, put_message
from pydsm.core.types.errors import PeerProtocolError

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
MESSAGES = [put_message(b"%08d" % number, b"v") for number in range(3)]


class Wire:
    """Stores the bytes that the client writes."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def answer(stream: int) -> bytes:
    return frame(HEADERS, 4, stream, b"h") + frame(DATA, 0, stream, b"\0\0\0\0\0") + frame(HEADERS, 5, stream, b"t")


async def begin(in_flight: int, messages: Sequence[bytes] = MESSAGES) -> tuple[EtcdClient, Wire, asyncio.Task[None]]:
    client, wire = EtcdClient("127.0.0.1:1"), Wire()
    client.connection_made(cast(asyncio.BaseTransport, wire))
    task = asyncio.ensure_future(client.put_all(messages, in_flight))
    await asyncio.sleep(0)
    return client, wire, task


def test_a_put_is_etcds_request_in_a_grpc_message() -> None:
    assert put_message(b"key", b"v") == bytes.fromhex("00 00000008 0a03") + b"key" + bytes.fromhex("1201") + b"v"


def test_a_frame_has_nine_bytes_before_its_payload() -> None:
    assert frame(DATA, 1, 3, b"abc") == bytes.fromhex("000003 00 01 00000003") + b"abc"


async def test_the_number_in_flight_is_limited_and_each_answer_sends_the_next_request() -> None:
    client, wire, task = await begin(in_flight=2)
    assert [message in wire.written for message in MESSAGES] == [True, True, False]
    whole = answer(1)
    client.data_received(whole[:20])
    client.data_received(whole[20:])
    assert MESSAGES[2] in wire.written
    assert not task.done()
    client.data_received(answer(3) + answer(5))
    await task


async def test_a_stream_that_ends_without_a_message_is_a_refusal() -> None:
    client, _, task = await begin(in_flight=1)
    client.data_received(frame(HEADERS, 5, 1, b"t"))
    with pytest.raises(PeerProtocolError, match="etcd refused a Put"):
        await task


async def test_a_lost_connection_is_reported() -> None:
    client, _, task = await begin(in_flight=1)
    client.connection_lost(None)
    with pytest.raises(PeerProtocolError, match="etcd closed the connection"):
        await task


async def test_settings_and_pings_are_answered() -> None:
    client, wire, task = await begin(in_flight=1)
    client.data_received(frame(SETTINGS, 0, 0, b"") + frame(PING, 0, 0, b"12345678"))
    assert wire.written.endswith(frame(SETTINGS, 1, 0, b"") + frame(PING, 1, 0, b"12345678"))
    task.cancel()


async def test_no_request_exceeds_the_flow_control_window_of_etcd() -> None:
    messages = [put_message(b"k", b"v" * 100)] * 1000
    client, wire, task = await begin(in_flight=1000, messages=messages)
    assert wire.written.count(messages[0]) == 65_535 // len(messages[0])
    client.data_received(frame(WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4)))
    assert wire.written.count(messages[0]) == 1000
    task.cancel()
