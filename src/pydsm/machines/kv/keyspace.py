"""The state of the key-value machine: keys, when they expire, and who watches them.

Guards what every command relies on: a key that has expired is not there, a key is never an empty collection, and a
watcher is dropped by whatever changes its key. Time is what was agreed on with the batch that is executed; "random"
draws follow from it, so that every replica draws alike.
"""

import hashlib
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice

from sortedcontainers import SortedSet as SortedKeys

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv.values import Hash, List, MutableString, Set, SortedSet, StoredValue

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
VALUE_BYTES_MAX = 8 << 20
"""Bytes that one string, element, field or member may have until a group agrees on another limit."""
VALUE_BYTES_LEAST, VALUE_BYTES_MOST = 1 << 20, 512 << 20
"""Between these a group may choose its limit."""
WATCHES_PER_KEY_MAX = 1000
"""Watches of one key; the oldest is dropped for a further one, and its transaction will not be executed."""
WATCH_MS_MAX = 3_600_000
"""How long a watch lasts: what clients that vanished leave behind goes by itself."""

_HASH_BYTES = 6
_STALE_DUE_MAX = 64


class Keyspace:
    """Everything that commands read and change. `now_ms` and `place` are set for each batch and command."""

    __slots__ = (
        "_by_hash",
        "_drawn",
        "_drawn_at",
        "_due",
        "data",
        "expiries",
        "given_bytes",
        "limit_changes",
        "now_ms",
        "place",
        "unread",
        "value_bytes_max",
        "watches",
    )

    def __init__(self) -> None:
        self.data: dict[bytes, StoredValue] = {}
        self.expiries: dict[bytes, int] = {}
        """When keys expire, in Unix milliseconds; a key expires when that time has come."""
        self.watches: dict[bytes, dict[bytes, int]] = {}
        """Per key its watchers and when they began; keys that were watched longest ago come first."""
        self.value_bytes_max = VALUE_BYTES_MAX
        """Part of the replicated state, since it decides replies: only an agreed command changes it."""
        self.limit_changes = 0
        """How often that was changed since this process has the state."""
        self.unread = False
        """Nobody looks at the results of the commands of this batch, so what only reads need not be executed."""
        self.given_bytes = 0
        """Of the results of this batch, as `given` counts them."""
        self.now_ms = 0
        self.place = 0
        self._due: list[tuple[int, bytes]] = []
        """A heap of expiries, with entries that do not hold any more."""
        self._by_hash: SortedKeys[tuple[int, bytes]] | None = None
        self._drawn = 0
        self._drawn_at = (0, 0)

    # Looking: changes nothing, so that reads commute

    def get(self, key: bytes) -> StoredValue | None:
        """The value, None if there is none or it has expired."""
        if self.expiries and self.expiries.get(key, self.now_ms + 1) <= self.now_ms:
            return None
        return self.data.get(key)

    def string(self, key: bytes) -> bytes | None:
        """The same for a string; these raise CommandFailed where a key has another kind of value."""
        value = self.get(key)
        if value is None or isinstance(value, bytes):
            return value
        if isinstance(value, MutableString):
            return bytes(value.content)
        raise CommandFailed(WRONG_TYPE)

    def string_in_place(self, key: bytes) -> bytes | bytearray | None:
        """The same without a copy: to look at, not to keep."""
        value = self.get(key)
        return value.content if isinstance(value, MutableString) else self.string(key)

    def hash(self, key: bytes) -> Hash | None:
        """See `string`."""
        value = self.get(key)
        if value is None or isinstance(value, Hash):
            return value
        raise CommandFailed(WRONG_TYPE)

    def list(self, key: bytes) -> List | None:
        """See `string`."""
        value = self.get(key)
        if value is None or isinstance(value, List):
            return value
        raise CommandFailed(WRONG_TYPE)

    def set(self, key: bytes) -> Set | None:
        """See `string`."""
        value = self.get(key)
        if value is None or isinstance(value, Set):
            return value
        raise CommandFailed(WRONG_TYPE)

    def sorted_set(self, key: bytes) -> SortedSet | None:
        """See `string`."""
        value = self.get(key)
        if value is None or isinstance(value, SortedSet):
            return value
        raise CommandFailed(WRONG_TYPE)

    def expiry_ms(self, key: bytes) -> int | None:
        """When the key expires, None if never."""
        return self.expiries.get(key)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self.data) - self._expired() if self.expiries else len(self.data)

    def _expired(self) -> int:
        """How many keys have expired and are not removed yet. Looks at those alone: at the top of the heap."""
        found: set[bytes] = set()
        places = [0]
        while places:
            place = places.pop()
            if place < len(self._due) and self._due[place][0] <= self.now_ms:
                at, key = self._due[place]
                if self.expiries.get(key) == at:
                    found.add(key)
                places += (2 * place + 1, 2 * place + 2)
        return len(found)

    def keys(self) -> Iterator[bytes]:
        """All keys, in an order that means nothing and differs between replicas."""
        return (key for key in self.data if self.get(key) is not None)

    def keys_from(self, place: int) -> Iterator[tuple[int, bytes]]:
        """Keys by a fixed hash, from this hash on, in an order that is the same on every replica.

        The first call puts all keys in order, which takes seconds for millions of them; from then on order is kept.
        """
        if self._by_hash is None:
            self._by_hash = SortedKeys((key_hash(key), key) for key in self.data)
        for hash_, key in self._by_hash.irange((place, b"")):
            if self.get(key) is not None:
                yield hash_, key

    def draw(self, below: int) -> int:
        """From 0 to `below` - 1, the same on every replica: from the agreed time and the place in the batch."""
        at = (self.now_ms, self.place)
        self._drawn = self._drawn + 1 if at == self._drawn_at else 0
        self._drawn_at = at
        digest = hashlib.blake2b(b"%d %d %d" % (*at, self._drawn), digest_size=8).digest()
        return int.from_bytes(digest, "big") % below

    # Changing

    def put(self, key: bytes, value: StoredValue, *, keep_expiry: bool = False) -> None:
        """Give a key a new value, without an expiry unless that is kept."""
        if self.expiries and not keep_expiry:
            self.expiries.pop(key, None)
        if self._by_hash is not None and key not in self.data:
            self._by_hash.add((key_hash(key), key))
        if self.watches:
            self.watches.pop(key, None)
        self.data[key] = value

    @property
    def is_plain(self) -> bool:
        """Nothing expires, is watched, or is kept in order: writing a string is nothing but writing it."""
        return not self.expiries and not self.watches and self._by_hash is None

    def changed(self, key: bytes) -> None:
        """A collection was changed in place: an empty one goes, with its key."""
        value = self.data[key]
        if not value:
            self.remove(key)
        elif self.watches:
            self.watches.pop(key, None)

    def remove(self, key: bytes) -> bool:
        """Whether the key was there."""
        if self.data.pop(key, None) is None:
            return False
        self.expiries.pop(key, None)
        self.watches.pop(key, None)
        if self._by_hash is not None:
            self._by_hash.remove((key_hash(key), key))
        return True

    def clear(self) -> None:
        """Remove every key. The dictionaries are left to whoever has frozen them."""
        self.watches = {key: watchers for key, watchers in self.watches.items() if key not in self.data}
        self.data = {}
        self.expiries = {}
        self._due.clear()
        self._by_hash = None

    def set_expiry(self, key: bytes, at_ms: int | None) -> None:
        """Let a key that is there expire, or not. One whose time has come goes at once."""
        if at_ms is None:
            self.expiries.pop(key, None)
            self.watches.pop(key, None)
        elif at_ms <= self.now_ms:
            self.remove(key)
        else:
            self.expiries[key] = at_ms
            self.watches.pop(key, None)
            heappush(self._due, (at_ms, key))
            if len(self._due) > 2 * len(self.expiries) + _STALE_DUE_MAX:
                self._due = [(at, one) for one, at in self.expiries.items()]
                heapify(self._due)

    def restore_expiry(self, key: bytes, at_ms: int) -> None:
        """As it was when the state was saved; it may have come by now."""
        self.expiries[key] = at_ms
        heappush(self._due, (at_ms, key))

    def begin(self, now_ms: int) -> None:
        """A batch is executed. Nothing that earlier batches left behind decides what this one draws."""
        self.now_ms = now_ms
        self.place = -1
        self.given_bytes = 0
        self._drawn_at = (now_ms, -2)

    def reap(self, key: bytes) -> None:
        """Remove the key if it has expired: done for every key that a command may write, before it runs."""
        if self.expiries.get(key, self.now_ms + 1) <= self.now_ms:
            self.remove(key)

    # Watching

    def watch(self, key: bytes, watch: bytes) -> None:
        """Register a watch, which lasts until the key is changed."""
        watchers = self.watches.pop(key, {})
        watchers.pop(watch, None)
        if len(watchers) >= WATCHES_PER_KEY_MAX:
            del watchers[next(iter(watchers))]
        watchers[watch] = self.now_ms
        self.watches[key] = watchers

    def unwatch(self, key: bytes, watch: bytes) -> bool:
        """Drop a watch; whether it still held."""
        watchers = self.watches.get(key, {})
        held = watchers.pop(watch, None) is not None
        if held and not watchers:
            del self.watches[key]
        return held

    def drop_old_watches(self, key: bytes) -> None:
        """Drop those that have lasted too long."""
        watchers = self.watches.get(key, {})
        for watch in [watch for watch, since in watchers.items() if since <= self.now_ms - WATCH_MS_MAX]:
            self.unwatch(key, watch)

    # Upkeep

    def due_commands(self, now_ms: int, limit: int) -> Sequence[bytes]:
        """Keys that have expired, or whose watches are too old, as of `now_ms`; the oldest, at most `limit` of each.

        They stay until a command that was agreed on removes them, and are named again until then.
        """
        found: list[tuple[int, bytes]] = []
        while self._due and self._due[0][0] <= now_ms and len(found) < limit:
            at, key = heappop(self._due)
            if self.expiries.get(key) == at:
                found.append((at, key))
        for entry in found:
            heappush(self._due, entry)
        watched = islice(self.watches.items(), limit)
        old = [key for key, watchers in watched if max(watchers.values()) <= now_ms - WATCH_MS_MAX]
        return list(dict.fromkeys([*(key for _, key in found), *old]))


def key_hash(key: bytes) -> int:
    """Where a key stands in the order of SCAN: 48 bits, never 0, the same for ever and everywhere."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=_HASH_BYTES).digest(), "big") or 1
