"""A port for native clients in front of a machine of this process, and a client that may violate the protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydsm.client_protocol.messages import (
    CLIENT_PREAMBLE,
    ClientHello,
    ClientRequest,
    FromClient,
    FromReplica,
    Welcome,
    decode_from_replica,
    encode_message,
)
from pydsm.core.sessions.grants import Grant
from pydsm.core.types.ids import ReplicaId, RequestId, request_at, request_id
from pydsm.core.types.messages import Run
from pydsm.machines.kv import encode
from pydsm.server.limits import NativeLimits
from pydsm.server.native import NativeServer
from pydsm.server.native_connection import NativeServerContext
from pydsm.server.shared import SharedServerState
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from pydsm.transport.frames import FrameReader
from tests.unit.server.local import LocalAgreement

GRANT = request_id(5000, ReplicaId(1), 7, 0)
HOST = NativeServerContext(
    Identity("shop", "r2", ReplicaId(1), 3), ("r1", "r2", "r3"), lambda: True, lambda: Grant(GRANT), lambda: 6000
)
WELCOME = Welcome("shop", "r2", 1, ("r1", "r2", "r3"), True, GRANT, 8 << 20)


def request(first: int, commands: list[bytes], name: RequestId | None = None) -> ClientRequest:
    """Commands whose sequences go on like their numbers."""
    name = name or request_at(GRANT, 1 + first)
    return ClientRequest(first, commands, [Run(name, len(commands))] if commands else [])


@asynccontextmanager
async def serving(
    agreement: LocalAgreement, limits: NativeLimits | None = None, shared: SharedServerState | None = None
) -> AsyncIterator[NativeServer]:
    server = NativeServer(agreement.submit_requests, HOST, limits, shared)
    await server.start(Address("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()


class Peer:
    """A client that sends any messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._frames = FrameReader(CLIENT_PREAMBLE)
        self._frames.allow_messages()
        self._messages: list[FromReplica] = []

    def send(self, *messages: FromClient) -> None:
        self.writer.write(b"".join(map(encode_message, messages)))

    async def receive(self) -> FromReplica:
        """The next message."""
        async with asyncio.timeout(10):
            while not self._messages:
                data = await self._reader.read(1 << 16)
                assert data, "the server has closed the connection"
                self._frames.feed(data)
                self._messages += map(decode_from_replica, self._frames.payloads())
        return self._messages.pop(0)

    async def is_closed(self) -> bool:
        """Wait for the end of the connection; False if more data comes."""
        async with asyncio.timeout(10):
            return await self._reader.read(1) == b""


@asynccontextmanager
async def connected(server: NativeServer, *, handshake: bool = True) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    peer = Peer(reader, writer)
    try:
        if handshake:
            writer.write(CLIENT_PREAMBLE)
            peer.send(ClientHello("shop"))
            assert await peer.receive() == WELCOME
        yield peer
    finally:
        writer.transport.abort()


def command(line: str) -> bytes:
    return encode([word.encode() for word in line.split()])
