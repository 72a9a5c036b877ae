"""The server's state of one Redis client, and its line in CLIENT LIST."""

from dataclasses import dataclass, field

from pydsm.server.transactions import Transaction

_PRINTABLE = frozenset(range(ord("!"), ord("~") + 1))


@dataclass(slots=True)
class Session:
    """The session of one connection. `protocol` is the version of RESP; HELLO and RESET change it from their reply on.

    Times are seconds on the event loop's clock.
    """

    id: int
    address: str
    listening: str
    since_seconds: float
    protocol: int = 2
    name: bytes = b""
    library_name: bytes = b""
    library_version: bytes = b""
    last_command: str = "NULL"
    last_seconds: float = 0.0
    commands: int = 0
    transaction: Transaction = field(default_factory=Transaction)
    leaving: bool = field(default=False)
    """Set by QUIT: earlier commands are answered, later ones are discarded."""

    def reset(self) -> None:
        """Restore the state after connecting."""
        self.protocol, self.name = 2, b""

    def describe(self, now_seconds: float) -> str:
        """The line of CLIENT LIST for this client."""
        return (
            f"id={self.id} addr={self.address} laddr={self.listening} name={self.name.decode(errors='replace')} "
            f"age={int(now_seconds - self.since_seconds)} idle={int(now_seconds - self.last_seconds)} flags=N db=0 "
            f"sub=0 psub=0 ssub=0 multi={self._queued_count} watch={len(self.transaction.watched)} "
            f"cmd={self.last_command} user=default "
            f"lib-name={self.library_name.decode(errors='replace')} "
            f"lib-ver={self.library_version.decode(errors='replace')} resp={self.protocol} tot-cmds={self.commands}"
        )

    @property
    def _queued_count(self) -> int:
        queued = self.transaction.queued
        return -1 if queued is None else len(queued.commands)


def is_one_word(text: bytes) -> bool:
    """Whether the text is printable ASCII without spaces, so that it can be part of a line of CLIENT LIST."""
    return _PRINTABLE.issuperset(text)
