"""The connection of a native client: answers, order, limits, and violations of the protocol."""

import logging

import pytest

from pydsm.client_protocol.answers import Overloaded
from pydsm.client_protocol.messages import (
    CLIENT_PREAMBLE,
    ClientAnswers,
    ClientHello,
    ClientRequest,
    CloseReason,
    Welcome,
    encode_message,
)
from pydsm.core.types.ids import ReplicaId, request_at, request_id
from pydsm.core.types.messages import Run
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import encode
from pydsm.server.limits import NativeLimits
from pydsm.server.memory import ClientMemory, MemoryLimits
from pydsm.server.native_connection import NativeConnection
from pydsm.server.shared import SharedServerState
from pydsm.transport.frames import encode_frame
from tests.unit.server.local import LocalAgreement
from tests.unit.server.native_ports import GRANT, command, connected, request, serving
from tests.unit.server.transports import opened
from tests.waiting import eventually


async def test_commands_of_a_turn_are_answered_together_with_their_numbers() -> None:
    async with serving(LocalAgreement()) as server, connected(server) as peer:
        peer.send(
            request(0, [command("SET a 1"), command("INCR a")]), request(2, [command("GET a"), command("NOSUCH")])
        )
        message = await peer.receive()
        assert isinstance(message, ClientAnswers)
        answers = dict(zip(message.numbers, message.answers, strict=True))
        while len(answers) < 4:
            more = await peer.receive()
            assert isinstance(more, ClientAnswers)
            answers.update(zip(more.numbers, more.answers, strict=True))
        assert answers == {0: "OK", 1: 2, 2: b"2", 3: CommandFailed("ERR unknown command 'NOSUCH'")}


async def test_first_attempts_are_recognised_by_their_ids() -> None:
    agreement = LocalAgreement()
    elsewhere = request_id(4000, ReplicaId(0), 9, 4)
    async with serving(agreement) as server, connected(server) as peer:
        first, ping = request_at(GRANT, 1), command("GET a")
        peer.send(ClientRequest(0, [ping] * 3, [Run(first, 2), Run(elsewhere, 1)]))
        peer.send(request(3, [ping], first), request(4, [ping], request_at(GRANT, 3)))
        seen = 0
        while seen < 5:
            message = await peer.receive()
            assert isinstance(message, ClientAnswers)
            seen += len(message.numbers)
    assert [(run.first, again) for run, again in agreement.runs] == [
        (first, False),
        (elsewhere, True),
        (first, True),
        (request_at(GRANT, 3), False),
    ]


async def test_a_session_that_begins_long_after_now_is_refused() -> None:
    async with serving(LocalAgreement()) as server, connected(server) as peer:
        peer.send(request(0, [b"x"], request_id(70_000, ReplicaId(1), 7, 1)))
        message = await peer.receive()
        assert isinstance(message, CloseReason)
        assert "a session begins 64000 ms in the future: set the client's clock" in message.reason


