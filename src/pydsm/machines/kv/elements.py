"""A mapping whose elements have positions: the base of hashes, sets and sorted sets.

Guarantees constant cost: an element is found by its key or by its position, and is removed, in constant time. So the
cost of random picks and of scan steps depends only on the number of returned elements, not on the collection's size.

Removing an element moves the last one to its position. Positions are therefore part of the state: every replica
changes a collection in the same order, and snapshots and digests contain elements in order of their positions.
"""

from collections.abc import Iterable, Iterator, KeysView, Sequence
from itertools import islice
from typing import Generic, Self, TypeVar, cast

V = TypeVar("V")

SMALL_ELEMENTS_MAX = 128
"""Up to this many elements a plain dictionary is used, which needs less memory. The number of elements alone decides
which form is used, and positions are the same in both."""

_NO_PLACES: dict[bytes, int] = {}
_NO_VALUES: list[object] = []
"""Shared by all small collections; never changed."""


class Elements(Generic[V]):
    """Keys with values. Iteration is in order of positions."""

    __slots__ = ("_keys", "_positions", "_small", "_values")

    def __init__(self, items: Iterable[tuple[bytes, V]] = ()) -> None:
        self._small: dict[bytes, V] = dict(items)
        self._positions: dict[bytes, int] = _NO_PLACES
        self._keys: list[bytes] | None = None
        """The keys by position; None in the small form."""
        self._values: list[V] = cast("list[V]", _NO_VALUES)
        if len(self._small) > SMALL_ELEMENTS_MAX:
            self._enlarge()

    def __len__(self) -> int:
        return len(self._small) if self._keys is None else len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in (self._small if self._keys is None else self._positions)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._small if self._keys is None else self._keys)

    @property
    def lookup(self) -> KeysView[bytes]:
        """The keys, for many lookups at the speed of a dictionary; their order is arbitrary."""
        return self._small.keys() if self._keys is None else self._positions.keys()

    def get(self, key: bytes) -> V | None:
        """The value, or None if the key is missing."""
        if self._keys is None:
            return self._small.get(key)
        position = self._positions.get(key)
        return None if position is None else self._values[position]

    def __getitem__(self, key: bytes) -> V:
        return self._small[key] if self._keys is None else self._values[self._positions[key]]

    def values(self) -> Iterable[V]:
        """The values in order of positions."""
        return self._small.values() if self._keys is None else self._values

    def items(self) -> Iterable[tuple[bytes, V]]:
        """The keys with their values, in order of positions."""
        return self._small.items() if self._keys is None else zip(self._keys, self._values, strict=True)

    def keys_between(self, start: int, end: int) -> Sequence[bytes]:
        """The keys at the positions from `start` to before `end`."""
        return list(islice(self._small, start, end)) if self._keys is None else self._keys[start:end]

    def key_at(self, position: int) -> bytes:
        """The key at a position, counted from 0."""
        return next(islice(self._small, position, None)) if self._keys is None else self._keys[position]

    def __setitem__(self, key: bytes, value: V) -> None:
        """Set a value. A new key gets the last position; an existing key keeps its position."""
        if self._keys is None:
            self._small[key] = value
            if len(self._small) > SMALL_ELEMENTS_MAX:
                self._enlarge()
            return
        position = self._positions.setdefault(key, len(self._keys))
        if position < len(self._keys):
            self._values[position] = value
        else:
            self._keys.append(key)
            self._values.append(value)

    def remove(self, key: bytes) -> bool:
        """Remove a key; the last element takes its position. Returns whether the key existed."""
        keys = self._keys
        if keys is None:
            return self._remove_small(key)
        position = self._positions.pop(key, None)
        if position is None:
            return False
        last, value = keys.pop(), self._values.pop()
        if position < len(keys):
            keys[position], self._values[position], self._positions[last] = last, value, position
        if len(keys) <= SMALL_ELEMENTS_MAX:
            self._small = dict(zip(keys, self._values, strict=True))
            self._positions, self._keys, self._values = _NO_PLACES, None, cast("list[V]", _NO_VALUES)
        return True

    def _remove_small(self, key: bytes) -> bool:
        small = self._small
        if key not in small:
            return False
        last, value = small.popitem()
        if last != key:
            self._small = {
                (last if one == key else one): (value if one == key else kept) for one, kept in small.items()
            }
        return True

    def copy(self) -> Self:
        """A copy with the same elements at the same positions."""
        return type(self)(self.items())

    def _enlarge(self) -> None:
        self._keys, self._values = list(self._small), list(self._small.values())
        self._positions = dict(zip(self._keys, range(len(self._keys)), strict=True))
        self._small = {}
