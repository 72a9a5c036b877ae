"""Commands on hashes."""

from collections.abc import Sequence

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.collections import draws, scan_part
from pydsm.machines.kv.command import (
    ANY,
    FIRST,
    INT64_MAX,
    INT64_MIN,
    Command,
    KeyAccess,
    Words,
    add_decimals,
    integer,
    is_infinite,
    syntax_error,
    wrong_number,
)
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import Hash, Pairs

_NOT_AN_INTEGER = "ERR hash value is not an integer"
_NOT_A_FLOAT = "ERR hash value is not a float"
_NO_FIELDS = Hash()
"""An empty hash; never changed."""


def _of(space: Keyspace, key: bytes) -> Hash:
    """The hash of a key, created if it is missing. Only for commands that certainly write to it."""
    found = space.hash(key)
    if found is None:
        found = Hash()
        space.put(key, found)
    return found


def _fields(space: Keyspace, key: bytes) -> Hash:
    """The hash of a key for reading."""
    return space.hash(key) or _NO_FIELDS


def _hset(space: Keyspace, words: Words) -> Result:
    if len(words) % 2:
        raise CommandFailed(wrong_number(words[0].decode()))
    hash_ = _of(space, words[1])
    before = len(hash_)
    for field, value in zip(words[2::2], words[3::2], strict=True):
        hash_[field] = value
    space.changed(words[1])
    return len(hash_) - before


def _hmset(space: Keyspace, words: Words) -> Result:
    _hset(space, words)
    return "OK"


def _hsetnx(space: Keyspace, words: Words) -> Result:
    if words[2] in _fields(space, words[1]):
        return 0
    _of(space, words[1])[words[2]] = words[3]
    space.changed(words[1])
    return 1


def _hget(space: Keyspace, words: Words) -> Result:
    return _fields(space, words[1]).get(words[2])


def _hmget(space: Keyspace, words: Words) -> Result:
    return list(map(_fields(space, words[1]).get, words[2:]))


def _hgetall(space: Keyspace, words: Words) -> Result:
    return dict(_fields(space, words[1]).items())


def _hdel(space: Keyspace, words: Words) -> Result:
    hash_ = space.hash(words[1])
    if hash_ is None:
        return 0
    removed = sum(map(hash_.remove, words[2:]))
    if removed:
        space.changed(words[1])
    return removed


def _hexists(space: Keyspace, words: Words) -> Result:
    return int(words[2] in _fields(space, words[1]))


def _hlen(space: Keyspace, words: Words) -> Result:
    return len(_fields(space, words[1]))


def _hstrlen(space: Keyspace, words: Words) -> Result:
    return len(_fields(space, words[1]).get(words[2]) or b"")


def _hkeys(space: Keyspace, words: Words) -> Result:
    return list(_fields(space, words[1]))


def _hvals(space: Keyspace, words: Words) -> Result:
    return list(_fields(space, words[1]).values())


def _hincrby(space: Keyspace, words: Words) -> Result:
    amount = integer(words[3])
    old = _fields(space, words[1]).get(words[2])
    total = integer(b"0" if old is None else old, _NOT_AN_INTEGER) + amount
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandFailed("ERR increment or decrement would overflow")
    _of(space, words[1])[words[2]] = b"%d" % total
    space.changed(words[1])
    return total


def _hincrbyfloat(space: Keyspace, words: Words) -> Result:
    if is_infinite(words[3]):
        raise CommandFailed("ERR value is NaN or Infinity")
    old = _fields(space, words[1]).get(words[2])
    total = add_decimals(b"0" if old is None else old, words[3], _NOT_A_FLOAT, "ERR value is not a valid float")
    _of(space, words[1])[words[2]] = total
    space.changed(words[1])
    return total


def _hscan(space: Keyspace, words: Words) -> Result:
    cursor, fields = scan_part(_fields(space, words[1]), words[2], words[3:])
    hash_ = _fields(space, words[1])
    return [cursor, [word for field in fields for word in (field, hash_[field])]]


def _hrandfield(space: Keyspace, words: Words) -> Result:
    hash_ = _fields(space, words[1])
    if len(words) == 2:
        return draws(space, hash_, 1)[0] if hash_ else None
    with_values = _with(words, b"WITHVALUES")
    fields: Sequence[bytes] = draws(space, hash_, integer(words[2]), in_pairs=with_values)
    return Pairs([field, hash_[field]] for field in fields) if with_values else list(fields)


def _with(words: Words, option: bytes) -> bool:
    """Whether the fourth word is this option. Raises CommandFailed for any other word."""
    if len(words) > 4 or (len(words) == 4 and words[3].upper() != option):
        raise syntax_error()
    return len(words) == 4


_READ, _WRITE, _GROUP = KeyAccess.READ, KeyAccess.WRITE, "hash"

COMMANDS = (
    Command(b"HSET", _hset, _WRITE, 4, ANY, FIRST, "Sets fields and counts the new ones.", _GROUP),
    Command(b"HMSET", _hmset, _WRITE, 4, ANY, FIRST, "Sets fields.", _GROUP),
    Command(b"HSETNX", _hsetnx, _WRITE, 4, 4, FIRST, "Sets a field unless it exists.", _GROUP),
    Command(b"HGET", _hget, _READ, 3, 3, FIRST, "Returns the value of a field.", _GROUP),
    Command(b"HMGET", _hmget, _READ, 3, ANY, FIRST, "Returns the values of several fields.", _GROUP),
    Command(b"HGETALL", _hgetall, _READ, 2, 2, FIRST, "Returns all fields with their values.", _GROUP),
    Command(b"HDEL", _hdel, _WRITE, 3, ANY, FIRST, "Removes fields and counts those that existed.", _GROUP),
    Command(b"HEXISTS", _hexists, _READ, 3, 3, FIRST, "Checks whether a field exists.", _GROUP),
    Command(b"HLEN", _hlen, _READ, 2, 2, FIRST, "Counts the fields.", _GROUP),
    Command(b"HSTRLEN", _hstrlen, _READ, 3, 3, FIRST, "Returns the number of bytes of a field's value.", _GROUP),
    Command(b"HKEYS", _hkeys, _READ, 2, 2, FIRST, "Returns all fields.", _GROUP),
    Command(b"HVALS", _hvals, _READ, 2, 2, FIRST, "Returns all values.", _GROUP),
    Command(b"HINCRBY", _hincrby, _WRITE, 4, 4, FIRST, "Adds a number to a field and returns the sum.", _GROUP),
    Command(b"HINCRBYFLOAT", _hincrbyfloat, _WRITE, 4, 4, FIRST, "Adds a decimal number to a field.", _GROUP),
    Command(b"HSCAN", _hscan, _READ, 3, ANY, FIRST, "Lists fields and values a few at a time.", _GROUP),
    Command(b"HRANDFIELD", _hrandfield, _READ, 2, 4, FIRST, "Returns some fields.", _GROUP),
)
