"""Commands on keys of any kind, and on all keys together."""

from collections.abc import Callable
from itertools import islice

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.collections import cursor_of, scan_options
from pydsm.machines.kv.command import (
    ALL,
    ANY,
    FIRST,
    FIRST_TWO,
    NO_KEYS,
    Command,
    KeyAccess,
    Touched,
    Words,
    integer,
    syntax_error,
)
from pydsm.machines.kv.glob import matcher
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import kind

_OK = "OK"


def _exists(space: Keyspace, words: Words) -> Result:
    return sum(space.get(key) is not None for key in words[1:])


def _type(space: Keyspace, words: Words) -> Result:
    value = space.get(words[1])
    return "none" if value is None else kind(value)


def _del(space: Keyspace, words: Words) -> Result:
    return sum(map(space.remove, words[1:]))


def _rename(space: Keyspace, words: Words) -> Result:
    _move(space, words[1], words[2], replace=True)
    return _OK


def _renamenx(space: Keyspace, words: Words) -> Result:
    return int(_move(space, words[1], words[2], replace=False))


def _move(space: Keyspace, key: bytes, new: bytes, *, replace: bool) -> bool:
    value, expiry_ms = space.get(key), space.expiry_ms(key)
    if value is None:
        raise CommandFailed("ERR no such key")
    if not replace and space.get(new) is not None:
        return False
    if key != new:
        space.remove(key)
        space.put(new, value)
        if expiry_ms is not None:
            space.set_expiry(new, expiry_ms)
    return True


def _copy(space: Keyspace, words: Words) -> Result:
    key, new = words[1], words[2]
    replace, position = False, 3
    while position < len(words):
        if words[position].upper() == b"REPLACE":
            replace = True
        elif words[position].upper() == b"DB" and position + 1 < len(words):
            position += 1
            if integer(words[position]) != 0:
                raise CommandFailed("ERR DB index is out of range")
        else:
            raise syntax_error()
        position += 1
    if key == new:
        raise CommandFailed("ERR source and destination objects are the same")
    value, expiry_ms = space.get(key), space.expiry_ms(key)
    if value is None or (not replace and space.get(new) is not None):
        return 0
    space.put(new, value if isinstance(value, bytes) else value.copy())
    if expiry_ms is not None:
        space.set_expiry(new, expiry_ms)
    return 1


def _copy_touches(words: Words) -> Touched:
    return Touched(reads=words[1:2], writes=words[2:3])


def _dbsize(space: Keyspace, words: Words) -> Result:
    return len(space)


def _flushall(space: Keyspace, words: Words) -> Result:
    if len(words) > 2 or (len(words) == 2 and words[1].upper() not in {b"SYNC", b"ASYNC"}):
        raise syntax_error()
    space.clear()
    return _OK


def _keys(space: Keyspace, words: Words) -> Result:
    return sorted(filter(matcher(words[1]), space.keys()))


def _scan(space: Keyspace, words: Words) -> Result:
    """SCAN. A cursor is the hash of the next key, so it has the same meaning on every replica and at any time."""
    cursor = cursor_of(words[1])
    matches, count, wanted = _scan_options(words[2:])
    found: list[bytes] = []
    looked_at, last = 0, -1
    for hash_, key in space.keys_from(cursor):
        if looked_at >= count and hash_ != last:
            return [b"%d" % hash_, found]
        looked_at, last = looked_at + 1, hash_
        if matches(key) and (wanted is None or kind(space.data[key]) == wanted):
            found.append(key)
    return [b"0", found]


def _scan_options(words: Words) -> tuple[Callable[[bytes], bool], int, str | None]:
    """The predicate for keys, how many keys to examine, and the required kind of value."""
    types = [position for position in range(0, len(words) - 1, 2) if words[position].upper() == b"TYPE"]
    wanted = words[types[-1] + 1].decode(errors="replace").lower() if types else None
    others = [word for position, word in enumerate(words) if position - position % 2 not in types]
    return *scan_options(others), wanted


def _randomkey(space: Keyspace, words: Words) -> Result:
    for start in (space.draw(1 << 48), 0):
        for _, key in islice(space.keys_from(start), 1):
            return key
    return None


def _time(space: Keyspace, words: Words) -> Result:
    return [b"%d" % (space.now_ms // 1000), b"%d" % (space.now_ms % 1000 * 1000)]


_GROUP = "generic"

COMMANDS = (
    Command(b"EXISTS", _exists, KeyAccess.READ, 2, ANY, ALL, "Counts how many of the keys exist.", _GROUP),
    Command(b"TOUCH", _exists, KeyAccess.READ, 2, ANY, ALL, "Same as EXISTS in this store.", _GROUP),
    Command(b"TYPE", _type, KeyAccess.READ, 2, 2, FIRST, "Returns the kind of value of a key.", _GROUP),
    Command(b"DEL", _del, KeyAccess.WRITE, 2, ANY, ALL, "Removes keys and counts those that existed.", _GROUP),
    Command(b"UNLINK", _del, KeyAccess.WRITE, 2, ANY, ALL, "Same as DEL in this store.", _GROUP),
    Command(b"RENAME", _rename, KeyAccess.WRITE, 3, 3, FIRST_TWO, "Renames a key.", _GROUP),
    Command(b"RENAMENX", _renamenx, KeyAccess.WRITE, 3, 3, FIRST_TWO, "Renames a key if the name is free.", _GROUP),
    Command(
        b"COPY", _copy, KeyAccess.WRITE, 3, ANY, FIRST_TWO, "Copies a value to another key.", _GROUP, _copy_touches
    ),
    Command(b"KEYS", _keys, KeyAccess.READ_ALL, 2, 2, NO_KEYS, "Lists the keys that match a pattern.", _GROUP),
    Command(b"SCAN", _scan, KeyAccess.READ_ALL, 2, ANY, NO_KEYS, "Lists keys a few at a time.", _GROUP),
    Command(b"RANDOMKEY", _randomkey, KeyAccess.READ_ALL, 1, 1, NO_KEYS, "Returns a random key.", _GROUP),
    Command(b"DBSIZE", _dbsize, KeyAccess.READ_ALL, 1, 1, NO_KEYS, "Counts the keys.", "server"),
    Command(b"FLUSHALL", _flushall, KeyAccess.WRITE_ALL, 1, ANY, NO_KEYS, "Removes every key.", "server"),
    Command(b"FLUSHDB", _flushall, KeyAccess.WRITE_ALL, 1, ANY, NO_KEYS, "Same as FLUSHALL in this store.", "server"),
    Command(b"TIME", _time, KeyAccess.READ, 1, 1, NO_KEYS, "Returns the agreed time.", "server"),
)
