"""What each command of the key-value machine answers and changes, as pure functions.

Decides meaning, in Redis's words. A function reads the keyspace and returns its reply together with the changes that
it wants; `kv` makes them after the function has returned. So a command that raises has changed nothing, whatever it
raised and wherever.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pydsm.machines.base import CommandFailed, Result

Words = Sequence[bytes]
"""A command: its name in capitals, then its arguments."""

Keyspace = Mapping[bytes, bytes]

Changes = Mapping[bytes, bytes | None]
"""Keys and their new values; None removes the key."""

Outcome = tuple[Result, Changes]
"""Replies are bytes (a string), str (a status such as OK), int, None (no such thing), or a list of these."""

VALUE_BYTES_MAX = 512 << 20
"""Bytes that one value may grow to."""

_OK = "OK"
_NOTHING: Changes = {}
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


class Access(Enum):
    """What a command may do to its keys. It decides what the command commutes with."""

    READ = auto()
    WRITE = auto()
    READ_ALL = auto()
    WRITE_ALL = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table. `keys` says which words are keys; counts of words include the name."""

    name: bytes
    run: Callable[[Keyspace, Words], Outcome]
    access: Access
    words_min: int
    words_max: int
    keys: slice
    summary: str

    def takes(self, words: int) -> bool:
        """Whether a command may have this many words."""
        return self.words_min <= words <= self.words_max


def wrong_number(name: str) -> str:
    """What Redis says to a command with too few or too many arguments."""
    return f"ERR wrong number of arguments for '{name.lower()}' command"


def integer(word: bytes) -> int:
    """A signed number of 64 bits, written as Redis writes it. Raises CommandFailed for anything else."""
    if _INTEGER.fullmatch(word):
        number = int(word)
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
    raise CommandFailed("ERR value is not an integer or out of range")


def _get(data: Keyspace, words: Words) -> Outcome:
    return data.get(words[1]), _NOTHING


def _mget(data: Keyspace, words: Words) -> Outcome:
    return list(map(data.get, words[1:])), _NOTHING


def _exists(data: Keyspace, words: Words) -> Outcome:
    return sum(key in data for key in words[1:]), _NOTHING


def _strlen(data: Keyspace, words: Words) -> Outcome:
    return len(data.get(words[1], b"")), _NOTHING


def _type(data: Keyspace, words: Words) -> Outcome:
    return "string" if words[1] in data else "none", _NOTHING


def _dbsize(data: Keyspace, words: Words) -> Outcome:
    return len(data), _NOTHING


