"""Commands on strings."""

from collections.abc import Sequence
from operator import itemgetter

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import (
    ALL,
    ANY,
    EVERY_SECOND,
    FIRST,
    INT64_MAX,
    INT64_MIN,
    Command,
    KeyAccess,
    Words,
    add_decimals,
    integer,
    syntax_error,
    too_long,
    wrong_number,
)
from pydsm.machines.kv.expiry import deadline_ms
from pydsm.machines.kv.given import take, too_much
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import MutableString, string_of

_OK = "OK"
_STRING_OR_NOTHING = {bytes, type(None)}
_EXPIRIES = frozenset((b"EX", b"PX", b"EXAT", b"PXAT"))
_IN_PLACE_BYTES = 1024
"""A changed string of at least this length is stored in a form that can be changed in place."""


def _get(space: Keyspace, words: Words) -> Result:
    return space.string(words[1])


def _get_many(space: Keyspace, commands: Sequence[Words]) -> list[Result] | None:
    values = list(map(space.data.get, map(itemgetter(1), commands)))
    return list[Result](values) if {*map(type, values)} <= _STRING_OR_NOTHING else None


def _set_many(space: Keyspace, commands: Sequence[Words]) -> list[Result] | None:
    if {*map(len, commands)} != {3}:
        return None
    space.data.update(map(itemgetter(1, 2), commands))
    return [_OK] * len(commands)


def _mget(space: Keyspace, words: Words) -> Result:
    found: dict[bytes, bytes | None] = {}
    for key in dict.fromkeys(words[1:]):
        value = space.get(key)
        if isinstance(value, bytes | MutableString):
            if take(space, len(value if isinstance(value, bytes) else value.content)):
                raise too_much()
            found[key] = string_of(value)
    return [found.get(key) for key in words[1:]]


def _strlen(space: Keyspace, words: Words) -> Result:
    return len(space.string_in_place(words[1]) or b"")


def _set(space: Keyspace, words: Words) -> Result:
    if len(words) == 3:
        space.put(words[1], words[2])
        return _OK
    options, at_ms = _set_options(space, words)
    key, value = words[1], words[2]
    old = space.string(key) if b"GET" in options else None
    exists = space.get(key) is not None
    refused = (b"NX" in options and exists) or (b"XX" in options and not exists)
    if not refused:
        space.put(key, value, keep_expiry=b"KEEPTTL" in options)
        if at_ms is not None:
            space.set_expiry(key, at_ms)
    if b"GET" in options:
        return old
    return None if refused else _OK


def _set_options(space: Keyspace, words: Words) -> tuple[set[bytes], int | None]:
    """The options, and the expiry of the key in Unix ms, or None."""
    options: set[bytes] = set()
    at_ms, position = None, 3
    while position < len(words):
        option = words[position].upper()
        if option in _EXPIRIES and position + 1 < len(words):
            if options & (_EXPIRIES | {b"KEEPTTL"}):
                raise syntax_error()
            at_ms = deadline_ms(space, "set", option, words[position + 1])
            position += 1
        elif option not in {b"NX", b"XX", b"GET", b"KEEPTTL"} or (option == b"KEEPTTL" and options & _EXPIRIES):
            raise syntax_error()
        options.add(option)
        position += 1
    if {b"NX", b"XX"} <= options:
        raise syntax_error()
    return options, at_ms


def _setex(space: Keyspace, words: Words) -> Result:
    return _set_with_expiry(space, words, b"EX")


def _psetex(space: Keyspace, words: Words) -> Result:
    return _set_with_expiry(space, words, b"PX")


def _set_with_expiry(space: Keyspace, words: Words, unit: bytes) -> Result:
    at_ms = deadline_ms(space, words[0].decode().lower(), unit, words[2])
    space.put(words[1], words[3])
    space.set_expiry(words[1], at_ms)
    return _OK


def _setnx(space: Keyspace, words: Words) -> Result:
    if space.get(words[1]) is not None:
        return 0
    space.put(words[1], words[2])
    return 1


def _getset(space: Keyspace, words: Words) -> Result:
    old = space.string(words[1])
    space.put(words[1], words[2])
    return old


def _getdel(space: Keyspace, words: Words) -> Result:
    old = space.string(words[1])
    space.remove(words[1])
    return old


def _getex(space: Keyspace, words: Words) -> Result:
    key, options = words[1], [words[2].upper(), *words[3:]] if len(words) > 2 else []
    match options:
        case [] | [b"PERSIST"] | [b"EX" | b"PX" | b"EXAT" | b"PXAT", _]:
            value = space.string(key)
        case _:
            raise syntax_error()
    if value is not None and len(options) == 2:
        space.set_expiry(key, deadline_ms(space, "getex", options[0], options[1]))
    elif value is not None and options and space.expiry_ms(key) is not None:
        space.set_expiry(key, None)
    return value


