"""Simulates a disk that survives crashes: synced groups of records stay, other groups are lost as a whole.

The disk may be replaced by an older copy (`put_back`), which a store cannot detect alone.

A group whose write is interrupted by a crash is either durable as a whole or not at all, by the seeded random numbers
of this disk: a transaction of a real store guarantees the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from random import Random
from typing import assert_never

from pydsm.core.protocol.starts import SeenStart, Start
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.wire.codec import decode_record, encode_record
from pydsm.sim.base.context import Context
from pydsm.sim.base.violation import Violation
from pydsm.storage.snapshot_format import SNAPSHOT_VERSION, Head, SnapshotChecker, encode_snapshot, read_chunks

_SYNC_SPREAD = 1.5
_DAMAGED_SHARE = 0.1


@dataclass(frozen=True)
class SimulatedSnapshot:
    """One durable snapshot. `watched` is the checkers' record of the process that took it."""

    checkpoint: Checkpoint
    chunks: tuple[bytes, ...]
    watched: object
    adopted: bool = False
    """Whether it was fetched from a peer."""
    damaged: bool = False
    """Whether it was found damaged at a start; it stays on the disk."""

    @cached_property
    def encoded(self) -> bytes:
        """The snapshot as one file."""
        replicas = len(self.checkpoint.floor)
        return encode_snapshot(Head(SNAPSHOT_VERSION, "sim", replicas, self.checkpoint), self.chunks)


def last_two(files: list[SimulatedSnapshot]) -> list[SimulatedSnapshot]:
    """The snapshots that are kept, the older ones first: the same rule as `storage.snapshots.SnapshotFiles.put`."""
    good = [one for one in files if not one.damaged][-2:]
    return [one for one in files if one.checkpoint.number >= good[0].checkpoint.number]


