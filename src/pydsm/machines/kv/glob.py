"""Redis's patterns: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before a character that is meant literally.

Guarantees that the time for a match is linear in the length of the text, whatever the pattern, and that a pattern is
parsed once. Redis backtracks, so there a pattern with many stars can cost the product of both lengths.

The stars divide a pattern into segments; each segment matches a fixed number of characters. Each segment is searched
for behind the match of the previous one, and the first match is taken, since a later one never allows more matches. So
each character is examined once.
"""

from collections.abc import Callable, Iterator, Sequence

from pydsm.machines.base import CommandFailed

PATTERN_BYTES_MAX = 4096
"""Limit on the length of a pattern, which bounds the cost of parsing it at every replica. Redis has no such limit."""

_ANYTHING = (1 << 256) - 1
_CASE = ord("a") - ord("A")

_Segment = Sequence[int]
"""The allowed characters at each position of a segment: one bit for each of the 256 characters."""
_Search = Callable[[bytes, int, int], int]
"""Returns the end of the first match in text[start:end]; -1 if there is none."""


def matcher(pattern: bytes, *, ignore_case: bool = False) -> Callable[[bytes], bool]:
    """A function that tests whether a whole text matches. Raises CommandFailed if the pattern is too long."""
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandFailed(f"ERR the pattern has {len(pattern)} bytes, over the limit of {PATTERN_BYTES_MAX}")
    if pattern == b"*":
        return lambda text: True
    first, *others = _segments(pattern, ignore_case=ignore_case)
    begins = _search_for(first)
    if not others:
        return lambda text: len(text) == len(first) and begins(text, 0, len(text)) >= 0
    *middle, last = others
    searches = [_search_for(segment) for segment in middle]
    ends = _search_for(last)

    def matches(text: bytes) -> bool:
        end = len(text) - len(last)
        if not text or end < len(first) or begins(text, 0, len(first)) < 0:
            return False  # as in Redis: a single star matches the empty text, several stars do not
        position = len(first)
        for search in searches:
            position = search(text, position, end)
            if position < 0:
                return False
        return ends(text, end, len(text)) >= 0

    return matches


def _search_for(segment: _Segment) -> _Search:
    if all(allowed & (allowed - 1) == 0 and allowed for allowed in segment):
        literal = bytes(allowed.bit_length() - 1 for allowed in segment)

        def find(text: bytes, start: int, end: int) -> int:
            position = text.find(literal, start, end)
            return position if position < 0 else position + len(literal)

        return find
    return _search_in_parallel(segment)


def _search_in_parallel(segment: _Segment) -> _Search:
    """Shift-And: bit n of the state means that the last n + 1 characters match the first n + 1 positions."""
    usual, added, removed = 0, [0] * 256, [0] * 256
    for number, allowed in enumerate(segment):
        bit = 1 << number
        most = allowed.bit_count() > _ANYTHING.bit_count() // 2
        usual |= bit if most else 0
        changed = removed if most else added
        for character in _characters(_ANYTHING & ~allowed if most else allowed):
            changed[character] |= bit
    allows = [usual & ~less | more for less, more in zip(removed, added, strict=True)]
    matched = 1 << (len(segment) - 1)

    def search(text: bytes, start: int, end: int) -> int:
        state = 0
        for position in range(start, end):
            state = (state << 1 | 1) & allows[text[position]]
            if state & matched:
                return position + 1
        return -1

    return search


def _characters(allowed: int) -> Iterator[int]:
    while allowed:
        yield (allowed & -allowed).bit_length() - 1
        allowed &= allowed - 1


def _segments(pattern: bytes, *, ignore_case: bool) -> list[_Segment]:
    """The segments between the stars; a single one if there is no star."""
    segments: list[list[int]] = [[]]
    position = 0
    while position < len(pattern):
        character = pattern[position : position + 1]
        if character == b"*":
            if len(segments) == 1 or segments[-1]:
                segments.append([])
        elif character == b"?":
            segments[-1].append(_ANYTHING)
        elif character == b"[":
            allowed, position = _class(pattern, position + 1, ignore_case=ignore_case)
            segments[-1].append(allowed)
        else:
            if character == b"\\" and position + 1 < len(pattern):
                position += 1
            segments[-1].append(_bit(pattern[position], ignore_case=ignore_case))
        position += 1
    return list[_Segment](segments)


def _bit(character: int, *, ignore_case: bool) -> int:
    other = character ^ _CASE
    both = ignore_case and chr(character).isascii() and chr(character).isalpha()
    return 1 << character | (1 << other if both else 0)


def _class(pattern: bytes, position: int, *, ignore_case: bool) -> tuple[int, int]:
    """The allowed characters of a bracket, and the position of its end; an unclosed one ends with the pattern."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    allowed = 0
    while position < len(pattern) and (pattern[position] != ord("]")):
        if pattern[position] == ord("\\") and position + 1 < len(pattern):
            position += 1
            allowed |= _bit(pattern[position], ignore_case=ignore_case)
        elif position + 2 < len(pattern) and pattern[position + 1] == ord("-"):
            allowed |= _range(pattern[position], pattern[position + 2], ignore_case=ignore_case)
            position += 2
        else:
            allowed |= _bit(pattern[position], ignore_case=ignore_case)
        position += 1
    return (_ANYTHING & ~allowed if negated else allowed), position


def _range(one: int, other: int, *, ignore_case: bool) -> int:
    """The characters of a range. They are signed, as in C on most machines: 128 to 255 come before 0."""
    low, high = sorted((one - 256 if one > 127 else one, other - 256 if other > 127 else other))
    if ignore_case:
        low, high = _lower(low), _lower(high)
    span = (1 << max(high - low + 1, 0)) - 1
    allowed = (span << (low + 256) | span << low + 256 >> 256) & _ANYTHING if low < 0 else span << low
    if ignore_case:
        capitals = allowed >> _CASE & _CAPITALS
        allowed = allowed & ~_CAPITALS | capitals
    return allowed


_CAPITALS = sum(1 << character for character in range(ord("A"), ord("Z") + 1))


def _lower(character: int) -> int:
    return character + _CASE if ord("A") <= character <= ord("Z") else character
