"""Commands on lists. Blocking commands are not supported: no command waits during the execution of a batch."""

from itertools import islice, zip_longest

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.collections import bounds, count_word, counted_keys, pop_options
from pydsm.machines.kv.command import (
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
    syntax_error,
)
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import NO_LIST, List


def _push(space: Keyspace, words: Words) -> Result:
    """LPUSH and RPUSH; with an X, only if the list exists."""
    key, list_ = words[1], space.list(words[1])
    if list_ is None:
        if words[0].endswith(b"X"):
            return 0
        list_ = List()
        space.put(key, list_)
    if words[0].startswith(b"L"):
        list_.extendleft(words[2:])
    else:
        list_.extend(words[2:])
    space.changed(key)
    return len(list_)


def _pop(space: Keyspace, words: Words) -> Result:
    wanted = count_word(words, 2) if len(words) == 3 else None
    list_ = space.list(words[1])
    if list_ is None:
        return None if wanted is None else NO_LIST
    popped = _take(space, words[1], list_, 1 if wanted is None else wanted, left=words[0] == b"LPOP")
    return popped[0] if wanted is None else popped


def _take(space: Keyspace, key: bytes, list_: List, wanted: int, *, left: bool) -> list[bytes]:
    pop = list_.popleft if left else list_.pop
    popped = [pop() for _ in range(min(wanted, len(list_)))]
    if popped:
        space.changed(key)
    return popped


def _lmpop(space: Keyspace, words: Words) -> Result:
    keys, rest = counted_keys(words, 1)
    left, wanted = pop_options(rest, (b"LEFT", b"RIGHT"))
    for key in keys:
        list_ = space.list(key)
        if list_ is not None:
            return [key, _take(space, key, list_, wanted, left=left)]
    return NO_LIST


def _llen(space: Keyspace, words: Words) -> Result:
    return len(space.list(words[1]) or ())


def _lrange(space: Keyspace, words: Words) -> Result:
    first, last = integer(words[2]), integer(words[3])
    list_ = space.list(words[1])
    return [] if list_ is None else _part(list_, *bounds(first, last, len(list_)))


def _part(list_: List, start: int, end: int) -> list[bytes]:
    """A part of the list, read from the nearer end."""
    if start <= len(list_) - end:
        return list(islice(list_, start, end))
    return list(islice(reversed(list_), len(list_) - end, len(list_) - start))[::-1]


def _lindex(space: Keyspace, words: Words) -> Result:
    list_ = space.list(words[1])
    if list_ is None:
        return None
    position = integer(words[2])
    return list_[position] if -len(list_) <= position < len(list_) else None


def _lset(space: Keyspace, words: Words) -> Result:
    list_ = space.list(words[1])
    if list_ is None:
        raise CommandFailed("ERR no such key")
    position = integer(words[2])
    if not -len(list_) <= position < len(list_):
        raise CommandFailed("ERR index out of range")
    list_[position] = words[3]
    space.changed(words[1])
    return "OK"


def _linsert(space: Keyspace, words: Words) -> Result:
    side = words[2].upper()
    if side not in {b"BEFORE", b"AFTER"}:
        raise syntax_error()
    list_ = space.list(words[1])
    if list_ is None:
        return 0
    try:
        position = list_.index(words[3])
    except ValueError:
        return -1
    list_.insert(position + (side == b"AFTER"), words[4])
    space.changed(words[1])
    return len(list_)


def _lrem(space: Keyspace, words: Words) -> Result:
    wanted = integer(words[2])
    list_ = space.list(words[1])
    if list_ is None:
        return 0
    limit = abs(wanted) or len(list_)
    kept: list[bytes] = []
    removed = 0
    for element in reversed(list_) if wanted < 0 else iter(list_):
        if element == words[3] and removed < limit:
            removed += 1
        else:
            kept.append(element)
    if removed:
        list_.clear()
        list_.extend(reversed(kept) if wanted < 0 else kept)
        space.changed(words[1])
    return removed


def _ltrim(space: Keyspace, words: Words) -> Result:
    first, last = integer(words[2]), integer(words[3])
    list_ = space.list(words[1])
    if list_ is not None:
        start, end = bounds(first, last, len(list_))
        for _ in range(len(list_) - end):
            list_.pop()
        for _ in range(start):
            list_.popleft()
        space.changed(words[1])
    return "OK"


def _lpos(space: Keyspace, words: Words) -> Result:
    rank, wanted, longest = _lpos_options(words[3:])
    list_ = space.list(words[1])
    found: list[int] = []
    if list_ is not None:
        skip = abs(rank) - 1
        positions = range(len(list_)) if rank > 0 else range(len(list_) - 1, -1, -1)
        elements = iter(list_) if rank > 0 else reversed(list_)
        for position, element in islice(zip(positions, elements, strict=True), longest or None):
            if element == words[2]:
                if skip:
                    skip -= 1
                else:
                    found.append(position)
                    if wanted != 0 and len(found) == (wanted or 1):
                        break
    if wanted is None:
        return found[0] if found else None
    return list(found)


