"""The connection of one native client: receives commands and sends answers in any order, both within limits.

Guarantees that each command gets one answer, and that no further frame is executed, and nothing is read, while the
client has too many unanswered commands or does not read its answers. The wire format is left to
`client_protocol/messages`, agreement to `submit_requests`. Whether a request is a retry is determined here, from the
session that was granted to the connection, and not stated by the client (`core/sessions/grants`).
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.client_protocol.messages import (
    CLIENT_PREAMBLE,
    ClientHello,
    ClientRequest,
    CloseReason,
    Welcome,
    decode_from_client,
    encode_answers,
    encode_message,
)
from pydsm.core.sessions.grants import Grant
from pydsm.core.sessions.result_ranges import weight
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import session_of, timestamp_of
from pydsm.core.types.messages import Run
from pydsm.logs import LogLimiter
from pydsm.runtime.batching import SubmitRequests
from pydsm.runtime.replies import ReplyMany
from pydsm.server.client_connection import ClientConnection
from pydsm.server.limits import NativeLimits
from pydsm.server.refused_requests import RefusedRequests
from pydsm.server.shared import SharedServerState
from pydsm.storage.identity import Identity
from pydsm.transport.frames import FrameReader
from pydsm.transport.sockets import peer_address

_WRITE_BYTES_MAX = 1 << 20
"""Bytes of answers, about, that are put together for one write; a single larger one is written alone."""
_ENOUGH_BYTES = 1 << 30
"""A limit for `weight` that is never reached, so that it counts everything."""


@dataclass(frozen=True, slots=True)
class NativeServerContext:
    """The replica behind the port. `names` has every member's name; `is_ready` returns whether it can serve now.

    `grant` returns a new session for a connection, `now_ms` the timestamp of a session that begins now.
    """

    identity: Identity
    names: tuple[str, ...]
    is_ready: Callable[[], bool]
    grant: Callable[[], Grant]
    now_ms: Callable[[], int]


class NativeConnectionOwner(Protocol):
    """The server that a connection belongs to."""

    submit_requests: SubmitRequests
    host: NativeServerContext
    limits: NativeLimits
    shared: SharedServerState
    refusals: LogLimiter

    def opened(self, connection: "NativeConnection") -> str | None:
        """Register a new connection: None when it is accepted, otherwise the reason why it is refused."""
        ...

    def closed(self, connection: "NativeConnection") -> None:
        """The connection is closed."""
        ...


def _write_ends(answers: Sequence[Answer]) -> Iterator[int]:
    """For each write, the position after its last answer."""
    if weight(answers, _WRITE_BYTES_MAX) > _WRITE_BYTES_MAX:
        size = 0
        for position in range(len(answers)):
            added = weight(answers[position : position + 1], _WRITE_BYTES_MAX)
            if size and size + added > _WRITE_BYTES_MAX:
                yield position
                size = 0
            size += added
    yield len(answers)


class NativeConnection(ClientConnection):
    """The connection of one client; see the docstring of this module."""

    def __init__(self, server: NativeConnectionOwner) -> None:
        super().__init__(server.shared.memory)
        self._server = server
        self._limits = server.limits
        self._submit = server.submit_requests
        self._reader = FrameReader(CLIENT_PREAMBLE)
        self._loop = asyncio.get_running_loop()
        self._peer = "a client"
        self._handshake_done = False
        self._grant = server.host.grant()
        self._session = session_of(self._grant.id)
        """Session of the last run, whose timestamp was checked."""
        self._refused = RefusedRequests()
        self._next = 0
        self._unanswered = 0
        self._numbers: list[int] = []
        self._answers: list[Answer] = []
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._frames = 0

    # Called by asyncio's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake timer, or refuse the connection."""
        self._attach(transport, self._limits)
        address = peer_address(transport)
        if address is not None:
            self._peer = f"the client at {address}"
        reason = self._server.opened(self)
        if reason is not None:
            self._refuse(reason)
        else:
            self._handshake_timer = self._loop.call_later(self._limits.handshake_seconds_max, self._handshake_timed_out)

    def connection_lost(self, error: Exception | None) -> None:
        """Discard pending answers; commands that were submitted may still be executed."""
        self._detach()
        self._stop_waiting()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        """Execute the complete frames, within the limits."""
        if not self._is_closing:
            self._reader.feed(data)
            self._execute_frames()

    def eof_received(self) -> bool:
        """Close the connection: the client reads no answers after it has closed its side."""
        return False

    def pause_writing(self) -> None:
        """The client does not read: read nothing from it either."""
        super().pause_writing()
        self._update_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self._flush()
        self._execute_frames()

    # For `ClientMemory`

    def half_sent_bytes(self) -> int:
        """See `memory.Holder`."""
        return 0 if self._read_paused or self._ending else self._reader.held_bytes

    def commands_read(self) -> int:
        """See `memory.Holder`."""
        return self._frames

    def other_bytes(self) -> int:
        """See `memory.Holder`."""
        return self._reader.held_bytes - self.half_sent_bytes() + weight(self._answers, _ENOUGH_BYTES)

    def who(self) -> str:
        """See `memory.Holder`."""
        return self._peer

    # For the server

    def close(self, reason: str) -> None:
        """Send the answers that are ready and a CloseReason, then close."""
        self._flush(whole=True)
        if self._transport is not None:
            if not self._ending:
                self._write(encode_message(CloseReason(reason)))
            self._transport.close()

    # Internal

    @property
    def _is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing() or self._ending

    def _is_full(self) -> bool:
        """Whether no further frame is executed until the client reads, or commands are answered."""
        return self._write_paused or self._unanswered >= self._limits.unanswered_commands_max

    def _execute_frames(self) -> None:
        """Execute complete frames up to the limits; later ones stay in the reader, and reading pauses."""
        if self._is_closing:
            return
        try:
            if not self._is_full():
                for payload in self._reader.payloads():
                    self._frames += 1
                    self._payload_received(payload)
                    if self._is_full():
                        break
        except PeerProtocolError as fault:
            self._refuse(str(fault))
        else:
            self._update_reading()
            if self._reader.held_bytes:
                self._memory.note(self)

    def _payload_received(self, payload: bytes) -> None:
        message = decode_from_client(payload)
        if isinstance(message, ClientHello) == self._handshake_done:
            raise PeerProtocolError("a client sends ClientHello once, before its first command")
        if isinstance(message, ClientHello):
            self._accept_hello(message)
        else:
            self._execute(message)

    def _accept_hello(self, hello: ClientHello) -> None:
        host, transport = self._server.host, self._transport
        if hello.group not in {"", host.identity.group}:
            raise PeerProtocolError(
                f"it asks for group {hello.group!r}, this is {host.identity.group!r}: check the addresses"
            )
        assert transport is not None, "handshake after the connection was lost"
        self._handshake_done = True
        self._server.shared.silent.settled(self)
        self._stop_waiting()
        self._reader.allow_messages(self._limits.frame_bytes_max)
        identity = host.identity
        welcome = Welcome(
            identity.group,
            identity.name,
            identity.replica,
            host.names,
            host.is_ready(),
            self._grant.id,
            self._limits.command_bytes_max,
        )
        transport.write(CLIENT_PREAMBLE + encode_message(welcome))

    def _execute(self, request: ClientRequest) -> None:
        if request.first != self._next:
            raise PeerProtocolError(f"its next command has number {request.first}, expected {self._next}")
        if len(request.commands) > self._limits.frame_commands_max:
            raise PeerProtocolError(
                f"{len(request.commands)} commands in one frame are over the limit of {self._limits.frame_commands_max}"
            )
        self._next += len(request.commands)
        self._unanswered += len(request.commands)
        for run in request.runs:
            self._check_time(run)
        start = 0
        for run in request.runs:
            commands = request.commands[start : start + run.count] if len(request.runs) > 1 else request.commands
            reply = partial(self._answered, request.first + start)
            start += run.count
            if self._refused.is_ahead(run):
                reply(0, [Aborted("not executed: an earlier request of the session was refused")] * run.count)
            elif (refusal := self._server.shared.refusal) is not None:
                self._record_and_reply(run, reply, 0, [Overloaded(refusal)] * run.count)
            else:
                is_retry = not self._grant.takes(run.first, run.count)
                self._submit(run, commands, partial(self._record_and_reply, run, reply), is_retry=is_retry)

    def _record_and_reply(self, run: Run, reply: ReplyMany, offset: int, answers: Sequence[Answer]) -> None:
        if isinstance(answers[0], Aborted | Overloaded):  # answers that come together are all refusals, or none is
            self._refused.refused(run, offset)
        reply(offset, answers)

    def _check_time(self, run: Run) -> None:
        session = session_of(run.first)
        if session != self._session:
            ahead_ms = timestamp_of(session) - self._server.host.now_ms()
            if ahead_ms > self._limits.ahead_ms_max:
                raise PeerProtocolError(f"a session begins {ahead_ms} ms in the future: set the client's clock")
            self._session = session

    def _answered(self, first: int, offset: int, answers: Sequence[Answer]) -> None:
        """Queue answers; they are written at the end of this turn of the loop, together with all others of the turn."""
        self._unanswered -= len(answers)
        if not self._numbers:
            self._loop.call_soon(self._flush_and_continue)
        self._numbers += range(first + offset, first + offset + len(answers))
        self._answers += answers

    def _flush_and_continue(self) -> None:
        self._flush()
        self._execute_frames()

    def _flush(self, *, whole: bool = False) -> None:
        """Write queued answers in bounded portions, until the client stops reading; with `whole`, all of them."""
        numbers, answers = self._numbers, self._answers
        self._numbers, self._answers = [], []
        if not numbers or self._transport is None or self._ending:
            return
        start = 0
        for end in _write_ends(answers):
            if self._write_paused and not whole:
                break
            self._write(encode_answers(numbers[start:end], answers[start:end], self._limits.answer_bytes_max))
            start = end
        self._numbers, self._answers = numbers[start:], answers[start:]
        if self.buffered_bytes:
            self._memory.note(self)

    def _update_reading(self) -> None:
        self._read_unless(self._is_full())

    def _refuse(self, reason: str) -> None:
        self._server.refusals.warning("refused", "refused %s: %s", self._peer, reason)
        if self._handshake_done:
            self._flush(whole=True)
        self._reader = FrameReader(CLIENT_PREAMBLE)  # discards what the old one holds
        preamble = b"" if self._handshake_done else CLIENT_PREAMBLE
        self._write(preamble + encode_message(CloseReason(reason)))
        self._end()

    def _handshake_timed_out(self) -> None:
        self._refuse(f"handshake timed out after {self._limits.handshake_seconds_max:g} s")

    def _stop_waiting(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
