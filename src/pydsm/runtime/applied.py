"""Tracks which batches a durable machine has executed, so that a restart does not execute them again.

Decides which batches are executed, and for which only the stored results are passed to the sessions. Guarantees that
the machine's state, after everything that is executed again, is the agreed one: nothing is executed twice or left out.
This relies on the machine to commit in one transaction the effects of a batch and its applied marker, which has the
instance and the results (`machines.base.DurableStateMachine`). The proof is in
docs/decisions/durable-machines-keep-applied-markers.md.

The markers form a set of instances, not a position in a sequence: batches that commute may be executed in another order
after a restart.
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
"""The marker that identifies the replica of the state: the fingerprint of the replica's incarnation."""

_DELETED_PER_COMMIT = 8
"""Obsolete markers deleted with one commit: more than one, so that they never accumulate, and few, so that every commit
is fast."""


class AppliedTracker:
    """The applied markers of one machine. `incarnation` is its replica's. Call `begin` after the machine starts."""

    def __init__(self, apply: Apply, own: DurableStateMachine, incarnation: int) -> None:
        self._apply = apply
        self._own = own
        self._owner = f"{fingerprint(incarnation):016x}".encode()
        self._kept: dict[InstanceId, None] = {}
        """Instances with a marker that is still needed."""
        self._ahead: set[InstanceId] = set()
        """Those of them that are not executed again in this process yet: the machine has them, the sessions do not."""
        self._obsolete: list[str] = []
        self._newest: Checkpoint | None = None
        """The newest checkpoint with a durable snapshot."""

    def begin(self) -> None:
        """Read the machine's markers. Raises OperationalError if its state belongs to another replica."""
        owner = self._own.marker(_OWNER)
        if owner is None:
            self._own.commit(_OWNER, self._owner, ())
        elif owner != self._owner:
            theirs = printable(owner.decode(errors="replace"))
            raise OperationalError(
                f"the machine's stored state belongs to a replica whose data have the fingerprint {theirs}, and the "
                f"data here have {self._owner.decode()}: use the data directory of that replica, or remove the "
                "machine's state, which is then rebuilt"
            )
        self._kept = dict.fromkeys(_instance(name) for name in self._own.markers() if name != _OWNER)
        self._ahead = set(self._kept)

    def has(self, checkpoint: Checkpoint) -> bool:
        """Whether the machine has executed everything in this checkpoint, so that its snapshot is not needed."""
        return checkpoint.barrier in self._kept

    def restored(self, checkpoint: Checkpoint) -> None:
        """The machine's state was replaced by that of this checkpoint: keep the marker of its barrier only."""
        self._own.commit(str(checkpoint.barrier), b"", [str(id) for id in self._kept if id != checkpoint.barrier])
        self._kept = {checkpoint.barrier: None}
        self._ahead.clear()
        self._obsolete.clear()

    def begin_at(self, snapshots: Sequence[Checkpoint]) -> None:
        """Execution begins after the last of these checkpoints. All have valid snapshots; the oldest is first."""
        if snapshots:
            self._ahead = {id for id in self._ahead if not snapshots[-1].position.has(id)}
        for checkpoint in snapshots:
            self.snapshot_durable(checkpoint)

    def apply(self, id: InstanceId) -> Apply:
        """The function that executes this instance: the machine's, or one that returns the results in its marker."""
        if id in self._ahead:
            self._ahead.discard(id)
            return partial(self._stored_results, id)
        return partial(self._execute, id)

    def checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Execution has reached this checkpoint. False if the machine is ahead of it: its state is a later one."""
        self._ahead.discard(checkpoint.barrier)
        if self._ahead:
            return False
        if checkpoint.barrier not in self._kept:
            self._commit(checkpoint.barrier, b"")
        return True

    def snapshot_durable(self, checkpoint: Checkpoint) -> None:
        """Mark markers of the checkpoint before this one as obsolete: a restart begins after that one, or later."""
        before, self._newest = self._newest, checkpoint
        if before is None:
            return
        obsolete = [
            id for id in self._kept if before.position.has(id) and id != before.barrier and id not in self._ahead
        ]
        for id in obsolete:
            del self._kept[id]
        self._obsolete += map(str, obsolete)

    def _execute(self, id: InstanceId, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        results = self._apply(commands, timestamp_ms)
        self._commit(id, encode_results(results))
        return results

    def _stored_results(self, id: InstanceId, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        content = self._own.marker(str(id))
        results = [] if content is None else decode_results(content)
        if len(results) != len(commands):
            raise InvariantViolation(
                f"the machine's marker of instance {id} has {len(results)} results for {len(commands)} commands: "
                "remove the machine's state, which is then rebuilt, and find the cause of the change"
            )
        return results

    def _commit(self, id: InstanceId, content: bytes) -> None:
        obsolete = self._obsolete[-_DELETED_PER_COMMIT:]
        del self._obsolete[-_DELETED_PER_COMMIT:]
        self._own.commit(str(id), content, obsolete)
        self._kept[id] = None


def tracker_of(machine: StateMachine, apply: Apply, incarnation: int) -> AppliedTracker | None:
    """The tracker of a durable machine; None for one that each start rebuilds from snapshot and records.

    `apply` executes a batch.
    """
    return AppliedTracker(apply, machine, incarnation) if isinstance(machine, DurableStateMachine) else None


async def restore_newest(
    state: ReplicatedState, snapshots: Sequence[SnapshotFile], progress: AppliedTracker | None
) -> None:
    """Restore the last of these snapshots; a durable machine that has executed it keeps its own state."""
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
            f"the machine has a marker {name!r} that PyDSM did not create: remove the machine's state, which is then "
            "rebuilt"
        ) from None
