"""The sets of a state. See `tracking`."""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from pydsm.machines.declared.journal import ABSENT
from pydsm.machines.declared.kinds import SetKind, needs_check
from pydsm.machines.declared.ordering import KeyOrder
from pydsm.machines.declared.tracking import Root, Tracked


class OrderedSet(set[Any]):
    """A set with the order of a set of the state: what its operators give. Nothing is noted."""

    __slots__ = ("_kind",)

    def __init__(self, content: Iterable[Any], kind: SetKind) -> None:
        super().__init__(content)
        self._kind = kind

    def _ordered(self) -> list[Any]:
        return sorted(set.__iter__(self), key=self._kind.sort_key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ordered())

    def pop(self) -> Any:
        """The lowest member, which is removed. Raises KeyError if there is none."""
        if not self:
            raise KeyError("pop from an empty set")
        value = self._ordered()[0]
        self.remove(value)
        return value

    def copy(self) -> set[Any]:
        """A set with the same members."""
        return OrderedSet(set.__iter__(self), self._kind)

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """See `set.union`."""
        return OrderedSet(set.union(set(set.__iter__(self)), *others), self._kind)

    def intersection(self, *others: Iterable[Any]) -> set[Any]:
        """See `set.intersection`."""
        return OrderedSet(set.intersection(set(set.__iter__(self)), *others), self._kind)

    def difference(self, *others: Iterable[Any]) -> set[Any]:
        """See `set.difference`."""
        return OrderedSet(set.difference(set(set.__iter__(self)), *others), self._kind)

    def symmetric_difference(self, other: Iterable[Any]) -> set[Any]:
        """See `set.symmetric_difference`."""
        return OrderedSet(set.symmetric_difference(set(set.__iter__(self)), other), self._kind)

    def __or__(self, other: Any) -> Any:
        return self.union(other) if isinstance(other, set | frozenset) else NotImplemented

    def __and__(self, other: Any) -> Any:
        return self.intersection(other) if isinstance(other, set | frozenset) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self.difference(other) if isinstance(other, set | frozenset) else NotImplemented

    def __xor__(self, other: Any) -> Any:
        return self.symmetric_difference(other) if isinstance(other, set | frozenset) else NotImplemented

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__

    def __rsub__(self, other: Any) -> Any:
        return OrderedSet(set(other) - set(set.__iter__(self)), self._kind)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"


class TrackedSet(Tracked, OrderedSet):
    """A set of the state."""

    __slots__ = ("_entry", "_order", "_root")

    def __init__(self, content: Iterable[Any], kind: SetKind, root: Root, entry: Any = ABSENT) -> None:
        """See `TrackedDict`."""
        super().__init__(content, kind)
        self._order: KeyOrder | None = None
        self._root = root
        self._entry = entry

    def adopt(self, key: Any) -> None:
        """See `Adopts`: members of a set cannot be changed, so there is nothing to replace."""

    def _changing(self) -> None:
        frozen = self._root.frozen
        if frozen is not None and self._entry is not ABSENT:
            frozen.keep(self._entry)

    def add(self, value: Any, /) -> None:
        """See `set.add`."""
        of = type(value)
        if of not in self._kind.values.plain or needs_check(value, of):
            value = self._kind.values.checked(value)
        if value not in self:
            self._changing()
            self._root.changes.append((_remove_member, self, value))
            _add_member(self, value)

    def discard(self, value: Any, /) -> None:
        """See `set.discard`."""
        if value in self:
            self._changing()
            self._root.changes.append((_add_member, self, value))
            _remove_member(self, value)

    def remove(self, value: Any, /) -> None:
        """See `set.remove`."""
        if value not in self:
            raise KeyError(value)
        self.discard(value)

    def clear(self) -> None:
        """See `set.clear`."""
        self.difference_update(list(self))

    def update(self, *others: Iterable[Any]) -> None:
        """See `set.update`."""
        for other in others:
            for value in other:
                self.add(value)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """See `set.difference_update`."""
        for other in others:
            for value in list(other):
                self.discard(value)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """See `set.intersection_update`."""
        kept = set(set.__iter__(self)).intersection(*others)
        self.difference_update([value for value in self if value not in kept])

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """See `set.symmetric_difference_update`."""
        for value in set(other):
            if value in self:
                self.discard(value)
            else:
                self.add(value)

    def _ordered(self) -> list[Any]:
        if self._order is None:
            self._order = KeyOrder(set.__iter__(self), self._kind.sort_key)
        return self._order.keys(self)

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __isub__(self, other: Any) -> Any:
        self.difference_update(other)
        return self

    def __iand__(self, other: Any) -> Any:
        self.intersection_update(other)
        return self

    def __ixor__(self, other: Any) -> Any:
        self.symmetric_difference_update(other)
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a set of a state machine cannot be pickled")

    def __copy__(self) -> set[Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.copy()

    def tracked_items(self) -> Iterator[Any]:
        """See `Tracked`: members cannot be changed."""
        return iter(())


def _remove_member(members: TrackedSet, value: Any) -> None:
    if members._order is not None:
        members._order.remove()
    set.discard(members, value)


def _add_member(members: TrackedSet, value: Any) -> None:
    if members._order is not None and not members._order.add(value):
        members._order = None
    set.add(members, value)
