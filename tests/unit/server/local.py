"""A Redis port in front of a state machine of this process, whose answers a test can hold back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from pydsm.client_protocol.answers import Answer
from pydsm.core.sessions.grants import Grants
from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Run
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import KeyValue
from pydsm.runtime.clock import unix_ms
from pydsm.runtime.command_queue import Stream
from pydsm.runtime.replies import Reply, ReplyMany
from pydsm.server.limits import RespLimits
from pydsm.server.native_connection import NativeServerContext
from pydsm.server.resp import RespServer
from pydsm.server.shared import SharedServerState
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address

INFO = {"Stats": {"name": "alone", "executed": "7"}, "Keyspace": {"db0": "keys=3,expires=1,avg_ttl=0"}}


class LocalAgreement:
    """A `Submit` without a group: the commands submitted in one turn of the event loop are one batch."""

    def __init__(self) -> None:
        self.machine = KeyValue()
        self.waiting: list[tuple[bytes, Reply]] = []
        self.holding = False
        self.refusal: Answer | None = None
        self.now_ms: Callable[[], int] = lambda: 0
        self.runs: list[tuple[Run, bool]] = []
        """The runs of submitted requests, and whether each may be a retry."""

    def __call__(self, command: bytes, reply: Reply) -> None:
        if self.refusal is not None:
            reply(self.refusal)
            return
        try:
            self.machine.footprint([command])
        except UsageError as fault:
            reply(CommandFailed(str(fault)))
            return
        if not self.waiting and not self.holding:
            asyncio.get_running_loop().call_soon(self.release)
        self.waiting.append((command, reply))

    def submit_many(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """A `SubmitMany` with an answer at a time."""
        for place, command in enumerate(commands):
            self(command, partial(_answer_at, reply, place))

    def submit_requests(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool) -> None:
        """A `SubmitRequests` that records the runs, and executes every command."""
        self.runs.append((run, is_retry))
        self.submit_many(commands, reply)

    def release(self) -> None:
        """Execute the submitted commands in order, and answer them in the opposite order."""
        batch, self.waiting = self.waiting, []
        results = self.machine.apply([command for command, _ in batch], self.now_ms())
        for (_, reply), result in zip(reversed(batch), reversed(results), strict=True):
            reply(result)


def make_host(identity: Identity, is_ready: Callable[[], bool] = lambda: True) -> NativeServerContext:
    """The replica behind a port for native clients."""
    grants = Grants(identity.replica, start=7)
    return NativeServerContext(identity, ("r1", "r2", "r3"), is_ready, lambda: grants.grant(unix_ms()), unix_ms)


def _answer_at(reply: ReplyMany, place: int, answer: Answer) -> None:
    reply(place, [answer])


@asynccontextmanager
async def serving(
    agreement: LocalAgreement | None = None, limits: RespLimits | None = None, shared: SharedServerState | None = None
) -> AsyncIterator[RespServer]:
    """A started server on a free port; everything closed at the end."""
    server = RespServer((agreement or LocalAgreement()).submit_many, lambda: INFO, limits, shared)
    await server.start(Address("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()


class Wire:
    """A client that sends and receives bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Without waiting."""
        self.writer.write(data)

    async def receive(self, expected: bytes) -> None:
        """Fail unless exactly these bytes come next."""
        async with asyncio.timeout(10):
            got = bytearray()
            while len(got) < len(expected):
                more = await self.reader.read(len(expected) - len(got))
                if not more:
                    break
                got += more
        assert bytes(got) == expected

    async def ask(self, command: bytes, expected: bytes) -> None:
        """Send an inline command and expect a reply."""
        self.send(command + b"\r\n")
        await self.receive(expected)

    async def rest(self) -> bytes:
        """The bytes that arrive until the server closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()


@asynccontextmanager
async def connected(server: RespServer) -> AsyncIterator[Wire]:
    """One client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def array(*words: bytes) -> bytes:
    """A command as client libraries send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
