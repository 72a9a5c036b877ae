"""Redis's patterns: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before a character that means itself.

Guards the cost: a text is matched in time that grows with its length alone, whatever the pattern, and a pattern is read
once. Redis backtracks, so that a pattern of many stars costs pattern times text there.

Between two stars stands a segment, which matches a fixed number of characters. Each is searched for behind the one
before it, and the first place is taken: a later one never makes more possible. So each character is looked at once.
"""

from collections.abc import Callable, Iterator, Sequence

from pydsm.machines.base import CommandFailed

PATTERN_BYTES_MAX = 4096
"""Redis has no such limit; it bounds what reading a pattern costs at every replica."""

_ANYTHING = (1 << 256) - 1
_CASE = ord("a") - ord("A")

_Segment = Sequence[int]
"""What each place allows: a bit for each of the 256 characters."""
_Search = Callable[[bytes, int, int], int]
"""The place behind the first match in a text from a place to an end; -1 if there is none."""


def matcher(pattern: bytes, *, ignore_case: bool = False) -> Callable[[bytes], bool]:
    """Whether a text matches the whole pattern. Raises CommandFailed for a pattern that is too long."""
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
            return False  # Redis lets only one star match nothing at all, not two
        place = len(first)
        for search in searches:
            place = search(text, place, end)
            if place < 0:
                return False
        return ends(text, end, len(text)) >= 0

    return matches


def _search_for(segment: _Segment) -> _Search:
    if all(allowed & (allowed - 1) == 0 and allowed for allowed in segment):
        literal = bytes(allowed.bit_length() - 1 for allowed in segment)

        def find(text: bytes, start: int, end: int) -> int:
            place = text.find(literal, start, end)
            return place if place < 0 else place + len(literal)

        return find
    return _search_in_parallel(segment)


def _search_in_parallel(segment: _Segment) -> _Search:
    """Shift-And: bit n of the state says that the last n + 1 characters match the first n + 1 places."""
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
        for place in range(start, end):
            state = (state << 1 | 1) & allows[text[place]]
            if state & matched:
                return place + 1
        return -1

    return search


def _characters(allowed: int) -> Iterator[int]:
    while allowed:
        yield (allowed & -allowed).bit_length() - 1
        allowed &= allowed - 1


def _segments(pattern: bytes, *, ignore_case: bool) -> list[_Segment]:
    """What stands between the stars; a single one where there is no star."""
    segments: list[list[int]] = [[]]
    place = 0
    while place < len(pattern):
        character = pattern[place : place + 1]
        if character == b"*":
            if len(segments) == 1 or segments[-1]:
                segments.append([])
        elif character == b"?":
            segments[-1].append(_ANYTHING)
        elif character == b"[":
            allowed, place = _class(pattern, place + 1, ignore_case=ignore_case)
            segments[-1].append(allowed)
        else:
            if character == b"\\" and place + 1 < len(pattern):
                place += 1
            segments[-1].append(_bit(pattern[place], ignore_case=ignore_case))
        place += 1
    return list[_Segment](segments)


def _bit(character: int, *, ignore_case: bool) -> int:
    other = character ^ _CASE
    both = ignore_case and chr(character).isascii() and chr(character).isalpha()
    return 1 << character | (1 << other if both else 0)


def _class(pattern: bytes, place: int, *, ignore_case: bool) -> tuple[int, int]:
    """What a bracket allows, and where it ends; one that is not closed ends with the pattern."""
    negated = pattern[place : place + 1] == b"^"
    place += negated
    allowed = 0
    while place < len(pattern) and (pattern[place] != ord("]")):
        if pattern[place] == ord("\\") and place + 1 < len(pattern):
            place += 1
            allowed |= _bit(pattern[place], ignore_case=ignore_case)
        elif place + 2 < len(pattern) and pattern[place + 1] == ord("-"):
            allowed |= _range(pattern[place], pattern[place + 2], ignore_case=ignore_case)
            place += 2
        else:
            allowed |= _bit(pattern[place], ignore_case=ignore_case)
        place += 1
    return (_ANYTHING & ~allowed if negated else allowed), place


def _range(one: int, other: int, *, ignore_case: bool) -> int:
    """Characters are signed, as in C on most machines: 128 to 255 come before 0."""
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