async def test_a_refusal_is_sent_with_its_type() -> None:
    agreement = LocalAgreement()
    agreement.refusal = Overloaded("full")
    async with serving(agreement) as server, connected(server) as peer:
        peer.send(request(0, [b"x"]))
        assert await peer.receive() == ClientAnswers([0], [Overloaded("full")])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak this protocol"),
        (CLIENT_PREAMBLE[:-1] + b"\x09", "it speaks version 9 of the protocol, we speak 3"),
        (CLIENT_PREAMBLE + b"\xff" * 8, "a frame claims"),
        (CLIENT_PREAMBLE + encode_message(ClientHello("other")), "it asks for group 'other', this is 'shop'"),
        (CLIENT_PREAMBLE + encode_message(request(0, [])), "sends ClientHello once, before its first command"),
        (CLIENT_PREAMBLE + encode_message(ClientHello("")) * 2, "sends ClientHello once"),
        (
            CLIENT_PREAMBLE + encode_message(ClientHello("")) + encode_message(request(5, [b"x"])),
            "next command has number 5",
        ),
        (CLIENT_PREAMBLE + encode_message(CloseReason("x")), "does not parse"),
    ],
)
async def test_a_client_that_violates_the_protocol_is_refused_with_a_logged_reason(
    said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    agreement = LocalAgreement()
    async with serving(agreement) as server:
        async with connected(server, handshake=False) as peer:
            peer.writer.write(said)
            while not isinstance(message := await peer.receive(), CloseReason):
                assert isinstance(message, Welcome)
            assert reason in message.reason
            assert await peer.is_closed()
        assert reason in caplog.text
        async with connected(server) as peer:  # the others are served as before
            peer.send(request(0, [command("PING")]))
            assert isinstance(await peer.receive(), ClientAnswers)


async def test_a_client_without_a_handshake_is_disconnected() -> None:
    limits = NativeLimits(handshake_seconds_max=0.05)
    async with serving(LocalAgreement(), limits) as server, connected(server, handshake=False) as peer:
        message = await peer.receive()
        assert isinstance(message, CloseReason)
        assert "handshake timed out" in message.reason
        assert await peer.is_closed()


async def test_a_frame_over_the_limit_ends_the_connection() -> None:
    limits = NativeLimits(frame_bytes_max=1000)
    async with serving(LocalAgreement(), limits) as server, connected(server) as peer:
        peer.send(request(0, [b"x" * 2000]))
        message = await peer.receive()
        assert isinstance(message, CloseReason)
        assert "the limit is 1000" in message.reason


async def test_frames_that_came_together_are_executed_only_up_to_the_limit_of_unanswered_commands() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    frames = b"".join(encode_message(request(number, [command("INCR a")] * 4)) for number in range(0, 40, 4))
    async with serving(agreement, NativeLimits(unanswered_commands_max=10)) as server:
        with opened(NativeConnection(server)) as (connection, transport):
            connection.data_received(CLIENT_PREAMBLE + encode_message(ClientHello("shop")) + frames)
            assert transport.is_reading_paused
            assert connection.half_sent_bytes() == 0
            assert connection.other_bytes() > 0
            counts: list[int] = []
            while sum(counts) < 40:
                await eventually(lambda: bool(agreement.waiting), "the next frames are executed")
                counts.append(len(agreement.waiting))
                agreement.release()
            assert counts == [12, 12, 12, 4]
            assert not transport.is_reading_paused


async def test_frames_are_held_back_while_the_client_does_not_read() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server:
        with opened(NativeConnection(server)) as (connection, transport):
            connection.data_received(CLIENT_PREAMBLE + encode_message(ClientHello("shop")))
            connection.pause_writing()
            connection.data_received(encode_message(request(0, [command("INCR a")])))
            assert agreement.runs == []
            connection.resume_writing()
            assert len(agreement.runs) == 1
            assert not transport.is_reading_paused


async def test_a_held_back_frame_that_is_not_valid_ends_the_connection() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    frames = encode_message(request(0, [command("INCR a")])) + encode_message(request(7, [command("INCR a")]))
    async with serving(agreement, NativeLimits(unanswered_commands_max=1)) as server:
        with opened(NativeConnection(server)) as (connection, transport):
            connection.data_received(CLIENT_PREAMBLE + encode_message(ClientHello("shop")) + frames)
            assert transport.end is None
            agreement.release()
            await eventually(lambda: transport.end == "write_eof", "it is refused")
            assert b"its next command has number 7, expected 1" in transport.written


async def test_a_client_with_too_many_unanswered_commands_gets_all_answers_in_the_end() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement, NativeLimits(unanswered_commands_max=10)) as server, connected(server) as peer:
        for number in range(0, 2000, 10):
            peer.send(request(number, [command("INCR a")] * 10))
        await eventually(lambda: len(agreement.waiting) == 10, "the first frame is executed")
        agreement.holding = False
        agreement.release()
        seen = 0
        while seen < 2000:
            message = await peer.receive()
            assert isinstance(message, ClientAnswers)
            seen += len(message.numbers)


async def test_answers_are_encoded_in_portions_as_the_client_reads_them() -> None:
    agreement = LocalAgreement()
    agreement.machine.apply([encode([b"SET", b"k", b"x" * (1 << 20)])], 0)
    async with serving(agreement) as server, connected(server) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a reading transport as well
        peer.send(request(0, [command("GET k")] * 200))
        await eventually(lambda: bool(server.registry.connections()[0]._answers), "the client takes no more")
        connection = server.registry.connections()[0]
        assert connection.buffered_bytes < 24 << 20
        assert connection.other_bytes() > 100 << 20
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        numbers: list[int] = []
        while len(numbers) < 200:
            message = await peer.receive()
            assert isinstance(message, ClientAnswers)
            assert all(answer == b"x" * (1 << 20) for answer in message.answers)
            numbers += message.numbers
        assert sorted(numbers) == list(range(200))


async def test_a_client_over_a_limit_receives_the_reason_while_it_sends() -> None:
    async with serving(LocalAgreement(), NativeLimits(frame_bytes_max=1000)) as server, connected(server) as peer:
        peer.writer.write(encode_frame(bytes(5_000_000)) + bytes(5_000_000))
        message = await peer.receive()
        assert isinstance(message, CloseReason)
        assert "the limit is 1000" in message.reason
        assert await peer.is_closed()


async def test_too_many_commands_in_a_frame_end_the_connection_with_the_limit() -> None:
    async with serving(LocalAgreement(), NativeLimits(frame_commands_max=3)) as server, connected(server) as peer:
        peer.send(request(0, [command("GET a")] * 4))
        message = await peer.receive()
        assert isinstance(message, CloseReason)
        assert "4 commands in one frame are over the limit of 3" in message.reason


async def test_commands_are_refused_as_not_executed_while_there_is_no_majority() -> None:
    agreement, shared = LocalAgreement(), SharedServerState(refusal="it sees 1 of 3 replicas")
    async with serving(agreement, shared=shared) as server, connected(server) as peer:
        peer.send(request(0, [command("GET a")] * 2))
        assert await peer.receive() == ClientAnswers([0, 1], [Overloaded("it sees 1 of 3 replicas")] * 2)
        assert not agreement.runs


async def test_the_memory_of_clients_is_counted_together_with_that_of_other_ports() -> None:
    shared = SharedServerState(memory=ClientMemory(MemoryLimits(client_memory_bytes_max=1_000_000)))
    async with serving(LocalAgreement(), shared=shared) as server, connected(server) as peer:
        peer.writer.write(encode_frame(bytes(5_000_000))[:2_000_000])
        await eventually(lambda: shared.memory.closed == 1, "it is disconnected")
        await eventually(lambda: shared.clients.now == 0, "it is gone")
        assert shared.memory.held_bytes == 0
