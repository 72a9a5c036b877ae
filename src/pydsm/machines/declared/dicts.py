"""The dicts of a state. See `tracking`."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn

from pydsm.machines.declared.attaching import attach
from pydsm.machines.declared.journal import ABSENT
from pydsm.machines.declared.kinds import DictKind, needs_check
from pydsm.machines.declared.ordering import KeyOrder
from pydsm.machines.declared.tracking import Root, Tracked

_dict_get = dict.get
_dict_set = dict.__setitem__
_dict_delete = dict.__delitem__


class TrackedDict(Tracked, dict[Any, Any]):
    """A dict of the state."""

    __slots__ = ("_entry", "_kind", "_order", "_root")

    def __init__(self, content: Mapping[Any, Any], kind: DictKind, root: Root, entry: Any = ABSENT) -> None:
        """The content is checked; containers in it are replaced by those of the state."""
        self._kind = kind
        self._root = root
        self._entry = entry
        self._order: KeyOrder | None = None
        if kind.values.has_containers:
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
        of = type(key)
        if of not in kind.keys.plain or needs_check(key, of):
            key = kind.keys.checked(key)
        of = type(value)
        if of not in kind.values.plain or needs_check(value, of):
            if kind.values.can_change:
                root.given.append((self, key))
            else:
                value = kind.values.checked(value)
        if root.frozen is not None:
            self._keep(key)
        old = _dict_get(self, key, ABSENT)
        if old is ABSENT and self._order is not None and not self._order.add(key):
            self._order = None
        root.changes.append((_restore_item, self, key, old))
        _dict_set(self, key, value)

    def __delitem__(self, key: Any) -> None:
        old = dict.__getitem__(self, key)
        if self._root.frozen is not None:
            self._keep(key)
        self._root.changes.append((_restore_item, self, key, old))
        if self._order is not None:
            self._order.remove()
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
            self._order = KeyOrder(dict.keys(self), self._kind.sort_key)
        return self._order.keys(self)

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

    def tracked_items(self) -> Iterator[Any]:
        """See `Tracked`."""
        return (value for value in dict.values(self) if isinstance(value, Tracked))

    def restore_object(self, key: Any, value: Any, before: Any) -> None:
        """Put an object back as it was before the command, which may have changed it."""
        if _dict_get(self, key) is value:
            _dict_set(self, key, before)

    def adopt_object(self, key: Any, value: Any) -> None:
        """An object under this key was changed."""
        if _dict_get(self, key) is value:
            self.adopt(key)


class ObjectDict(TrackedDict):
    """A dict of the state whose values may be objects that can be changed."""

    __slots__ = ()

    def _see(self, key: Any, value: Any) -> Any:
        kind = self._kind.values
        if type(value) not in kind.plain and not isinstance(value, Tracked):
            self._root.see(self, key, value, kind, key if self._entry is ABSENT else self._entry)
        return value

    def __getitem__(self, key: Any) -> Any:
        return self._see(key, dict.__getitem__(self, key))

    def get(self, key: Any, default: Any = None, /) -> Any:
        """See `dict.get`."""
        value = _dict_get(self, key, ABSENT)
        return default if value is ABSENT else self._see(key, value)

    def pop(self, key: Any, default: Any = ABSENT, /) -> Any:
        """See `dict.pop`."""
        self.get(key)
        return super().pop(key, default)


def _restore_item(mapping: TrackedDict, key: Any, old: Any) -> None:
    order = mapping._order
    if old is ABSENT:
        dict.pop(mapping, key, None)
        if order is not None:
            order.remove()
    else:
        if order is not None and key not in mapping and not order.add(key):
            mapping._order = None
        _dict_set(mapping, key, old)


def _restore_dict(mapping: TrackedDict, content: dict[Any, Any]) -> None:
    mapping._order = None
    dict.clear(mapping)
    dict.update(mapping, content)
