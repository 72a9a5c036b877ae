"""What commands on hashes, lists, sets and sorted sets share: parts of large ones, random picks, ranges."""

from collections.abc import Callable, Collection, Sequence

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv.command import INT64_MAX, Words, integer, syntax_error
from pydsm.machines.kv.glob import matcher
from pydsm.machines.kv.keyspace import Keyspace, key_hash

_AT_ONCE_MAX = 128
"""A collection of so many elements is scanned in one step, as Redis does."""
_STEPS_MAX = 64
"""A scan of a large collection takes about so many steps at most, because each looks at all of it."""
_DRAWS_MAX = 1_000_000

SCAN_COUNT = 10


def scan_options(words: Words) -> tuple[Callable[[bytes], bool], int]:
    """MATCH and COUNT of a scan: what an element must match, and how many to look at."""
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
    """Raises CommandFailed unless it is a number from 0."""
    cursor = integer(word, "ERR invalid cursor")
    if cursor < 0:
        raise CommandFailed("ERR invalid cursor")
    return cursor


def scan_part(elements: Collection[bytes], cursor: bytes, options: Words) -> tuple[bytes, list[bytes]]:
    """The next cursor and some elements; a cursor is the hash of the element to go on from, whatever comes and goes."""
    start = cursor_of(cursor)
    matches, wanted = scan_options(options)
    if len(elements) <= _AT_ONCE_MAX:
        return b"0", [element for element in elements if matches(element)]
    wanted = max(wanted, len(elements) // _STEPS_MAX)
    left = sorted((place, element) for element in elements if (place := key_hash(element)) >= start)
    end = min(wanted, len(left))
    while 0 < end < len(left) and left[end][0] == left[end - 1][0]:
        end += 1
    after = left[end][0] if end < len(left) else 0
    return b"%d" % after, [element for _, element in left[:end] if matches(element)]


def draws(space: Keyspace, elements: Sequence[bytes], wanted: int) -> list[bytes]:
    """Random elements: up to `wanted` different ones, or exactly -`wanted`, perhaps some more than once."""
    if abs(wanted) > INT64_MAX // 2 or -wanted > _DRAWS_MAX:
        raise CommandFailed("ERR value is out of range")
    if not elements or not wanted:
        return []
    if wanted < 0:
        return [elements[space.draw(len(elements))] for _ in range(-wanted)]
    if wanted >= len(elements):
        return list(elements)
    taken: dict[int, int] = {}  # Fisher and Yates, remembering only what was moved
    found: list[bytes] = []
    for place in range(wanted):
        other = place + space.draw(len(elements) - place)
        found.append(elements[taken.get(other, other)])
        taken[other] = taken.get(place, place)
    return found


def bounds(first: int, last: int, length: int) -> tuple[int, int]:
    """Redis's range of two places, from the end where negative, as a slice that is never out of bounds."""
    first = max(first + length, 0) if first < 0 else first
    last = last + length if last < 0 else min(last, length - 1)
    return (first, last + 1) if first <= last else (0, 0)


def count_word(words: Words, place: int) -> int:
    """The optional count of a pop: a number from 0."""
    wanted = integer(words[place], "ERR value is out of range, must be positive")
    if wanted < 0:
        raise CommandFailed("ERR value is out of range, must be positive")
    return wanted


def counted_keys(words: Words, place: int) -> tuple[Sequence[bytes], Words]:
    """The keys that are counted at `place`, and the words after them."""
    number = integer(words[place], "ERR numkeys should be greater than 0")
    if number < 1:
        raise CommandFailed("ERR numkeys should be greater than 0")
    if place + 1 + number > len(words):
        raise CommandFailed("ERR Number of keys can't be greater than number of args")
    return words[place + 1 : place + 1 + number], words[place + 1 + number :]


def pop_options(words: Words, sides: tuple[bytes, bytes]) -> tuple[bool, int]:
    """From which side to take, whether from the first of both, and how many; as LMPOP and ZMPOP say it."""
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
    """LIMIT and a number from 0, or nothing, which is 0: no limit."""
    if not words:
        return 0
    if len(words) != 2 or words[0].upper() != b"LIMIT":
        raise syntax_error()
    limit = integer(words[1], "ERR LIMIT can't be negative")
    if limit < 0:
        raise CommandFailed("ERR LIMIT can't be negative")
    return limit
