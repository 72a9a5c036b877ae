"""Counters whose additions commute: the smallest machine with an update that needs no order.

`add` always succeeds and always returns None, so its result does not depend on the state, and additions to one counter
may be executed in any order. `read` conflicts with them. See docs/explanation/commuting.md.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.partitions import partition_keys

_ADDITIONS = b"add"
_DIGEST_BYTES = 32


class Add(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Adds a signed 64-bit number; the result is None."""

    counter: bytes
    amount: int


class Read(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Returns the sum of the added numbers; 0 for an unknown counter."""

    counter: bytes


_Command = Add | Read
_decoder: msgspec.msgpack.Decoder[_Command] = msgspec.msgpack.Decoder(_Command)
_decode_sums = msgspec.msgpack.Decoder(list[tuple[bytes, str]]).decode
_encode = msgspec.msgpack.Encoder().encode


def encode(command: Add | Read) -> bytes:
    """An encoded command for the machine. Raises UsageError for an amount that does not fit into 64 bits."""
    try:
        return _encode(command)
    except OverflowError as error:
        raise UsageError(f"{command} is not within 64 bits; add it in several steps") from error


class CountersMachine:
    """A StateMachine. A counter with the value 0 and an unknown counter are the same state."""

    handles_failures = True

    def __init__(self) -> None:
        self._sums: dict[bytes, int] = {}

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`."""
        added: dict[bytes, None] = {}
        read: dict[bytes, None] = {}
        for command in map(_parse, commands):
            (added if isinstance(command, Add) else read)[command.counter] = None
        updates = ((_ADDITIONS, tuple(added)),) if added else ()
        return Footprint(reads=tuple(read), updates=updates)

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine`."""
        return [self._execute(command) for command in commands]

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`."""
        return _chunks(dict(self._sums))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `SupportsSnapshots`."""
        self._sums = {counter: int(total) for chunk in filter(None, chunks) for counter, total in _decode_sums(chunk)}

    def keys_in(self, chunk: bytes) -> list[bytes]:
        """See `SupportsKeyListing`."""
        return [counter for counter, _ in _decode_sums(chunk)]

    def digest(self) -> bytes:
        """See `StateMachine`."""
        written = [(counter, str(total)) for counter, total in sorted(self._sums.items())]
        return hashlib.blake2b(_encode(written), digest_size=_DIGEST_BYTES).digest()

    def _execute(self, encoded: bytes) -> Result:
        try:
            command = _parse(encoded)
        except UsageError as fault:
            return CommandFailed(str(fault))
        total = self._sums.get(command.counter, 0)
        if isinstance(command, Read):
            return total
        total += command.amount
        if total:
            self._sums[command.counter] = total
        else:
            self._sums.pop(command.counter, None)
        return None


def _chunks(sums: dict[bytes, int]) -> Iterator[bytes]:
    for part in partition_keys(list(sums)):
        yield b"" if part is None else _encode([(counter, str(sums[counter])) for counter in part])


def _parse(encoded: bytes) -> Add | Read:
    try:
        return _decoder.decode(encoded)
    except msgspec.DecodeError as error:
        raise UsageError(f"not a command of the counters: {error}") from error
