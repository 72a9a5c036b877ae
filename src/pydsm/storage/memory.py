"""A store that forgets everything when the process ends: for tests, and for groups that prefer speed to restarts.

A replica that used it and restarts is a new replica to its peers, because its incarnation is new. So nobody will load
what has left the replica's own memory, and the store drops it too.
"""

import secrets
from collections.abc import Mapping, Sequence

from pydsm.core.protocol.starts import Met, Start
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, Record, ReservationRecord
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import InstanceId, ReplicaId


class MemoryStore:
    """Keeps records as they are. Writes are done when they return."""

    is_slow = False
    """See `storage.identity.ReplicaStore`."""

    def __init__(self) -> None:
        self.incarnation = secrets.randbits(64)
        """Drawn anew for every store, since nothing of an earlier one is left."""
        self._instances: dict[InstanceId, InstanceRecord] = {}
        self._reservation: ReservationRecord | None = None
        self._frontier: FrontierRecord | None = None
        self._peers: dict[ReplicaId, int] = {}
        self._starts: dict[ReplicaId, Met] = {}
        self._start = 0
        self.position = 0
        """See `storage.base.Store`."""
        self._closed = False

    def load(self) -> list[Record]:
        """See `storage.base.Store`."""
        self._must_be_open()
        notes: list[Record] = [note for note in (self._reservation, self._frontier) if note is not None]
        return [*notes, *(self._instances[id] for id in sorted(self._instances))]

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        self._must_be_open()
        self.position += 1
        for record in records:
            if isinstance(record, InstanceRecord):
                self._instances[record.id] = record
            elif isinstance(record, ReservationRecord):
                self._reservation = record
            elif isinstance(record, FrontierRecord):
                self._drop(record)
                self._frontier = record

    def _drop(self, frontier: FrontierRecord) -> None:
        before = self._frontier.dropped if self._frontier is not None else (0,) * len(frontier.dropped)
        for leader, (first, last) in enumerate(zip(before, frontier.dropped, strict=True)):
            for index in range(first + 1, last + 1):
                self._instances.pop(InstanceId(ReplicaId(leader), index), None)

    def close(self) -> None:
        """Nothing can be loaded or written afterwards."""
        self._closed = True

    def begin_start(self) -> Start:
        """See `storage.identity.ReplicaStore`."""
        self._start += 1
        return Start(self._start, secrets.randbits(64))

    def starts(self) -> dict[ReplicaId, Met]:
        """See `storage.identity.ReplicaStore`."""
        return dict(self._starts)

    def remember_starts(self, starts: Mapping[ReplicaId, Met]) -> None:
        """See `storage.identity.ReplicaStore`."""
        self._must_be_open()
        self._starts.update(starts)

    def peers(self) -> dict[ReplicaId, int]:
        """Incarnation of every peer met so far."""
        return dict(self._peers)

    def remember_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """Keep the fingerprint of a peer's incarnation, for `peers`."""
        self._must_be_open()
        self._peers[replica] = incarnation

    def check(self) -> None:
        """See `storage.identity.ReplicaStore`. Nobody can take memory away."""

    def _must_be_open(self) -> None:
        if self._closed:
            raise UsageError("the store is closed: open a new one")
