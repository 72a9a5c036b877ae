"""A machine for tests: it appends to named lists, and returns them."""

from collections.abc import Sequence
from hashlib import sha256

from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result


class Lists:
    """`KEY WORD` appends the word to the list of that key and gives its new length; `KEY` gives the list.

    The word `fail` fails, `crash` raises as only a broken machine does, and a command without a key does not parse.
    """

    def __init__(self) -> None:
        self.lists: dict[bytes, list[bytes]] = {}

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `machines.base.StateMachine`."""
        if b"" in commands:
            raise UsageError("a command needs a key")
        return Footprint(writes=tuple(dict.fromkeys(command.split()[0] for command in commands)))

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `machines.base.StateMachine`."""
        return [self._apply(*command.split()) for command in commands]

    def _apply(self, key: bytes, word: bytes | None = None) -> Result:
        if word == b"fail":
            return CommandFailed("as asked")
        if word == b"crash":
            raise RuntimeError("a broken machine")
        values = self.lists.setdefault(key, [])
        if word is None:
            return tuple(values)
        values.append(word)
        return len(values)

    def digest(self) -> bytes:
        """See `machines.base.StateMachine`."""
        return sha256(repr(sorted(self.lists.items())).encode()).digest()
