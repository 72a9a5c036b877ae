"""Checks the results of requests: each request is executed once in a process, and a repeated one gets the first result.

Also checks program order: if clients send several requests in a row, their first executions have the same order.
"""

from collections.abc import Callable, Collection, Sequence

from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import Postponed, RequestExpired
from pydsm.core.types.effects import Execute
from pydsm.core.types.ids import InstanceId, RequestId, SessionId, request_at, sequence_of, session_of
from pydsm.machines.base import Result
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers.restarts import RestartRecord


class ReplyChecker:
    """The first result of each request, in the order of first executions on any replica."""

    def __init__(self, *, in_order: bool = False) -> None:
        """`in_order`: requests of one session or connection must take effect in the order of their sequences."""
        self._in_order = in_order
        self._last: dict[SessionId, int] = {}
        """Per session, the highest sequence that was executed by any process."""
        self.first: dict[RequestId, Result] = {}
        self._executed_by: dict[RequestId, InstanceId] = {}

    def check(
        self, process: RestartRecord, execution: Execute, results: list[Result], applied: Sequence[bytes]
    ) -> None:
        """Check the execution of a batch by a process; `applied` are the commands that its machine received."""
        id, batch = execution.id, execution.batch
        new: list[bytes] = []
        runs = {run.first: run for run in batch.runs if run.after}
        for request, command, result in zip(batch.request_ids, batch.commands, results, strict=True):
            if isinstance(result, SessionExpired | Postponed):
                continue
            if request in runs:
                process.pass_ordered(runs[request])
            expired = isinstance(result, RequestExpired)
            if request not in process.requests and process.has_given_up(request):
                if expired:
                    continue
                raise Violation("executed twice", f"{process.name} executes a request of {id} that was given up", (id,))
            if request not in process.requests:
                process.requests.add(request)
                new.append(command)
            elif not expired and result != self.first[request]:
                what = f"a request of {id} gets {result} at {process.name}, and first got {self.first[request]}"
                raise Violation("first result", what, (id, self._executed_by[request]))
            if not expired:
                self._executed_by.setdefault(request, id)
                if self._in_order and request not in self.first:
                    self._check_order(process, id, request)
                self.first.setdefault(request, result)
        if new != list(applied):
            what = f"{process.name} applies {list(applied)} of {id}, but only {new} was not executed before"
            raise Violation("executed twice", what, (id,))

    def _check_order(self, process: RestartRecord, id: InstanceId, request: RequestId) -> None:
        """Check the first execution of a request anywhere: no later request of its session was executed before."""
        session, sequence = session_of(request), sequence_of(request)
        last = self._last.get(session, 0)
        if sequence < last:
            what = f"{process.name} executes request {sequence} of a session in {id}, and {last} was executed before"
            raise Violation("program order", what, (id, self._executed_by[request_at(request, last - sequence)]))
        self._last[session] = sequence

    def forget(
        self, processes: Collection[RestartRecord], wanted: Collection[RequestId], is_over: Callable[[SessionId], bool]
    ) -> None:
        """Remove requests for which no client waits, and which are refused if they are repeated.

        This holds if every process has given them up, or their session has expired.
        """
        sessions = {session_of(request) for request in self.first}
        over = {session for session in sessions.union(*(process.sessions for process in processes)) if is_over(session)}
        for request in [one for one in self.first if one not in wanted]:
            if session_of(request) in over or all(process.has_given_up(request) for process in processes):
                del self.first[request]
                self._executed_by.pop(request, None)
        for process in processes:
            process.forget(over, self.first)
