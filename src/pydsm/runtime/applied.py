"""How far a machine is that keeps its own state: after a restart, what it has already is not executed again.

Decides which batches are executed and which are only told to the sessions, with the results of before. Guards that the
machine's state, with everything that is executed again, is the agreed one: nothing twice, nothing left out. It rests on
what the machine does in one transaction: a batch's effects, and a note with its instance and its results
(`machines.base.DurableStateMachine`). See docs/decisions/durable-machines-keep-applied-markers.md for why that is
sound, and no less would be.

What the machine has is a set of instances, not a place in a sequence: batches that commute are executed again in
another order than before.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from pydsm.core.sessions.sessions import Apply
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import InvariantViolation, OperationalError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.logs import printable
from pydsm.machines.base import DurableStateMachine, Result, StateMachine
from pydsm.runtime.replicated import ReplicatedState
from pydsm.runtime.results import decode_results, encode_results
from pydsm.storage.snapshots import SnapshotFile

_OWNER = "replica"
"""The note that says whose state it is: the fingerprint of the replica's incarnation."""

_FORGOTTEN_PER_COMMIT = 8
"""Old notes that go with one new one: more than one, so that they never pile up, and few, so that none takes long."""


class AppliedTracker:
    """Of one machine, at one replica with this incarnation. Call `begin` when the machine is started."""

    def __init__(self, apply: Apply, own: DurableStateMachine, incarnation: int) -> None:
        self._apply = apply
        self._own = own
        self._owner = f"{fingerprint(incarnation):016x}".encode()
        self._kept: dict[InstanceId, None] = {}
        """Instances with a note that is still needed."""
        self._ahead: set[InstanceId] = set()
        """Those among them that this life has not come to yet: the machine has them, the agreed state here has not."""
        self._obsolete: list[str] = []
        self._newest: Checkpoint | None = None
        """The newest one with a durable snapshot."""

    def begin(self) -> None:
        """See what the machine has. Raises OperationalError when its state is that of another replica."""
        owner = self._own.note(_OWNER)
        if owner is None:
            self._own.commit(_OWNER, self._owner, ())
        elif owner != self._owner:
            theirs = printable(owner.decode(errors="replace"))
            raise OperationalError(
                f"the machine's own state belongs to a replica whose data have the fingerprint {theirs}, and those "
                f"here have {self._owner.decode()}: give the replica its data directory back, or remove the machine's "
                "state, which is then made again"
            )
        self._kept = dict.fromkeys(_instance(name) for name in self._own.notes() if name != _OWNER)
        self._ahead = set(self._kept)

    def has(self, checkpoint: Checkpoint) -> bool:
        """Whether the machine has everything that is in this checkpoint, so that its snapshot is not needed."""
        return checkpoint.barrier in self._kept

    def restored(self, checkpoint: Checkpoint) -> None:
        """The machine has been given the state of this checkpoint instead of its own: note that, and only that."""
        self._own.commit(str(checkpoint.barrier), b"", [str(id) for id in self._kept if id != checkpoint.barrier])
        self._kept = {checkpoint.barrier: None}
        self._ahead.clear()
        self._obsolete.clear()

    def begin_at(self, snapshots: Sequence[Checkpoint]) -> None:
        """Execution begins behind the last of these checkpoints; all have good snapshots, the older one first."""
        if snapshots:
            self._ahead = {id for id in self._ahead if not snapshots[-1].position.has(id)}
        for checkpoint in snapshots:
            self.snapshot_durable(checkpoint)

    def apply(self, id: InstanceId) -> Apply:
        """How to execute the commands of this instance: by the machine, or from the note of an earlier life."""
        if id in self._ahead:
            self._ahead.discard(id)
            return partial(self._recall, id)
        return partial(self._execute, id)

    def checkpoint(self, checkpoint: Checkpoint) -> bool:
        """The agreed state is that of this checkpoint. False when the machine is ahead of it, so has another state."""
        self._ahead.discard(checkpoint.barrier)
        if self._ahead:
            return False
        if checkpoint.barrier not in self._kept:
            self._commit(checkpoint.barrier, b"")
        return True

    def snapshot_durable(self, checkpoint: Checkpoint) -> None:
        """Notes of what is in the one before are not needed any more: a restart begins behind it at the earliest."""
        before, self._newest = self._newest, checkpoint
        if before is None:
            return
        gone = [id for id in self._kept if before.position.has(id) and id != before.barrier and id not in self._ahead]
        for id in gone:
            del self._kept[id]
        self._obsolete += map(str, gone)

    def _execute(self, id: InstanceId, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        results = self._apply(commands, timestamp_ms)
        self._commit(id, encode_results(results))
        return results

    def _recall(self, id: InstanceId, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        note = self._own.note(str(id))
        results = [] if note is None else decode_results(note)
        if len(results) != len(commands):
            raise InvariantViolation(
                f"the machine's note of instance {id} has {len(results)} results for {len(commands)} commands: remove "
                "the machine's state, which is then made again, and find out what changed it"
            )
        return results

    def _commit(self, id: InstanceId, content: bytes) -> None:
        obsolete = self._obsolete
        forgotten = obsolete[-_FORGOTTEN_PER_COMMIT:]
        del obsolete[-_FORGOTTEN_PER_COMMIT:]
        self._own.commit(str(id), content, forgotten)
        self._kept[id] = None


def tracker_of(machine: StateMachine, apply: Apply, incarnation: int) -> AppliedTracker | None:
    """None for a machine that is made again from snapshot and records with each start. `apply` executes a batch."""
    return AppliedTracker(apply, machine, incarnation) if isinstance(machine, DurableStateMachine) else None


async def restore_newest(
    state: ReplicatedState, snapshots: Sequence[SnapshotFile], progress: AppliedTracker | None
) -> None:
    """Have the state of the last of these snapshots; a machine that has it by itself keeps what it has."""
    newest = snapshots[-1]
    kept = progress is not None and progress.has(newest.checkpoint)
    await asyncio.to_thread(state.restore, newest.chunks(), machine_too=not kept)
    if progress is not None:
        if not kept:
            progress.restored(newest.checkpoint)
        progress.begin_at([one.checkpoint for one in snapshots])


def _instance(name: str) -> InstanceId:
    try:
        leader, index = name.split(".")
        return InstanceId(ReplicaId(int(leader)), int(index))
    except ValueError:
        raise OperationalError(
            f"the machine has a note {name!r} that PyDSM never gave it: remove the machine's state, which is then made "
            "again"
        ) from None
