"""A mapping whose elements have positions: what hashes, sets and sorted sets are made of.

Guards three costs: any element is found by its key or by its position in constant time, and is removed in constant
time. So random picks and steps of a scan cost what they give, however large the collection is.

Removing an element moves the last one to its position. Positions are therefore part of the state: every replica
changes a collection in the same order, and snapshots and digests contain elements in order of their positions.
"""

from collections.abc import Iterable, Iterator, KeysView, Sequence
from itertools import islice
from typing import Generic, Self, TypeVar, cast

V = TypeVar("V")

SMALL_ELEMENTS_MAX = 128
"""Up to so many elements a plain dictionary is used, which needs less memory. Which of the two forms is used follows
from the number of elements alone, and positions are the same in both."""

_NO_PLACES: dict[bytes, int] = {}
_NO_VALUES: list[object] = []
"""What all small collections share; never changed."""


class Elements(Generic[V]):
    """Keys with values. Iteration is in order of positions."""

    __slots__ = ("_keys", "_places", "_small", "_values")

    def __init__(self, items: Iterable[tuple[bytes, V]] = ()) -> None:
        self._small: dict[bytes, V] = dict(items)
        self._places: dict[bytes, int] = _NO_PLACES
        self._keys: list[bytes] | None = None
        """None while the small form is used."""
        self._values: list[V] = cast("list[V]", _NO_VALUES)
        if len(self._small) > SMALL_ELEMENTS_MAX:
            self._enlarge()

    def __len__(self) -> int:
        return len(self._small) if self._keys is None else len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in (self._small if self._keys is None else self._places)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._small if self._keys is None else self._keys)

    @property
    def lookup(self) -> KeysView[bytes]:
        """The keys, to look for many of them at the speed of a dictionary; in no order that means anything."""
        return self._small.keys() if self._keys is None else self._places.keys()

    def get(self, key: bytes) -> V | None:
        """The value, None if the key is not there."""
        if self._keys is None:
            return self._small.get(key)
        place = self._places.get(key)
        return None if place is None else self._values[place]

    def __getitem__(self, key: bytes) -> V:
        return self._small[key] if self._keys is None else self._values[self._places[key]]

    def values(self) -> Iterable[V]:
        """In order of positions."""
        return self._small.values() if self._keys is None else self._values

    def items(self) -> Iterable[tuple[bytes, V]]:
        """In order of positions."""
        return self._small.items() if self._keys is None else zip(self._keys, self._values, strict=True)

    def keys_between(self, start: int, end: int) -> Sequence[bytes]:
        """The keys at these positions, the one at `end` not included."""
        return list(islice(self._small, start, end)) if self._keys is None else self._keys[start:end]

    def key_at(self, position: int) -> bytes:
        """The key at a position from 0."""
        return next(islice(self._small, position, None)) if self._keys is None else self._keys[position]

    def __setitem__(self, key: bytes, value: V) -> None:
        """A new key comes last; one that is there keeps its position."""
        if self._keys is None:
            self._small[key] = value
            if len(self._small) > SMALL_ELEMENTS_MAX:
                self._enlarge()
            return
        place = self._places.setdefault(key, len(self._keys))
        if place < len(self._keys):
            self._values[place] = value
        else:
            self._keys.append(key)
            self._values.append(value)

    def remove(self, key: bytes) -> bool:
        """Whether it was there. The last element takes its position."""
        keys = self._keys
        if keys is None:
            return self._remove_small(key)
        place = self._places.pop(key, None)
        if place is None:
            return False
        last, value = keys.pop(), self._values.pop()
        if place < len(keys):
            keys[place], self._values[place], self._places[last] = last, value, place
        if len(keys) <= SMALL_ELEMENTS_MAX:
            self._small = dict(zip(keys, self._values, strict=True))
            self._places, self._keys, self._values = _NO_PLACES, None, cast("list[V]", _NO_VALUES)
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
        """The same elements at the same positions."""
        return type(self)(self.items())

    def _enlarge(self) -> None:
        self._keys, self._values = list(self._small), list(self._small.values())
        self._places = dict(zip(self._keys, range(len(self._keys)), strict=True))
        self._small = {}
