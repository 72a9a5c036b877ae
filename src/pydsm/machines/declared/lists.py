"""The lists of a state. See `tracking`."""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, SupportsIndex

from pydsm.machines.declared.attaching import attach
from pydsm.machines.declared.journal import ABSENT
from pydsm.machines.declared.kinds import ListKind, needs_check
from pydsm.machines.declared.tracking import Root, Tracked, set_entry

_list_set = list.__setitem__


class TrackedList(Tracked, list[Any]):
    """A list of the state."""

    __slots__ = ("_entry", "_kind", "_root")

    def __init__(self, content: Iterable[Any], kind: ListKind, root: Root, entry: Any = ABSENT) -> None:
        """See `TrackedDict`."""
        super().__init__(content)
        self._kind = kind
        self._root = root
        self._entry = entry
        if kind.values.has_containers:
            for place, value in enumerate(list.__iter__(self)):
                self._attach(place, value)

    def _attach(self, place: int, value: Any) -> None:
        """Put a checked value in its place: if it is a container, and this the field itself, it is its own entry."""
        item = attach(value, self._kind.values, self._root, self._entry)
        if self._entry is ABSENT and isinstance(item, Tracked):
            set_entry(item, item)
        _list_set(self, place, item)

    def adopt(self, key: Any) -> None:
        """See `Adopts`; the key is the value itself, since places may have changed."""
        place = self._place_of(key, len(self) - 1)
        if place is not None:
            self._attach(place, self._kind.values.checked(key))

    def _place_of(self, value: Any, likely: int) -> int | None:
        """Where this very object is: in the likely place, or else the last place that has it."""
        if 0 <= likely < len(self) and list.__getitem__(self, likely) is value:
            return likely
        return next((place for place in range(len(self) - 1, -1, -1) if list.__getitem__(self, place) is value), None)

    def _changing(self) -> None:
        frozen = self._root.frozen
        if frozen is not None and self._entry is not ABSENT:
            frozen.keep(self._entry)

    def _taken(self, value: Any) -> Any:
        values = self._kind.values
        of = type(value)
        if of not in values.plain or needs_check(value, of):
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

    def tracked_items(self) -> Iterator[Any]:
        """See `Tracked`."""
        return (value for value in list.__iter__(self) if isinstance(value, Tracked))

    def restore_object(self, key: int, value: Any, before: Any) -> None:
        """Put an object back as it was before the command, which may have changed and moved it."""
        place = self._place_of(value, key)
        if place is not None:
            _list_set(self, place, before)

    def adopt_object(self, key: int, value: Any) -> None:
        """An object that was in this place was changed."""
        place = self._place_of(value, key)
        if place is not None:
            self._attach(place, self._kind.values.checked(value))


class ObjectList(TrackedList):
    """A list of the state whose items may be objects that can be changed."""

    __slots__ = ()

    def _see(self, place: int, value: Any) -> Any:
        kind = self._kind.values
        if type(value) not in kind.plain and not isinstance(value, Tracked):
            place += len(self) if place < 0 else 0
            self._root.see(self, place, value, kind, value if self._entry is ABSENT else self._entry)
        return value

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            return [self._see(place, list.__getitem__(self, place)) for place in places]
        return self._see(index.__index__(), list.__getitem__(self, index))

    def __iter__(self) -> Iterator[Any]:
        return (self._see(place, value) for place, value in enumerate(list.__iter__(self)))

    def __reversed__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self) - 1, -1, -1))

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """See `list.pop`."""
        if self:
            self[index]
        return super().pop(index)

    # The builtin type would give the objects without `_see`, so that their changes would not be noted.

    def copy(self) -> list[Any]:
        """See `list.copy`."""
        return list(self)

    def __add__(self, other: Any) -> Any:
        return list(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + list(self)

    def __mul__(self, times: SupportsIndex) -> Any:
        return list(self) * times

    __rmul__ = __mul__