def _mset(space: Keyspace, words: Words) -> Result:
    if len(words) % 2 == 0:
        raise CommandFailed(wrong_number("mset"))
    for key, value in zip(words[1::2], words[2::2], strict=True):
        space.put(key, value)
    return _OK


def _msetnx(space: Keyspace, words: Words) -> Result:
    if len(words) % 2 == 0:
        raise CommandFailed(wrong_number("msetnx"))
    if any(space.get(key) is not None for key in words[1::2]):
        return 0
    _mset(space, words)
    return 1


def _incr(space: Keyspace, words: Words) -> Result:
    return _add(space, words[1], 1)


def _decr(space: Keyspace, words: Words) -> Result:
    return _add(space, words[1], -1)


def _incrby(space: Keyspace, words: Words) -> Result:
    return _add(space, words[1], integer(words[2]))


def _decrby(space: Keyspace, words: Words) -> Result:
    amount = integer(words[2])
    if amount == INT64_MIN:
        raise CommandFailed("ERR decrement would overflow")
    return _add(space, words[1], -amount)


def _add(space: Keyspace, key: bytes, amount: int) -> Result:
    old = space.string(key)
    total = integer(b"0" if old is None else old) + amount
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandFailed("ERR increment or decrement would overflow")
    space.put(key, b"%d" % total, keep_expiry=True)
    return total


def _incrbyfloat(space: Keyspace, words: Words) -> Result:
    old = space.string(words[1])
    total = add_decimals(b"0" if old is None else old, words[2], "ERR value is not a valid float")
    space.put(words[1], total, keep_expiry=True)
    return total


def _append(space: Keyspace, words: Words) -> Result:
    length = len(space.string_in_place(words[1]) or b"")
    _check_length(space, length + len(words[2]))
    return _write(space, words[1], length, words[2])


def _check_length(space: Keyspace, length: int) -> None:
    if length > space.value_bytes_max:
        raise too_long()


def _write(space: Keyspace, key: bytes, offset: int, patch: bytes) -> int:
    """Overwrite a part of a string, with zero bytes before it where the string is shorter. Returns the new length.

    The cost depends on the length of the patch and of the added bytes only: a long string is changed in place.
    """
    old = space.get(key) or b""
    assert isinstance(old, bytes | MutableString), "a command writes to a value that it has not read as a string"
    if isinstance(old, bytes) and max(len(old), offset + len(patch)) < _IN_PLACE_BYTES:
        new = old.ljust(offset, b"\0")
        new = new[:offset] + patch + new[offset + len(patch) :]
        space.put(key, new, keep_expiry=True)
        return len(new)
    if isinstance(old, bytes):
        old = MutableString(old)
        space.put(key, old, keep_expiry=True)
    content = old.content
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(patch)] = patch
    space.changed(key)
    return len(content)


def _getrange(space: Keyspace, words: Words) -> Result:
    first, last = integer(words[2]), integer(words[3])
    value = space.string_in_place(words[1]) or b""
    if first < 0 and last < 0 and first > last:
        return b""
    first = max(first + len(value), 0) if first < 0 else first
    last = max(last + len(value), 0) if last < 0 else last
    return bytes(value[first : last + 1])


def _setrange(space: Keyspace, words: Words) -> Result:
    offset, patch = integer(words[2]), words[3]
    if offset < 0:
        raise CommandFailed("ERR offset is out of range")
    length = len(space.string_in_place(words[1]) or b"")
    if not patch:
        return length
    _check_length(space, offset + len(patch))
    return _write(space, words[1], offset, patch)


