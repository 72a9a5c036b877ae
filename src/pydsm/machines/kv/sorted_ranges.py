"""Parses ranges of sorted sets, by rank, score or member, in the form in which clients write them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nextafter

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv.collections import bounds
from pydsm.machines.kv.command import integer, rounded_floating
from pydsm.machines.kv.values import SortedSet

Select = Callable[[SortedSet], tuple[int, int]]
"""Returns the first rank of a range, and the rank after its last."""

_NOT_A_RANGE = "ERR min or max is not a float"
_NOT_A_LEX_RANGE = "ERR min or max not valid string range item"


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a range by member. `sign` is -1 or 1 for an end before or behind all members."""

    member: bytes
    exclusive: bool
    sign: int


def by_rank(first: bytes, last: bytes, *, reverse: bool = False) -> Select:
    """A range of ranks, counted from the highest score when reversed. Raises CommandFailed."""
    start, end = integer(first), integer(last)

    def select(sorted_set: SortedSet) -> tuple[int, int]:
        length = len(sorted_set)
        low, high = bounds(start, end, length)
        return (length - high, length - low) if reverse else (low, high)

    return select


def by_score(low: bytes, high: bytes) -> Select:
    """A range of scores from `low` to `high`; an end with a ( before it is excluded. Raises CommandFailed."""
    least, most = _score(low), _score(high)

    def select(sorted_set: SortedSet) -> tuple[int, int]:
        order = sorted_set.order
        start = _rank_behind(sorted_set, least[0]) if least[1] else order.bisect_left((least[0], b""))
        end = order.bisect_left((most[0], b"")) if most[1] else _rank_behind(sorted_set, most[0])
        return start, max(start, end)

    return select


def _score(word: bytes) -> tuple[float, bool]:
    """The number, and whether it is excluded."""
    exclusive = word.startswith(b"(")
    number = word[1:] if exclusive else word
    # As in Redis, only here an empty word means 0, and a number out of range means infinite or 0.
    return rounded_floating(number, _NOT_A_RANGE), exclusive


def _rank_behind(sorted_set: SortedSet, score: float) -> int:
    """The number of members with this score or a lower one."""
    if score == inf:
        return len(sorted_set)
    above = nextafter(score, inf)
    return sorted_set.order.bisect_left((above, b""))


def by_member(low: bytes, high: bytes) -> Select:
    """A range of members from [a or (a to [b or (b, or - and +, if all scores are equal. Raises CommandFailed."""
    least, most = _end(low), _end(high)

    def select(sorted_set: SortedSet) -> tuple[int, int]:
        start, end = _rank_of(sorted_set, least, least.exclusive), _rank_of(sorted_set, most, not most.exclusive)
        return start, max(start, end)

    return select


def _end(word: bytes) -> _End:
    if word in {b"-", b"+"}:
        return _End(b"", exclusive=False, sign=-1 if word == b"-" else 1)
    if word[:1] not in {b"[", b"("}:
        raise CommandFailed(_NOT_A_LEX_RANGE)
    return _End(word[1:], exclusive=word[:1] == b"(", sign=0)


def _rank_of(sorted_set: SortedSet, end: _End, behind: bool) -> int:
    """The number of members before this end; also counts a member that equals the end if `behind`."""
    if end.sign or not sorted_set:
        return 0 if end.sign < 0 else len(sorted_set)
    order = sorted_set.order
    first: tuple[float, bytes] = order[0]
    position = (first[0], end.member)
    return order.bisect_right(position) if behind else order.bisect_left(position)
