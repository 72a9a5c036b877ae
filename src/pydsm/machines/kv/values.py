"""The kinds of value that a key can have, and results that only Redis's protocol tells apart."""

from collections import deque
from typing import Final

from sortedcontainers import SortedList


class Hash(dict[bytes, bytes]):
    """Fields and their values. The order of fields is that of their first writing, the same on every replica."""

    __slots__ = ()
    kind = "hash"


class List(deque[bytes]):
    """Elements; both ends are near."""

    __slots__ = ()
    kind = "list"


class Set(dict[bytes, None]):
    """Members, in the order in which they came: that of a Python set would differ from process to process."""

    __slots__ = ()
    kind = "set"


class SortedSet:
    """Members with scores, in order of (score, member). A score is never NaN."""

    __slots__ = ("order", "scores")
    kind = "zset"

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: SortedList[tuple[float, bytes]] = SortedList()

    def __len__(self) -> int:
        return len(self.scores)

    def put(self, member: bytes, score: float) -> None:
        """Add a member, or give it another score."""
        old = self.scores.get(member)
        if old is not None:
            self.order.remove((old, member))
        self.scores[member] = score + 0.0  # no negative zero: it would order and print in a way of its own
        self.order.add((score + 0.0, member))

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        self.order.remove((score, member))
        return True


Value = bytes | Hash | List | Set | SortedSet


def kind(value: Value) -> str:
    """What TYPE says."""
    return "string" if isinstance(value, bytes) else value.kind


class Members(list[object]):
    """A result whose order means nothing: RESP3 calls it a set."""

    __slots__ = ()


class Pairs(list[list[object]]):
    """A result of pairs, such as members with their scores: RESP2 gives them as one flat list."""

    __slots__ = ()


class NoList:
    """There is no list: RESP2 has a null of its own for that."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_LIST"


NO_LIST: Final = NoList()
