"""Records the executions of one process of a replica, and the requests that it has received, for `invariants`.

A checkpoint is compared with all decisions. Instances that were compared once are skipped later: an instance that is in
one checkpoint is in all later ones (positions only grow, which is checked too).
"""

from collections.abc import Collection, Container, Sequence
from weakref import WeakSet

from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.types.checkpoint import Position
from pydsm.core.types.ids import InstanceId, RequestId, SessionId, sequence_of, session_of
from pydsm.core.types.messages import Batch, Run
from pydsm.machines.base import Result
from pydsm.sim.checkers import ordering


class RestartRecord:
    """The executions of one process, in their order. `processes` contains all records that are still in use."""

    def __init__(self, name: str, order: ordering.ExecutionOrder, processes: "WeakSet[RestartRecord]") -> None:
        processes.add(self)
        self._processes = processes
        self.name = name
        self.order = order
        self.executed: set[InstanceId] = set()
        self.requests: set[RequestId] = set()
        self.position: Position | None = None
        """The position of the last checkpoint."""
        self.compared = 0
        """How many decided instances, in the order of their decisions, were compared with a checkpoint."""
        self.not_in_it: list[InstanceId] = []
        """The compared instances that were in no checkpoint yet."""
        self._acknowledged: dict[SessionId, int] = {}
        self._given_up: dict[SessionId, int] = {}

    def acknowledge(self, batch: Batch, results: Sequence[Result]) -> None:
        """Record an executed batch: its clients acknowledge the earlier requests of their sessions.

        Requests that were postponed are not recorded.
        """
        place = 0
        for run in batch.runs:
            first, place = results[place], place + run.count
            if first == POSTPONED:
                continue
            session = session_of(run.first)
            self._acknowledged[session] = max(run.acknowledged, self._acknowledged.get(session, 0))
        if batch.footprint.barrier:
            self.pass_barrier()

    def pass_barrier(self) -> None:
        """Record a barrier: requests that are acknowledged but not executed never will be."""
        for session, sequence in self._acknowledged.items():
            self._given_up[session] = max(sequence, self._given_up.get(session, 0))

    def pass_ordered(self, run: Run) -> None:
        """Record a run that was executed in order: earlier requests of its session are never executed afterwards."""
        session = session_of(run.first)
        self._given_up[session] = max(sequence_of(run.first), self._given_up.get(session, 0))

    def has_given_up(self, request: RequestId) -> bool:
        """Whether the request was acknowledged before the last barrier, or a later one was executed in order."""
        return sequence_of(request) < self._given_up.get(session_of(request), 0)

    @property
    def sessions(self) -> Collection[SessionId]:
        """The sessions of which a request was acknowledged or executed."""
        return self._acknowledged.keys()

    def forget(self, over: Collection[SessionId], requests: Container[RequestId]) -> None:
        """Remove these sessions, and keep only these requests."""
        for session in over:
            self._acknowledged.pop(session, None)
            self._given_up.pop(session, None)
        self.requests = {request for request in self.requests if request in requests}

    def grows(self, position: Position) -> bool:
        """Whether this position of a checkpoint contains the position of the last one."""
        before = self.position
        if before is None:
            return True
        return all(map(int.__le__, before.up_to, position.up_to)) and all(map(position.has, before.exceptions))

    def pass_checkpoint(self, position: Position, compared: int, not_in_it: list[InstanceId]) -> None:
        """Record a checkpoint that was compared with this number of decisions; those not in it are compared again."""
        self.position = position
        self.compared = compared
        self.not_in_it = not_in_it

    def fork(self, name: str) -> "RestartRecord":
        """The record of a process that starts from a snapshot of this one."""
        process = RestartRecord(name, self.order.fork(name), self._processes)
        process.executed = set(self.executed)
        process.requests = set(self.requests)
        process.position = self.position
        process.compared = self.compared
        process.not_in_it = list(self.not_in_it)
        process._acknowledged = dict(self._acknowledged)
        process._given_up = dict(self._given_up)
        return process
