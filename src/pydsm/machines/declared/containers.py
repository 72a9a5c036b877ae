"""The dicts, lists and sets of a state: they note what a command changes, and check the types of what it stores.

They behave as the builtin types do, except that dicts and sets are iterated in the order of their keys: commands that
do not conflict are executed in different orders at different replicas, so the order of insertion means nothing. A plain
container that is stored stays as it is until its command ends; then it is replaced by a copy (`Journal.settle`), so
each container in the state has one place. Reading an item costs nothing more than in a builtin type, unless items are
objects that can be changed (`objects`).
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn, SupportsIndex

from pydsm.machines.declared.journal import ABSENT, Journal
from pydsm.machines.declared.kinds import INT_MAX, INT_MIN, DictKind, Kind, ListKind, SetKind

_dict_get = dict.get
_dict_set = dict.__setitem__
_dict_delete = dict.__delitem__
_list_set = list.__setitem__


class Frozen:
    """What a snapshot in progress wants to know of one field."""

    def keep(self, entry: Any) -> None:
        """An entry of the field is about to change: of a dict its key, of a list the item that changes inside."""
        raise NotImplementedError

    def detach(self, copy: Any) -> None:
        """The whole content of the field is about to be removed; `copy` has it."""
        raise NotImplementedError


class Root:
    """What the containers of one field have in common: the journal of the machine, and a snapshot in progress."""

    __slots__ = ("changes", "frozen", "given")

    def __init__(self, journal: Journal) -> None:
        self.changes = journal.changes
        self.given = journal.given
        self.frozen: Frozen | None = None


class TrackedDict(dict[Any, Any]):
    """A dict of the state."""

    __slots__ = ("_entry", "_kind", "_order", "_root")

    def __init__(self, content: Mapping[Any, Any], kind: DictKind, root: Root, entry: Any = ABSENT) -> None:
        """`entry` is the entry of the field that this is a part of; absent for the field itself."""
        self._kind = kind
        self._root = root
        self._entry = entry
        self._order: list[Any] | None = None
        if kind.values.can_change:
            values = kind.values
            content = {
                key: attach(value, values, root, key if entry is ABSENT else entry) for key, value in content.items()
            }
        dict.update(self, content)

    def adopt(self, key: Any) -> None:
        """See `Adopts`."""
        if key in self:
            kind, entry = self._kind.values, self._entry
            value = kind.checked(dict.__getitem__(self, key))
            _dict_set(self, key, attach(value, kind, self._root, key if entry is ABSENT else entry))

    def _keep(self, key: Any) -> None:
        frozen = self._root.frozen
        if frozen is not None:
            frozen.keep(key if self._entry is ABSENT else self._entry)

    def __setitem__(self, key: Any, value: Any) -> None:
        kind, root = self._kind, self._root
        if type(key) not in kind.keys.plain:
            key = kind.keys.checked(key)
        of = type(value)
        if of not in kind.values.plain or (of is int and not INT_MIN <= value <= INT_MAX):
            if kind.values.can_change:
                root.given.append((self, key))
            else:
                value = kind.values.checked(value)
        if root.frozen is not None:
            self._keep(key)
        old = _dict_get(self, key, ABSENT)
        if old is ABSENT:
            self._order = None
        root.changes.append((_restore_item, self, key, old))
        _dict_set(self, key, value)

    def __delitem__(self, key: Any) -> None:
        old = dict.__getitem__(self, key)
        if self._root.frozen is not None:
            self._keep(key)
        self._root.changes.append((_restore_item, self, key, old))
        self._order = None
        _dict_delete(self, key)

    def pop(self, key: Any, default: Any = ABSENT, /) -> Any:
        """See `dict.pop`."""
        value = _dict_get(self, key, ABSENT)
        if value is ABSENT:
            if default is ABSENT:
                raise KeyError(key)
            return default
        self.__delitem__(key)
        return value

    def popitem(self) -> tuple[Any, Any]:
        """The item with the highest key, which is removed. Raises KeyError if there is none."""
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = self._ordered()[-1]
        return key, self.pop(key)

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """See `dict.setdefault`."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """See `dict.update`."""
        for key, value in dict(*others, **named).items():
            self[key] = value

    def clear(self) -> None:
        """See `dict.clear`. Takes time that grows with the number of keys."""
        copy = dict(dict.items(self))
        frozen = self._root.frozen
        if frozen is not None and self._entry is ABSENT:
            frozen.detach(copy)
        elif frozen is not None:
            frozen.keep(self._entry)
        self._root.changes.append((_restore_dict, self, copy))
        self._order = None
        dict.clear(self)

    def _ordered(self) -> list[Any]:
        if self._order is None:
            self._order = sorted(dict.keys(self), key=self._kind.sort_key)
        return self._order

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ordered())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self._ordered()[::-1])

    def keys(self) -> KeysView[Any]:  # type: ignore[override] # a view of another class
        """See `dict.keys`; in order."""
        return KeysView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override] # a view of another class
        """See `dict.values`; in the order of the keys."""
        return ValuesView(self)

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override] # a view of another class
        """See `dict.items`; in the order of the keys."""
        return ItemsView(self)

    def copy(self) -> dict[Any, Any]:
        """A plain dict with the same items, in order."""
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a dict of a state machine cannot be pickled")

    def __copy__(self) -> dict[Any, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._kind.checked(self)


class TrackedList(list[Any]):
    """A list of the state."""

    __slots__ = ("_entry", "_kind", "_root")

    def __init__(self, content: Iterable[Any], kind: ListKind, root: Root, entry: Any = ABSENT) -> None:
        """See `TrackedDict`."""
        super().__init__(content)
        self._kind = kind
        self._root = root
        self._entry = entry
        if kind.values.can_change:
            for place, value in enumerate(list.__iter__(self)):
                self._attach(place, value)

    def _attach(self, place: int, value: Any) -> None:
        """Put a checked value in its place: if it is a container, and this the field itself, it is its own entry."""
        item = attach(value, self._kind.values, self._root, self._entry)
        if self._entry is ABSENT and isinstance(item, TrackedDict | TrackedList | TrackedSet):
            set_entry(item, item)
        _list_set(self, place, item)

    def adopt(self, key: Any) -> None:
        """See `Adopts`; the key is the value itself, since places may have changed."""
        for place in range(len(self) - 1, -1, -1):
            if list.__getitem__(self, place) is key:
                self._attach(place, self._kind.values.checked(key))
                return

    def _changing(self) -> None:
        frozen = self._root.frozen
        if frozen is not None and self._entry is not ABSENT:
            frozen.keep(self._entry)

    def _taken(self, value: Any) -> Any:
        values = self._kind.values
        of = type(value)
        if of not in values.plain or (of is int and not INT_MIN <= value <= INT_MAX):
            if values.can_change:
                self._root.given.append((self, value))
            else:
                value = values.checked(value)
        return value

    def append(self, value: Any, /) -> None:
        """See `list.append`."""
        value = self._taken(value)
        if self._root.frozen is not None:
            self._changing()
        self._root.changes.append((list.pop, self))
        list.append(self, value)

    def extend(self, values: Iterable[Any], /) -> None:
        """See `list.extend`."""
        taken = [self._taken(value) for value in values]
        self._changing()
        self._root.changes.append((list.__delitem__, self, slice(len(self), None)))
        list.extend(self, taken)

    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        """See `list.insert`."""
        place, count = index.__index__(), len(self)
        place = max(0, place + count) if place < 0 else min(place, count)
        value = self._taken(value)
        self._changing()
        self._root.changes.append((list.pop, self, place))
        list.insert(self, place, value)

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """See `list.pop`."""
        place = index.__index__()
        value = list.__getitem__(self, place)
        self._changing()
        list.pop(self, place)
        self._root.changes.append((list.insert, self, place if place >= 0 else place + len(self) + 1, value))
        return value

    def remove(self, value: Any, /) -> None:
        """See `list.remove`."""
        self.pop(self.index(value))

    def _rearrange(self) -> None:
        self._changing()
        self._root.changes.append((_list_set, self, slice(None), list.copy(self)))

    def clear(self) -> None:
        """See `list.clear`."""
        self._rearrange()
        list.clear(self)

    def reverse(self) -> None:
        """See `list.reverse`."""
        self._rearrange()
        list.reverse(self)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """See `list.sort`."""
        ordered = sorted(self, key=key, reverse=reverse)
        self._rearrange()
        _list_set(self, slice(None), ordered)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            taken = [self._taken(one) for one in value]
            self._rearrange()
            _list_set(self, index, taken)
            return
        old = list.__getitem__(self, index)
        value = self._taken(value)
        self._changing()
        self._root.changes.append((_list_set, self, index, old))
        _list_set(self, index, value)

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            self._rearrange()
            list.__delitem__(self, index)
        else:
            self.pop(index)

    def __iadd__(self, values: Iterable[Any]) -> Any:  # type: ignore[misc] # itself, where the operator makes a plain one
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> Any:
        self[:] = list(self) * times.__index__()
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a list of a state machine cannot be pickled")

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._kind.checked(self)


class TrackedSet(set[Any]):
    """A set of the state."""

    __slots__ = ("_entry", "_kind", "_order", "_root")

    def __init__(self, content: Iterable[Any], kind: SetKind, root: Root, entry: Any = ABSENT) -> None:
        """See `TrackedDict`."""
        super().__init__(content)
        self._kind = kind
        self._root = root
        self._entry = entry
        self._order: list[Any] | None = None

    def adopt(self, key: Any) -> None:
        """See `Adopts`: members of a set cannot be changed, so there is nothing to replace."""

    def _changing(self) -> None:
        self._order = None
        frozen = self._root.frozen
        if frozen is not None and self._entry is not ABSENT:
            frozen.keep(self._entry)

    def add(self, value: Any, /) -> None:
        """See `set.add`."""
        of = type(value)
        if of not in self._kind.values.plain or (of is int and not INT_MIN <= value <= INT_MAX):
            value = self._kind.values.checked(value)
        if value not in self:
            self._changing()
            self._root.changes.append((_remove_member, self, value))
            set.add(self, value)

    def discard(self, value: Any, /) -> None:
        """See `set.discard`."""
        if value in self:
            self._changing()
            self._root.changes.append((_add_member, self, value))
            set.discard(self, value)

    def remove(self, value: Any, /) -> None:
        """See `set.remove`."""
        if value not in self:
            raise KeyError(value)
        self.discard(value)

    def pop(self) -> Any:
        """The lowest member, which is removed. Raises KeyError if there is none."""
        if not self:
            raise KeyError("pop from an empty set")
        value = self._ordered()[0]
        self.discard(value)
        return value

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
            self._order = sorted(set.__iter__(self), key=self._kind.sort_key)
        return self._order

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ordered())

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc] # itself, where the operator makes a plain one
        self.update(other)
        return self

    def __isub__(self, other: Any) -> Any:  # type: ignore[misc] # itself, where the operator makes a plain one
        self.difference_update(other)
        return self

    def __iand__(self, other: Any) -> Any:  # type: ignore[misc] # itself, where the operator makes a plain one
        self.intersection_update(other)
        return self

    def __ixor__(self, other: Any) -> Any:  # type: ignore[misc] # itself, where the operator makes a plain one
        self.symmetric_difference_update(other)
        return self

    def copy(self) -> set[Any]:
        """A plain set with the same members."""
        return set(set.__iter__(self))

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a set of a state machine cannot be pickled")

    def __copy__(self) -> set[Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.copy()


Tracked = TrackedDict | TrackedList | TrackedSet


def attach(value: Any, kind: Kind, root: Root, entry: Any = ABSENT) -> Any:
    """A checked value as it is in the state: with containers that note their changes."""
    member = kind.member(value)
    if isinstance(member, DictKind):
        return TrackedDict(value, member, root, entry)
    if isinstance(member, ListKind):
        return TrackedList(value, member, root, entry)
    return TrackedSet(value, member, root, entry) if isinstance(member, SetKind) else value


def set_entry(container: Tracked, entry: Any) -> None:
    """State of which entry of a list this container is a part, and all containers in it."""
    container._entry = entry
    if isinstance(container, TrackedDict):
        inner: Iterable[Any] = dict.values(container)
    else:
        inner = list.__iter__(container) if isinstance(container, TrackedList) else ()
    for one in inner:
        if isinstance(one, TrackedDict | TrackedList | TrackedSet):
            set_entry(one, entry)


def _restore_item(mapping: TrackedDict, key: Any, old: Any) -> None:
    mapping._order = None
    if old is ABSENT:
        dict.pop(mapping, key, None)
    else:
        _dict_set(mapping, key, old)


def _restore_dict(mapping: TrackedDict, content: dict[Any, Any]) -> None:
    mapping._order = None
    dict.clear(mapping)
    dict.update(mapping, content)


def _remove_member(members: TrackedSet, value: Any) -> None:
    members._order = None
    set.discard(members, value)


def _add_member(members: TrackedSet, value: Any) -> None:
    members._order = None
    set.add(members, value)
