"""The application side of one replica: agreed batches reach the machine, and their results the clients that wait.

Performs the core's effects on the replicated state (`perform.Application`). Guarantees that nothing is executed after
`shut`, and that batches which are agreed on while the machine is paused are executed later, in order (`apply_gate`).
When effects are performed is decided by `perform`; snapshots are sent and fetched by `snapshot_transfer`.
"""

import logging

from pydsm.core.sessions.sessions import Apply, Sessions
from pydsm.core.types.effects import Abort, Execute, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId, is_tracked
from pydsm.machines.base import StateMachine
from pydsm.machines.failures import GuardedApply
from pydsm.runtime.applied import AppliedTracker
from pydsm.runtime.apply_gate import Agreed, ApplyGate, ApplyQueueLimits
from pydsm.runtime.batching import Batcher
from pydsm.runtime.maintenance import Maintenance, NodeControls
from pydsm.runtime.snapshot_transfer import SnapshotTransfers
from pydsm.runtime.snapshots import SnapshotTaker

log = logging.getLogger("pydsm.node")


class ReplicatedApplication:
    """Of one replica. `tracker`, `taker` and `transfers` are set while the replica starts."""

    def __init__(
        self,
        replica: ReplicaId,
        machine: StateMachine,
        sessions: Sessions,
        batcher: Batcher,
        controls: NodeControls,
        limits: ApplyQueueLimits | None,
    ) -> None:
        self._replica = replica
        self._sessions = sessions
        self._batcher = batcher
        self._logged_types: set[type[BaseException]] = set()
        self.apply = GuardedApply(machine, self._log_raised)
        self.gate = ApplyGate(machine, self._perform, limits)
        self.maintenance = Maintenance(self.gate, controls)
        self.tracker: AppliedTracker | None = None
        """None for a machine that does not keep its state itself."""
        self.taker: SnapshotTaker | None = None
        """None where no snapshots are taken."""
        self.transfers: SnapshotTransfers

    def execute(self, execution: Execute) -> None:
        """See `perform.Application`."""
        self.gate.take(execution)

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        """See `perform.Application`."""
        self.gate.take(taken)

    def abort(self, abort: Abort) -> None:
        """See `perform.Application`."""
        self._batcher.aborted(abort.id)
        self.maintenance.aborted(abort.id)

    def transfer(self, transfer: Transfer) -> None:
        """See `perform.Application`."""
        self.transfers.begin(transfer)

    def shut(self, reason: str | None = None) -> None:
        """Execute nothing more. With a reason, maintenance operations under way fail with it."""
        self.gate.shut()
        if reason is not None:
            self.maintenance.failed(reason)

    def _perform(self, agreed: Agreed) -> None:
        """Execute a batch or take a checkpoint, when the gate passes it on."""
        if isinstance(agreed, Execute):
            self._execute(agreed)
            return
        self._sessions.expire(agreed.checkpoint.clocks)
        has_state = self.tracker is None or self.tracker.checkpoint(agreed.checkpoint)
        if self.taker is not None and has_state:
            self.taker.take(agreed.checkpoint, wanted=self.maintenance.snapshot_requested)
        self.maintenance.checkpoint_reached(agreed.checkpoint)

    def _execute(self, agreed: Execute) -> None:
        apply = self._apply_for(agreed) if self.tracker is None else self.tracker.apply(agreed.id)
        if self.taker is not None:
            self.taker.note_change()
        results = self._sessions.execute(agreed.batch, apply)
        if agreed.id.leader == self._replica:
            self._batcher.executed(agreed.id, results)

    def _apply_for(self, agreed: Execute) -> Apply:
        """Skip commands that only read where no client waits for the results and no session keeps them."""
        if self._batcher.awaits(agreed.id) or any(is_tracked(run.first) for run in agreed.batch.runs):
            return self.apply
        return self.apply.unread

    def _log_raised(self, error: BaseException) -> None:
        """Log the first exception of each class with its traceback; the metrics count all of them."""
        if type(error) not in self._logged_types:
            self._logged_types.add(type(error))
            log.error(
                "a command raised %s, at every replica alike; its client gets this error (logged once for each class)",
                type(error).__name__,
                exc_info=error,
            )
