"""The keys of a dict or set of the state in their order, kept from one iteration to the next.

Most commands change few keys, and most never iterate: so keys that come and go are only noted, and put into their
places at the next iteration, which costs little more than reading a list that is in order already.
"""

from collections.abc import Callable, Container, Iterable
from typing import Any

_ADDED_MIN = 1000
"""So many keys may be added, in any case, before the order is dropped."""


class KeyOrder:
    """Of one dict or set, as it was at the last iteration."""

    __slots__ = ("_added", "_keys", "_removed", "_sort_key")

    def __init__(self, keys: Iterable[Any], sort_key: Callable[[Any], Any] | None) -> None:
        self._keys = sorted(keys, key=sort_key)
        self._sort_key = sort_key
        self._added: list[Any] = []
        self._removed = False

    def add(self, key: Any) -> bool:
        """A key is new. Returns False if so many are new that sorting all keys again is as good."""
        self._added.append(key)
        return len(self._added) <= max(_ADDED_MIN, len(self._keys))

    def remove(self) -> None:
        """A key is gone."""
        self._removed = True

    def keys(self, present: Container[Any]) -> list[Any]:
        """The keys that are present, in order. The list is not changed later."""
        if self._added or self._removed:
            # The latest first: of equal keys, such as Decimal("1") and Decimal("1.0"), the present one was added last.
            self._keys = [key for key in dict.fromkeys([*reversed(self._added), *self._keys]) if key in present]
            self._keys.sort(key=self._sort_key)
            self._added, self._removed = [], False
        return self._keys
