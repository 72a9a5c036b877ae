"""Handles MULTI, EXEC, DISCARD, WATCH and UNWATCH of one Redis connection.

Decides which commands are queued, what each transaction command is answered, and when a transaction is submitted.
Guarantees Redis's rules: an error while commands are queued makes EXEC refuse, and EXEC, DISCARD and UNWATCH end all
watches. The commands that represent watches and transactions in the log are built by `transactions`; reading, replies
and submission are left to `connection`.
"""

from collections.abc import Callable
from typing import Protocol

from pydsm.client_protocol.answers import Answer
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, wrong_number
from pydsm.server.commands import LOCAL_COMMANDS, LocalCommand, unknown_command
from pydsm.server.limits import RespLimits
from pydsm.server.transactions import ABORTED, TRANSACTION_COMMANDS, QueuedCommands, Transaction, Words

_NOT_QUEUED = frozenset((b"QUIT", b"RESET"))
"""Commands that are executed immediately even after MULTI."""


class TransactionConnection(Protocol):
    """The actions of a connection that the handler uses. Each reply belongs to the command that is handled now."""

    def reply(self, answer: Answer) -> None:
        """Add a reply whose answer is known."""
        ...

    def replicate(self, command: bytes, finish: Callable[[Answer], Answer] | None = None) -> None:
        """Add a reply and submit a command; the answer of the state machine, changed by `finish`, completes it."""
        ...

    def replicate_without_reply(self, command: bytes) -> None:
        """Submit a command whose answer is ignored."""
        ...

    def execute_local(self, command: LocalCommand, name: bytes, words: Words) -> Result:
        """Execute a command that needs no replication."""
        ...


class TransactionHandler:
    """The transaction state of one connection, and the commands that change it. Names are in capitals."""

    def __init__(self, connection: TransactionConnection, limits: RespLimits) -> None:
        self._connection = connection
        self._limits = limits
        self.transaction = Transaction()
        self.is_watch_pending = False
        """A WATCH has no answer yet: later commands must not be executed before it."""

    def queues(self, name: bytes) -> bool:
        """Whether a command is queued now and not executed."""
        return self.transaction.queued is not None and name not in _NOT_QUEUED

    def queue(self, name: bytes, words: Words) -> None:
        """Queue a command for EXEC and reply QUEUED, or reply with the reason why it is not valid."""
        queued = self.transaction.queued
        assert queued is not None, "queued outside of MULTI"
        command = COMMANDS.get(name) or LOCAL_COMMANDS.get(name) or TRANSACTION_COMMANDS.get(name)
        if command is None:
            self.fail(unknown_command(words))
        elif not command.takes(len(words)):
            self.fail(CommandFailed(wrong_number(name.decode())))
        else:
            try:
                self._connection.reply(queued.add(name, words, for_machine=name in COMMANDS, limits=self._limits))
            except CommandFailed as failed:
                self.fail(failed)

    def fail(self, error: CommandFailed) -> None:
        """Reply with an error; inside of MULTI, EXEC will refuse."""
        if self.transaction.queued is not None:
            self.transaction.queued.dirty = True
        self._connection.reply(CommandFailed(error.message))

    def handle(self, name: bytes, words: Words) -> None:
        """Execute a command of `TRANSACTION_COMMANDS`."""
        transaction, reply = self.transaction, self._connection.reply
        queued = transaction.queued
        if not TRANSACTION_COMMANDS[name].takes(len(words)):
            self.fail(CommandFailed(wrong_number(name.decode())))
        elif name == b"MULTI" and queued is None:
            transaction.queued = QueuedCommands()
            reply("OK")
        elif name == b"MULTI":
            reply(CommandFailed("ERR MULTI calls can not be nested"))
        elif name == b"WATCH" and queued is not None:
            reply(CommandFailed("ERR WATCH inside MULTI is not allowed"))
        elif name == b"WATCH":
            self._watch(words[1:])
        elif name == b"UNWATCH" and queued is not None:
            self.queue(name, words)
        elif name == b"UNWATCH":
            self.unwatch()
            reply("OK")
        elif queued is None:
            reply(CommandFailed(f"ERR {name.decode()} without MULTI"))
        elif name == b"DISCARD":
            self.discard()
            reply("OK")
        elif queued.dirty:
            self.discard()
            reply(CommandFailed(ABORTED))
        else:
            self._execute(queued)

    def discard(self) -> None:
        """End MULTI without executing anything, and all watches."""
        self.transaction.queued = None
        self.unwatch()

    def unwatch(self) -> None:
        """End all watches."""
        command = self.transaction.unwatching()
        if command is not None:
            self._connection.replicate_without_reply(command)

    def _watch(self, keys: Words) -> None:
        full = self.transaction.why_not_watch(keys, self._limits)
        if full is not None:
            self._connection.reply(full)
        else:
            self.is_watch_pending = True
            self._connection.replicate(self.transaction.watching(keys), self._watch_answered)

    def _watch_answered(self, answer: Answer) -> Answer:
        self.is_watch_pending = False
        return answer

    def _execute(self, queued: QueuedCommands) -> None:
        transaction = self.transaction
        transaction.queued = None
        if queued.for_machine or transaction.watched:
            command = transaction.executing(queued.for_machine)
            self._connection.replicate(command, lambda answer: self._add_local_results(queued, answer))
        else:
            self._connection.reply(self._add_local_results(queued, []))

    def _add_local_results(self, queued: QueuedCommands, answer: Answer) -> Answer:
        """The results of all queued commands in order: those of the state machine, and those of local commands."""
        if not isinstance(answer, list):
            return answer
        results = iter(answer)
        return [
            next(results) if isinstance(command, bytes) else self._local_result(command) for command in queued.commands
        ]

    def _local_result(self, words: Words) -> Result:
        local = LOCAL_COMMANDS.get(words[0])
        return "OK" if local is None else self._connection.execute_local(local, words[0], words)
