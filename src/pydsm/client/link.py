"""One connection of a native client to one replica: handshake, commands, answers. `client` retries and fails over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Protocol, cast

from pydsm.client.session import ClientSession
from pydsm.client_protocol.answers import Answer
from pydsm.client_protocol.messages import (
    CLIENT_PREAMBLE,
    ClientAnswers,
    ClientHello,
    ClientRequest,
    CloseReason,
    Welcome,
    decode_from_replica,
    encode_message,
)
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import RequestId, request_at, sequence_of
from pydsm.core.types.messages import Run
from pydsm.machines.base import Result
from pydsm.transport.address import Address
from pydsm.transport.frames import FrameReader
from pydsm.transport.sockets import enable_keepalive

_ANSWER_FRAME_BYTES_MAX = 128 << 20
_REQUEST_BYTES_WANTED = 1 << 20
_REQUEST_COMMANDS_WANTED = 10_000


class Sent(Protocol):
    """Commands that are sent together.

    A link sets `first`, the number of the first command on this connection, and assigns request ids (`first_id`,
    `session`) unless the commands have ids already.
    """

    commands: Sequence[bytes]
    first: int
    session: ClientSession | None

    @property
    def left(self) -> int:
        """See `session.Identified`."""
        ...

    @property
    def first_id(self) -> RequestId | None:
        """See `session.Identified`."""
        ...

    def set_request_id(self, id: RequestId) -> None:
        """See `session.Identified`."""
        ...


class LinkOwner(Protocol):
    """Receives the events of a link."""

    def answered(self, call: Sent, positions: Sequence[int], answers: Sequence[Answer | Result]) -> None:
        """Answers to some commands of a call were received; none of these was answered before."""
        ...

    def lost(self, link: "Link", sent: Sequence[Sent], unsent: Sequence[Sent], reason: str) -> None:
        """The connection is lost; `sent` may have reached the replica, `unsent` has certainly not."""
        ...


@dataclass(slots=True)
class CompletedHandshake:
    """The replica's Welcome, and the duration of the handshake."""

    welcome: Welcome
    round_trip_seconds: float


