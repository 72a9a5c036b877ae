"""Functions shared by commands on hashes, lists, sets and sorted sets: scans, random elements, ranges, options."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv.command import INT64_MAX, Words, integer, syntax_error
from pydsm.machines.kv.elements import Elements
from pydsm.machines.kv.glob import matcher
from pydsm.machines.kv.keyspace import Keyspace

_AT_ONCE_MAX = 128
"""A collection of at most this many elements is scanned in one step, as in Redis."""
_CURSOR = re.compile(rb"(?:[+-](?=[0-9]))?0*[0-9]{0,20}")
_CURSORS = 1 << 64
_DRAWS_MAX = 1_000_000

SCAN_COUNT = 10

V = TypeVar("V")


def scan_options(words: Words) -> tuple[Callable[[bytes], bool], int]:
    """MATCH and COUNT of a scan: the predicate for elements, and how many elements to examine."""
    matches, wanted = matcher(b"*"), SCAN_COUNT
    if len(words) % 2:
        raise syntax_error()
    for option, word in zip(words[::2], words[1::2], strict=True):
        if option.upper() == b"MATCH":
            matches = matcher(word)
        elif option.upper() == b"COUNT":
            wanted = integer(word)
            if wanted < 1:
                raise syntax_error()
        else:
            raise syntax_error()
    return matches, wanted


def cursor_of(word: bytes) -> int:
    """The cursor as a 64-bit number, as C parses it: an optional sign, empty means 0. Raises CommandFailed."""
    text = word.partition(b"\0")[0]
    if _CURSOR.fullmatch(text):
        cursor = int(text.lstrip(b"+-0") or b"0")
        if cursor < _CURSORS:
            return -cursor % _CURSORS if text.startswith(b"-") else cursor
    raise CommandFailed("ERR invalid cursor")


def scan_part(elements: Elements[V], cursor: bytes, options: Words) -> tuple[bytes, list[bytes]]:
    """The next cursor and some elements. A cursor is the position before which the scan continues; 0 begins a scan.

    A scan goes from the last position to the first, because a removal moves the last element to a lower position: an
    element that was not returned yet moves to a position that is still to be scanned; only one that was returned may be
    returned again.
    """
    end, size = cursor_of(cursor), len(elements)
    if not size:
        return b"0", []  # as in Redis, before the options are parsed
    matches, wanted = scan_options(options)
    if size <= _AT_ONCE_MAX:
        return b"0", [element for element in elements if matches(element)]
    end = min(end, size) or size
    start = max(end - wanted, 0)
    return b"%d" % start, [element for element in elements.keys_between(start, end) if matches(element)]


def draws(space: Keyspace, elements: Elements[V], wanted: int, *, in_pairs: bool = False) -> list[bytes]:
    """Random elements: up to `wanted` different ones, or exactly -`wanted`, perhaps some more than once."""
    if wanted < -INT64_MAX:
        raise CommandFailed(f"ERR value is out of range, value must between {-INT64_MAX} and {INT64_MAX}")
    if in_pairs and abs(wanted) > INT64_MAX // 2:
        raise CommandFailed("ERR value is out of range")
    size = len(elements)
    if not size or not wanted:
        return []
    if -wanted > _DRAWS_MAX:
        raise CommandFailed("ERR value is out of range")
    if wanted < 0:
        return [elements.key_at(space.draw(size)) for _ in range(-wanted)]
    if wanted >= size:
        return list(elements)
    taken: dict[int, int] = {}  # Fisher-Yates shuffle, storing only the positions that were swapped
    found: list[bytes] = []
    for position in range(wanted):
        other = position + space.draw(size - position)
        found.append(elements.key_at(taken.get(other, other)))
        taken[other] = taken.get(position, position)
    return found


def bounds(first: int, last: int, length: int) -> tuple[int, int]:
    """Redis's range of two positions (negative ones count from the end) as a slice (start, end) within the length."""
    first = max(first + length, 0) if first < 0 else first
    last = last + length if last < 0 else min(last, length - 1)
    return (first, last + 1) if first <= last else (0, 0)


def count_word(words: Words, position: int) -> int:
    """The optional count of a pop: an integer of 0 or more. Raises CommandFailed."""
    wanted = integer(words[position], "ERR value is out of range, must be positive")
    if wanted < 0:
        raise CommandFailed("ERR value is out of range, must be positive")
    return wanted


def counted_keys(words: Words, position: int) -> tuple[Sequence[bytes], Words]:
    """The keys whose number is the word at `position`, and the words after them. Raises CommandFailed."""
    number = integer(words[position], "ERR numkeys should be greater than 0")
    if number < 1:
        raise CommandFailed("ERR numkeys should be greater than 0")
    if position + 1 + number > len(words):
        raise CommandFailed("ERR Number of keys can't be greater than number of args")
    return words[position + 1 : position + 1 + number], words[position + 1 + number :]


def pop_options(words: Words, sides: tuple[bytes, bytes]) -> tuple[bool, int]:
    """The options of LMPOP and ZMPOP: whether to take from the first of both sides, and how many elements."""
    wanted = 1
    if not words or words[0].upper() not in sides:
        raise syntax_error()
    match words:
        case [_]:
            pass
        case [_, option, number] if option.upper() == b"COUNT":
            wanted = integer(number, "ERR count should be greater than 0")
            if wanted < 1:
                raise CommandFailed("ERR count should be greater than 0")
        case _:
            raise syntax_error()
    return words[0].upper() == sides[0], wanted


def limit_option(words: Words) -> int:
    """The number after LIMIT, 0 or more; 0 if there is no LIMIT, which means no limit."""
    if not words:
        return 0
    if len(words) != 2 or words[0].upper() != b"LIMIT":
        raise syntax_error()
    limit = integer(words[1], "ERR LIMIT can't be negative")
    if limit < 0:
        raise CommandFailed("ERR LIMIT can't be negative")
    return limit
