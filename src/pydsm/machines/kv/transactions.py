"""Transactions, watches, and the removal of expired keys.

Servers create these commands, clients cannot send them: a transaction is collected by the server to which the client is
connected, and agreed on as one command. It is executed atomically, if no watched key was changed. As in Redis, a
command that fails does not undo the others.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import (
    ALL,
    ANY,
    NO_KEYS,
    Command,
    CommandFunction,
    KeyAccess,
    Touched,
    Words,
    check_lengths,
    integer,
    keys_after_count,
)
from pydsm.machines.kv.given import limited
from pydsm.machines.kv.keyspace import VALUE_BYTES_LEAST, VALUE_BYTES_MOST, Keyspace
from pydsm.machines.kv.values import NO_LIST

_decode: Callable[[bytes], tuple[bytes, ...]] = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_AFTER_WATCH = slice(2, None)


def transaction(watch: bytes, watched: Sequence[bytes], commands: Sequence[bytes]) -> Words:
    """The words of a transaction of encoded commands, with its watched keys."""
    return (b"EXEC", watch, b"%d" % len(watched), *watched, *commands)


def _parts(table: Mapping[bytes, Command], words: Words) -> tuple[Sequence[bytes], list[tuple[bytes, ...]]]:
    """The watched keys, and the words of each command. Raises UsageError for words that this server never creates."""
    watched = keys_after_count(words, 2)
    try:
        commands = [_decode(command) for command in words[3 + len(watched) :]]
    except msgspec.DecodeError as error:
        raise UsageError(f"ERR not an encoded command in a transaction: {error}") from error
    for command in commands:
        if not command or command[0] not in table or not table[command[0]].takes(len(command)):
            raise UsageError("ERR a transaction with a command that is unknown, or has a wrong number of words")
    return watched, commands


def _watch(space: Keyspace, words: Words) -> Result:
    for key in words[2:]:
        space.watch(key, words[1])
    return "OK"


def _unwatch(space: Keyspace, words: Words) -> Result:
    for key in words[2:]:
        space.unwatch(key, words[1])
    return "OK"


def _reap(space: Keyspace, words: Words) -> Result:
    """Remove expired keys: this happens for every key that a command may write, before the command runs."""
    for key in words[1:]:
        space.drop_old_watches(key)
    return "OK"


def _value_limit(space: Keyspace, words: Words) -> Result:
    limit = integer(words[1])
    if not VALUE_BYTES_LEAST <= limit <= VALUE_BYTES_MOST:
        raise CommandFailed(f"ERR the limit must be between {VALUE_BYTES_LEAST} and {VALUE_BYTES_MOST} bytes")
    space.value_bytes_max = limit
    space.limit_changes += 1
    return "OK"


def make_commands(table: Mapping[bytes, Command]) -> tuple[Command, ...]:
    """The entries of the command table, given the commands that a transaction may contain."""
    return (
        _made(b"WATCH", _watch, 3, _AFTER_WATCH, "Watches keys for changes."),
        _made(b"UNWATCH", _unwatch, 3, _AFTER_WATCH, "Removes watches."),
        _made(b"REAP", _reap, 2, ALL, "Removes expired keys."),
        Command(
            b"VALUE-LIMIT",
            _value_limit,
            KeyAccess.WRITE_ALL,
            2,
            2,
            NO_KEYS,
            "Sets the size limit.",
            made_by_servers=True,
        ),
        Command(
            b"EXEC",
            _executing(table),
            KeyAccess.WRITE,
            3,
            ANY,
            ALL,
            "Executes commands atomically.",
            touched=_touching(table),
            made_by_servers=True,
        ),
    )


def _made(name: bytes, run: CommandFunction, words_min: int, keys: slice, summary: str) -> Command:
    return Command(name, run, KeyAccess.WRITE, words_min, ANY, keys, summary, made_by_servers=True)


def _touching(table: Mapping[bytes, Command]) -> Callable[[Words], Touched]:
    def touches(words: Words) -> Touched:
        watched, commands = _parts(table, words)
        reads: list[bytes] = []
        writes = list(watched)
        barrier = False
        for command in commands:
            touched = table[command[0]].touches(command)
            reads += touched.reads
            writes += touched.writes
            barrier = barrier or touched.barrier
        return Touched(reads, writes, barrier)

    return touches


def _executing(table: Mapping[bytes, Command]) -> Callable[[Keyspace, Words], Result]:
    def run(space: Keyspace, words: Words) -> Result:
        watched, commands = _parts(table, words)
        unchanged = [space.unwatch(key, words[1]) for key in dict.fromkeys(watched)]
        if not all(unchanged):
            return NO_LIST
        may_be_long = sum(map(len, words)) > space.value_bytes_max
        return [_result(table[command[0]], space, command, may_be_long=may_be_long) for command in commands]

    return run


def _result(command: Command, space: Keyspace, words: Words, *, may_be_long: bool) -> Result:
    if space.unread and not command.writes:
        return None
    try:
        if may_be_long and command.writes:
            check_lengths(space, words)
        return limited(space, command.run(space, words))
    except CommandFailed as failed:
        return CommandFailed(failed.message)  # without its traceback
    except MemoryError:
        raise
    except Exception as error:
        return CommandFailed(f"ERR internal error: {type(error).__name__}")
