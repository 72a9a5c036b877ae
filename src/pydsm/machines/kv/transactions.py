"""Several commands executed at one moment, on the condition that nothing watched was changed; and upkeep.

These commands are made by the server, never typed by clients: a transaction is gathered where the client is connected
and agreed on as one command. As in Redis, a command that fails does not undo the others.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from pydsm.core.faults import CallerFault
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import ALL, ANY, Access, Command, Touched, Words, keys_after_count
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import NO_LIST

_decode: Callable[[bytes], tuple[bytes, ...]] = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_AFTER_WATCH = slice(2, None)


def transaction(watch: bytes, watched: Sequence[bytes], commands: Sequence[bytes]) -> Words:
    """The words of a transaction of encoded commands, with the keys that it watches."""
    return (b"EXEC", watch, b"%d" % len(watched), *watched, *commands)


def _parts(table: Mapping[bytes, Command], words: Words) -> tuple[Sequence[bytes], list[tuple[bytes, ...]]]:
    """The watched keys, and the words of each command. Raises CallerFault for what no server of ours makes."""
    watched = keys_after_count(words, 2)
    try:
        commands = [_decode(command) for command in words[3 + len(watched) :]]
    except msgspec.DecodeError as error:
        raise CallerFault(f"ERR not an encoded command in a transaction: {error}") from error
    for command in commands:
        if not command or command[0] not in table or not table[command[0]].takes(len(command)):
            raise CallerFault("ERR a transaction with a command that is unknown, or has too few or too many words")
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
    """Expired keys are gone already, as before every command that may write them."""
    for key in words[1:]:
        space.drop_old_watches(key)
    return "OK"


def make_commands(table: Mapping[bytes, Command]) -> tuple[Command, ...]:
    """The rows, given the commands that a transaction may consist of."""
    return (
        Command(b"WATCH", _watch, Access.WRITE, 3, ANY, _AFTER_WATCH, "Notes whether keys change."),
        Command(b"UNWATCH", _unwatch, Access.WRITE, 3, ANY, _AFTER_WATCH, "Notes it no more."),
        Command(b"REAP", _reap, Access.WRITE, 2, ANY, ALL, "Removes what has expired."),
        Command(b"EXEC", _executing(table), Access.WRITE, 3, ANY, ALL, "Executes at one moment.", "", _touching(table)),
    )


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
        return [_result(table, space, command) for command in commands]

    return run


def _result(table: Mapping[bytes, Command], space: Keyspace, words: Words) -> Result:
    try:
        return table[words[0]].run(space, words)
    except CommandFailed as failed:
        return CommandFailed(failed.message)  # without its traceback
    except MemoryError:
        raise
    except Exception as error:
        return CommandFailed(f"ERR internal error: {type(error).__name__}")
