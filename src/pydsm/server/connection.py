"""The connection of one Redis client: reads commands, and writes replies within limits.

Decides which commands are executed here and which are submitted for replication, and when the connection is closed.
Guarantees that nothing is read from a client that has too many unanswered commands or does not read its replies, until
that changes. The order of replies is left to `reply_queue`, that of effects to `command_submitter`, transactions to
`transaction_handler`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from pydsm.client_protocol.answers import Answer
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, encode, wrong_number
from pydsm.server.client_connection import ClientConnection
from pydsm.server.command_submitter import CommandSubmitter, SubmissionTarget
from pydsm.server.commands import LOCAL_COMMANDS, CommandContext, LocalCommand, execute, unknown_command
from pydsm.server.memory import ClientMemory
from pydsm.server.parser import CommandTooLarge, ProtocolError, RequestParser, Words
from pydsm.server.replies import error_line
from pydsm.server.reply_queue import ReplyQueue
from pydsm.server.session import Session
from pydsm.server.silent import SilentConnections
from pydsm.server.transaction_handler import TransactionHandler
from pydsm.server.transactions import TRANSACTION_COMMANDS
from pydsm.transport.sockets import own_address, peer_address


class ServerContext(CommandContext, SubmissionTarget, Protocol):
    """The server that a connection belongs to."""

    memory: ClientMemory
    silent: SilentConnections

    def opened(self, connection: "RespConnection") -> Session | CommandFailed:
        """The session of a new connection, or the error with which it is refused."""
        ...

    def closed(self, connection: "RespConnection") -> None:
        """The connection is closed."""
        ...


class Phase(Enum):
    """The phases of a connection. It begins and ends as `CLOSED`."""

    OPEN = auto()
    """Commands are received and executed."""
    DRAINING = auto()
    """Nothing more is received. Commands that were received are executed; after the last reply, it is closed."""
    REFUSED = auto()
    """Input is discarded. After the last reply, an error, it is closed such that the client can read the error even
    while it is sending."""
    CLOSED = auto()
    """Nothing is received, executed or written."""


_EXECUTING = (Phase.OPEN, Phase.DRAINING)

log = logging.getLogger("pydsm.server")

_WRITE_BYTES_MAX = 1 << 18
"""Bytes of replies that are put together for one write."""

_HTTP_COMMANDS = frozenset((b"POST", b"HOST:"))
"""First words of HTTP requests, by which requests from web pages are detected before their body."""


class RespConnection(ClientConnection):
    """See the docstring of this module. `session` is set when the server has accepted the connection."""

    session: Session

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context.memory)
        self._context = context
        self._limits = context.limits
        self._loop = asyncio.get_running_loop()
        self._phase = Phase.CLOSED
        self._parser = RequestParser(context.limits)
        self._commands: deque[Words] = deque()
        """Commands that were parsed and are not executed yet."""
        self._replies = ReplyQueue(context.limits)
        self._submitter = CommandSubmitter(context, self.flush_soon)
        self._transactions = TransactionHandler(self, context.limits)
        self._scheduled_flush: asyncio.Handle | None = None

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session, or refuse the connection."""
        self._attach(transport, self._limits)
        session = self._context.opened(self)
        if isinstance(session, CommandFailed):
            self._phase = Phase.REFUSED
            self._write(error_line(session.message))
            self._end()
        else:
            self._phase = Phase.OPEN
            self.session = session

    def connection_lost(self, error: Exception | None) -> None:
        """Discard pending replies; submitted commands may still be executed."""
        self._detach()
        self._phase = Phase.CLOSED
        self._replies.clear()
        self._discard_input()
        self._transactions.unwatch()
        self._context.closed(self)

    def data_received(self, data: bytes) -> None:
        """Execute the commands that are complete."""
        if self._phase is Phase.OPEN:
            self._parser.feed(data)
            self._execute_input()

    def eof_received(self) -> bool:
        """Close the connection after the last reply: the client can still read. True keeps it open until then."""
        if self._ending:
            return False
        if self._phase in {Phase.OPEN, Phase.REFUSED}:
            self._phase = Phase.DRAINING
        self.flush_soon()
        return True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self.flush_soon()

    # For `ClientMemory`

    def half_sent_bytes(self) -> int:
        """See `memory.Holder`."""
        return self._parser.held_bytes if self._phase is Phase.OPEN and not self._read_paused else 0

    def commands_read(self) -> int:
        """See `memory.Holder`."""
        return self._parser.complete

    def other_bytes(self) -> int:
        """See `memory.Holder`."""
        postponed = self._parser.held_bytes - self.half_sent_bytes()
        return postponed + self._transactions.transaction.size_bytes + self._replies.waiting_bytes()

    def who(self) -> str:
        """See `memory.Holder`."""
        return self.session.address

    # For the server

    def answer_late(self, before_seconds: float, error: CommandFailed) -> None:
        """Answer unanswered commands that were received before this time with an error."""
        if self._replies.expire(before_seconds, error):
            self.flush_soon()

    def new_session(self, id: int, now_seconds: float) -> Session:
        """A session of this connection, which must be connected."""
        assert self._transport is not None, "not connected"
        peer, own = peer_address(self._transport), own_address(self._transport)
        transaction = self._transactions.transaction
        return Session(id, str(peer), str(own), now_seconds, last_seconds=now_seconds, transaction=transaction)

    def close(self) -> None:
        """Send the answers that are known, then close."""
        if self._phase is not Phase.CLOSED:
            self._phase = Phase.DRAINING
        self._discard_input()
        self._write_replies()
        if self._transport is not None:
            self._transport.close()

    def flush_soon(self) -> None:
        """Write the answers that are known at the end of this turn of the loop, together with all others of it."""
        if self._scheduled_flush is None and self._transport is not None:
            self._scheduled_flush = self._loop.call_soon(self._flush)

    # For `TransactionHandler`

    def reply(self, answer: Answer) -> None:
        """See `TransactionConnection`."""
        self._replies.add(self.session.protocol, answer)

    def replicate(self, command: bytes, finish: Callable[[Answer], Answer] | None = None) -> None:
        """See `TransactionConnection`."""
        reply = self._replies.add_unanswered(self.session.protocol, self.session.last_seconds, finish)
        self._submitter.add(command, reply)

    def replicate_without_reply(self, command: bytes) -> None:
        """See `TransactionConnection`."""
        self._submitter.submit_without_reply(command)

    def execute_local(self, command: LocalCommand, name: bytes, words: Words) -> Result:
        """See `TransactionConnection`."""
        self.session.last_command = name.decode().lower()
        return execute(command, name.decode(), self._context, self.session, words)

    # Internal

    def _flush(self) -> None:
        self._scheduled_flush = None
        self._write_replies()
        if self._replies.is_last_answered:
            self._memory.note(self)
        self._execute_input()

    def _execute_input(self) -> None:
        """Execute received commands within the limits, and read more only when all of them were executed."""
        while self._may_execute():
            free = self._limits.unanswered_commands_max - len(self._replies)
            if free <= 0:
                break
            if not self._commands and not self._parse(free):
                if self._phase is Phase.DRAINING:
                    self._discard_input()  # an incomplete command
                break
            if self._commands:
                self._execute_parsed()
        self._update_transport()

    def _may_execute(self) -> bool:
        return self._phase in _EXECUTING and not self._write_paused and not self._transactions.is_watch_pending

    def _parse(self, commands_max: int) -> bool:
        """Parse further commands, and answer those that are not valid; False if no complete one is left."""
        try:
            self._commands.extend(self._parser.take(commands_max))
        except ProtocolError as error:
            self.reply(CommandFailed(f"ERR {error}"))
            self._discard_input()
            if self._phase is Phase.OPEN:
                self._phase = Phase.REFUSED
            return False
        except CommandTooLarge as error:
            self._transactions.fail(CommandFailed(f"ERR {error}"))
            self._write_replies()
            return True
        return bool(self._commands)

    def _execute_parsed(self) -> None:
        session = self.session
        if not session.commands:
            self._context.silent.settled(self)
        session.last_seconds = self._loop.time()
        while self._commands and not self._transactions.is_watch_pending:
            session.commands += 1
            self._execute(self._commands.popleft())
        self._submitter.submit()
        self._write_replies()

    def _execute(self, words: Words) -> None:
        name = words[0].upper()
        if name in TRANSACTION_COMMANDS:
            self.session.last_command = name.decode().lower()
            self._transactions.handle(name, words)
        elif self._transactions.queues(name):
            self._transactions.queue(name, words)
        elif (command := COMMANDS.get(name)) is not None:
            if command.takes(len(words)):
                self.replicate(encode((name, *words[1:])))
            else:
                self.reply(CommandFailed(wrong_number(name.decode())))
        else:
            self._execute_without_replication(name, words)

    def _execute_without_replication(self, name: bytes, words: Words) -> None:
        """Execute a local command, or answer that the command is unknown."""
        local = LOCAL_COMMANDS.get(name)
        if name in _HTTP_COMMANDS:
            log.warning(
                "%s speaks HTTP, perhaps a browser made to do so by a web page; disconnected", self.session.address
            )
            self.abort()
            self._phase = Phase.CLOSED
            self._discard_input()
        elif local is None:
            self.reply(unknown_command(words))
        else:
            if name == b"RESET":
                self._transactions.discard()
            self.reply(self.execute_local(local, name, words))
            if self.session.leaving:
                self._phase = Phase.DRAINING
                self._discard_input()

    def _discard_input(self) -> None:
        """Discard what was received and is not executed."""
        self._commands.clear()
        self._parser.discard()

    def _write_replies(self) -> None:
        """Write the replies that can be written in order, in bounded portions, until the client stops reading."""
        while self._replies.is_first_answered and not self._write_paused and self._transport is not None:
            self._write(self._replies.take_encoded(_WRITE_BYTES_MAX))
        if not self._replies:
            self._submitter.accept_again()

    def _update_transport(self) -> None:
        """Pause or resume reading, or close, according to the current state."""
        transport = self._transport
        if transport is None or self._phase is Phase.CLOSED:
            return
        if self._phase is Phase.OPEN:
            is_full = self._write_paused or len(self._replies) >= self._limits.unanswered_commands_max
            self._read_unless(self._transactions.is_watch_pending or is_full)
        elif not self._commands and not self._parser.held_bytes:
            self._write_replies()
            if not self._replies and not self._ending:
                self._close_drained(transport)
            return
        if self._parser.held_bytes or transport.get_write_buffer_size():
            self._memory.note(self)

    def _close_drained(self, transport: asyncio.Transport) -> None:
        if self._phase is Phase.REFUSED:
            self._end()
        else:
            transport.close()
