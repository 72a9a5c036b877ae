"""Checks that a replica refuses to start on a disk that lacks a record.

The check uses a separate replica that has no connections: its start must fail. It covers the damage that the core can
detect: one record is missing, or all of them, that the newest snapshot contains or that the replica has reported as
executed. Damage inside files is checked by `storage.examination`.
"""

from collections.abc import Callable, Sequence
from random import Random

from pydsm.core.replica import Replica
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import Deps, InstanceId, covers
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.violation import Violation

_TRIED_SHARE = 0.1
"""Share of the restarts that are checked."""


class Damage:
    """Checks the disk of one replica."""

    def __init__(self, name: str, seed: int, make_replica: Callable[[], Replica], counts: Counts) -> None:
        self._name = name
        self._random = Random(f"damage {seed} {name}")
        self._make_replica = make_replica
        self._counts = counts

    def look(self, records: Sequence[Record], snapshots: Sequence[Checkpoint]) -> None:
        """For some restarts, start a replica with fewer records than these. Raises Violation if that start succeeds."""
        if self._random.random() >= _TRIED_SHARE:
            return
        in_snapshot, reported = _needed(records, snapshots)
        for needed in (in_snapshot, reported):
            if needed:
                self._try(records, snapshots, self._random.choice(needed), older=needed is in_snapshot)

    def _try(
        self, records: Sequence[Record], snapshots: Sequence[Checkpoint], lost: InstanceId, *, older: bool
    ) -> None:
        """Start without this record, then without any. `older`: also without the record of what was reported."""
        kept = [one for one in records if not (older and isinstance(one, FrontierRecord))]
        for what, damaged in (
            (f"the record of {lost}", [one for one in kept if not isinstance(one, InstanceRecord) or one.id != lost]),
            ("all records of instances", [one for one in kept if not isinstance(one, InstanceRecord)]),
        ):
            self._counts.disks_damaged += 1
            try:
                self._make_replica().restore(damaged, snapshots)
            except OperationalError:
                continue
            raise Violation("disk", f"{self._name} starts with a disk that lacks {what}, which it needs", (lost,))


def _needed(records: Sequence[Record], snapshots: Sequence[Checkpoint]) -> tuple[list[InstanceId], list[InstanceId]]:
    """The instances on this disk that the newest snapshot has, and those that were reported; both above the purge."""
    purged: Deps = ()
    reported: Deps = ()
    for record in records:
        if isinstance(record, PurgeRecord):
            purged = record.up_to
        elif isinstance(record, FrontierRecord):
            reported = record.executed
    there = [one.id for one in records if isinstance(one, InstanceRecord)]
    there = [id for id in there if not (purged and covers(purged, id))]
    in_snapshot = [id for id in there if snapshots and snapshots[-1].position.has(id)]
    return in_snapshot, [id for id in there if reported and covers(reported, id)]
