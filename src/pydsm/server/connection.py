"""One client's connection: reads commands and writes replies in the order of the commands, both within limits.

Decides what is answered here and what is submitted for agreement. Guards that each command gets one reply in its
place, whenever its result comes, and that a client which asks faster than it is answered, or does not read, is not
read from until that changes. Guards that commands take effect in the order in which they were sent, and that none is
executed of those that came behind a refused one before the refusal was sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, encode, wrong_number
from pydsm.runtime.batching import Aborted, Answer, Overloaded, SubmitMany
from pydsm.runtime.command_queue import Stream
from pydsm.server.client_connection import ClientConnection
from pydsm.server.commands import LOCAL_COMMANDS, CommandContext, LocalCommand, execute, unknown_command
from pydsm.server.memory import ClientMemory
from pydsm.server.parser import CommandTooLarge, ProtocolError, RequestParser, Words
from pydsm.server.replies import encode_reply, error_line
from pydsm.server.session import Session
from pydsm.server.silent import SilentConnections
from pydsm.server.slots import UNANSWERED, Slot, waiting_bytes
from pydsm.server.sockets import heard, notice_if_it_vanishes
from pydsm.server.transactions import ABORTED, TRANSACTION_COMMANDS, QueuedCommands


class ServerContext(CommandContext, Protocol):
    """The server that a connection belongs to."""

    submit_many: SubmitMany
    memory: ClientMemory
    silent: SilentConnections

    @property
    def refusal(self) -> str | None:
        """Why replicated commands are refused now; None while they are accepted."""
        ...

    def opened(self, connection: "RespConnection") -> Session | CommandFailed:
        """The session of a new connection, or the error with which it is refused."""
        ...

    def closed(self, connection: "RespConnection") -> None:
        """The connection is closed."""
        ...


log = logging.getLogger("pydsm.server")

_WRITE_BYTES_MAX = 1 << 18
"""Bytes of replies that are put together for one write."""

_NOT_QUEUED = frozenset((b"QUIT", b"RESET"))
"""Commands that are not gathered after MULTI."""

_HTTP_COMMANDS = frozenset((b"POST", b"HOST:"))
"""First words of HTTP requests, by which requests from web pages are detected before their body."""


def _readable(address: object) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)


def _ignore(offset: int, answers: Sequence[Answer]) -> None:
    pass


class RespConnection(ClientConnection):
    """See the module."""

    session: Session

    def __init__(self, port: ServerContext) -> None:
        super().__init__()
        self._port = port
        self._limits = port.limits
        self._submit_many = port.submit_many
        self._parser = RequestParser(port.limits)
        self._slots: deque[Slot] = deque()
        self._gathering: list[bytes] = []
        self._gathering_slots: list[Slot] = []
        """Commands of this turn that are to be submitted together, and their places."""
        self._stream = Stream()
        self._refusal: Aborted | Overloaded | None = None
        """Why a command was not executed, until all that came behind it is answered in the same way."""
        self._loop = asyncio.get_running_loop()
        self._admitted = False
        self._flush_is_due = False
        self._write_paused = False
        self._held = False
        """A WATCH has no answer yet: later commands must not be executed before it."""
        self._postponed: list[Words] = []
        self._leaving = False
        """Accept no more commands; close after the last reply."""
        self._input_ended = False
        """The client will send nothing more; what it sent is still answered."""
        self._refused = False
        """The connection is closed with an error that the client must be able to read, even with unread input."""

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session, or refuse."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        notice_if_it_vanishes(self._transport, self._limits.idle_seconds_before_probe)
        session = self._port.opened(self)
        if isinstance(session, CommandFailed):
            self._leaving = self._refused = True
            self._write(error_line(session.message))
            self._end()
        else:
            self.session = session
            self._admitted = True

    def connection_lost(self, error: Exception | None) -> None:
        """Discard pending replies; submitted commands may still be executed."""
        if self._transport is not None:
            heard(self._transport)
        self._port.memory.forget(self)
        self._transport = None
        self._leaving = True
        self._slots.clear()
        self._postponed.clear()
        if self._admitted:
            self._unwatch()
        self._port.closed(self)

    def data_received(self, data: bytes) -> None:
        """Execute what is complete."""
        if not self._leaving:
            self._parser.feed(data)
            self._work()

    def eof_received(self) -> bool:
        """The client may still read what it asked for."""
        self._input_ended = True
        self.flush_soon()
        return not self._refused

    def pause_writing(self) -> None:
        """The client does not read."""
        self._write_paused = True
        self._port.memory.note(self)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self.flush_soon()

    # For `ClientMemory`

    def half_sent_bytes(self) -> int:
        """See `memory.Holder`."""
        return self._parser.held_bytes if not (self._read_paused or self._leaving) else 0

    def commands_read(self) -> int:
        """See `memory.Holder`."""
        return self._parser.complete

    def other_bytes(self) -> int:
        """See `memory.Holder`."""
        postponed = self._parser.held_bytes - self.half_sent_bytes()
        return postponed + self.session.transaction.size_bytes + waiting_bytes(self._slots)

    def who(self) -> str:
        """See `memory.Holder`."""
        return self.session.address

    # For the server

    def answer_late(self, before_seconds: float, error: CommandFailed) -> None:
        """Answer unanswered commands received before this time with an error."""
        late = False
        for slot in self._slots:
            if slot.since > before_seconds:
                break
            if slot.answer is UNANSWERED:
                slot.settle(error)
                late = True
        if late:
            self.flush_soon()

    @property
    def write_paused(self) -> bool:
        """Whether the client leaves so much unread that nothing more is written to it."""
        return self._write_paused

    def addresses(self) -> tuple[str, str]:
        """Of the client, and of this end."""
        assert self._transport is not None, "asked before connecting"
        extra = self._transport.get_extra_info
        return _readable(extra("peername")), _readable(extra("sockname"))

    def close(self) -> None:
        """Send what is answered, and close."""
        self._leaving = True
        self._write_answered()
        if self._transport is not None:
            self._transport.close()

    def flush_soon(self) -> None:
        """Send what is answered at the end of this turn of the loop."""
        if not self._flush_is_due and self._transport is not None:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    # Inside

    def _flush(self) -> None:
        self._flush_is_due = False
        self._write_answered()
        if self._slots and self._slots[-1].answer is not UNANSWERED:
            self._port.memory.note(self)
        self._work()

    def _work(self) -> None:
        """Take as many commands as there is room for, and read on only if that was all of them."""
        while not self._leaving and not self._write_paused and not self._held:
            room = self._limits.unanswered_commands_max - len(self._slots)
            if room <= 0:
                break
            try:
                commands, self._postponed = self._postponed or self._parser.take(room), []
            except ProtocolError as error:
                self._answer(CommandFailed(f"ERR {error}"))
                self._leaving = self._refused = True
                break
            except CommandTooLarge as error:
                self._flag_transaction(CommandFailed(f"ERR {error}"))
                self._write_answered()
                continue
            if not commands:
                self._leaving = self._input_ended
                break
            self._take(commands)
        self._settle_transport()

    def _take(self, commands: list[Words]) -> None:
        session = self.session
        if not session.commands:
            self._port.silent.settled(self)
        session.last_seconds = self._loop.time()
        for place, words in enumerate(commands, start=1):
            session.commands += 1
            self._serve(words)
            if self._held:
                self._postponed = commands[place:]
            if self._leaving or self._held:
                break
        self._submit_gathered()
        self._write_answered()

    def _serve(self, words: Words) -> None:
        name = words[0].upper()
        gathered = self.session.transaction.gathered
        if name in TRANSACTION_COMMANDS:
            self._transact(name, words)
        elif gathered is not None and name not in _NOT_QUEUED:
            self._gather(gathered, name, words)
        elif (command := COMMANDS.get(name)) is not None:
            if command.takes(len(words)):
                self._agree_on(encode((name, *words[1:])))
            else:
                self._answer(CommandFailed(wrong_number(name.decode())))
        else:
            self._serve_here(name, words)

    def _serve_here(self, name: bytes, words: Words) -> None:
        """Commands that need no agreement, and what is no command."""
        local = LOCAL_COMMANDS.get(name)
        if name in _HTTP_COMMANDS:
            log.warning(
                "%s speaks HTTP, perhaps a browser made to do so by a web page; disconnected", self.session.address
            )
            self.abort()
            self._leaving = True
        elif local is None:
            self._answer(unknown_command(words))
        else:
            if name == b"RESET":
                self._discard_transaction()
            self._answer(self._execute_here(local, name, words))
            self._leaving = self.session.leaving

    def _execute_here(self, local: LocalCommand, name: bytes, words: Words) -> Result:
        self.session.last_command = name.decode().lower()
        return execute(local, name.decode(), self._port, self.session, words)

    def _agree_on(self, command: bytes, finish: Callable[[Answer], Answer] | None = None) -> None:
        """Submit a command, with the others of this turn."""
        slot = Slot(self.session.protocol, UNANSWERED, self.session.last_seconds, finish)
        self._slots.append(slot)
        if self._refusal is not None:
            slot.settle(self._refusal)
        elif self._port.refusal is not None:
            slot.settle(CommandFailed(f"CLUSTERDOWN {self._port.refusal}; the command was not executed"))
        else:
            self._gathering.append(command)
            self._gathering_slots.append(slot)

    def _submit_gathered(self) -> None:
        if self._gathering:
            commands, slots = self._gathering, self._gathering_slots
            self._gathering, self._gathering_slots = [], []
            self._submit_many(commands, partial(self._settle, slots), self._stream)

    def _settle(self, slots: list[Slot], offset: int, answers: Sequence[Answer]) -> None:
        """Take answers; they leave at the end of this turn of the loop, with all others that came in it."""
        for slot, answer in zip(slots[offset : offset + len(answers)], answers, strict=True):
            slot.settle(answer)
        if isinstance(answers[-1], Aborted | Overloaded):  # answers that come together are refusals all, or none is
            self._refusal = answers[-1]
        self.flush_soon()

    # Transactions

    def _transact(self, name: bytes, words: Words) -> None:
        transaction = self.session.transaction
        self.session.last_command = name.decode().lower()
        if not TRANSACTION_COMMANDS[name].takes(len(words)):
            self._flag_transaction(CommandFailed(wrong_number(name.decode())))
        elif name == b"MULTI" and transaction.gathered is None:
            transaction.gathered = QueuedCommands()
            self._answer("OK")
        elif name == b"MULTI":
            self._answer(CommandFailed("ERR MULTI calls can not be nested"))
        elif name == b"WATCH" and transaction.gathered is not None:
            self._answer(CommandFailed("ERR WATCH inside MULTI is not allowed"))
        elif name == b"WATCH":
            full = transaction.why_not_watch(words[1:], self._limits)
            if full is not None:
                self._answer(full)
                return
            self._held = True
            self._agree_on(transaction.watching(words[1:]), self._release)
        elif name == b"UNWATCH" and transaction.gathered is not None:
            self._gather(transaction.gathered, name, words)
        elif name == b"UNWATCH":
            self._unwatch()
            self._answer("OK")
        elif transaction.gathered is None:
            self._answer(CommandFailed(f"ERR {name.decode()} without MULTI"))
        elif name == b"DISCARD":
            self._discard_transaction()
            self._answer("OK")
        elif transaction.gathered.broken:
            self._discard_transaction()
            self._answer(CommandFailed(ABORTED))
        else:
            self._execute_transaction(transaction.gathered)

    def _release(self, answer: Answer) -> Answer:
        self._held = False
        return answer

    def _gather(self, gathered: QueuedCommands, name: bytes, words: Words) -> None:
        """Take a command for later, or answer immediately that it is invalid."""
        command = COMMANDS.get(name) or LOCAL_COMMANDS.get(name) or TRANSACTION_COMMANDS.get(name)
        if command is None:
            self._flag_transaction(unknown_command(words))
        elif not command.takes(len(words)):
            self._flag_transaction(CommandFailed(wrong_number(name.decode())))
        else:
            try:
                self._answer(gathered.add(name, words, for_machine=name in COMMANDS, limits=self._limits))
            except CommandFailed as failed:
                self._flag_transaction(failed)

    def _flag_transaction(self, error: CommandFailed) -> None:
        """An error while commands are gathered: EXEC will refuse."""
        if self.session.transaction.gathered is not None:
            self.session.transaction.gathered.broken = True
        self._answer(CommandFailed(error.message))

    def _execute_transaction(self, gathered: QueuedCommands) -> None:
        transaction = self.session.transaction
        transaction.gathered = None
        if gathered.for_machine or transaction.watched:
            self._agree_on(
                transaction.executing(gathered.for_machine), lambda answer: self._with_local(gathered, answer)
            )
        else:
            self._answer(self._with_local(gathered, []))

    def _with_local(self, gathered: QueuedCommands, answer: Answer) -> Answer:
        """The machine's results together with those of commands that are answered here, each in its place."""
        if not isinstance(answer, list):
            return answer
        results = iter(answer)
        return [
            next(results) if isinstance(command, bytes) else self._local_result(command)
            for command in gathered.commands
        ]

    def _local_result(self, words: Words) -> Result:
        local = LOCAL_COMMANDS.get(words[0])
        return "OK" if local is None else self._execute_here(local, words[0], words)

    def _discard_transaction(self) -> None:
        self.session.transaction.gathered = None
        self._unwatch()

    def _unwatch(self) -> None:
        """Submit an UNWATCH for this client; its answer is ignored."""
        command = self.session.transaction.unwatching()
        if command is not None:
            self._submit_gathered()
            self._submit_many((command,), _ignore, self._stream)

    def _answer(self, answer: Answer) -> None:
        self._slots.append(Slot(self.session.protocol, answer))

    def _write_answered(self) -> None:
        """Write the replies at the head of the order, a bounded number of bytes at a time."""
        slots, limits = self._slots, self._limits
        while slots and slots[0].answer is not UNANSWERED and not self._write_paused and self._transport is not None:
            replies: list[bytes] = []
            size = 0
            while slots and slots[0].answer is not UNANSWERED and size < _WRITE_BYTES_MAX:
                slot = slots.popleft()
                reply = encode_reply(slot.answer, slot.protocol, limits)
                replies.append(reply)
                size += len(reply)
            self._write(b"".join(replies))
        if not slots:
            self._refusal = None

    def _settle_transport(self) -> None:
        """Pause or resume reading, or close, according to the current state."""
        transport = self._transport
        if transport is None:
            return
        if self._leaving:
            self._write_answered()
            if self._slots or self._ending:
                return
            if self._refused and not self._input_ended:
                self._end()
            else:
                transport.close()
            return
        self._read_unless(self._held or self._write_paused or len(self._slots) >= self._limits.unanswered_commands_max)
        if self._parser.held_bytes or transport.get_write_buffer_size():
            self._port.memory.note(self)
