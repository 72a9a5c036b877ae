"""Commands on sets."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from pydsm.machines.base import Result
from pydsm.machines.kv.collections import count_word, counted_keys, draws, limit_option, scan_part
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
    keys_after_count,
)
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import Members, Set

_NO_MEMBERS = Set()
"""An empty set; never changed."""
Combine = Callable[[Keyspace, Sequence[bytes]], Set]


def _members(space: Keyspace, key: bytes) -> Set:
    """The set of a key for reading."""
    return space.set(key) or _NO_MEMBERS


def _sadd(space: Keyspace, words: Words) -> Result:
    set_ = space.set(words[1])
    if set_ is None:
        set_ = Set()
        space.put(words[1], set_)
    before = len(set_)
    for member in words[2:]:
        set_.add(member)
    if len(set_) > before:
        space.changed(words[1])
    return len(set_) - before


def _srem(space: Keyspace, words: Words) -> Result:
    set_ = space.set(words[1])
    if set_ is None:
        return 0
    removed = sum(map(set_.remove, words[2:]))
    if removed:
        space.changed(words[1])
    return removed


def _sismember(space: Keyspace, words: Words) -> Result:
    return int(words[2] in _members(space, words[1]))


def _smismember(space: Keyspace, words: Words) -> Result:
    set_ = _members(space, words[1])
    return [int(member in set_) for member in words[2:]]


def _smembers(space: Keyspace, words: Words) -> Result:
    return Members(_members(space, words[1]))


def _scard(space: Keyspace, words: Words) -> Result:
    return len(_members(space, words[1]))


def _spop(space: Keyspace, words: Words) -> Result:
    wanted = count_word(words, 2) if len(words) == 3 else None
    set_ = space.set(words[1])
    if set_ is None:
        return None if wanted is None else Members()
    popped = draws(space, set_, 1 if wanted is None else wanted)
    for member in popped:
        set_.remove(member)
    if popped:
        space.changed(words[1])
    return popped[0] if wanted is None else Members(popped)


def _srandmember(space: Keyspace, words: Words) -> Result:
    set_ = _members(space, words[1])
    if len(words) == 3:
        return list(draws(space, set_, integer(words[2])))
    return draws(space, set_, 1)[0] if set_ else None


def _smove(space: Keyspace, words: Words) -> Result:
    source = space.set(words[1])
    if source is None:
        return 0
    target = space.set(words[2])
    if words[3] not in source:
        return 0
    if words[1] == words[2]:
        return 1
    source.remove(words[3])
    if target is None:
        target = Set()
        space.put(words[2], target)
    target.add(words[3])
    space.changed(words[1])
    space.changed(words[2])
    return 1


def _common(space: Keyspace, keys: Sequence[bytes]) -> Iterator[bytes]:
    """The members that all sets have; costs the size of the smallest set, for each of the others."""
    sets = sorted((_members(space, key) for key in keys), key=len)
    others = [other.lookup for other in sets[1:]]
    if not others:
        return iter(sets[0])
    return (member for member in sets[0] if all(member in other for other in others))


def _inter(space: Keyspace, keys: Sequence[bytes]) -> Set:
    return Set.of(_common(space, keys))


def _union(space: Keyspace, keys: Sequence[bytes]) -> Set:
    found: dict[bytes, None] = {}
    for key in keys:
        found.update(dict.fromkeys(_members(space, key)))
    return Set(found.items())


def _diff(space: Keyspace, keys: Sequence[bytes]) -> Set:
    first, *others = [_members(space, key) for key in keys]
    found = dict.fromkeys(first)
    for other in others:
        lookup = other.lookup
        if len(other) < len(found):
            for member in lookup:
                found.pop(member, None)
        else:
            found = dict.fromkeys(member for member in found if member not in lookup)
    return Set(found.items())


def _giving(combine: Combine) -> Callable[[Keyspace, Words], Result]:
    return lambda space, words: Members(combine(space, words[1:]))


def _storing(combine: Combine) -> Callable[[Keyspace, Words], Result]:
    def run(space: Keyspace, words: Words) -> Result:
        found = combine(space, words[2:])
        if found:
            space.put(words[1], found)
        else:
            space.remove(words[1])
        return len(found)

    return run


def _store_touches(words: Words) -> Touched:
    return Touched(reads=words[2:], writes=words[1:2])


def _sintercard(space: Keyspace, words: Words) -> Result:
    keys, rest = counted_keys(words, 1)
    limit = limit_option(rest)
    return sum(1 for _ in islice(_common(space, keys), limit or None))


def _sintercard_touches(words: Words) -> Touched:
    return Touched(reads=keys_after_count(words, 1))


def _sscan(space: Keyspace, words: Words) -> Result:
    return list(scan_part(_members(space, words[1]), words[2], words[3:]))


_READ, _WRITE, _GROUP = KeyAccess.READ, KeyAccess.WRITE, "set"

COMMANDS = (
    Command(b"SADD", _sadd, _WRITE, 3, ANY, FIRST, "Adds members and counts the new ones.", _GROUP),
    Command(b"SREM", _srem, _WRITE, 3, ANY, FIRST, "Removes members and counts those that existed.", _GROUP),
    Command(b"SISMEMBER", _sismember, _READ, 3, 3, FIRST, "Checks whether a value is a member.", _GROUP),
    Command(b"SMISMEMBER", _smismember, _READ, 3, ANY, FIRST, "Checks several values.", _GROUP),
    Command(b"SMEMBERS", _smembers, _READ, 2, 2, FIRST, "Returns all members.", _GROUP),
    Command(b"SCARD", _scard, _READ, 2, 2, FIRST, "Counts the members.", _GROUP),
    Command(b"SPOP", _spop, _WRITE, 2, 3, FIRST, "Removes and returns random members.", _GROUP),
    Command(b"SRANDMEMBER", _srandmember, _READ, 2, 3, FIRST, "Returns random members.", _GROUP),
    Command(b"SMOVE", _smove, _WRITE, 4, 4, FIRST_TWO, "Moves a member to another set.", _GROUP),
    Command(b"SINTER", _giving(_inter), _READ, 2, ANY, ALL, "Returns the intersection of sets.", _GROUP),
    Command(b"SUNION", _giving(_union), _READ, 2, ANY, ALL, "Returns the union of sets.", _GROUP),
    Command(b"SDIFF", _giving(_diff), _READ, 2, ANY, ALL, "Returns the difference of sets.", _GROUP),
    Command(b"SINTERSTORE", _storing(_inter), _WRITE, 3, ANY, ALL, "Stores the intersection.", _GROUP, _store_touches),
    Command(b"SUNIONSTORE", _storing(_union), _WRITE, 3, ANY, ALL, "Stores the union.", _GROUP, _store_touches),
    Command(b"SDIFFSTORE", _storing(_diff), _WRITE, 3, ANY, ALL, "Stores the difference.", _GROUP, _store_touches),
    Command(
        b"SINTERCARD", _sintercard, _READ, 3, ANY, NO_KEYS, "Counts the intersection.", _GROUP, _sintercard_touches
    ),
    Command(b"SSCAN", _sscan, _READ, 3, ANY, FIRST, "Lists members a few at a time.", _GROUP),
)
