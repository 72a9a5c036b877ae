"""How a replica continues from its disk: its records and snapshots become the state of a new start.

Guarantees that a replica does not take part with a disk that lacks a decision: each instance that the newest snapshot
has, or that was reported to peers as executed, must be purged, absent or in a decided record. What a restarted replica
may do then is decided in `proposer` (never an index or round 0 of before) and in `log` (which vectors it gives).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from pydsm.core.log.instance import Instance
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.checkpoint import Checkpoint, first_missing
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, merge, with_instance
from pydsm.core.types.status import Status


@dataclass(slots=True)
class _Disk:
    """The newest records of each kind."""

    executed: Deps
    """Per leader, the prefix that this replica has reported as executed."""
    purged: Deps
    """Per leader, the prefix whose records were removed."""
    reserved: int = 0
    """Highest own index that an earlier start may have used."""
    absent: tuple[InstanceId, ...] = ()
    """See `PurgeRecord.exceptions`."""
    instances: list[InstanceRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a replica must know of its disk besides the state."""

    purged: Deps
    """Per leader, the prefix whose records are not on the disk."""
    reserved: int
    """Highest own index that an earlier start may have used."""


def restore(state: ReplicaState, records: Iterable[Record], snapshots: Sequence[Checkpoint]) -> Restored:
    """Load the records into a new state. `execute_decided` executes what is committed.

    Args:
        state: the state of a replica that has not handled any event.
        records: all records of the disk.
        snapshots: the last two checkpoints with a good snapshot, the older one first. The machine has the state of the
            newer one.

    Raises OperationalError if a decision is missing: this replica cannot rejoin with this disk.
    """
    disk = _read(records, state.log.no_deps)
    state.recorded = disk.executed
    newest = snapshots[-1] if snapshots else None
    _begin_at(state, newest, disk)
    _check_covered(state, newest, disk)
    for one in disk.instances:
        _restore_instance(state, newest, Instance.from_record(one))
    _check_kept(state, disk)
    reserved = max(disk.reserved, state.log.known[state.me])
    if reserved:
        last = InstanceId(state.me, reserved)
        state.log.note_restored(with_instance(state.log.no_deps, last))
        state.log.require_after(last)
    return Restored(disk.purged, reserved)


def execute_decided(state: ReplicaState) -> None:
    """Execute the restored decisions again. Call it when the proposer knows the reservation."""
    decided = [one for one in state.log.instances.values() if one.status is Status.COMMITTED]
    for instance in sorted(decided, key=_relative_position(state.log.known)):
        state.execution.committed(instance)


def _read(records: Iterable[Record], no_deps: Deps) -> _Disk:
    disk = _Disk(no_deps, no_deps)
    for record in records:
        match record:
            case InstanceRecord():
                disk.instances.append(record)
            case ReservationRecord():
                disk.reserved = max(disk.reserved, record.up_to)
            case FrontierRecord():
                disk.executed = record.executed
            case PurgeRecord():
                disk.purged = record.up_to
                disk.absent = record.exceptions
            case unreachable:
                assert_never(unreachable)
    return disk


def _begin_at(state: ReplicaState, newest: Checkpoint | None, disk: _Disk) -> None:
    if newest is not None:
        state.log.begin_at(newest, disk.purged, disk.absent)
        state.schedule.begin(newest, state.now)
    covered = newest.position.up_to if newest is not None else state.log.no_deps
    if merge(covered, disk.purged) != covered:
        raise OperationalError(
            f"records up to {disk.purged} were purged, and the newest good snapshot reaches to {covered}: "
            "this replica cannot rejoin with this disk"
        )


def _check_covered(state: ReplicaState, newest: Checkpoint | None, disk: _Disk) -> None:
    """Check that there is a record of every instance that the newest snapshot has and that was not purged.

    Raises OperationalError otherwise.
    """
    if newest is None:
        return
    there = {one.id for one in disk.instances} | state.log.absent
    missing = first_missing(newest.position, disk.purged, there.__contains__)
    if missing is not None:
        raise OperationalError(
            f"the record of instance {missing} is missing, and the snapshot of checkpoint {newest.number} has it: the "
            "records are older than the snapshot. This replica cannot rejoin with this disk"
        )


def _restore_instance(state: ReplicaState, newest: Checkpoint | None, instance: Instance) -> None:
    if state.log.is_dropped(instance.id):
        return
    if newest is not None and not instance.decided and newest.position.has(instance.id):
        raise OperationalError(
            f"instance {instance.id} is in the snapshot of checkpoint {newest.number}, and its record is not decided: "
            "this replica cannot rejoin with this disk"
        )
    state.log.restore(instance)


def _check_kept(state: ReplicaState, disk: _Disk) -> None:
    """Check that there is a record of every instance that this replica reported as executed: peers may have none.

    Raises OperationalError otherwise.
    """
    log = state.log
    for leader, last in enumerate(disk.executed):
        for index in range(disk.purged[leader] + 1, last + 1):
            id = InstanceId(ReplicaId(leader), index)
            instance = log.instances.get(id)
            if id not in log.absent and (instance is None or not instance.decided):
                raise OperationalError(
                    f"the record of instance {leader}.{index} is missing, though it was reported to peers as executed: "
                    "this replica cannot rejoin with this disk"
                )


def _relative_position(known: Deps) -> Callable[[Instance], float]:
    """A function that gives which part of the known instances an instance depends on, 0 to 1.

    Execution finds the agreed order in any case; in about this order, each step has few unexecuted dependencies.
    """
    return lambda instance: max(dep / max(last, 1) for dep, last in zip(instance.deps, known, strict=True))
