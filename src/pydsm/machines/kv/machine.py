"""The key-value machine: Redis's values under keys, with Redis's commands, replies and error texts.

Decides which keys a batch reads and writes, and executes agreed batches. Reads commute with reads; every other pair of
commands on one key conflicts, because replies depend on the state (docs/explanation/commuting.md). The commands
themselves are in the modules of their groups; the wire protocol and connections are left to the server.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import FIRST, Command, KeyAccess, Words, check_lengths, wrong_number
from pydsm.machines.kv.frozen import Frozen, keys_in, saved, thaw
from pydsm.machines.kv.given import count_all, limited
from pydsm.machines.kv.keyspace import VALUE_BYTES_LEAST, VALUE_BYTES_MOST, Keyspace
from pydsm.machines.kv.table import EVERY_COMMAND

_decode: Callable[[bytes], tuple[bytes, ...]] = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_decode_many: Callable[[bytes], list[tuple[bytes, ...]]] = msgspec.msgpack.Decoder(list[tuple[bytes, ...]]).decode
_encode = msgspec.msgpack.Encoder().encode
_DIGEST_BYTES = 32
_DIGEST_CHUNK_KEYS = 1000
_REAP_KEYS_MAX = 1000
_NAMES_MAX = 4
"""Up to this many names, a batch is filtered once for each name, which is faster than handling each command alone."""


def encode(words: Words) -> bytes:
    """An encoded command for the machine. The name must be in capitals; nothing is checked here."""
    return _encode(words)


class KeyValue:
    """A StateMachine with snapshots and scheduled commands. Not thread-safe: one loop owns it."""

    handles_failures = True

    def __init__(self, value_bytes_max: int | None = None) -> None:
        """`value_bytes_max`: a limit on the bytes of values to propose to the group, once; None keeps the group's.

        Raises UsageError if the limit is out of range.
        """
        if value_bytes_max is not None and not VALUE_BYTES_LEAST <= value_bytes_max <= VALUE_BYTES_MOST:
            raise UsageError(
                f"the limit on the bytes of a value must be between {VALUE_BYTES_LEAST} and {VALUE_BYTES_MOST}, "
                f"not {value_bytes_max}"
            )
        self._space = Keyspace()
        self._frozen: Frozen | None = None
        self._wanted_value_bytes_max = value_bytes_max
        self._limit_changes: int | None = None
        """Number of changes of the limit at the first call of `due_commands`; None before that."""
        self._may_be_long = False
        """Whether the batch has enough bytes for one word to be over the limit."""

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`. A key that is read and written is in `writes` only."""
        reads: list[bytes] = []
        writes: list[bytes] = []
        barrier = False
        for command, alike in _by_name(_checked(commands)):
            if command.touched is not None:
                for words in alike:
                    touched = command.touched(words)
                    reads += touched.reads
                    writes += touched.writes
                    barrier = barrier or touched.barrier
            elif command.access is KeyAccess.WRITE:
                writes += _keys(command, alike)
            elif command.access is KeyAccess.READ:
                reads += _keys(command, alike)
            else:
                barrier = True
        written = dict.fromkeys(writes)
        only_read = dict.fromkeys(key for key in reads if key not in written)
        return Footprint(reads=tuple(only_read), writes=tuple(written), barrier=barrier)

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine`. A MemoryError is raised, not made a result: other replicas may have more memory."""
        space = self._space
        space.begin(timestamp_ms)
        joined = b"".join(commands)
        self._may_be_long = len(joined) > space.value_bytes_max
        try:
            # The leader of the batch has checked each command alone, so no command can contain a second one.
            batch = _decode_many(b"\xdd%b%b" % (len(commands).to_bytes(4, "big"), joined))
        except msgspec.DecodeError:
            return [self._execute(encoded) for encoded in commands]
        results: list[Result] = []
        for name, run in groupby(batch, _name):
            alike = list(run)
            together = self._execute_together(name, alike) if len(alike) > 1 else None
            results += [self._execute_words(words) for words in alike] if together is None else together
        return results

    def apply_unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `SupportsReadSkipping`."""
        self._space.unread = True
        try:
            return self.apply(commands, timestamp_ms)
        finally:
            self._space.unread = False

    def _execute_together(self, name: bytes, alike: Sequence[Words]) -> list[Result] | None:
        """The results of consecutive commands of one name; None if they must be executed one by one."""
        command = EVERY_COMMAND.get(name)
        if command is None:
            return None
        if self._space.unread and not command.writes:
            self._space.command_index += len(alike)
            return [None] * len(alike)
        if command.bulk is None or self._may_be_long or not self._space.is_plain:
            return None
        if not all(map(command.takes, {*map(len, alike)})):
            return None
        if self._frozen is not None and command.access is not KeyAccess.READ:
            self._frozen.keep(chain.from_iterable(words[command.keys] for words in alike))
        results = command.bulk(self._space, alike)
        if results is not None and not command.writes:
            size = sum([len(one) for one in results if isinstance(one, bytes)])
            if not count_all(self._space, size):
                return None
        if results is not None:
            self._space.command_index += len(alike)
        return results

    def _execute(self, encoded: bytes) -> Result:
        try:
            words = _decode(encoded)
        except msgspec.DecodeError as error:
            self._space.command_index += 1
            return CommandFailed(f"ERR not an encoded command: {error}")
        return self._execute_words(words)

    def _execute_words(self, words: Words) -> Result:
        """The result of one command; a CommandFailed if it failed."""
        space = self._space
        space.command_index += 1
        try:
            command = EVERY_COMMAND[words[0]]
            if space.unread and not command.writes:
                return None
            if self._may_be_long and command.writes and not command.made_by_servers:
                check_lengths(space, words)
            if space.expiries or self._frozen is not None:
                writes = command.touches(words).writes
                if self._frozen is not None:
                    self._frozen.keep(writes)
                for key in writes:
                    space.reap(key)
            return limited(space, command.run(space, words))
        except CommandFailed as failed:
            return CommandFailed(failed.message)  # without its traceback, which holds this frame
        except MemoryError:
            raise
        except Exception as error:
            return CommandFailed(f"ERR internal error: {type(error).__name__}")

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`. While a snapshot is in progress, the first write to each key copies its value."""
        self._frozen = Frozen(self._space)
        steps = self._thawing(self._frozen)
        next(steps)  # start the generator, so that closing it before its first chunk also runs `finally`
        return steps

    def _thawing(self, frozen: Frozen) -> Iterator[bytes]:
        try:
            yield b""
            yield from frozen.chunks()
        finally:
            if self._frozen is frozen:
                self._frozen = None

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `SupportsSnapshots`."""
        self._space = thaw(chunks)
        self._frozen = None

    def keys_in(self, chunk: bytes) -> list[bytes]:
        """See `SupportsKeyListing`."""
        return keys_in(chunk)

    def due_commands(self, now_ms: int) -> list[bytes]:
        """See `SupportsScheduledCommands`: a command that removes expired keys."""
        keys = self._space.due_commands(now_ms, _REAP_KEYS_MAX)
        reap = [encode([b"REAP", *keys])] if keys else []
        return [*self._limit_to_propose(), *reap]

    def _limit_to_propose(self) -> list[bytes]:
        """The command that sets the limit configured for this process, until any such command is executed.

        Not after that: two replicas with different configured limits would change it again and again.
        """
        wanted, changes = self._wanted_value_bytes_max, self._space.limit_changes
        if self._limit_changes is None:
            self._limit_changes = changes
        if wanted in {None, self._space.value_bytes_max} or changes != self._limit_changes:
            return []
        return [encode([b"VALUE-LIMIT", b"%d" % wanted])]

    @property
    def value_bytes_max(self) -> int:
        """Bytes that one string, element, field or member may have, as this group agreed."""
        return self._space.value_bytes_max

    def counts(self) -> tuple[int, int]:
        """The number of keys, and of keys with an expiry, including expired ones. Local values, not agreed."""
        return len(self._space.data), len(self._space.expiries)

    def digest(self) -> bytes:
        """See `StateMachine`. Takes time that grows with the size of the state."""
        space = self._space
        digest = hashlib.blake2b(b"%d" % space.value_bytes_max, digest_size=_DIGEST_BYTES)
        keys = iter(sorted(space.data))
        while chunk := list(islice(keys, _DIGEST_CHUNK_KEYS)):
            digest.update(_encode([(key, saved(space.data[key]), space.expiries.get(key)) for key in chunk]))
        digest.update(_encode([(key, list(space.watches[key].items())) for key in sorted(space.watches)]))
        return digest.digest()


