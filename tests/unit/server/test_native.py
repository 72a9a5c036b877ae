"""The port for native clients: answers, order, limits, and what it does with those who do not keep to the protocol."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pydsm.core.faults import WorldFault
from pydsm.core.grants import Grant
from pydsm.core.ids import ReplicaId, RequestId, request_at, request_id
from pydsm.core.messages import Run
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import encode
from pydsm.runtime.batching import Overloaded
from pydsm.runtime.client_protocol import (
    CLIENT_PREAMBLE,
    Answers,
    ClientHello,
    Farewell,
    FromClient,
    FromReplica,
    Request,
    Welcome,
    decode_from_replica,
    encode_message,
)
from pydsm.server.native import Host, NativeLimits, NativeServer
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from pydsm.transport.frames import FrameReader
from tests.unit.server.local import LocalAgreement
from tests.waiting import eventually

GRANT = request_id(5000, ReplicaId(1), 7, 0)
HOST = Host(
    Identity("shop", "r2", ReplicaId(1), 3), ("r1", "r2", "r3"), lambda: True, lambda: Grant(GRANT), lambda: 6000
)
WELCOME = Welcome("shop", "r2", 1, ("r1", "r2", "r3"), True, GRANT)


def request(first: int, commands: list[bytes], name: RequestId | None = None) -> Request:
    """Commands whose sequences go on like their numbers."""
    name = name or request_at(GRANT, 1 + first)
    return Request(first, commands, [Run(name, len(commands))] if commands else [])


@asynccontextmanager
async def serving(agreement: LocalAgreement, limits: NativeLimits | None = None) -> AsyncIterator[NativeServer]:
    server = NativeServer(agreement.submit_requests, HOST, limits)
    await server.start(Address("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()


class Peer:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._frames = FrameReader(CLIENT_PREAMBLE)
        self._frames.allow_messages()
        self._messages: list[FromReplica] = []

    def say(self, *messages: FromClient) -> None:
        self.writer.write(b"".join(map(encode_message, messages)))

    async def hear(self) -> FromReplica:
        """The next message."""
        async with asyncio.timeout(10):
            while not self._messages:
                data = await self._reader.read(1 << 16)
                assert data, "the server has closed the connection"
                self._frames.feed(data)
                self._messages += map(decode_from_replica, self._frames.payloads())
        return self._messages.pop(0)

    async def ends(self) -> bool:
        """Whether nothing more comes."""
        async with asyncio.timeout(10):
            return await self._reader.read(1) == b""


@asynccontextmanager
async def connected(server: NativeServer, *, greet: bool = True) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    peer = Peer(reader, writer)
    try:
        if greet:
            writer.write(CLIENT_PREAMBLE)
            peer.say(ClientHello("shop"))
            assert await peer.hear() == WELCOME
        yield peer
    finally:
        writer.transport.abort()


def command(line: str) -> bytes:
    return encode([word.encode() for word in line.split()])


async def test_commands_of_a_turn_are_answered_together_with_their_numbers() -> None:
    async with serving(LocalAgreement()) as server, connected(server) as peer:
        peer.say(request(0, [command("SET a 1"), command("INCR a")]), request(2, [command("GET a"), command("NOSUCH")]))
        message = await peer.hear()
        assert isinstance(message, Answers)
        answers = dict(zip(message.numbers, message.answers, strict=True))
        while len(answers) < 4:
            more = await peer.hear()
            assert isinstance(more, Answers)
            answers.update(zip(more.numbers, more.answers, strict=True))
        assert answers == {0: "OK", 1: 2, 2: b"2", 3: CommandFailed("ERR unknown command 'NOSUCH'")}


async def test_what_comes_for_the_first_time_is_seen_here_and_not_asked() -> None:
    agreement = LocalAgreement()
    elsewhere = request_id(4000, ReplicaId(0), 9, 4)
    async with serving(agreement) as server, connected(server) as peer:
        first, ping = request_at(GRANT, 1), command("GET a")
        peer.say(Request(0, [ping] * 3, [Run(first, 2), Run(elsewhere, 1)]))
        peer.say(request(3, [ping], first), request(4, [ping], request_at(GRANT, 3)))
        seen = 0
        while seen < 5:
            message = await peer.hear()
            assert isinstance(message, Answers)
            seen += len(message.numbers)
    assert [(run.first, again) for run, again in agreement.runs] == [
        (first, False),
        (elsewhere, True),
        (first, True),
        (request_at(GRANT, 3), False),
    ]


async def test_a_session_that_begins_long_after_now_is_refused() -> None:
    async with serving(LocalAgreement()) as server, connected(server) as peer:
        peer.say(request(0, [b"x"], request_id(70_000, ReplicaId(1), 7, 1)))
        message = await peer.hear()
        assert isinstance(message, Farewell)
        assert "a session begins 64000 ms from now: set the clock" in message.reason


async def test_a_refusal_is_told_as_such() -> None:
    agreement = LocalAgreement()
    agreement.refusal = Overloaded("full")
    async with serving(agreement) as server, connected(server) as peer:
        peer.say(request(0, [b"x"]))
        assert await peer.hear() == Answers([0], [Overloaded("full")])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak this protocol"),
        (CLIENT_PREAMBLE[:-1] + b"\x09", "it speaks version 9 of the protocol, we speak 3"),
        (CLIENT_PREAMBLE + b"\xff" * 8, "a frame claims"),
        (CLIENT_PREAMBLE + encode_message(ClientHello("other")), "it means group 'other', this is 'shop'"),
        (CLIENT_PREAMBLE + encode_message(request(0, [])), "greets once, before its first command"),
        (CLIENT_PREAMBLE + encode_message(ClientHello("")) * 2, "greets once"),
        (CLIENT_PREAMBLE + encode_message(ClientHello("")) + encode_message(request(5, [b"x"])), "go on with number 5"),
        (CLIENT_PREAMBLE + encode_message(Farewell("x")), "does not parse"),
    ],
)
async def test_who_does_not_keep_to_the_protocol_is_refused_with_a_logged_reason(
    said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    agreement = LocalAgreement()
    async with serving(agreement) as server:
        async with connected(server, greet=False) as peer:
            peer.writer.write(said)
            while not isinstance(message := await peer.hear(), Farewell):
                assert isinstance(message, Welcome)
            assert reason in message.reason
            assert await peer.ends()
        assert reason in caplog.text
        async with connected(server) as peer:  # the others are served as before
            peer.say(request(0, [command("PING")]))
            assert isinstance(await peer.hear(), Answers)


async def test_a_client_that_says_nothing_is_disconnected() -> None:
    limits = NativeLimits(greeting_seconds_max=0.05)
    async with serving(LocalAgreement(), limits) as server, connected(server, greet=False) as peer:
        message = await peer.hear()
        assert isinstance(message, Farewell)
        assert "did not say who it is" in message.reason
        assert await peer.ends()


async def test_a_frame_over_the_limit_ends_the_connection() -> None:
    limits = NativeLimits(frame_bytes_max=1000)
    async with serving(LocalAgreement(), limits) as server, connected(server) as peer:
        peer.say(request(0, [b"x" * 2000]))
        message = await peer.hear()
        assert isinstance(message, Farewell)
        assert "the limit is 1000" in message.reason


async def test_a_client_too_many_is_told_so() -> None:
    async with (
        serving(LocalAgreement(), NativeLimits(connections_max=1)) as server,
        connected(server),
        connected(server, greet=False) as second,
    ):
        message = await second.hear()
        assert isinstance(message, Farewell)
        assert "connect to another replica" in message.reason


async def test_nothing_is_read_from_a_client_with_too_much_unanswered() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement, NativeLimits(unanswered_commands_max=10)) as server, connected(server) as peer:
        for number in range(0, 2000, 10):
            peer.say(request(number, [command("INCR a")] * 10))
        await eventually(lambda: len(agreement.waiting) >= 10, "the first commands arrive")
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(agreement.waiting) < 2000
        agreement.holding = False
        agreement.release()
        seen = 0
        while seen < 2000:
            message = await peer.hear()
            assert isinstance(message, Answers)
            seen += len(message.numbers)


async def test_stopping_sends_what_is_answered_and_says_farewell() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as peer:
        peer.say(request(0, [command("PING x")]))
        await peer.hear()
        await server.stop()
        assert await peer.hear() == Farewell("this replica is stopping")
        assert await peer.ends()


async def test_a_taken_port_is_named() -> None:
    async with serving(LocalAgreement()) as server:
        with pytest.raises(
            WorldFault, match=r"cannot listen for clients on 127\.0\.0\.1:.*free the port or use another"
        ):
            await NativeServer(LocalAgreement().submit_requests, HOST).start(Address("127.0.0.1", server.port))