def _setbit(space: Keyspace, words: Words) -> Result:
    position = _bit_offset(space, words[2])
    if words[3] not in {b"0", b"1"}:
        raise CommandFailed("ERR bit is not an integer or out of range")
    value = space.string_in_place(words[1]) or b""
    mask = 128 >> position % 8
    byte = value[position // 8] if position // 8 < len(value) else 0
    _write(space, words[1], position // 8, bytes((byte & ~mask | (mask if words[3] == b"1" else 0),)))
    return int(byte & mask > 0)


def _getbit(space: Keyspace, words: Words) -> Result:
    position = _bit_offset(space, words[2])
    value = space.string_in_place(words[1]) or b""
    return int(position // 8 < len(value) and value[position // 8] & (128 >> position % 8) > 0)


def _bit_offset(space: Keyspace, word: bytes) -> int:
    wrong = "ERR bit offset is not an integer or out of range"
    position = integer(word, wrong)
    if not 0 <= position < 8 * space.value_bytes_max:
        raise CommandFailed(wrong)
    return position


def _bitcount(space: Keyspace, words: Words) -> Result:
    value = space.string_in_place(words[1])
    if value is None:
        return 0
    unit = words[4].upper() if len(words) == 5 else b"BYTE"
    if len(words) == 3 or unit not in {b"BYTE", b"BIT"}:
        raise syntax_error()
    first, last = (integer(words[2]), integer(words[3])) if len(words) > 3 else (0, -1)
    if first < 0 and last < 0 and first > last:
        return 0
    scale = 8 if unit == b"BIT" else 1
    units = len(value) * scale
    first = max(first + units, 0) if first < 0 else first
    last = min(max(last + units, 0) if last < 0 else last, units - 1)
    if first > last:
        return 0
    part = int.from_bytes(value[first // scale : last // scale + 1], "big")
    if scale == 8:
        part >>= 7 - last % 8
        part &= (1 << (last - first + 1)) - 1
    return part.bit_count()


COMMANDS = (
    Command(b"GET", _get, KeyAccess.READ, 2, 2, FIRST, "Returns the value of a key.", bulk=_get_many),
    Command(b"MGET", _mget, KeyAccess.READ, 2, ANY, ALL, "Returns the values of several keys, atomically."),
    Command(b"STRLEN", _strlen, KeyAccess.READ, 2, 2, FIRST, "Returns the number of bytes of a value."),
    Command(b"GETRANGE", _getrange, KeyAccess.READ, 4, 4, FIRST, "Returns a part of a value."),
    Command(b"SUBSTR", _getrange, KeyAccess.READ, 4, 4, FIRST, "Same as GETRANGE."),
    Command(b"GETBIT", _getbit, KeyAccess.READ, 3, 3, FIRST, "Returns one bit of a value."),
    Command(b"BITCOUNT", _bitcount, KeyAccess.READ, 2, 5, FIRST, "Counts the bits of a value that are set."),
    Command(
        b"SET",
        _set,
        KeyAccess.WRITE,
        3,
        ANY,
        FIRST,
        "Sets a key, optionally on a condition or with an expiry.",
        bulk=_set_many,
    ),
    Command(b"SETEX", _setex, KeyAccess.WRITE, 4, 4, FIRST, "Sets a key with an expiry in seconds."),
    Command(b"PSETEX", _psetex, KeyAccess.WRITE, 4, 4, FIRST, "Sets a key with an expiry in milliseconds."),
    Command(b"SETNX", _setnx, KeyAccess.WRITE, 3, 3, FIRST, "Sets a key unless it exists."),
    Command(b"GETSET", _getset, KeyAccess.WRITE, 3, 3, FIRST, "Sets a key and returns its former value."),
    Command(b"GETDEL", _getdel, KeyAccess.WRITE, 2, 2, FIRST, "Removes a key and returns its value."),
    Command(b"GETEX", _getex, KeyAccess.WRITE, 2, ANY, FIRST, "Returns a value and sets the expiry of its key."),
    Command(b"MSET", _mset, KeyAccess.WRITE, 3, ANY, EVERY_SECOND, "Sets several keys, atomically."),
    Command(b"MSETNX", _msetnx, KeyAccess.WRITE, 3, ANY, EVERY_SECOND, "Sets several keys if none of them exists."),
    Command(b"INCR", _incr, KeyAccess.WRITE, 2, 2, FIRST, "Adds one and returns the sum."),
    Command(b"DECR", _decr, KeyAccess.WRITE, 2, 2, FIRST, "Subtracts one and returns the difference."),
    Command(b"INCRBY", _incrby, KeyAccess.WRITE, 3, 3, FIRST, "Adds a number and returns the sum."),
    Command(b"DECRBY", _decrby, KeyAccess.WRITE, 3, 3, FIRST, "Subtracts a number and returns the difference."),
    Command(b"INCRBYFLOAT", _incrbyfloat, KeyAccess.WRITE, 3, 3, FIRST, "Adds a decimal number and returns the sum."),
    Command(b"APPEND", _append, KeyAccess.WRITE, 3, 3, FIRST, "Appends to a value and returns its number of bytes."),
    Command(b"SETRANGE", _setrange, KeyAccess.WRITE, 4, 4, FIRST, "Overwrites a part of a value."),
    Command(b"SETBIT", _setbit, KeyAccess.WRITE, 4, 4, FIRST, "Sets one bit of a value and returns the old one."),
)
