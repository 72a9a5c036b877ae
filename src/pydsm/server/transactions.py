"""The transaction state of one client: the commands queued between MULTI and EXEC, and the watched keys.

Decides how many commands may be queued and how many keys watched. A transaction stays at the replica to which its
client is connected until EXEC; then it is replicated as one command. Watches are replicated immediately: see
`machines/kv/transactions`.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import encode, transaction
from pydsm.server.limits import RespLimits

Words = Sequence[bytes]

ABORTED = "EXECABORT Transaction discarded because of previous errors."
_WATCH_BYTES = 12
_COMMAND_BYTES = 64
"""Approximate size of one queued command besides its words."""


@dataclass(frozen=True, slots=True)
class TransactionCommand:
    """A command that `transaction_handler` executes; counts of words include the name."""

    words_min: int
    words_max: int
    summary: str

    def takes(self, words: int) -> bool:
        """Whether a command may have this many words."""
        return self.words_min <= words <= self.words_max


TRANSACTION_COMMANDS = {
    b"MULTI": TransactionCommand(1, 1, "Begins a transaction: the commands after it are queued until EXEC."),
    b"EXEC": TransactionCommand(1, 1, "Executes the queued commands atomically, unless a watched key was changed."),
    b"DISCARD": TransactionCommand(1, 1, "Discards the queued commands, and ends all watches."),
    b"WATCH": TransactionCommand(
        2, 1 << 30, "Makes the next EXEC execute nothing if one of these keys is changed before it."
    ),
    b"UNWATCH": TransactionCommand(1, 1, "Ends all watches."),
}
"""By name in capitals."""


@dataclass(slots=True)
class QueuedCommands:
    """Commands between MULTI and EXEC, in order: encoded for the state machine, or the words of local commands."""

    commands: list[bytes | Words] = field(default_factory=list)
    size_bytes: int = 0
    dirty: bool = False
    """A command could not be queued, so EXEC will execute nothing."""

    def add(self, name: bytes, words: Words, *, for_machine: bool, limits: RespLimits) -> Result:
        """Add a command and return QUEUED. Raises CommandFailed if a limit would be exceeded."""
        size = sum(map(len, words))
        if (
            len(self.commands) >= limits.transaction_commands_max
            or self.size_bytes + size > limits.transaction_bytes_max
        ):
            raise CommandFailed(
                f"ERR the transaction is longer than {limits.transaction_commands_max} commands or "
                f"{limits.transaction_bytes_max} bytes; make several of it"
            )
        self.size_bytes += size
        self.commands.append(encode((name, *words[1:])) if for_machine else (name, *words[1:]))
        return "QUEUED"

    @property
    def for_machine(self) -> list[bytes]:
        """The commands that are replicated."""
        return [command for command in self.commands if isinstance(command, bytes)]


@dataclass(slots=True)
class Transaction:
    """The state of one client. `queued` is None outside of MULTI."""

    queued: QueuedCommands | None = None
    watched: dict[bytes, None] = field(default_factory=dict)
    watch: bytes = field(default_factory=lambda: secrets.token_bytes(_WATCH_BYTES))
    """Identifies the watches of this client in the group; random, so that it is never used twice."""

    @property
    def size_bytes(self) -> int:
        """Approximate memory that it uses."""
        queued = 0 if self.queued is None else self.queued.size_bytes + _COMMAND_BYTES * len(self.queued.commands)
        return queued + self.watched_bytes

    def why_not_watch(self, keys: Words, limits: RespLimits) -> CommandFailed | None:
        """The error if these keys cannot be watched as well; None if they can."""
        new = [key for key in keys if key not in self.watched]
        size = self.watched_bytes + sum(map(len, new))
        if len(self.watched) + len(new) > limits.transaction_commands_max or size > limits.transaction_bytes_max:
            return CommandFailed(
                f"ERR more than {limits.transaction_commands_max} keys or {limits.transaction_bytes_max} bytes of them "
                "cannot be watched; watch fewer"
            )
        return None

    @property
    def watched_bytes(self) -> int:
        """Bytes of the names of watched keys."""
        return sum(map(len, self.watched))

    def watching(self, keys: Words) -> bytes:
        """Watch further keys: the command to replicate."""
        self.watched.update(dict.fromkeys(keys))
        return encode((b"WATCH", self.watch, *keys))

    def unwatching(self) -> bytes | None:
        """End all watches: the command to replicate, or None if nothing is watched."""
        if not self.watched:
            return None
        command = encode((b"UNWATCH", self.watch, *self.watched))
        self.watched = {}
        return command

    def executing(self, commands: Sequence[bytes]) -> bytes:
        """End all watches: the command that executes these commands if no watched key was changed."""
        command = encode(transaction(self.watch, tuple(self.watched), commands))
        self.watched = {}
        return command
