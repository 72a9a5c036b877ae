"""What the core wants done, as plain values in the one legal order (PROTOCOL 6).

Only `runtime/perform` performs them:

1. `early` messages may leave at once: they report nothing that a crash could take back;
2. `records` become durable, in one group commit, together with whatever `lazy_records` are at hand;
3. then, and only then: `sends` leave, `executions` reach the state machine, `aborts` reach the clients, and what is
   to be done about snapshots that travel (`transfers`) is begun.

The effects of one turn are finished before those of the next begin at step 3. A message in `sends` that names the
sender itself is given back to `Replica.receive` at step 3: that is how a replica's own vote counts only when durable.
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
    """Everything up to `executed` has a committed record on this disk; others were told so, and may forget it.

    What is up to `dropped` has left the memory of this replica. A later record replaces it.
    """

    executed: Deps
    dropped: Deps


class PurgeRecord(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Records of instances up to here, and those of `exceptions`, leave the disk: a durable snapshot has what they did.

    A later record replaces it.
    """

    up_to: Deps
    exceptions: tuple[InstanceId, ...] = ()
    """Executed instances above, of which this disk never had a decision: they came with the snapshot of a peer."""


Record = InstanceRecord | ReservationRecord | FrontierRecord | PurgeRecord


@dataclass(frozen=True, slots=True)
class Send:
    """One message for several replicas: encoded once."""

    to: tuple[ReplicaId, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Execute:
    """Apply this batch next. `id.leader` answers the clients of its requests with the results."""

    id: InstanceId
    batch: Batch


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """The state machine has executed exactly what is in this checkpoint: remember its state, if possible.

    Every instance in it has a committed record on the disk by now.
    """

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ServePiece:
    """A peer wants the next bytes of this checkpoint's snapshot; `Replica.cannot_serve` if it is not there any more."""

    to: ReplicaId
    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class BeginFetch:
    """This checkpoint's snapshot will be fetched: `Replica.fetched` tells how much of it is on the disk already."""

    number: int


@dataclass(frozen=True, slots=True)
class KeepPiece:
    """Some more of it has come: `Replica.fetched` tells when it is on the disk, and how much is good."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """All of it is on the disk: if it is whole, put it in the place of all records up to it, and begin again from it.

    This replica must not be used any more then. One that is not whole is told to `Replica.fetched`.
    """

    number: int


Transfer = ServePiece | BeginFetch | KeepPiece | InstallSnapshot


@dataclass(frozen=True, slots=True)
class Abort:
    """These requests, proposed here, were decided nop: definitely not executed by this instance."""

    id: InstanceId
    runs: tuple[Run, ...]


@dataclass(slots=True)
class Effects:
    """Everything that one turn asks for. Empty lists mean that there is nothing of the kind to do."""

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
