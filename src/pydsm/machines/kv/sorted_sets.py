"""Commands on one sorted set: members, scores, ranges. Commands that combine several are in `sorted_combinations`."""

from collections.abc import Iterator, Sequence
from math import isnan

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.collections import count_word, counted_keys, draws, pop_options, scan_part
from pydsm.machines.kv.command import (
    ANY,
    FIRST,
    FIRST_TWO,
    NO_KEYS,
    Command,
    KeyAccess,
    Touched,
    Words,
    floating,
    integer,
    keys_after_count,
    show_float,
    syntax_error,
)
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.sorted_ranges import Select, by_member, by_rank, by_score
from pydsm.machines.kv.values import NO_LIST, Pairs, SortedSet

_NAN = "ERR resulting score is not a number (NaN)"
_ZADD_OPTIONS = frozenset((b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"))


def of(space: Keyspace, key: bytes) -> SortedSet:
    """The sorted set of a key for reading; empty if there is none."""
    return space.sorted_set(key) or SortedSet()


def _for_writing(space: Keyspace, key: bytes) -> SortedSet:
    found = space.sorted_set(key)
    if found is None:
        found = SortedSet()
        space.put(key, found)
    return found


def pairs(entries: Sequence[tuple[float, bytes]], *, with_scores: bool) -> Result:
    """The members in their order, each with its score if `with_scores` is true."""
    if with_scores:
        return Pairs([member, score] for score, member in entries)
    return [member for _, member in entries]


# Writing


def _zadd(space: Keyspace, words: Words) -> Result:
    options, position = set[bytes](), 2
    while position < len(words) and words[position].upper() in _ZADD_OPTIONS:
        options.add(words[position].upper())
        position += 1
    rest = words[position:]
    _check_zadd(options, rest)
    scores = [floating(word) for word in rest[::2]]
    if b"INCR" in options:
        return _zadd_one(space, words[1], scores[0], rest[1], options)
    if b"XX" in options and space.sorted_set(words[1]) is None:
        return 0
    sorted_set = _for_writing(space, words[1])
    added = changed = 0
    for score, member in zip(scores, rest[1::2], strict=True):
        old = sorted_set.scores.get(member)
        if _allowed(old, score, options) and old != score:
            sorted_set.put(member, score)
            added += old is None
            changed += 1
    if changed or not sorted_set:
        space.changed(words[1])
    return changed if b"CH" in options else added


def _check_zadd(options: set[bytes], rest: Words) -> None:
    if not rest or len(rest) % 2:
        raise syntax_error()
    if {b"NX", b"XX"} <= options:
        raise CommandFailed("ERR XX and NX options at the same time are not compatible")
    if len(options & {b"GT", b"LT", b"NX"}) > 1:
        raise CommandFailed("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in options and len(rest) > 2:
        raise CommandFailed("ERR INCR option supports a single increment-element pair")


def _allowed(old: float | None, score: float, options: set[bytes]) -> bool:
    if old is None:
        return b"XX" not in options
    if b"NX" in options or (b"GT" in options and score <= old):
        return False
    return not (b"LT" in options and score >= old)


def _zadd_one(space: Keyspace, key: bytes, amount: float, member: bytes, options: set[bytes]) -> float | None:
    """Add to one score. Returns None if the options forbid it."""
    old = of(space, key).scores.get(member)
    score = amount if old is None else old + amount
    if isnan(score):
        raise CommandFailed(_NAN)
    if not _allowed(old, score, options):
        return None
    _for_writing(space, key).put(member, score)
    space.changed(key)
    return score


def _zincrby(space: Keyspace, words: Words) -> Result:
    return _zadd_one(space, words[1], floating(words[2]), words[3], set())


def _zrem(space: Keyspace, words: Words) -> Result:
    sorted_set = space.sorted_set(words[1])
    if sorted_set is None:
        return 0
    removed = sum(map(sorted_set.remove, words[2:]))
    if removed:
        space.changed(words[1])
    return removed


def _remove_range(space: Keyspace, key: bytes, select: Select) -> int:
    sorted_set = space.sorted_set(key)
    if sorted_set is None:
        return 0
    start, end = select(sorted_set)
    for _, member in sorted_set.order[start:end]:
        sorted_set.remove(member)
    if end > start:
        space.changed(key)
    return end - start


def _zremrangebyrank(space: Keyspace, words: Words) -> Result:
    return _remove_range(space, words[1], by_rank(words[2], words[3]))


def _zremrangebyscore(space: Keyspace, words: Words) -> Result:
    return _remove_range(space, words[1], by_score(words[2], words[3]))


def _zremrangebylex(space: Keyspace, words: Words) -> Result:
    return _remove_range(space, words[1], by_member(words[2], words[3]))


def _zpop(space: Keyspace, words: Words) -> Result:
    wanted = count_word(words, 2) if len(words) == 3 else 1
    sorted_set = space.sorted_set(words[1])
    if sorted_set is None:
        return []
    popped = _pop(space, words[1], sorted_set, wanted, least=words[0] == b"ZPOPMIN")
    if len(words) == 2:
        return [item for score, member in popped for item in (member, score)]
    return pairs(popped, with_scores=True)


def _pop(space: Keyspace, key: bytes, sorted_set: SortedSet, wanted: int, *, least: bool) -> list[tuple[float, bytes]]:
    popped = [sorted_set.order.pop(0 if least else -1) for _ in range(min(wanted, len(sorted_set)))]
    for _, member in popped:
        sorted_set.scores.remove(member)
    if popped:
        space.changed(key)
    return popped


def _zmpop(space: Keyspace, words: Words) -> Result:
    keys, rest = counted_keys(words, 1)
    least, wanted = pop_options(rest, (b"MIN", b"MAX"))
    for key in keys:
        sorted_set = space.sorted_set(key)
        if sorted_set is not None:
            popped = _pop(space, key, sorted_set, wanted, least=least)
            return [key, [[member, score] for score, member in popped]]
    return NO_LIST


# Reading


def _zscore(space: Keyspace, words: Words) -> Result:
    return of(space, words[1]).scores.get(words[2])


def _zmscore(space: Keyspace, words: Words) -> Result:
    return list(map(of(space, words[1]).scores.get, words[2:]))


def _zcard(space: Keyspace, words: Words) -> Result:
    return len(of(space, words[1]))


def _zcount(space: Keyspace, words: Words) -> Result:
    return _count(by_score(words[2], words[3]), of(space, words[1]))


def _zlexcount(space: Keyspace, words: Words) -> Result:
    return _count(by_member(words[2], words[3]), of(space, words[1]))


def _count(select: Select, sorted_set: SortedSet) -> int:
    start, end = select(sorted_set)
    return end - start


def _zrank(space: Keyspace, words: Words) -> Result:
    if len(words) == 4 and words[3].upper() != b"WITHSCORE":
        raise syntax_error()
    sorted_set = of(space, words[1])
    score = sorted_set.scores.get(words[2])
    if score is None:
        return NO_LIST if len(words) == 4 else None
    rank = sorted_set.order.index((score, words[2]))
    if words[0] == b"ZREVRANK":
        rank = len(sorted_set) - 1 - rank
    return [rank, score] if len(words) == 4 else rank


class _Range:
    """A range command, parsed from the words after its key."""

    def __init__(self, words: Words, *, by: str = "", reverse: bool = False, any_form: bool = False) -> None:
        if len(words) < 2:
            raise syntax_error()
        self.with_scores = False
        self.reverse = reverse
        self.by = by
        self._limit = self._read_options(words[2:], any_form)
        if self._limit is not None and self._limit[1] != -1 and not self.by:
            raise CommandFailed("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
        if self.with_scores and self.by == "lex":
            raise CommandFailed("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
        low, high = (words[1], words[0]) if self.reverse and self.by else (words[0], words[1])
        if self.by == "score":
            self._select = by_score(low, high)
        elif self.by == "lex":
            self._select = by_member(low, high)
        else:
            self._limit = None
            self._select = by_rank(low, high, reverse=self.reverse)

    def _read_options(self, words: Words, any_form: bool) -> tuple[int, int] | None:
        """Parse the options. Returns how many members to skip and how many to return, or None if there is no LIMIT."""
        limit: tuple[int, int] | None = None
        options = iter(words)
        for option in options:
            match option.upper():
                case b"WITHSCORES":
                    self.with_scores = True
                case b"LIMIT" if any_form or self.by:
                    limit = (_next_integer(options), _next_integer(options))
                case b"BYSCORE" if any_form and not self.by:
                    self.by = "score"
                case b"BYLEX" if any_form and not self.by:
                    self.by = "lex"
                case b"REV" if any_form:
                    self.reverse = True
                case _:
                    raise syntax_error()
        return limit

    def entries(self, sorted_set: SortedSet) -> list[tuple[float, bytes]]:
        """The members in the range, in the requested order."""
        start, end = self._select(sorted_set)
        if self._limit is not None:
            skip, wanted = self._limit
            if skip < 0:
                return []
            wanted = end - start if wanted < 0 else wanted
            if self.reverse:
                end = max(start, end - skip)
                start = max(start, end - wanted)
            else:
                start = min(end, start + skip)
                end = min(end, start + wanted)
        found = list(sorted_set.order[start:end])
        return found[::-1] if self.reverse else found


def _next_integer(words: Iterator[bytes]) -> int:
    word = next(words, None)
    if word is None:
        raise syntax_error()
    return integer(word)


def _zrange(space: Keyspace, words: Words) -> Result:
    wanted = _Range(words[2:], any_form=True)
    return pairs(wanted.entries(of(space, words[1])), with_scores=wanted.with_scores)


def _zrevrange(space: Keyspace, words: Words) -> Result:
    wanted = _Range(words[2:], reverse=True)
    return pairs(wanted.entries(of(space, words[1])), with_scores=wanted.with_scores)


def _zrangeby(space: Keyspace, words: Words) -> Result:
    """ZRANGEBYSCORE, ZRANGEBYLEX and their ZREV variants."""
    by = "score" if words[0].endswith(b"SCORE") else "lex"
    wanted = _Range(words[2:], by=by, reverse=words[0].startswith(b"ZREV"))
    return pairs(wanted.entries(of(space, words[1])), with_scores=wanted.with_scores)


def _zrangestore(space: Keyspace, words: Words) -> Result:
    wanted = _Range(words[3:], any_form=True)
    if wanted.with_scores:
        raise syntax_error()
    return store(space, words[1], wanted.entries(of(space, words[2])))


def store(space: Keyspace, key: bytes, entries: Sequence[tuple[float, bytes]]) -> int:
    """Store these members under a key, in place of any value; without members, the key is removed."""
    found = SortedSet((member, score) for score, member in entries)
    if found:
        space.put(key, found)
    else:
        space.remove(key)
    return len(found)


def _zrandmember(space: Keyspace, words: Words) -> Result:
    sorted_set = of(space, words[1])
    if len(words) == 2:
        return draws(space, sorted_set.scores, 1)[0] if sorted_set else None
    wanted = integer(words[2])
    if len(words) == 4 and words[3].upper() != b"WITHSCORES":
        raise syntax_error()
    found = draws(space, sorted_set.scores, wanted, in_pairs=len(words) == 4)
    return pairs([(sorted_set.scores[member], member) for member in found], with_scores=len(words) == 4)


def _zscan(space: Keyspace, words: Words) -> Result:
    sorted_set = of(space, words[1])
    cursor, members = scan_part(sorted_set.scores, words[2], words[3:])
    return [cursor, [word for member in members for word in (member, show_float(sorted_set.scores[member]))]]


def _store_touches(words: Words) -> Touched:
    return Touched(reads=words[2:3], writes=words[1:2])


def _zmpop_touches(words: Words) -> Touched:
    return Touched(writes=keys_after_count(words, 1))


_R, _W, _Z = KeyAccess.READ, KeyAccess.WRITE, "sorted-set"

COMMANDS = (
    Command(b"ZADD", _zadd, _W, 4, ANY, FIRST, "Adds members with scores, or changes scores.", _Z),
    Command(b"ZINCRBY", _zincrby, _W, 4, 4, FIRST, "Adds to a member's score and returns the sum.", _Z),
    Command(b"ZREM", _zrem, _W, 3, ANY, FIRST, "Removes members and counts those that existed.", _Z),
    Command(b"ZREMRANGEBYRANK", _zremrangebyrank, _W, 4, 4, FIRST, "Removes members by their ranks.", _Z),
    Command(b"ZREMRANGEBYSCORE", _zremrangebyscore, _W, 4, 4, FIRST, "Removes members by their scores.", _Z),
    Command(b"ZREMRANGEBYLEX", _zremrangebylex, _W, 4, 4, FIRST, "Removes members of one score by name.", _Z),
    Command(b"ZPOPMIN", _zpop, _W, 2, 3, FIRST, "Removes and returns the lowest scores.", _Z),
    Command(b"ZPOPMAX", _zpop, _W, 2, 3, FIRST, "Removes and returns the highest scores.", _Z),
    Command(b"ZMPOP", _zmpop, _W, 4, ANY, NO_KEYS, "Pops from the first set that exists.", _Z, _zmpop_touches),
    Command(b"ZSCORE", _zscore, _R, 3, 3, FIRST, "Returns a member's score.", _Z),
    Command(b"ZMSCORE", _zmscore, _R, 3, ANY, FIRST, "Returns the scores of several members.", _Z),
    Command(b"ZCARD", _zcard, _R, 2, 2, FIRST, "Counts the members.", _Z),
    Command(b"ZCOUNT", _zcount, _R, 4, 4, FIRST, "Counts the members in a range of scores.", _Z),
    Command(b"ZLEXCOUNT", _zlexcount, _R, 4, 4, FIRST, "Counts the members in a range of names.", _Z),
    Command(b"ZRANK", _zrank, _R, 3, 4, FIRST, "Returns a member's rank from the lowest score.", _Z),
    Command(b"ZREVRANK", _zrank, _R, 3, 4, FIRST, "Returns a member's rank from the highest score.", _Z),
    Command(b"ZRANGE", _zrange, _R, 4, ANY, FIRST, "Returns the members in a range of any kind.", _Z),
    Command(b"ZREVRANGE", _zrevrange, _R, 4, 5, FIRST, "Returns members by rank, from the highest score.", _Z),
    Command(b"ZRANGEBYSCORE", _zrangeby, _R, 4, ANY, FIRST, "Returns the members in a range of scores.", _Z),
    Command(b"ZREVRANGEBYSCORE", _zrangeby, _R, 4, ANY, FIRST, "ZRANGEBYSCORE from the highest score.", _Z),
    Command(b"ZRANGEBYLEX", _zrangeby, _R, 4, ANY, FIRST, "Returns the members in a range of names.", _Z),
    Command(b"ZREVRANGEBYLEX", _zrangeby, _R, 4, ANY, FIRST, "ZRANGEBYLEX from the last name.", _Z),
    Command(b"ZRANGESTORE", _zrangestore, _W, 5, ANY, FIRST_TWO, "Stores a range.", _Z, _store_touches),
    Command(b"ZRANDMEMBER", _zrandmember, _R, 2, 4, FIRST, "Returns random members.", _Z),
    Command(b"ZSCAN", _zscan, _R, 3, ANY, FIRST, "Lists members and scores a few at a time.", _Z),
)
