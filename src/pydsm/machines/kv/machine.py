"""The key-value machine: Redis's values under keys, with Redis's commands, replies and error texts.

Decides which keys a batch touches, and executes agreed batches. Reads commute with reads; every other pair of commands
on one key conflicts, because replies tell of the state (docs/explanation/commuting.md). What a command does is left to
the families of commands; parsing of what clients send, and everything about connections, to the server.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from pydsm.core.faults import CallerFault
from pydsm.core.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import Access, Words, wrong_number
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.table import EVERY_COMMAND
from pydsm.machines.kv.values import List, SortedSet, Value, kind

_decode: Callable[[bytes], tuple[bytes, ...]] = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_encode = msgspec.msgpack.Encoder().encode
_DIGEST_BYTES = 32
_DIGEST_CHUNK_KEYS = 1000
_REAP_KEYS_MAX = 1000


def encode(words: Words) -> bytes:
    """A command as the machine takes it. The name is in capitals; nothing is checked here."""
    return _encode(words)


class KeyValue:
    """A StateMachine with upkeep. Not thread-safe: one loop owns it."""

    def __init__(self) -> None:
        self._space = Keyspace()

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`. A key that is read and written stands among the written ones only."""
        reads: list[bytes] = []
        writes: list[bytes] = []
        barrier = False
        for encoded in commands:
            words = _words_of(encoded)
            command = EVERY_COMMAND[words[0]]
            if command.touched is not None:
                touched = command.touched(words)
                reads += touched.reads
                writes += touched.writes
                barrier = barrier or touched.barrier
            elif command.access is Access.WRITE:
                writes += words[command.keys]
            elif command.access is Access.READ:
                reads += words[command.keys]
            else:
                barrier = True
        written = dict.fromkeys(writes)
        only_read = dict.fromkeys(key for key in reads if key not in written)
        return Footprint(reads=tuple(only_read), writes=tuple(written), barrier=barrier)

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine`. Running out of memory is no result, since other replicas may have more: it is raised."""
        space = self._space
        space.begin(timestamp_ms)
        results: list[Result] = []
        for encoded in commands:
            space.place += 1
            try:
                words = _decode(encoded)
                command = EVERY_COMMAND[words[0]]
                if space.expiries:
                    for key in command.touches(words).writes:
                        space.reap(key)
                results.append(command.run(space, words))
            except CommandFailed as failed:
                results.append(CommandFailed(failed.message))  # without its traceback, which holds this frame
            except MemoryError:
                raise
            except Exception as error:
                results.append(CommandFailed(f"ERR internal error: {type(error).__name__}"))
        return results

    def overdue(self, now_ms: int) -> list[bytes]:
        """See `Upkeep`: a command that removes keys which have expired and which nobody may ever touch again."""
        keys = self._space.overdue(now_ms, _REAP_KEYS_MAX)
        return [encode([b"REAP", *keys])] if keys else []

    def counts(self) -> tuple[int, int]:
        """Keys, and those of them with an expiry, expired ones included. At once; nobody agreed on it."""
        return len(self._space.data), len(self._space.expiries)

    def digest(self) -> bytes:
        """See `StateMachine`. Takes time that grows with the size of the state."""
        space = self._space
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        keys = iter(sorted(space.data))
        while chunk := list(islice(keys, _DIGEST_CHUNK_KEYS)):
            digest.update(_encode([(key, _plain(space.data[key]), space.expiries.get(key)) for key in chunk]))
        digest.update(_encode([(key, list(space.watches[key].items())) for key in sorted(space.watches)]))
        return digest.digest()


def _plain(value: Value) -> object:
    """All that can be seen of a value, in an order that is the same everywhere."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, SortedSet):
        return [value.kind, list(value.order)]
    return [kind(value), list(value) if isinstance(value, List) else list(value.items())]


def _words_of(encoded: bytes) -> tuple[bytes, ...]:
    """The words of a command that the machine knows. Raises CallerFault otherwise."""
    try:
        words = _decode(encoded)
    except msgspec.DecodeError as error:
        raise CallerFault(f"ERR not an encoded command: {error}") from error
    name = words[0] if words else b""
    command = EVERY_COMMAND.get(name)
    if command is None:
        raise CallerFault(f"ERR unknown command '{name.decode(errors='backslashreplace')}'")
    if not command.takes(len(words)):
        raise CallerFault(wrong_number(command.name.decode()))
    return words
