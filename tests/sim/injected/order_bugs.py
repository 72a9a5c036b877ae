"""Bugs with which commands of one connection or session overtake each other. `finds` lists the run that finds each."""

import pytest

from pydsm.core.sessions import session_window, sessions
from pydsm.core.sessions.session_window import POSTPONED, StoredResult
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.effects import Execute
from pydsm.core.types.ids import SEQUENCES, InstanceId, sequence_of, session_of
from pydsm.core.types.messages import NOP, Batch, Run
from pydsm.runtime import batching, command_queue
from pydsm.runtime.command_queue import Submission
from pydsm.sim.cluster import clients, process
from tests.sim.injected.registry import bug


def _without_after(run: Run) -> Run:
    return Run(run.first, run.count, run.acknowledged)


@bug("7, program order: runs name what must be executed before them")
def no_order_in_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(command_queue.Sequencing, "resolved", lambda self, run, together: _without_after(run))


@bug("7, program order: commands of a connection wait while an instance with some of it is not executed")
def no_order_on_connections(patch: pytest.MonkeyPatch) -> None:
    original = command_queue.CommandQueue.add

    def add(self: command_queue.CommandQueue, part: Submission) -> None:
        original(self, part._replace(stream=None))

    patch.setattr(command_queue.CommandQueue, "add", add)


@bug("7, program order: what a connection sends while an instance with some of it is not executed keeps its order")
def later_commands_of_a_connection_wait_in_front(patch: pytest.MonkeyPatch) -> None:
    original = command_queue.CommandQueue.add

    def add(self: command_queue.CommandQueue, part: Submission) -> None:
        original(self, part)
        if part.stream is not None and part.stream.in_flight:
            part.stream.submissions.rotate(1)

    patch.setattr(command_queue.CommandQueue, "add", add)


@bug("7, program order: whether what comes before is executed is asked of the session, not of the leader's instances")
def flag_instead_of_after(patch: pytest.MonkeyPatch) -> None:
    """A run with the flag is executed unless the previous instance of its leader is a nop."""
    original, execute_batch = process.ReplicaProcess.execute, Sessions.execute
    void = False

    def execute(self: process.ReplicaProcess, execution: Execute) -> None:
        nonlocal void
        leader, index = execution.id
        before = self._invariants.decided.get(InstanceId(leader, index - 1))
        void = before is not None and before[0] == NOP
        original(self, execution)

    def flagged(self: Sessions, batch: Batch, apply: sessions.Apply) -> list[StoredResult]:
        after = SEQUENCES - 1 if void else 0
        runs = [Run(run.first, run.count, run.acknowledged, after if run.after else 0) for run in batch.runs]
        batch = Batch(tuple(runs), batch.commands, batch.footprint, batch.timestamp_ms, batch.retried)
        return execute_batch(self, batch, apply)

    patch.setattr(process.ReplicaProcess, "execute", execute)
    patch.setattr(Sessions, "execute", flagged)


@bug("7, program order: retries through any replica name the same")
def after_dropped_on_a_retry(patch: pytest.MonkeyPatch) -> None:
    original = clients.PendingRequest.send_to_next

    def send_to_next(self: clients.PendingRequest) -> None:
        self.after = 0
        original(self)

    patch.setattr(clients.PendingRequest, "send_to_next", send_to_next)


@bug("7, program order: a run that is skipped leaves no record")
def left_out_and_recorded(patch: pytest.MonkeyPatch) -> None:
    original = Sessions.execute

    def execute(self: Sessions, batch: Batch, apply: sessions.Apply) -> list[StoredResult]:
        results = original(self, batch, apply)
        place = 0
        for run in batch.runs:
            window = self._windows.get(session_of(run.first))
            if results[place] is POSTPONED and window is not None:
                first = sequence_of(run.first)
                window.claim(first, first + run.count)
            place += run.count
        return results

    patch.setattr(Sessions, "execute", execute)


@bug("7, program order: an instance with an ordered run is ordered against all others of the session")
def ordered_run_that_names_no_session(patch: pytest.MonkeyPatch) -> None:
    original = process.ReplicaProcess._propose

    def propose(self: process.ReplicaProcess, batch: Batch) -> InstanceId | None:
        return original(self, Batch(batch.runs, batch.commands, batch.footprint, batch.timestamp_ms))

    patch.setattr(process.ReplicaProcess, "_propose", propose)


@bug("7, program order: what was not executed is proposed again ahead of what its connection has sent since")
def proposed_again_behind_later_commands(patch: pytest.MonkeyPatch) -> None:
    original = batching.Batcher.aborted

    def aborted(self: batching.Batcher, id: InstanceId) -> None:
        proposal = self._in_flight.get(id)
        original(self, id)
        if proposal is not None and self._to_repropose and self._to_repropose[-1] is proposal:
            self._to_repropose.pop()
            self._queue.release(proposal.streams)
            for part in proposal.submissions:
                self._queue.add(part)

    patch.setattr(batching.Batcher, "aborted", aborted)


@bug("7, program order: a request that the client gave up is never executed after its later ones")
def given_up_request_executed_late(patch: pytest.MonkeyPatch) -> None:
    original = session_window.SessionWindow.claim

    def claim(self: session_window.SessionWindow, start: int, end: int) -> list[tuple[int, int]]:
        return original(self, start, end) if start else []

    patch.setattr(session_window.SessionWindow, "claim", claim)
