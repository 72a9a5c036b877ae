"""The state of the key-value machine: keys, their expiry, and their watches.

Guarantees to every command: an expired key does not exist, no key has an empty collection, and every change of a key
removes its watches. The time is the agreed time of the executed batch; "random" numbers are derived from it, so that
every replica draws the same numbers.
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
"""Maximum bytes of one string, element, field or member, until a group agrees on another limit."""
VALUE_BYTES_LEAST, VALUE_BYTES_MOST = 1 << 20, 512 << 20
"""The range from which a group may choose its limit."""
WATCHES_PER_KEY_MAX = 1000
"""Maximum number of watches of one key; a further one removes the oldest, whose transaction will not be executed."""
WATCH_MS_MAX = 3_600_000
"""How long a watch lasts: watches of clients that disappeared are removed automatically."""

_HASH_BYTES = 6
_STALE_DUE_MAX = 64


class Keyspace:
    """The state that commands read and change. `now_ms` and `command_index` are set for each batch and command."""

    __slots__ = (
        "_by_hash",
        "_drawn",
        "_drawn_at",
        "_due",
        "command_index",
        "data",
        "expiries",
        "given_bytes",
        "limit_changes",
        "now_ms",
        "unread",
        "value_bytes_max",
        "watches",
    )

    def __init__(self) -> None:
        self.data: dict[bytes, StoredValue] = {}
        self.expiries: dict[bytes, int] = {}
        """The expiry of keys, in Unix milliseconds; a key expires when this time is reached."""
        self.watches: dict[bytes, dict[bytes, int]] = {}
        """Per key its watches and their start times; keys whose last watch is oldest come first."""
        self.value_bytes_max = VALUE_BYTES_MAX
        """Part of the replicated state, since it determines replies: only an agreed command changes it."""
        self.limit_changes = 0
        """Number of changes of the limit since this process loaded the state."""
        self.unread = False
        """Whether the results of this batch are not used, so that commands that only read may be skipped."""
        self.given_bytes = 0
        """Bytes of the results of this batch, as `given` counts them."""
        self.now_ms = 0
        self.command_index = 0
        self._due: list[tuple[int, bytes]] = []
        """A heap of expiries; some entries are no longer valid."""
        self._by_hash: SortedKeys[tuple[int, bytes]] | None = None
        self._drawn = 0
        self._drawn_at = (0, 0)

    # Reading: these methods change nothing, so that reads commute

    def get(self, key: bytes) -> StoredValue | None:
        """The value; None if there is none or it has expired."""
        if self.expiries and self.expiries.get(key, self.now_ms + 1) <= self.now_ms:
            return None
        return self.data.get(key)

    def string(self, key: bytes) -> bytes | None:
        """The value of a string. This and the next methods raise CommandFailed if the key has another kind of value."""
        value = self.get(key)
        if value is None or isinstance(value, bytes):
            return value
        if isinstance(value, MutableString):
            return bytes(value.content)
        raise CommandFailed(WRONG_TYPE)

    def string_in_place(self, key: bytes) -> bytes | bytearray | None:
        """The same without a copy: the caller must not keep or change it."""
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
        """The expiry of the key in Unix ms; None if it has none."""
        return self.expiries.get(key)

    def __len__(self) -> int:
        """The number of keys that have not expired."""
        return len(self.data) - self._expired() if self.expiries else len(self.data)

    def _expired(self) -> int:
        """The number of expired keys that are not removed yet. Examines only these, at the top of the heap."""
        found: set[bytes] = set()
        positions = [0]
        while positions:
            position = positions.pop()
            if position < len(self._due) and self._due[position][0] <= self.now_ms:
                at, key = self._due[position]
                if self.expiries.get(key) == at:
                    found.add(key)
                positions += (2 * position + 1, 2 * position + 2)
        return len(found)

    def keys(self) -> Iterator[bytes]:
        """All keys, in an arbitrary order that differs between replicas."""
        return (key for key in self.data if self.get(key) is not None)

    def keys_from(self, first_hash: int) -> Iterator[tuple[int, bytes]]:
        """The keys from this hash on, in order of a fixed hash, which is the same on every replica.

        The first call sorts all keys, which takes seconds for millions of them; afterwards the order is maintained.
        """
        if self._by_hash is None:
            self._by_hash = SortedKeys((key_hash(key), key) for key in self.data)
        for hash_, key in self._by_hash.irange((first_hash, b"")):
            if self.get(key) is not None:
                yield hash_, key

    def draw(self, below: int) -> int:
        """A number from 0 to `below` - 1, the same on every replica: from the agreed time and `command_index`."""
        at = (self.now_ms, self.command_index)
        self._drawn = self._drawn + 1 if at == self._drawn_at else 0
        self._drawn_at = at
        digest = hashlib.blake2b(b"%d %d %d" % (*at, self._drawn), digest_size=8).digest()
        return int.from_bytes(digest, "big") % below

    # Writing

    def put(self, key: bytes, value: StoredValue, *, keep_expiry: bool = False) -> None:
        """Set the value of a key, and remove its expiry unless `keep_expiry` is true."""
        if self.expiries and not keep_expiry:
            self.expiries.pop(key, None)
        if self._by_hash is not None and key not in self.data:
            self._by_hash.add((key_hash(key), key))
        if self.watches:
            self.watches.pop(key, None)
        self.data[key] = value

    @property
    def is_plain(self) -> bool:
        """Whether no key has an expiry, a watch or a position in the sorted order: then a write has no side effects."""
        return not self.expiries and not self.watches and self._by_hash is None

    def changed(self, key: bytes) -> None:
        """Complete a change of a collection in place: an empty collection is removed with its key."""
        value = self.data[key]
        if not value:
            self.remove(key)
        elif self.watches:
            self.watches.pop(key, None)

    def remove(self, key: bytes) -> bool:
        """Remove a key. Returns whether it existed."""
        if self.data.pop(key, None) is None:
            return False
        self.expiries.pop(key, None)
        self.watches.pop(key, None)
        if self._by_hash is not None:
            self._by_hash.remove((key_hash(key), key))
        return True

    def clear(self) -> None:
        """Remove every key. The old dictionaries are not changed: a frozen state may use them."""
        self.watches = {key: watchers for key, watchers in self.watches.items() if key not in self.data}
        self.data = {}
        self.expiries = {}
        self._due.clear()
        self._by_hash = None

    def set_expiry(self, key: bytes, at_ms: int | None) -> None:
        """Set the expiry of an existing key, or remove it. A key whose expiry is in the past is removed immediately."""
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
        """Restore an expiry from a saved state; it may be in the past."""
        self.expiries[key] = at_ms
        heappush(self._due, (at_ms, key))

    def begin(self, now_ms: int) -> None:
        """Begin a batch. Its random numbers do not depend on earlier batches."""
        self.now_ms = now_ms
        self.command_index = -1
        self.given_bytes = 0
        self._drawn_at = (now_ms, -2)

    def reap(self, key: bytes) -> None:
        """Remove the key if it has expired. Called for every key that a command may write, before the command runs."""
        if self.expiries.get(key, self.now_ms + 1) <= self.now_ms:
            self.remove(key)

    # Watches

    def watch(self, key: bytes, watch: bytes) -> None:
        """Register a watch, which lasts until the key is changed."""
        watchers = self.watches.pop(key, {})
        watchers.pop(watch, None)
        if len(watchers) >= WATCHES_PER_KEY_MAX:
            del watchers[next(iter(watchers))]
        watchers[watch] = self.now_ms
        self.watches[key] = watchers

    def unwatch(self, key: bytes, watch: bytes) -> bool:
        """Remove a watch. Returns whether it existed."""
        watchers = self.watches.get(key, {})
        held = watchers.pop(watch, None) is not None
        if held and not watchers:
            del self.watches[key]
        return held

    def drop_old_watches(self, key: bytes) -> None:
        """Remove the watches of a key that have lasted too long."""
        watchers = self.watches.get(key, {})
        for watch in [watch for watch, since in watchers.items() if since <= self.now_ms - WATCH_MS_MAX]:
            self.unwatch(key, watch)

    # Scheduled commands

    def due_commands(self, now_ms: int, limit: int) -> Sequence[bytes]:
        """Keys that have expired, or whose watches are too old, at `now_ms`; the oldest, at most `limit` of each.

        They stay until an agreed command removes them, and are returned again until then.
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
    """The position of a key in the order of SCAN: 48 bits, never 0, the same on every replica and in every version."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=_HASH_BYTES).digest(), "big") or 1
