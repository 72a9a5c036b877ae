"""The key-value state as it was at one time, while commands continue to change it.

Copy on write: before a command may change a key, its value is copied, once per key. Guarantees that the chunks contain
the state at the time of freezing and nothing later. The machine calls `keep` before it executes a command.
"""

from collections.abc import Iterable, Iterator
from zlib import crc32

import msgspec

from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.values import Hash, List, MutableString, Set, SortedSet, StoredValue
from pydsm.machines.partitions import partition_keys, partitions_for

_Watchers = list[tuple[bytes, int]]
_Entry = tuple[bytes, object, int | None, _Watchers]
"""A key, its value as returned by `saved`, its expiry in Unix ms, and its watches with times, the oldest first."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[int, list[tuple[bytes, bytes | tuple[str, list[object]] | None, int | None, _Watchers]]]
).decode
"""A chunk: the limit on the size of values, and the entries of some keys."""


class Frozen:
    """A frozen state: the state at the time when this object is created."""

    def __init__(self, space: Keyspace) -> None:
        self._data = space.data
        self._expiries = space.expiries
        self._watches = space.watches
        self._value_bytes_max = space.value_bytes_max
        self._keys = list(space.data)
        self._keys += [key for key in space.watches if key not in space.data]
        self._kept: list[dict[bytes, bytes] | None] = [{} for _ in range(partitions_for(len(self._keys)))]
        """The copied entries by partition; None for a partition whose chunk was returned. Small dictionaries, because a
        large one blocks the loop when it grows or is freed; bytes, because many tuples would slow the garbage
        collector."""

    def keep(self, keys: Iterable[bytes]) -> None:
        """Copy the entries of these keys, which may change now."""
        parts = len(self._kept)
        for key in keys:
            kept = self._kept[crc32(key) % parts]
            if kept is not None and key not in kept:
                kept[key] = _encode(self._entry(key))

    def chunks(self) -> Iterator[bytes]:
        """One chunk for each partition of the keys; empty chunks are steps without a result."""
        number = 0
        for part in partition_keys(self._keys):
            if part is None:
                yield b""
                continue
            kept = self._kept[number] or {}
            entries = [msgspec.Raw(kept[key]) if key in kept else self._entry(key) for key in part]
            chunk = _encode((self._value_bytes_max, entries))
            self._kept[number] = None
            number += 1
            yield chunk

    def _entry(self, key: bytes) -> _Entry:
        watchers = self._watches.get(key)
        return key, saved(self._data.get(key)), self._expiries.get(key), list(watchers.items()) if watchers else []


def saved(value: StoredValue | None) -> object:
    """Everything that commands can observe of a value, in an order that is the same on every replica."""
    match value:
        case None | bytes():
            return value
        case MutableString():
            return value.content
        case Hash():
            return value.kind, list(value.items())
        case SortedSet():
            return value.kind, list(value.scores.items())
        case _:
            return value.kind, list(value)


def keys_in(chunk: bytes) -> list[bytes]:
    """The keys of a chunk. Raises ValueError if it is not a chunk."""
    return [key for key, _, _, _ in _decode(chunk)[1]]


def thaw(chunks: Iterable[bytes]) -> Keyspace:
    """The state from the chunks of a frozen state. Raises ValueError if they are not such chunks."""
    space = Keyspace()
    for chunk in filter(None, chunks):
        space.value_bytes_max, entries = _decode(chunk)
        for key, value, expiry, watchers in entries:
            if value is not None:
                space.data[key] = value if isinstance(value, bytes) else _value(*value)
            if expiry is not None:
                space.restore_expiry(key, expiry)
            if watchers:
                space.watches[key] = dict(watchers)
    space.watches = dict(sorted(space.watches.items(), key=lambda watched: max(watched[1].values())))
    return space


def _value(kind: str, items: list[object]) -> StoredValue:
    match kind:
        case Hash.kind:
            return Hash(msgspec.convert(items, list[tuple[bytes, bytes]]))
        case List.kind:
            return List(msgspec.convert(items, list[bytes]))
        case Set.kind:
            return Set.of(msgspec.convert(items, list[bytes]))
        case SortedSet.kind:
            return SortedSet(msgspec.convert(items, list[tuple[bytes, float]]))
        case _:
            raise ValueError(f"unknown kind of value: {kind!r}")