def _lpos_options(words: Words) -> tuple[int, int | None, int]:
    """The options RANK, COUNT (None if it is missing) and MAXLEN."""
    rank, wanted, longest = 1, None, 0
    for option, word in zip_longest(words[::2], words[1::2]):
        if word is None:
            raise syntax_error()
        match option.upper():
            case b"RANK":
                rank = integer(word)
                if rank == 0:
                    raise CommandFailed(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                        "or use negative to start from the end of the list"
                    )
            case b"COUNT":
                wanted = integer(word, "ERR COUNT can't be negative")
                if wanted < 0:
                    raise CommandFailed("ERR COUNT can't be negative")
            case b"MAXLEN":
                longest = integer(word, "ERR MAXLEN can't be negative")
                if longest < 0:
                    raise CommandFailed("ERR MAXLEN can't be negative")
            case _:
                raise syntax_error()
    return rank, wanted, longest


def _lmove(space: Keyspace, words: Words) -> Result:
    sides = [word.upper() for word in words[3:5]]
    if not set(sides) <= {b"LEFT", b"RIGHT"}:
        raise syntax_error()
    return _move(space, words[1], words[2], from_left=sides[0] == b"LEFT", to_left=sides[1] == b"LEFT")


def _rpoplpush(space: Keyspace, words: Words) -> Result:
    return _move(space, words[1], words[2], from_left=False, to_left=True)


def _move(space: Keyspace, source: bytes, target: bytes, *, from_left: bool, to_left: bool) -> Result:
    start = space.list(source)
    if start is None:
        return None
    end = space.list(target)
    element = start.popleft() if from_left else start.pop()
    if end is None:
        end = List()
        space.put(target, end)
    if to_left:
        end.appendleft(element)
    else:
        end.append(element)
    space.changed(target)
    if source != target:
        space.changed(source)
    return element


def _lmpop_touches(words: Words) -> Touched:
    return Touched(writes=keys_after_count(words, 1))


_READ, _WRITE, _GROUP = KeyAccess.READ, KeyAccess.WRITE, "list"

COMMANDS = (
    Command(b"LPUSH", _push, _WRITE, 3, ANY, FIRST, "Inserts elements before the first one.", _GROUP),
    Command(b"RPUSH", _push, _WRITE, 3, ANY, FIRST, "Appends elements after the last one.", _GROUP),
    Command(b"LPUSHX", _push, _WRITE, 3, ANY, FIRST, "LPUSH, if the list exists.", _GROUP),
    Command(b"RPUSHX", _push, _WRITE, 3, ANY, FIRST, "RPUSH, if the list exists.", _GROUP),
    Command(b"LPOP", _pop, _WRITE, 2, 3, FIRST, "Removes and returns the first elements.", _GROUP),
    Command(b"RPOP", _pop, _WRITE, 2, 3, FIRST, "Removes and returns the last elements.", _GROUP),
    Command(b"LMPOP", _lmpop, _WRITE, 4, ANY, NO_KEYS, "Pops from the first list that exists.", _GROUP, _lmpop_touches),
    Command(b"LLEN", _llen, _READ, 2, 2, FIRST, "Counts the elements.", _GROUP),
    Command(b"LRANGE", _lrange, _READ, 4, 4, FIRST, "Returns a part of a list.", _GROUP),
    Command(b"LINDEX", _lindex, _READ, 3, 3, FIRST, "Returns the element at an index.", _GROUP),
    Command(b"LSET", _lset, _WRITE, 4, 4, FIRST, "Sets the element at an index.", _GROUP),
    Command(b"LINSERT", _linsert, _WRITE, 5, 5, FIRST, "Inserts an element beside another one.", _GROUP),
    Command(b"LREM", _lrem, _WRITE, 4, 4, FIRST, "Removes elements that equal a value.", _GROUP),
    Command(b"LTRIM", _ltrim, _WRITE, 4, 4, FIRST, "Removes all but a part of a list.", _GROUP),
    Command(b"LPOS", _lpos, _READ, 3, ANY, FIRST, "Returns the indexes of an element.", _GROUP),
    Command(b"LMOVE", _lmove, _WRITE, 5, 5, FIRST_TWO, "Moves an element from one list to another.", _GROUP),
    Command(b"RPOPLPUSH", _rpoplpush, _WRITE, 3, 3, FIRST_TWO, "Moves the last element to the front.", _GROUP),
)
