"""Simulates clients that send requests before the earlier ones are answered, and rely on their order.

In a session, a request may go through another replica than the one that granted the session, while earlier requests are
still in flight at the first; and each request is sent again separately. Connections have no ids for retries: any
failure ends the connection, and the client opens another one. A client begins a new session or connection only when no
request is open in the present one, or when the present one has ended.
"""

from collections import deque
from typing import TYPE_CHECKING

from pydsm.core.types.ids import (
    UNTRACKED_SESSIONS_START,
    ReplicaId,
    RequestId,
    request_at,
    request_id,
    sequence_of,
    session_of,
)
from pydsm.machines.base import Result
from pydsm.sim.base.history import Outcome
from pydsm.sim.base.plan import Operation

if TYPE_CHECKING:
    from pydsm.sim.cluster.clients import PendingRequest, SimulatedClients


class PipeliningClient:
    """Has up to `Settings.pipelined` operations in flight."""

    def __init__(self, number: int, clients: "SimulatedClients") -> None:
        self.number = number
        self.clients = clients
        self.open: dict[PendingRequest, None] = {}
        self._later: deque[Operation] = deque()
        self._last: RequestId | None = None
        """The id of the last request."""
        self._granted_by = ""
        """The process that granted the session, or to which the connection leads."""
        self._home = 0

    @property
    def name(self) -> str:
        """The name in the trace."""
        return f"client {self.number}"

    @property
    def busy(self) -> bool:
        """Whether the client waits for an answer."""
        return bool(self.open)

    def waits_for(self, request: "PendingRequest") -> bool:
        """Whether this request has not ended for the client."""
        return request in self.open

    def acknowledged(self, request: "PendingRequest") -> int:
        """The sequence below which the client wants no more answers of the request's session."""
        session = session_of(request.request_id)
        left = [sequence_of(one.request_id) for one in self.open if session_of(one.request_id) == session]
        return min(left, default=sequence_of(request.request_id))

    def operate(self, operation: Operation) -> None:
        """Begin this operation, now or when fewer operations are in flight."""
        self._later.append(operation)
        self._next()

    def retire(self) -> None:
        """Drop the planned operations that have not begun."""
        self._later.clear()

    def _next(self) -> None:
        settings = self.clients.context.settings
        while self._later and len(self.open) < settings.pipelined:
            operation = self._later.popleft()
            if settings.connections and self.open:
                operation = Operation(operation.at_us, operation.client, self._home, operation.command)
            self._begin(operation, self._next_id(operation.replica))

    def _begin(self, operation: Operation, id: RequestId) -> None:
        clients, settings = self.clients, self.clients.context.settings
        request = clients.request(self, operation, id)
        if settings.connections:
            request.in_row = True
        else:
            request.after = sequence_of(id) - 1
        if request.call is not None:
            request.call.program = session_of(id)
        self.open[request] = None
        request.send()
        if settings.retrying and settings.doubling and not settings.connections:
            request.send_to_next()
        clients.context.schedule.after(settings.patience_us, self._give_up, request)

    def _next_id(self, replica: int) -> RequestId:
        """The next id of the session or connection; of a new one if no request is open and the process has changed."""
        clients, last = self.clients, self._last
        process = clients.hosts[replica].process
        if last is None or (not self.open and (process is None or process.name != self._granted_by)):
            self._home, self._granted_by = replica, "" if process is None else process.name
            walls = clients.context.walls
            last = clients.new_session(
                ReplicaId(replica), walls.now_ms if process is None else process.clock.session_ms()
            )
            if clients.context.settings.connections:
                number = int.from_bytes(last[8:12], "big") % UNTRACKED_SESSIONS_START
                last = request_id(walls.now_ms, ReplicaId(replica), UNTRACKED_SESSIONS_START + number, 0)
            elif process is not None:
                process.begin_session(last)
        self._last = request_at(last, 1)
        return self._last

    def session_expired(self, request: "PendingRequest") -> None:
        """End a request whose session has expired: it may have been executed. Later requests use a new session."""
        if request in self.open:
            self.ended(request, Outcome.UNKNOWN)

    def _give_up(self, request: "PendingRequest") -> None:
        """The client has waited for `patience_us`."""
        settings = self.clients.context.settings
        if request not in self.open:
            return
        if settings.retrying and not settings.connections:
            request.send_to_next()
            self.clients.context.schedule.after(settings.patience_us, self._give_up, request)
        elif not self.clients.patient:
            self.ended(request, Outcome.UNKNOWN)
            if settings.connections:
                self._disconnect()

    def _disconnect(self) -> None:
        """End the connection: open requests may still be executed; later ones use another connection."""
        self._last = None
        for request in list(self.open):
            self.ended(request, Outcome.UNKNOWN)

    def ended(self, request: "PendingRequest", outcome: Outcome, result: Result = None) -> None:
        """Record the first outcome of a request; later ones are ignored."""
        if request not in self.open:
            return
        del self.open[request]
        self.clients.note(self.name, request, outcome, result)
        if outcome is Outcome.UNKNOWN and self.clients.context.settings.connections and self._last is not None:
            self._disconnect()
        self._next()
