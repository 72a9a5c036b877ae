"""The state of a declared machine in chunks, as it was at one time, while commands continue to change it.

Copy on write: before an entry of a dict changes, its encoding is kept, once. Guarantees that the chunks contain the
state at the time of freezing and nothing later, and that equal states have equal chunks. Of lists and sets the
references are copied at that time, which takes some milliseconds for a million items.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import msgspec

from pydsm.core.types.errors import OperationalError
from pydsm.machines.declared.dicts import TrackedDict
from pydsm.machines.declared.kinds import DictKind, Kind, ListKind, SetKind, encode, encode_canonical
from pydsm.machines.declared.lists import TrackedList
from pydsm.machines.declared.tracking import Frozen
from pydsm.machines.partitions import partitions_for

if TYPE_CHECKING:
    from pydsm.machines.declared.state import State

_ITEMS_PER_STEP = 2000
_LIST_ITEMS_PER_CHUNK = 512


class Head(msgspec.Struct, array_like=True):
    """The first chunk: everything but the contents of containers."""

    format: int
    version: int
    """The version of the class whose fields these are."""
    versions: dict[str, int]
    """The version that each replica has announced."""
    values: dict[str, msgspec.Raw]
    """The fields that are not containers, and None for each container."""


class Part(msgspec.Struct, array_like=True):
    """A chunk with items of a container."""

    field: str
    items: msgspec.Raw


FORMAT = 1
_decode_head: Callable[[bytes], Head] = msgspec.msgpack.Decoder(Head).decode
_decode_part: Callable[[bytes], Part] = msgspec.msgpack.Decoder(Part).decode


class FrozenDict(Frozen):
    """A dict of the state, as it was."""

    def __init__(self, field: str, mapping: TrackedDict) -> None:
        self._field = field
        self._data: dict[Any, Any] = mapping
        self._is_detached = False
        self._keys = list(dict.keys(mapping))
        self._kept: list[dict[Any, bytes] | None] = [{} for _ in range(partitions_for(len(self._keys)))]
        """The kept entries by partition; None for one whose chunk was returned. See `kv.frozen`."""

    def keep(self, entry: Any) -> None:
        """See `Frozen`."""
        kept = self._kept[crc32(encode_canonical(entry)) % len(self._kept)]
        if kept is not None and entry not in kept and dict.__contains__(self._data, entry):
            kept[entry] = self._entry(entry)

    def detach(self, copy: Any) -> None:
        """See `Frozen`. What is removed later was not there when the state was frozen."""
        if not self._is_detached:
            self._data, self._is_detached = copy, True

    def _entry(self, key: Any) -> bytes:
        return encode_canonical((key, dict.__getitem__(self._data, key)))

    def chunks(self) -> Iterator[bytes]:
        """One for each partition of the keys; empty ones are steps without a result."""
        keys, count = self._keys, len(self._kept)
        found: list[list[Any]] = [[] for _ in range(count)]
        while keys:
            some = keys[-_ITEMS_PER_STEP:]
            del keys[-_ITEMS_PER_STEP:]
            for key in some:
                found[crc32(encode_canonical(key)) % count].append(key)
            yield b""
        for number in range(count):
            kept = self._kept[number] or {}
            keys = sorted(found[number], key=encode_canonical)
            entries = [msgspec.Raw(kept[key] if key in kept else self._entry(key)) for key in keys]
            self._kept[number] = None
            found[number] = []
            yield encode(Part(self._field, msgspec.Raw(encode(entries))))


class FrozenItems(Frozen):
    """A list or set of the state, as it was."""

    def __init__(self, field: str, items: list[Any], *, is_set: bool) -> None:
        self._field = field
        self._items = items
        self._is_set = is_set
        self._kept: dict[int, bytes] = {}
        """The encodings of items that change inside, by `id`: the items themselves are in `_items` until encoded."""

    def keep(self, entry: Any) -> None:
        """See `Frozen`."""
        if id(entry) not in self._kept:
            self._kept[id(entry)] = encode_canonical(entry)

    def detach(self, copy: Any) -> None:
        """See `Frozen`: the references are copied already."""

    def chunks(self) -> Iterator[bytes]:
        """Some items each."""
        if self._is_set:
            yield from self._members()
            return
        items, self._items = self._items, []
        items.reverse()
        while items:
            entries = [msgspec.Raw(self._encoding(items.pop())) for _ in range(min(len(items), _LIST_ITEMS_PER_CHUNK))]
            yield encode(Part(self._field, msgspec.Raw(encode(entries))))

    def _encoding(self, item: Any) -> bytes:
        kept = self._kept.get(id(item))
        return encode_canonical(item) if kept is None else kept

    def _members(self) -> Iterator[bytes]:
        items, count = self._items, partitions_for(len(self._items))
        found: list[list[bytes]] = [[] for _ in range(count)]
        while items:
            some = items[-_ITEMS_PER_STEP:]
            del items[-_ITEMS_PER_STEP:]
            for item in some:
                encoded = encode_canonical(item)
                found[crc32(encoded) % count].append(encoded)
            yield b""
        for members in found:
            yield encode(Part(self._field, msgspec.Raw(encode([msgspec.Raw(one) for one in sorted(members)]))))


def freeze(state: "State", version: int, versions: dict[str, int]) -> tuple[Iterator[bytes], Callable[[], None]]:
    """The chunks of the state at this moment, and what ends the keeping of entries."""
    fields: list[FrozenDict | FrozenItems] = []
    roots = []
    values: dict[str, msgspec.Raw] = {}
    containers = dict(state.containers())
    for name in state.kinds:
        container = containers.get(name)
        if container is None:
            values[name] = msgspec.Raw(encode_canonical(state.value(name)))
            continue
        values[name] = msgspec.Raw(encode({} if isinstance(container, TrackedDict) else []))
        frozen: FrozenDict | FrozenItems
        if isinstance(container, TrackedDict):
            frozen = FrozenDict(name, container)
        elif isinstance(container, TrackedList):
            frozen = FrozenItems(name, list.copy(container), is_set=False)
        else:
            frozen = FrozenItems(name, list(set.__iter__(cast(set[Any], container))), is_set=True)
        fields.append(frozen)
        roots.append(container._root)
        container._root.frozen = frozen
    head = encode(Head(FORMAT, version, versions, values))

    def chunks() -> Iterator[bytes]:
        yield head
        while fields:
            yield from fields.pop(0).chunks()

    def end() -> None:
        for root in roots:
            root.frozen = None

    return chunks(), end


def head_of(chunk: bytes) -> Head:
    """The first chunk. Raises ValueError if it is not one."""
    head = _decode_head(chunk)
    if head.format != FORMAT:
        raise ValueError(f"the snapshot has format {head.format}, and this version of PyDSM reads {FORMAT}")
    return head


def thaw(head: Head, chunks: Iterable[bytes], kinds: dict[str, Kind]) -> dict[str, Any]:
    """The checked values of all fields.

    Raises OperationalError if the fields were other ones, or had other types, and ValueError for other chunks.
    """
    if head.values.keys() != kinds.keys():
        names = ", ".join(sorted(head.values.keys() ^ kinds.keys()))
        raise OperationalError(f"the snapshot and the class differ in the fields {names}: {_ADVICE}")
    try:
        return _thaw(head, chunks, kinds)
    except msgspec.ValidationError as error:
        raise OperationalError(f"the snapshot does not fit the types of the fields: {error}; {_ADVICE}") from error


_ADVICE = "raise `version` when the fields change, and give `former` and `migrate`"


def _thaw(head: Head, chunks: Iterable[bytes], kinds: dict[str, Kind]) -> dict[str, Any]:
    values = {name: kinds[name].decode(bytes(encoded)) for name, encoded in head.values.items()}
    decoders: dict[str, Callable[[bytes], Any]] = {}
    for chunk in filter(None, chunks):
        part = _decode_part(chunk)
        value = values[part.field]
        decode = decoders.get(part.field)
        if decode is None:
            decode = decoders[part.field] = msgspec.msgpack.Decoder(_items_type(kinds[part.field].member(value))).decode
        items = decode(bytes(part.items))
        if isinstance(value, list):
            value.extend(items)
        else:
            value.update(items)
    return values


def _items_type(kind: Kind) -> Any:
    if isinstance(kind, DictKind):
        key, value = kind.keys.of, kind.values.of
        return list[tuple[key, value]]  # type: ignore[valid-type] # types at run time
    if isinstance(kind, ListKind | SetKind):
        item = kind.values.of
        return list[item]  # type: ignore[valid-type] # types at run time
    raise ValueError(f"a field of the snapshot has items, but is of the type {kind.of}")


def keys_in(chunk: bytes) -> list[bytes]:
    """What a chunk has, for reports: fields and encoded items. Raises ValueError if it is not a chunk."""
    try:
        part = _decode_part(chunk)
    except msgspec.ValidationError:
        return [name.encode() for name in head_of(chunk).values]
    items = msgspec.msgpack.decode(bytes(part.items), type=list[Any])
    return [f"{part.field}: {str(one)[:200]}".encode() for one in islice(items, 1000)]