class Fetched:
    """A snapshot that is being fetched: the part that is on the disk."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = b""
        self.checker = SnapshotChecker()

    def take(self, data: bytes) -> bool:
        """Store a piece. Returns False if it is damaged: then everything from the start of its frame is removed."""
        self.data += data
        try:
            self.checker.take(data)
        except OperationalError:
            self.drop_partial_frame()
            return False
        return True

    def drop_partial_frame(self) -> None:
        """Remove everything behind the last complete frame."""
        self.checker.rewind()
        self.data = self.data[: self.checker.good]

    def check_again(self) -> None:
        """Read and check the stored part again, as a restart does."""
        data, self.data, self.checker = self.data, b"", SnapshotChecker()
        if self.take(data) and not self.checker.complete:
            self.drop_partial_frame()

    def chunks(self) -> tuple[bytes, ...]:
        """The chunks of a complete snapshot."""
        return tuple(read_chunks(BytesIO(self.data), self.checker.digests))


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """Everything that is durable at one time."""

    instances: dict[InstanceId, InstanceRecord]
    reserved: int
    frontier: FrontierRecord | None
    purged: PurgeRecord | None
    snapshots: tuple[SimulatedSnapshot, ...]
    position: int
    starts: int
    met: dict[ReplicaId, SeenStart]


class SimulatedDisk:
    """One replica's disk. `instances` and `reserved` are the data that a restart finds."""

    def __init__(self, context: Context, replica: int, written: Callable[[Sequence[Record]], None]) -> None:
        self._context = context
        self._schedule = context.schedule
        self._random = Random(f"disk {context.settings.seed} {replica}")
        self._reported = written
        self._writing: Sequence[Record] | None = None
        self._ticket = 0
        self.instances: dict[InstanceId, InstanceRecord] = {}
        self.reserved = 0
        self.frontier: FrontierRecord | None = None
        self.purged: PurgeRecord | None = None
        self.files: list[SimulatedSnapshot] = []
        """The last two undamaged snapshots, the older one first, and damaged ones that are not older."""
        self._snapshot: SimulatedSnapshot | None = None
        self.fetched: Fetched | None = None
        self.sync_us = context.settings.sync_us
        self.position = 0
        """Number of groups of records that are durable."""
        self._starts = 0
        self._met: dict[ReplicaId, SeenStart] = {}
        self._start_ids = Random(f"starts {context.settings.seed} {replica}")
        self.newest: DiskCopy | None = None
        """The disk before it was replaced by an older copy; None if it was not, or was restored."""

    @property
    def snapshots(self) -> list[SimulatedSnapshot]:
        """The undamaged snapshots: two at most, the older one first."""
        return [one for one in self.files if not one.damaged]

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Make a group durable, immediately if a sync takes no time, and call `done`; never, if a crash comes first."""
        self._context.counts.writes += 1
        if not self.sync_us:
            self._keep(records)
            done()
            return
        self._writing = records
        delay_us = 1 + int(self.sync_us * (0.5 + _SYNC_SPREAD * self._random.random()))
        self._schedule.after(delay_us, self._synced, self._ticket, done)

    def _synced(self, ticket: int, done: Callable[[], None]) -> None:
        if ticket == self._ticket and self._writing is not None:
            records, self._writing = self._writing, None
            self._keep(records)
            done()

    def copy(self) -> DiskCopy:
        """A copy of the disk, as of a volume."""
        snapshots = tuple(self.files)
        return DiskCopy(
            dict(self.instances),
            self.reserved,
            self.frontier,
            self.purged,
            snapshots,
            self.position,
            self._starts,
            dict(self._met),
        )

    def put_back(self, copy: DiskCopy) -> None:
        """Replace the disk by this older copy, while no process runs."""
        if copy.position < self.position:
            self.newest = self.newest or self.copy()
        self._become(copy)

    def put_newest_back(self) -> None:
        """Restore the newest disk, as an operator would."""
        if self.newest is not None:
            self._become(self.newest)
            self.newest = None

    def _become(self, copy: DiskCopy) -> None:
        self.instances, self.reserved = dict(copy.instances), copy.reserved
        self.frontier, self.purged, self.files = copy.frontier, copy.purged, list(copy.snapshots)
        self.position, self._starts, self._met = copy.position, copy.starts, dict(copy.met)
        self.fetched = None

    def begin_start(self) -> Start:
        """See `storage.identity.StartStore`."""
        self._starts += 1
        return Start(self._starts, self._start_ids.getrandbits(64))

    def starts(self) -> dict[ReplicaId, SeenStart]:
        """See `storage.identity.StartStore`."""
        return dict(self._met)

    def save_starts(self, starts: Mapping[ReplicaId, SeenStart]) -> None:
        """See `storage.identity.StartStore`."""
        self._met.update(starts)

    def _keep(self, records: Sequence[Record]) -> None:
        self.position += 1
        for record in records:
            match record:
                case InstanceRecord():
                    self.instances[record.id] = record
                case ReservationRecord():
                    self.reserved = record.up_to
                case FrontierRecord():
                    self.frontier = record
                case PurgeRecord():
                    self._purge(record)
                case unreachable:
                    assert_never(unreachable)
        self._reported(records)

    def _purge(self, record: PurgeRecord) -> None:
        before = self.purged.up_to if self.purged is not None else (0,) * len(record.up_to)
        for leader, (first, last) in enumerate(zip(before, record.up_to, strict=True)):
            for index in range(first + 1, last + 1):
                self.instances.pop(InstanceId(ReplicaId(leader), index), None)
        for id in record.exceptions:
            self.instances.pop(id, None)
        self.purged = record

    def find_snapshot(self, number: int) -> SimulatedSnapshot | None:
        """The undamaged snapshot of this checkpoint, or None."""
        return next((one for one in self.snapshots if one.checkpoint.number == number), None)

    def begin_fetch(self, number: int) -> Fetched:
        """Continue the fetch of this snapshot, or begin it."""
        if self.fetched is None or self.fetched.number != number:
            self.fetched = Fetched(number)
        self.fetched.check_again()
        return self.fetched

    def adopt(self, watched: object) -> Checkpoint:
        """Replace all records up to the fetched snapshot by that snapshot, in one step."""
        fetched, self.fetched = self.fetched, None
        assert fetched is not None
        assert fetched.checker.head is not None
        checkpoint = fetched.checker.head.checkpoint
        self._put(SimulatedSnapshot(checkpoint, fetched.chunks(), watched, adopted=True))
        self._purge(PurgeRecord(checkpoint.position.up_to, checkpoint.position.exceptions))
        return checkpoint

    def write_snapshot(self, snapshot: SimulatedSnapshot, done: Callable[[], None]) -> None:
        """Make a snapshot durable as a whole, and call `done`; never, if a crash comes first."""
        self._snapshot = snapshot
        delay_us = 1 + int(2 * self.sync_us * (0.5 + _SYNC_SPREAD * self._random.random()))
        self._schedule.after(delay_us, self._snapshot_synced, self._ticket, done)

    def _snapshot_synced(self, ticket: int, done: Callable[[], None]) -> None:
        if ticket == self._ticket and self._snapshot is not None:
            self._keep_snapshot()
            done()

    def _keep_snapshot(self) -> None:
        assert self._snapshot is not None
        self._put(self._snapshot)
        self._snapshot = None
        self._context.counts.snapshots += 1

    def _put(self, snapshot: SimulatedSnapshot) -> None:
        """Store a snapshot, in place of one with the same number."""
        number = snapshot.checkpoint.number
        others = (one for one in self.files if one.checkpoint.number != number)
        self.files = last_two(sorted([*others, snapshot], key=lambda one: one.checkpoint.number))

    def load_snapshots(self) -> list[SimulatedSnapshot]:
        """The undamaged snapshots, the older one first. By chance, the newest of two becomes damaged now."""
        newest = self.files[-1] if len(self.files) > 1 else None
        if newest is not None and not (newest.adopted or newest.damaged) and self._random.random() < _DAMAGED_SHARE:
            self._context.counts.snapshots_damaged += 1
            self.files[-1] = replace(newest, damaged=True)
        return self.snapshots

    def crash(self) -> None:
        """The machine crashes: a group that is being written is kept or lost as a whole."""
        self._ticket += 1
        if self.fetched is not None:
            self.fetched.data = self.fetched.data[: self._random.randrange(1 + len(self.fetched.data))]
        if self._snapshot is not None:
            if self._random.random() < 0.5:
                self._keep_snapshot()
            self._snapshot = None
        records, self._writing = self._writing, None
        if records is None:
            return
        if self._random.random() < 0.5:
            self._context.counts.writes_kept_in_crash += 1
            self._keep(records)
        else:
            self._context.counts.writes_lost_in_crash += 1

    def load(self) -> list[Record]:
        """Everything durable: single records first, then instances in order, each encoded and decoded."""
        replicas = self._context.settings.replicas
        records: list[Record] = [ReservationRecord(self.reserved)] if self.reserved else []
        records += [note for note in (self.frontier, self.purged) if note is not None]
        records += [self.instances[id] for id in sorted(self.instances)]
        decoded = [decode_record(encode_record(record), replicas) for record in records]
        if decoded != records:
            raise Violation("codec", "encoding and decoding changed a record")
        return decoded