class Link(asyncio.Protocol):
    """See the docstring of this module. Pass it to `create_connection`, await `handshake`, then `send`."""

    def __init__(self, owner: LinkOwner, address: Address, group: str) -> None:
        self.address = address
        self.handshake: asyncio.Future[CompletedHandshake] = asyncio.get_running_loop().create_future()
        self.last_answer_at = self.busy_since = 0.0
        self.retired = False
        """Accepts no more commands; closes after the last answer."""
        self._owner = owner
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(CLIENT_PREAMBLE)
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0.0
        self._next = 0
        self._session: ClientSession | None = None
        self._expired_sessions = 0
        self._pending: dict[int, Sent] = {}
        self._unsent: list[Sent] = []
        self._write_paused = False
        self._reason = "the replica closed the connection"

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing() and not self.retired

    @property
    def command_bytes_max(self) -> int:
        """The longest command that the replica accepts, in bytes."""
        return self.handshake.result().welcome.command_bytes_max

    @property
    def unanswered(self) -> list[Sent]:
        """Calls that were sent and are not completely answered."""
        return list(dict.fromkeys(self._pending.values()))

    @property
    def open_calls(self) -> int:
        """The number of commands without an answer, plus that of calls that are not sent yet."""
        return len(self._pending) + len(self._unsent)

    def send(self, call: Sent) -> None:
        """Send a call at the end of this turn of the event loop, in one frame with all other calls of the turn."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
            if not self._pending:
                self.busy_since = self._loop.time()
        self._unsent.append(call)

    def retire(self) -> None:
        """Accept no more commands; close after the last answer."""
        self.retired = True
        self._close_when_done()

    def close(self, reason: str) -> None:
        """Close immediately. The owner is notified of open calls."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send ClientHello."""
        self._transport = cast(asyncio.Transport, transport)
        enable_keepalive(transport)
        self._asked_at = self._loop.time()
        self._transport.write(CLIENT_PREAMBLE + encode_message(ClientHello(self._group)))

    def data_received(self, data: bytes) -> None:
        """Process received answers."""
        try:
            self._reader.feed(data)
            for payload in self._reader.payloads():
                self._receive(payload)
        except PeerProtocolError as fault:
            self.close(str(fault))

    def connection_lost(self, error: Exception | None) -> None:
        """Notify the owner of open calls."""
        self._transport = None
        if error is not None:
            self._reason = str(error) or type(error).__name__
        if not self.handshake.done():
            self.handshake.set_exception(PeerProtocolError(self._reason))
            self.handshake.exception()  # marks the exception as retrieved; only a waiter needs it
        sent, unsent = self.unanswered, self._unsent
        self._pending, self._unsent = {}, []
        self._owner.lost(self, sent, unsent, self._reason)

    def pause_writing(self) -> None:
        """The replica does not read: calls not written yet are certainly unsent."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The replica reads again."""
        self._write_paused = False
        self._flush()

    # Internal

    def _receive(self, payload: bytes) -> None:
        message = decode_from_replica(payload)
        match message:
            case ClientAnswers() if self.handshake.done():
                self._settle(message)
            case Welcome() if not self.handshake.done():
                self._reader.allow_messages(_ANSWER_FRAME_BYTES_MAX)
                granted_at = self._loop.time()
                self._session = ClientSession(
                    RequestId(message.grant), lambda: int(1000 * (self._loop.time() - granted_at))
                )
                self.handshake.set_result(CompletedHandshake(message, granted_at - self._asked_at))
            case CloseReason():
                self._reason = message.reason
            case _:
                raise PeerProtocolError("the replica violates the protocol")

    def _settle(self, message: ClientAnswers) -> None:
        self.last_answer_at = self._loop.time()
        numbers, answers = message.numbers, message.answers
        try:
            calls = list(map(self._pending.pop, numbers))
        except KeyError as error:
            raise PeerProtocolError(f"the replica answers number {error}, which is not in flight") from error
        start = 0
        for call, run in groupby(calls):
            end = start + sum(1 for _ in run)
            first = call.first
            self._owner.answered(call, [number - first for number in numbers[start:end]], answers[start:end])
            start = end
        if self._unsent:
            self._flush()
        self._close_when_done()

    def _flush(self) -> None:
        while self._unsent and self._transport is not None and not self._write_paused:
            calls = self._unsent[: self._calls_per_frame()]
            if self._session is not None and any(call.first_id is None for call in calls):
                calls = self._sendable(calls, self._session)
                if not calls:
                    return
            del self._unsent[: len(calls)]
            request = ClientRequest(self._next, [], self._runs(calls))
            for call in calls:
                call.first = self._next
                self._next += len(call.commands)
                self._pending.update(zip(range(call.first, self._next), repeat(call)))
                request.commands.extend(call.commands)
            self._transport.write(encode_message(request))

    def _runs(self, calls: Sequence[Sent]) -> list[Run]:
        """The ids of the calls in as few runs as possible; assigns ids to calls without ids."""
        runs: list[Run] = []
        follows: RequestId | None = None
        for call in calls:
            first_id, session, count = self._assign_id(call), call.session, len(call.commands)
            assert session is not None, "the call has no session"
            if first_id == follows:
                last = runs[-1]
                runs[-1] = Run(last.first, last.count + count, last.acknowledged, last.after)
            else:
                sequence = sequence_of(first_id)
                runs.append(Run(first_id, count, session.acknowledged(), sequence - 1))
            follows = request_at(first_id, count)
        return runs

    def _sendable(self, calls: list[Sent], session: ClientSession) -> list[Sent]:
        """The first of the unsent calls that may be sent now.

        When the session is over, calls without ids continue in another session. They wait until all requests of this
        session have their outcome, because the order of requests is kept only inside a session. Calls with ids are
        sent again and must not wait for that.
        """
        for position, call in enumerate(calls):
            if call.first_id is not None or not session.is_over(len(call.commands)):
                continue
            if position:
                return calls[:position]
            if not session.is_open:
                return calls
            identified = [one for one in self._unsent if one.first_id is not None]
            self._unsent[:] = [*identified, *(one for one in self._unsent if one.first_id is None)]
            return identified[: len(calls)]
        return calls

    def _assign_id(self, call: Sent) -> RequestId:
        if call.first_id is not None:
            return call.first_id
        session, count = self._session, len(call.commands)
        assert session is not None, "nothing is sent before the handshake is complete"
        if session.is_over(count):
            session = self._session = session.renewed()
        call.session = session
        return session.assign(call, count)

    def begin_session(self, expired: ClientSession) -> int:
        """Begin another session, if the expired session is the current one.

        Returns the number of sessions of this connection that have expired; 0 if it is not the current session.
        """
        if self._session is not expired:
            return 0
        self._session = expired.renewed()
        self._expired_sessions += 1
        return self._expired_sessions

    def _calls_per_frame(self) -> int:
        """How many of the unsent calls fit into one frame of about the wanted size."""
        size = count = 0
        for position, call in enumerate(self._unsent):
            size += sum(map(len, call.commands))
            count += len(call.commands)
            if size > _REQUEST_BYTES_WANTED or count > _REQUEST_COMMANDS_WANTED:
                return max(1, position)
        return len(self._unsent)

    def _close_when_done(self) -> None:
        if self.retired and not self.open_calls and self._transport is not None:
            self._transport.close()
