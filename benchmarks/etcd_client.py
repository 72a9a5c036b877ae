"""A client of etcd with low processor cost: gRPC's Put over HTTP/2, by hand, with many requests in flight.

A general gRPC library in Python would use more processor time than etcd does. This client supports one call, whose
bytes differ in stream number, key and value only: headers come from the table that HPACK builds with the first request,
and answers are distinguished by their frames. A request counts as done when a message and the end of its stream have
arrived; etcd's revision, which grows by one with every Put, is checked afterwards to verify that all were executed.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import cast

from pydsm.core.types.errors import PeerProtocolError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WINDOW = 1 << 30
_SEND_WINDOW = 65_535
_HEAD_BYTES = 9
_FIRST_AGAIN = bytes((0x83, 0x86, 0xC1, 0xC0, 0xBF, 0xBE))
"""POST, http, then the four headers that the first request put into the table, newest last."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Encode one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def put_message(key: bytes, value: bytes) -> bytes:
    """Encode a gRPC message with etcd's PutRequest; key and value have up to 127 bytes each."""
    request = bytes((0x0A, len(key))) + key + bytes((0x12, len(value))) + value
    return b"\0" + struct.pack(">I", len(request)) + request


def _text(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def first_headers(authority: str) -> bytes:
    """The headers of the first Put, which are added to the table for later requests."""
    path, where = _text(b"/etcdserverpb.KV/Put"), _text(authority.encode())
    return b"".join(
        (b"\x83\x86\x44", path, b"\x41", where, b"\x5f", _text(b"application/grpc"), b"\x40", _text(b"te"))
    ) + _text(b"trailers")


class EtcdClient(asyncio.Protocol):
    """One connection to one member."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._window = _SEND_WINDOW
        self._stream = 1
        self._messages: Sequence[bytes] = ()
        self._sent = self._done = 0
        self._answered: set[int] = set()
        self._finished: asyncio.Future[None] | None = None

    async def put_all(self, messages: Sequence[bytes], in_flight: int) -> None:
        """Send all messages, with this number in flight. Raises PeerProtocolError if a request has no valid answer."""
        self._messages, self._sent, self._done = messages, 0, 0
        self._in_flight = in_flight
        self._finished = asyncio.get_running_loop().create_future()
        self._fill()
        await self._finished

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface and the first requests."""
        self._transport = cast(asyncio.WriteTransport, transport)
        window = struct.pack(">I", _WINDOW)
        settings = frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW))
        self._transport.write(_PREFACE + settings + frame(_WINDOW_UPDATE, 0, 0, window))

    def data_received(self, data: bytes) -> None:
        """Parse frames, and send one request for each answer."""
        buffer, start = self._buffer + data, 0
        while len(buffer) - start >= _HEAD_BYTES:
            end = start + _HEAD_BYTES + int.from_bytes(buffer[start : start + 3])
            if len(buffer) < end:
                break
            stream = int.from_bytes(buffer[start + 5 : start + _HEAD_BYTES]) & 0x7FFFFFFF
            self._take(buffer[start + 3], buffer[start + 4], stream, buffer[start + _HEAD_BYTES : end])
            start = end
        self._buffer = buffer[start:]
        self._fill()

    def connection_lost(self, error: Exception | None) -> None:
        """Report the failure: no more answers can arrive."""
        self._fail(f"etcd closed the connection: {error or 'no reason given'}")

    # internal

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._answered.add(stream)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                if stream not in self._answered:
                    self._fail(f"etcd refused a Put: {payload!r}")
                self._answered.discard(stream)
                self._done += 1
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GO_AWAY):
            self._fail(f"etcd ended a stream or the connection: {payload!r}")

    def _fill(self) -> None:
        if self._finished is None or self._finished.done() or self._transport is None:
            return
        out: list[bytes] = []
        while self._sent < len(self._messages) and self._sent - self._done < self._in_flight:
            message = self._messages[self._sent]
            if len(message) > self._window:
                break
            headers = first_headers(self._authority) if self._stream == 1 else _FIRST_AGAIN
            out.append(frame(_HEADERS, _END_HEADERS, self._stream, headers))
            out.append(frame(_DATA, _END_STREAM, self._stream, message))
            self._window -= len(message)
            self._stream += 2
            self._sent += 1
        if out:
            self._transport.write(b"".join(out))
        if self._done == len(self._messages):
            self._finished.set_result(None)

    def _fail(self, reason: str) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(PeerProtocolError(reason))


async def connect(host: str, port: int) -> tuple[asyncio.Transport, EtcdClient]:
    """A connection to the member at this address."""
    loop = asyncio.get_running_loop()
    return await loop.create_connection(lambda: EtcdClient(f"{host}:{port}"), host, port)
