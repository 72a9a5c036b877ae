"""Disks whose files are not of one time, or lack a record: a replica must not begin with one.

Tried beside the world, on a replica that nobody hears of: what it should do is end there. What the core can see is what
is tried: a record that the newest snapshot has, or that others were told to be executed, is not there, or none is. That
the files themselves are whole is the business of `storage.examination`.
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
"""Of all restarts."""


class Damage:
    """Of one replica's disk."""

    def __init__(self, name: str, seed: int, make_replica: Callable[[], Replica], counts: Counts) -> None:
        self._name = name
        self._random = Random(f"damage {seed} {name}")
        self._make_replica = make_replica
        self._counts = counts

    def look(self, records: Sequence[Record], snapshots: Sequence[Checkpoint]) -> None:
        """Now and then, try what a replica does with less than this. Raises Violation if it begins with that."""
        if self._random.random() >= _TRIED_SHARE:
            return
        in_snapshot, told = _needed(records, snapshots)
        for needed in (in_snapshot, told):
            if needed:
                self._try(records, snapshots, self._random.choice(needed), older=needed is in_snapshot)

    def _try(
        self, records: Sequence[Record], snapshots: Sequence[Checkpoint], lost: InstanceId, *, older: bool
    ) -> None:
        """Without this record, then without any; records that are `older` do not say either what others were told."""
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
            raise Violation("disk", f"{self._name} begins with a disk that lacks {what}, which it needs", (lost,))


def _needed(records: Sequence[Record], snapshots: Sequence[Checkpoint]) -> tuple[list[InstanceId], list[InstanceId]]:
    """Instances that the newest snapshot has, and those that others were told to be executed; not what is purged."""
    purged: Deps = ()
    told: Deps = ()
    for record in records:
        if isinstance(record, PurgeRecord):
            purged = record.up_to
        elif isinstance(record, FrontierRecord):
            told = record.executed
    there = [one.id for one in records if isinstance(one, InstanceRecord)]
    there = [id for id in there if not (purged and covers(purged, id))]
    in_snapshot = [id for id in there if snapshots and snapshots[-1].position.has(id)]
    return in_snapshot, [id for id in there if told and covers(told, id)]
