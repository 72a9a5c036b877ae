"""The kinds of value that a key can have, and kinds of result that only the protocols of Redis distinguish."""

from collections import deque
from collections.abc import Iterable
from typing import Final, Self

from sortedcontainers import SortedList

from pydsm.machines.kv.elements import Elements


class MutableString:
    """A long string that commands change in place. As a value it equals `bytes` with the same content."""

    __slots__ = ("content",)
    kind = "string"

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = bytearray(content)

    def copy(self) -> Self:
        """An equal copy."""
        return type(self)(self.content)


class Hash(Elements[bytes]):
    """Fields and their values."""

    __slots__ = ()
    kind = "hash"


class List(deque[bytes]):
    """Elements; access is fast at both ends."""

    __slots__ = ()
    kind = "list"


class Set(Elements[None]):
    """Members."""

    __slots__ = ()
    kind = "set"

    @classmethod
    def of(cls, members: Iterable[bytes]) -> Self:
        """A set of these members, in this order."""
        return cls(dict.fromkeys(members).items())

    def add(self, member: bytes) -> None:
        """Add a member; an existing one keeps its position."""
        self[member] = None


class SortedSet:
    """Members with scores, in order of (score, member). A score is never NaN."""

    __slots__ = ("order", "scores")
    kind = "zset"

    def __init__(self, items: Iterable[tuple[bytes, float]] = ()) -> None:
        self.scores: Elements[float] = Elements((member, score + 0.0) for member, score in items)
        self.order: SortedList[tuple[float, bytes]] = SortedList(
            (score, member) for member, score in self.scores.items()
        )

    def __len__(self) -> int:
        return len(self.scores)

    def put(self, member: bytes, score: float) -> None:
        """Add a member, or change its score."""
        old = self.scores.get(member)
        if old is not None:
            self.order.remove((old, member))
        score += 0.0  # turns -0.0 into 0.0, which would otherwise be ordered and printed differently
        self.scores[member] = score
        self.order.add((score, member))

    def remove(self, member: bytes) -> bool:
        """Remove a member. Returns whether it existed."""
        score = self.scores.get(member)
        if score is None:
            return False
        self.scores.remove(member)
        self.order.remove((score, member))
        return True

    def copy(self) -> Self:
        """An equal copy."""
        return type(self)(self.scores.items())


StoredValue = bytes | MutableString | Hash | List | Set | SortedSet


def kind(value: StoredValue) -> str:
    """The name of the kind, as TYPE returns it."""
    return "string" if isinstance(value, bytes) else value.kind


def string_of(value: bytes | MutableString) -> bytes:
    """The content of a string, as an immutable copy."""
    return value if isinstance(value, bytes) else bytes(value.content)


class Members(list[object]):
    """A result without a meaningful order: a set in RESP3."""

    __slots__ = ()


class Pairs(list[list[object]]):
    """A result of pairs, such as members with their scores: a flat list in RESP2."""

    __slots__ = ()


class NoList:
    """The result for a missing list, which has a separate null in RESP2."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_LIST"


NO_LIST: Final = NoList()
