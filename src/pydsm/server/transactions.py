"""What one client has gathered between MULTI and EXEC, and which keys it watches.

Decides what may be gathered, in Redis's words. A transaction stays at the replica where its client is connected until
EXEC; then it is agreed on as one command. Watches are agreed on at once: see `machines/kv/transactions`.
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
"""About what one gathered command takes besides its words."""


@dataclass(frozen=True, slots=True)
class TransactionCommand:
    """One of the commands that `connection` handles itself; counts of words include the name."""

    words_min: int
    words_max: int
    summary: str

    def takes(self, words: int) -> bool:
        """Whether a command may have this many words."""
        return self.words_min <= words <= self.words_max


TRANSACTION_COMMANDS = {
    b"MULTI": TransactionCommand(1, 1, "Begins a transaction: what follows is gathered until EXEC."),
    b"EXEC": TransactionCommand(1, 1, "Executes what was gathered at one moment, unless a watched key was changed."),
    b"DISCARD": TransactionCommand(1, 1, "Forgets what was gathered, and watches nothing any more."),
    b"WATCH": TransactionCommand(2, 1 << 30, "Makes the next EXEC depend on these keys staying as they are."),
    b"UNWATCH": TransactionCommand(1, 1, "Watches nothing any more."),
}
"""By name in capitals."""


@dataclass(slots=True)
class QueuedCommands:
    """Commands between MULTI and EXEC, in order: encoded ones for the machine, words of those answered here."""

    commands: list[bytes | Words] = field(default_factory=list)
    size_bytes: int = 0
    broken: bool = False
    """A command could not be gathered, so nothing will be executed."""

    def add(self, name: bytes, words: Words, *, for_machine: bool, limits: RespLimits) -> Result:
        """QUEUED; raises CommandFailed when there is no room."""
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
        """What is to be agreed on."""
        return [command for command in self.commands if isinstance(command, bytes)]


@dataclass(slots=True)
class Transaction:
    """One client's state. `gathered` is None outside of MULTI."""

    gathered: QueuedCommands | None = None
    watched: dict[bytes, None] = field(default_factory=dict)
    watch: bytes = field(default_factory=lambda: secrets.token_bytes(_WATCH_BYTES))
    """Names the watches of this client, among those of all replicas and of all times."""

    @property
    def size_bytes(self) -> int:
        """What is kept of it here."""
        gathered = (
            0 if self.gathered is None else self.gathered.size_bytes + _COMMAND_BYTES * len(self.gathered.commands)
        )
        return gathered + self.watched_bytes

    def why_not_watch(self, keys: Words, limits: RespLimits) -> CommandFailed | None:
        """Why no further keys are watched, or None."""
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
        """Of the names of watched keys."""
        return sum(map(len, self.watched))

    def watching(self, keys: Words) -> bytes:
        """The command that watches further keys."""
        self.watched.update(dict.fromkeys(keys))
        return encode((b"WATCH", self.watch, *keys))

    def unwatching(self) -> bytes | None:
        """The command that watches nothing any more, None if nothing is watched."""
        if not self.watched:
            return None
        command = encode((b"UNWATCH", self.watch, *self.watched))
        self.watched = {}
        return command

    def executing(self, commands: Sequence[bytes]) -> bytes:
        """The command that executes these, if what is watched was not changed; watches nothing any more."""
        command = encode(transaction(self.watch, tuple(self.watched), commands))
        self.watched = {}
        return command
