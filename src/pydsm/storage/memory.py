"""A store in memory, lost when the process ends: for tests, and for groups that prefer speed to restarts.

A replica that restarts with a new store is a new replica to its peers, because its incarnation is new. Records are
therefore never loaded after a restart, and the store removes those of instances that have left the replica's memory.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import assert_never

from pydsm.core.protocol.starts import Met, Start
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import InstanceId, ReplicaId


class MemoryStore:
    """Keeps records without encoding them. A write is complete when it returns."""

    is_slow = False
    """See `storage.identity.ReplicaStore`."""

    def __init__(self) -> None:
        self.incarnation = secrets.randbits(64)
        """New for every store, because no data of an earlier store exist."""
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
        singles: list[Record] = [one for one in (self._reservation, self._frontier) if one is not None]
        return [*singles, *(self._instances[id] for id in sorted(self._instances))]

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        self._must_be_open()
        self.position += 1
        for record in records:
            match record:
                case InstanceRecord():
                    self._instances[record.id] = record
                case ReservationRecord():
                    self._reservation = record
                case FrontierRecord():
                    self._drop(record)
                    self._frontier = record
                case PurgeRecord():
                    pass  # needed by a restart only
                case unreachable:
                    assert_never(unreachable)

    def _drop(self, frontier: FrontierRecord) -> None:
        before = self._frontier.dropped if self._frontier is not None else (0,) * len(frontier.dropped)
        for leader, (first, last) in enumerate(zip(before, frontier.dropped, strict=True)):
            for index in range(first + 1, last + 1):
                self._instances.pop(InstanceId(ReplicaId(leader), index), None)

    def close(self) -> None:
        """Close the store; nothing can be loaded or written afterwards."""
        self._closed = True

    def begin_start(self) -> Start:
        """See `storage.identity.ReplicaStore`."""
        self._start += 1
        return Start(self._start, secrets.randbits(64))

    def starts(self) -> dict[ReplicaId, Met]:
        """See `storage.identity.ReplicaStore`."""
        return dict(self._starts)

    def save_starts(self, starts: Mapping[ReplicaId, Met]) -> None:
        """See `storage.identity.ReplicaStore`."""
        self._must_be_open()
        self._starts.update(starts)

    def peers(self) -> dict[ReplicaId, int]:
        """See `storage.identity.ReplicaStore`."""
        return dict(self._peers)

    def remember_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """See `storage.identity.ReplicaStore`."""
        self._must_be_open()
        self._peers[replica] = incarnation

    def check(self) -> None:
        """See `storage.identity.ReplicaStore`. There are no files that could be removed."""

    def _must_be_open(self) -> None:
        if self._closed:
            raise UsageError("the store is closed: open a new one")
