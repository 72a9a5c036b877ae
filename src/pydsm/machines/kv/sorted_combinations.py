"""Unions, intersections and differences of sorted sets, with weights; plain sets count as members of score 1."""

from collections.abc import Callable, Iterator, KeysView, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from math import isnan

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.collections import limit_option
from pydsm.machines.kv.command import (
    ANY,
    NO_KEYS,
    Command,
    KeyAccess,
    Touched,
    Words,
    floating,
    integer,
    keys_after_count,
    syntax_error,
)
from pydsm.machines.kv.keyspace import WRONG_TYPE, Keyspace
from pydsm.machines.kv.sorted_sets import pairs, store
from pydsm.machines.kv.values import Set, SortedSet

_AGGREGATES: dict[bytes, Callable[[float, float], float]] = {
    b"SUM": lambda left, right: 0.0 if isnan(left + right) else left + right,
    b"MIN": min,
    b"MAX": max,
}


_NO_MEMBERS = Set()
"""An empty set; never changed."""


@dataclass(frozen=True, slots=True)
class _Source:
    """One of the combined sets. Its content is not copied."""

    members: Set | SortedSet
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.members)

    @property
    def lookup(self) -> KeysView[bytes]:
        """The members, for many lookups."""
        return self.members.lookup if isinstance(self.members, Set) else self.members.scores.lookup

    def score(self, member: bytes) -> float:
        """The weighted score of a member; NaN if the score is infinite and the weight is 0."""
        return self.weight if isinstance(self.members, Set) else self.members.scores[member] * self.weight

    def items(self) -> Iterator[tuple[bytes, float]]:
        """The members with their weighted scores; 0 in place of NaN."""
        if isinstance(self.members, Set):
            return ((member, self.weight) for member in self.members)
        return ((member, _number(score * self.weight)) for member, score in self.members.scores.items())


@dataclass(frozen=True, slots=True)
class _Asked:
    """The sets to combine, and the options."""

    sources: Sequence[_Source]
    aggregate: Callable[[float, float], float]
    with_scores: bool

    @property
    def smallest_first(self) -> Sequence[_Source]:
        """The sets in the order in which Redis adds scores, since the order determines the rounding."""
        return sorted(self.sources, key=len)


def _asked(space: Keyspace, words: Words, name: str, *, weighted: bool, scores: bool) -> _Asked:
    """Parse the words from the number of keys on. Raises CommandFailed."""
    number = integer(words[0])
    _check_number(number, len(words) - 1, name)
    keys, options = words[1 : 1 + number], list(words[1 + number :])
    weights, aggregate, with_scores = [1.0] * number, _AGGREGATES[b"SUM"], False
    sources = [_members(space, key) for key in keys]
    while options:
        option = options.pop(0).upper()
        if option == b"WEIGHTS" and weighted and len(options) >= number:
            weights = [floating(word, "ERR weight value is not a float") for word in options[:number]]
            del options[:number]
        elif option == b"AGGREGATE" and weighted and options and options[0].upper() in _AGGREGATES:
            aggregate = _AGGREGATES[options.pop(0).upper()]
        elif option == b"WITHSCORES" and scores:
            with_scores = True
        else:
            raise syntax_error()
    return _Asked(list(map(_Source, sources, weights)), aggregate, with_scores)


def _check_number(number: int, words_left: int, name: str) -> None:
    if number < 1:
        raise CommandFailed(f"ERR at least 1 input key is needed for '{name}' command")
    if number > words_left:
        raise syntax_error()


def _members(space: Keyspace, key: bytes) -> Set | SortedSet:
    value = space.get(key)
    if value is None:
        return _NO_MEMBERS
    if isinstance(value, Set | SortedSet):
        return value
    raise CommandFailed(WRONG_TYPE)


def _number(product: float) -> float:
    return 0.0 if isnan(product) else product


def _union(asked: _Asked) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for source in asked.smallest_first:
        for member, score in source.items():
            found[member] = asked.aggregate(found[member], score) if member in found else score
    return found


def _common(sources: Sequence[_Source]) -> Iterator[tuple[bytes, float]]:
    """The members of the first set that all others have; costs the size of the first, for each of the others."""
    first, *others = sources
    lookups = [other.lookup for other in others]
    if not others:
        return first.items()
    return (item for item in first.items() if all(item[0] in other for other in lookups))


def _inter(asked: _Asked) -> dict[bytes, float]:
    sources = asked.smallest_first
    if len(sources) == 1:
        return dict(sources[0].items())
    found: dict[bytes, float] = {}
    for member, score in _common(sources):
        found[member] = reduce(asked.aggregate, (other.score(member) for other in sources[1:]), score)
    return found


def _diff(asked: _Asked) -> dict[bytes, float]:
    first, *others = asked.sources
    found = dict(first.items())
    for other in others:
        if len(other) < len(found):
            for member in other.lookup:
                found.pop(member, None)
        else:
            lookup = other.lookup
            found = {member: score for member, score in found.items() if member not in lookup}
    return found


_Combine = Callable[[_Asked], dict[bytes, float]]


def _ordered(found: dict[bytes, float]) -> list[tuple[float, bytes]]:
    return sorted((score + 0.0, member) for member, score in found.items())


def _giving(combine: _Combine) -> Callable[[Keyspace, Words], Result]:
    def run(space: Keyspace, words: Words) -> Result:
        asked = _asked(space, words[1:], words[0].decode().lower(), weighted=combine is not _diff, scores=True)
        return pairs(_ordered(combine(asked)), with_scores=asked.with_scores)

    return run


def _storing(combine: _Combine) -> Callable[[Keyspace, Words], Result]:
    def run(space: Keyspace, words: Words) -> Result:
        asked = _asked(space, words[2:], words[0].decode().lower(), weighted=combine is not _diff, scores=False)
        return store(space, words[1], _ordered(combine(asked)))

    return run


def _zintercard(space: Keyspace, words: Words) -> Result:
    number = integer(words[1])
    _check_number(number, len(words) - 2, "zintercard")
    asked = _asked(space, words[1 : 2 + number], "zintercard", weighted=False, scores=False)
    limit = limit_option(words[2 + number :])
    return sum(1 for _ in islice(_common(asked.smallest_first), limit or None))


def _reads(words: Words) -> Touched:
    return Touched(reads=keys_after_count(words, 1))


def _stores(words: Words) -> Touched:
    return Touched(reads=keys_after_count(words, 2), writes=words[1:2])


_R, _W, _Z = KeyAccess.READ, KeyAccess.WRITE, "sorted-set"

COMMANDS = (
    Command(b"ZUNION", _giving(_union), _R, 3, ANY, NO_KEYS, "Returns the union.", _Z, _reads),
    Command(b"ZINTER", _giving(_inter), _R, 3, ANY, NO_KEYS, "Returns the intersection.", _Z, _reads),
    Command(b"ZDIFF", _giving(_diff), _R, 3, ANY, NO_KEYS, "Returns the difference.", _Z, _reads),
    Command(b"ZUNIONSTORE", _storing(_union), _W, 4, ANY, NO_KEYS, "Stores the union.", _Z, _stores),
    Command(b"ZINTERSTORE", _storing(_inter), _W, 4, ANY, NO_KEYS, "Stores the intersection.", _Z, _stores),
    Command(b"ZDIFFSTORE", _storing(_diff), _W, 4, ANY, NO_KEYS, "Stores the difference.", _Z, _stores),
    Command(b"ZINTERCARD", _zintercard, _R, 3, ANY, NO_KEYS, "Counts the intersection.", _Z, _reads),
)