_EXPIRY_OPTIONS = frozenset((b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"))
_SET_OPTIONS = frozenset((b"NX", b"XX", b"GET"))


def _set(data: Keyspace, words: Words) -> Outcome:
    if len(words) == 3:
        return _OK, {words[1]: words[2]}
    options = _set_options(words[3:])
    key, value = words[1], words[2]
    old = data.get(key)
    refused = (b"NX" in options and old is not None) or (b"XX" in options and old is None)
    changes: Changes = _NOTHING if refused else {key: value}
    if b"GET" in options:
        return old, changes
    return (None if refused else _OK), changes


def _set_options(words: Words) -> set[bytes]:
    options = {word.upper() for word in words}
    for place, option in enumerate(map(bytes.upper, words), start=1):
        if option in _EXPIRY_OPTIONS and (place < len(words) or option == b"KEEPTTL"):
            raise CommandFailed(f"ERR SET with {option.decode()} is not supported yet: keys do not expire here")
    if not options <= _SET_OPTIONS or {b"NX", b"XX"} <= options:
        raise CommandFailed("ERR syntax error")
    return options


def _setnx(data: Keyspace, words: Words) -> Outcome:
    return (0, _NOTHING) if words[1] in data else (1, {words[1]: words[2]})


def _getset(data: Keyspace, words: Words) -> Outcome:
    return data.get(words[1]), {words[1]: words[2]}


def _getdel(data: Keyspace, words: Words) -> Outcome:
    return data.get(words[1]), {words[1]: None}


def _mset(data: Keyspace, words: Words) -> Outcome:
    if len(words) % 2 == 0:
        raise CommandFailed(wrong_number("mset"))
    return _OK, dict(zip(words[1::2], words[2::2], strict=True))


def _del(data: Keyspace, words: Words) -> Outcome:
    removed: Changes = {key: None for key in words[1:] if key in data}
    return len(removed), removed


def _incr(data: Keyspace, words: Words) -> Outcome:
    return _add(data, words[1], 1)


def _decr(data: Keyspace, words: Words) -> Outcome:
    return _add(data, words[1], -1)


def _incrby(data: Keyspace, words: Words) -> Outcome:
    return _add(data, words[1], integer(words[2]))


def _decrby(data: Keyspace, words: Words) -> Outcome:
    amount = integer(words[2])
    if amount == _INT64_MIN:
        raise CommandFailed("ERR decrement would overflow")
    return _add(data, words[1], -amount)


def _add(data: Keyspace, key: bytes, amount: int) -> Outcome:
    total = integer(data.get(key, b"0")) + amount
    if not _INT64_MIN <= total <= _INT64_MAX:
        raise CommandFailed("ERR increment or decrement would overflow")
    return total, {key: b"%d" % total}


def _append(data: Keyspace, words: Words) -> Outcome:
    old = data.get(words[1], b"")
    if len(old) + len(words[2]) > VALUE_BYTES_MAX:
        raise CommandFailed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    return len(old) + len(words[2]), {words[1]: old + words[2]}


def _flushall(data: Keyspace, words: Words) -> Outcome:
    if len(words) > 2 or (len(words) == 2 and words[1].upper() not in {b"SYNC", b"ASYNC"}):
        raise CommandFailed("ERR syntax error")
    return _OK, dict.fromkeys(data)


_ANY = 1 << 30
_NO_KEYS = slice(1, 1)
_FIRST = slice(1, 2)
_ALL = slice(1, None)
_EVERY_SECOND = slice(1, None, 2)

COMMANDS = {
    command.name: command
    for command in (
        Command(b"GET", _get, Access.READ, 2, 2, _FIRST, "Gives the value of a key."),
        Command(b"MGET", _mget, Access.READ, 2, _ANY, _ALL, "Gives the values of several keys at one moment."),
        Command(b"EXISTS", _exists, Access.READ, 2, _ANY, _ALL, "Counts how many of the keys exist."),
        Command(b"STRLEN", _strlen, Access.READ, 2, 2, _FIRST, "Gives the number of bytes of a value."),
        Command(b"TYPE", _type, Access.READ, 2, 2, _FIRST, "Says what kind of value a key has."),
        Command(b"SET", _set, Access.WRITE, 3, _ANY, _FIRST, "Sets a key; NX, XX and GET are understood."),
        Command(b"SETNX", _setnx, Access.WRITE, 3, 3, _FIRST, "Sets a key unless it exists."),
        Command(b"GETSET", _getset, Access.WRITE, 3, 3, _FIRST, "Sets a key and gives its former value."),
        Command(b"GETDEL", _getdel, Access.WRITE, 2, 2, _FIRST, "Removes a key and gives its value."),
        Command(b"MSET", _mset, Access.WRITE, 3, _ANY, _EVERY_SECOND, "Sets several keys at one moment."),
        Command(b"DEL", _del, Access.WRITE, 2, _ANY, _ALL, "Removes keys and counts those that existed."),
        Command(b"UNLINK", _del, Access.WRITE, 2, _ANY, _ALL, "The same as DEL here."),
        Command(b"INCR", _incr, Access.WRITE, 2, 2, _FIRST, "Adds one and gives the sum."),
        Command(b"DECR", _decr, Access.WRITE, 2, 2, _FIRST, "Subtracts one and gives the difference."),
        Command(b"INCRBY", _incrby, Access.WRITE, 3, 3, _FIRST, "Adds a number and gives the sum."),
        Command(b"DECRBY", _decrby, Access.WRITE, 3, 3, _FIRST, "Subtracts a number and gives the difference."),
        Command(b"APPEND", _append, Access.WRITE, 3, 3, _FIRST, "Lengthens a value and gives its number of bytes."),
        Command(b"DBSIZE", _dbsize, Access.READ_ALL, 1, 1, _NO_KEYS, "Counts the keys."),
        Command(b"FLUSHALL", _flushall, Access.WRITE_ALL, 1, _ANY, _NO_KEYS, "Removes every key."),
    )
}
"""By name in capitals."""
