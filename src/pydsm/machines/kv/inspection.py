"""OBJECT ENCODING and MEMORY USAGE: how Redis would store a value, and how much memory it needs here.

Both depend only on the value, not on this process, since every replica must return the same result.
"""

from itertools import islice

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import Command, KeyAccess, Words, integer, syntax_error, wrong_number
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import List, MutableString, Set, SortedSet, StoredValue

_EMBEDDED_BYTES_MAX = 44
_LISTPACK_ITEMS_MAX = 128

_KEY_BYTES, _ITEM_BYTES, _SCORE_BYTES = 96, 48, 96
"""Approximate overhead at a replica of a key, an element, and a score with its position in the order."""
_SAMPLES = 5


def _object(space: Keyspace, words: Words) -> Result:
    """OBJECT. Only ENCODING is supported: nothing counts how often or when a key was used."""
    subcommand = words[1].upper()
    if subcommand not in {b"ENCODING", b"REFCOUNT"}:
        raise _unknown_subcommand("OBJECT", words[1])
    if len(words) != 3:
        raise CommandFailed(wrong_number(f"object|{words[1].decode()}"))
    value = space.get(words[2])
    if value is None:
        return None
    return 1 if subcommand == b"REFCOUNT" else _encoding(value)


def _unknown_subcommand(name: str, word: bytes) -> CommandFailed:
    return CommandFailed(f"ERR unknown subcommand '{word[:128].decode(errors='backslashreplace')}'. Try {name} HELP.")


def _encoding(value: StoredValue) -> bytes:
    """Redis's name for the encoding of such a value, approximately; all values of a kind have the same form here."""
    if isinstance(value, MutableString):
        return b"raw"
    if isinstance(value, bytes):
        try:
            integer(value)
        except CommandFailed:
            return b"embstr" if len(value) <= _EMBEDDED_BYTES_MAX else b"raw"
        return b"int"
    large = {"hash": b"hashtable", "list": b"quicklist", "set": b"hashtable", "zset": b"skiplist"}
    return b"listpack" if len(value) <= _LISTPACK_ITEMS_MAX else large[value.kind]


def _memory(space: Keyspace, words: Words) -> Result:
    if words[1].upper() != b"USAGE":
        raise _unknown_subcommand("MEMORY", words[1])
    if len(words) < 3:
        raise CommandFailed(wrong_number("memory|usage"))
    samples = _SAMPLES
    for position in range(3, len(words), 2):
        if words[position].upper() != b"SAMPLES" or position + 1 == len(words):
            raise syntax_error()
        samples = integer(words[position + 1])
        if samples < 0:
            raise syntax_error()
    value = space.get(words[2])
    return None if value is None else _KEY_BYTES + len(words[2]) + _value_bytes(value, samples)


def _value_bytes(value: StoredValue, samples: int) -> int:
    """Approximate bytes of a value at each replica, from the average of some elements; of all elements for 0."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, MutableString):
        return len(value.content)
    size = len(value)
    if isinstance(value, List | Set):
        sizes = list(map(len, islice(value, samples or None)))
        each = _ITEM_BYTES
    elif isinstance(value, SortedSet):
        sizes = list(map(len, islice(value.scores, samples or None)))
        each = _ITEM_BYTES + _SCORE_BYTES
    else:
        sizes = [len(field) + len(content) for field, content in islice(value.items(), samples or None)]
        each = 2 * _ITEM_BYTES
    return size * each + sum(sizes) * size // max(len(sizes), 1)


COMMANDS = (
    Command(b"OBJECT", _object, KeyAccess.READ, 2, 3, slice(2, 3), "Returns a value's encoding.", "generic"),
    Command(b"MEMORY", _memory, KeyAccess.READ, 2, 1 << 30, slice(2, 3), "Estimates the bytes of a key.", "server"),
)
