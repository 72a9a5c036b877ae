"""Clients that send requests without waiting for the answers to those before, and rely on their order.

In sessions, a request may be sent through another replica than the one that granted the session, while earlier ones
are still under way at the first; and each is sent again by itself. Connections have no ids that count: whatever fails
ends them, and a client goes on over another one. Either begins a new session or connection only when nothing is open in
the present one, or when that has ended.
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
    """Has up to `Settings.pipelined` operations under way."""

    def __init__(self, number: int, clients: "SimulatedClients") -> None:
        self.number = number
        self.clients = clients
        self.open: dict[PendingRequest, None] = {}
        self._later: deque[Operation] = deque()
        self._last: RequestId | None = None
        """The id of the last request."""
        self._granted_by = ""
        """The process that has granted the session, or that the connection leads to."""
        self._home = 0

    @property
    def name(self) -> str:
        """For lines."""
        return f"client {self.number}"

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer."""
        return bool(self.open)

    def waits_for(self, request: "PendingRequest") -> bool:
        """Whether this one has not ended for it."""
        return request in self.open

    def acknowledged(self, request: "PendingRequest") -> int:
        """Below which sequence it wants no answers of the request's session any more."""
        session = session_of(request.request_id)
        left = [sequence_of(one.request_id) for one in self.open if session_of(one.request_id) == session]
        return min(left, default=sequence_of(request.request_id))

    def operate(self, operation: Operation) -> None:
        """Begin this operation, now or when there is room."""
        self._later.append(operation)
        self._next()

    def retire(self) -> None:
        """Begin nothing more of what was planned."""
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
            request.try_elsewhere()
        clients.context.schedule.after(settings.patience_us, self._give_up, request)

    def _next_id(self, replica: int) -> RequestId:
        """In the present session or connection, unless nothing is open and the replica's process is another one."""
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
        """Whether it was executed cannot be told in general; what follows goes on in a new session."""
        if request in self.open:
            self.ended(request, Outcome.UNKNOWN)

    def _give_up(self, request: "PendingRequest") -> None:
        """Patience is at its end."""
        settings = self.clients.context.settings
        if request not in self.open:
            return
        if settings.retrying and not settings.connections:
            request.try_elsewhere()
            self.clients.context.schedule.after(settings.patience_us, self._give_up, request)
        elif not self.clients.patient:
            self.ended(request, Outcome.UNKNOWN)
            if settings.connections:
                self._disconnect()

    def _disconnect(self) -> None:
        """What is under way may still be executed; what follows goes over another connection."""
        self._last = None
        for request in list(self.open):
            self.ended(request, Outcome.UNKNOWN)

    def ended(self, request: "PendingRequest", outcome: Outcome, result: Result = None) -> None:
        """The first word about a request is the last."""
        if request not in self.open:
            return
        del self.open[request]
        self.clients.note(self.name, request, outcome, result)
        if outcome is Outcome.UNKNOWN and self.clients.context.settings.connections and self._last is not None:
            self._disconnect()
        self._next()