def _checked(commands: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """The words of each command. Raises UsageError if one is not an encoded command."""
    try:
        return list(map(_decode, commands))
    except msgspec.DecodeError as error:
        raise UsageError(f"ERR not an encoded command: {error}") from error


def _by_name(batch: Sequence[tuple[bytes, ...]]) -> Iterator[tuple[Command, Sequence[tuple[bytes, ...]]]]:
    """Commands grouped by name. Raises UsageError for an unknown command or a wrong number of words."""
    names = dict.fromkeys(map(_name, batch))
    if len(names) <= _NAMES_MAX:
        groups: Iterable[tuple[bytes, Sequence[tuple[bytes, ...]]]] = (
            (name, batch if len(names) == 1 else [words for words in batch if _name(words) == name]) for name in names
        )
    else:
        groups = ((_name(words), (words,)) for words in batch)
    for name, alike in groups:
        command = EVERY_COMMAND.get(name)
        if command is None:
            raise UsageError(f"ERR unknown command '{name.decode(errors='backslashreplace')}'")
        if not all(map(command.takes, {*map(len, alike)})):
            raise UsageError(wrong_number(command.name.decode()))
        yield command, alike


def _keys(command: Command, alike: Sequence[tuple[bytes, ...]]) -> Iterable[bytes]:
    """The keys of commands of one name, selected by the slice of the command."""
    if command.keys == FIRST:
        return map(itemgetter(1), alike)
    return chain.from_iterable(words[command.keys] for words in alike)


def _name(words: tuple[bytes, ...]) -> bytes:
    return words[0] if words else b""
