"""The key-value machine: strings under keys, with Redis's commands, replies and error texts.

Decides which keys a batch touches, and executes agreed batches. Guards that a command that fails leaves no trace: the
functions in `kv_commands` only say what should change, and it is changed here, afterwards. Reads commute with reads;
every other pair of commands on one key conflicts, because replies tell of the state (docs/explanation/commuting.md).
Leaves parsing of what clients send, and everything about connections, to the server.
"""

import hashlib
from collections.abc import Sequence
from itertools import islice
from types import MappingProxyType

import msgspec

from pydsm.core.faults import CallerFault
from pydsm.core.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv_commands import COMMANDS, Access, Words, wrong_number

_decode = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_encode = msgspec.msgpack.Encoder().encode
_DIGEST_BYTES = 32
_DIGEST_CHUNK_KEYS = 1000


def encode(words: Words) -> bytes:
    """A command as the machine takes it. The name is in capitals; nothing is checked here."""
    return _encode(words)


class KeyValue:
    """A StateMachine. Not thread-safe: one loop owns it."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._view = MappingProxyType(self._data)

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`. A key that is read and written stands among the written ones only."""
        reads: list[bytes] = []
        writes: list[bytes] = []
        barrier = False
        for encoded in commands:
            words = _words_of(encoded)
            command = COMMANDS[words[0]]
            if command.access is Access.WRITE:
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
        data, view = self._data, self._view
        results: list[Result] = []
        for encoded in commands:
            try:
                words = _decode(encoded)
                result, changes = COMMANDS[words[0]].run(view, words)
            except CommandFailed as failed:
                result, changes = CommandFailed(failed.message), {}  # without its traceback, which holds this frame
            except MemoryError:
                raise
            except Exception as error:
                text = f"ERR internal error: {type(error).__name__}; nothing was changed"
                result, changes = CommandFailed(text), {}
            for key, value in changes.items():
                if value is None:
                    data.pop(key, None)
                else:
                    data[key] = value
            results.append(result)
        return results

    def digest(self) -> bytes:
        """See `StateMachine`. Takes time that grows with the number of keys."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        keys = iter(sorted(self._data))
        while chunk := list(islice(keys, _DIGEST_CHUNK_KEYS)):
            digest.update(_encode([(key, self._data[key]) for key in chunk]))
        return digest.digest()


def _words_of(encoded: bytes) -> tuple[bytes, ...]:
    """The words of a command that the machine knows. Raises CallerFault otherwise."""
    try:
        words = _decode(encoded)
    except msgspec.DecodeError as error:
        raise CallerFault(f"ERR not an encoded command: {error}") from error
    name = words[0] if words else b""
    command = COMMANDS.get(name)
    if command is None:
        raise CallerFault(f"ERR unknown command '{name.decode(errors='backslashreplace')}'")
    if not command.takes(len(words)):
        raise CallerFault(wrong_number(command.name.decode()))
    return words
