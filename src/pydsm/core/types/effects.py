"""The effects that the core requests, as plain values in the one legal order (docs/reference/protocol.md, section 6).

Only `runtime/perform` performs them:

1. `early` messages may be sent immediately: they report nothing that a crash could undo;
2. `records` become durable in one group commit, together with the `lazy_records` that are waiting;
3. only then `sends` are sent, `executions` reach the state machine, `aborts` reach the clients, and the steps of
   snapshot transfers (`transfers`) are started.

The effects of one turn are finished before those of the next begin at step 3. A message in `sends` that names the
sender itself is passed to `Replica.receive` at step 3, so a replica's own vote counts only when it is durable.
"""

from dataclasses import dataclass, field

import msgspec

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import Batch, Message, Run, Value
from pydsm.core.types.status import Status


class InstanceRecord(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The whole durable state of an instance; a later record of the same id replaces it."""

    id: InstanceId
    status: Status
    promised: Ballot
    voted: Ballot | None
    value: Value | None
    deps: Deps
    initial_batch: Batch | None
    initial_deps: Deps


class ReservationRecord(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """This replica may have used its own indexes up to and including `up_to`; a later record replaces it."""

    up_to: int


class FrontierRecord(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Everything up to `executed` has a committed record on this disk. Peers get this report, and may drop it.

    Instances up to `dropped` were removed from the memory of this replica. A later record replaces this one.
    """

    executed: Deps
    dropped: Deps


class PurgeRecord(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Records of instances up to `up_to`, and of `exceptions`, are removed from disk: a durable snapshot has them.

    A later record replaces this one. A restart needs this record to distinguish a purged instance from a lost record,
    so it is written in the same commit that removes the others. `up_to` must not be above the older of the two durable
    snapshots, or a restart from that one would lack decisions.
    """

    up_to: Deps
    exceptions: tuple[InstanceId, ...] = ()
    """Executed instances above `up_to` whose decisions this disk never had: they were part of a peer's snapshot."""


Record = InstanceRecord | ReservationRecord | FrontierRecord | PurgeRecord


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message to several replicas; it is encoded once."""

    to: tuple[ReplicaId, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Execute:
    """Apply this batch next. `id.leader` answers the clients of its requests with the results."""

    id: InstanceId
    batch: Batch


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """The state machine has executed exactly the instances in this checkpoint: take a snapshot, if possible.

    Every instance in it has a committed record on the disk by now.
    """

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ServePiece:
    """Send a peer the next bytes of this checkpoint's snapshot; call `Replica.cannot_serve` if it was removed."""

    to: ReplicaId
    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class BeginFetch:
    """Start to fetch this checkpoint's snapshot; call `Replica.fetched` with the bytes that the disk has already."""

    number: int


@dataclass(frozen=True, slots=True)
class KeepPiece:
    """Write a piece of the fetched snapshot; call `Replica.fetched` when it is on disk, with the valid bytes."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """All bytes of the snapshot are on disk: if it is valid, replace all records up to it by it, and restart from it.

    This `Replica` must not be used after that. If the snapshot is damaged, call `Replica.fetched`.
    """

    number: int


Transfer = ServePiece | BeginFetch | KeepPiece | InstallSnapshot


@dataclass(frozen=True, slots=True)
class Abort:
    """These requests, proposed here, were decided nop: this instance never executes them."""

    id: InstanceId
    runs: tuple[Run, ...]


@dataclass(slots=True)
class Effects:
    """All effects of one turn. An empty list means that there is nothing of its kind to do."""

    early: list[Send] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    lazy_records: list[Record] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    executions: list[Execute | TakeCheckpoint] = field(default_factory=list)
    aborts: list[Abort] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.early
            or self.records
            or self.lazy_records
            or self.sends
            or self.executions
            or self.aborts
            or self.transfers
        )
