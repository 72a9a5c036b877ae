"""Simulated clients: each executes one operation after another, and records the answers in a history.

A client whose replica is down sends its request to the next one. Some clients give up after `Settings.patience_us`:
they cannot know whether the command was or will be executed, and go on with their next operation, perhaps at another
replica. After an abort they send the same request again a few times, and then count it as failed. Other clients never
give up (`Settings.retrying`): after every failure they send the same request through the next replica. Clients that
have several operations in flight are in `pipelines`.
"""

from collections import deque
from collections.abc import Sequence

from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.ids import ReplicaId, RequestId, request_at, request_id, sequence_of
from pydsm.machines.base import Result
from pydsm.sim.base.context import Context
from pydsm.sim.base.history import Call, History, Outcome, begin_time, end_time
from pydsm.sim.base.plan import Operation
from pydsm.sim.base.violation import Violation
from pydsm.sim.cluster.host import Host
from pydsm.sim.cluster.pipelines import PipeliningClient
from pydsm.sim.cluster.process import ClientSubmission
from pydsm.sim.workload.workload import Workload

_TRIES_PER_PATIENCE = 20
_ROUNDS_MAX = 3
"""How often a client tries all replicas in turn before it gives up finding one that accepts its request."""


class PendingRequest(ClientSubmission):
    """One operation of one client that is in progress."""

    __slots__ = (
        "_client",
        "_hosts_left",
        "_replica",
        "_sent",
        "acknowledged",
        "after",
        "attempts_left",
        "call",
        "command",
        "in_row",
        "request_id",
    )

    def __init__(self, client: "AnyClient", operation: Operation, id: RequestId, call: Call | None, hosts: int) -> None:
        self.request_id = id
        self.acknowledged = sequence_of(id)
        self.after = 0
        self.in_row = False
        self.command = operation.command
        self.call = call
        self._client = client
        self._replica = operation.replica
        self._hosts_left = hosts
        self._sent = 0
        self.attempts_left = 0

    def send(self) -> None:
        """Send the request to the present replica of this request."""
        self._sent += 1
        self.acknowledged = self._client.acknowledged(self)
        self._client.clients.carry(self, self._replica)

    @property
    def is_open(self) -> bool:
        """Whether the client waits for this request."""
        return self._client.waits_for(self)

    @property
    def _retries_for_ever(self) -> bool:
        return self._client.clients.context.settings.retrying and not self.in_row

    def send_to_next(self) -> None:
        """Send the request again, through the next replica, unless it has ended."""
        if self._client.waits_for(self):
            self._replica = (self._replica + 1) % len(self._client.clients.hosts)
            self._client.clients.context.counts.sent_again += 1
            self.send()

    def _send_to_next_later(self) -> None:
        context = self._client.clients.context
        context.schedule.after(context.settings.patience_us // _TRIES_PER_PATIENCE, self.send_to_next)

    def answered(self, result: Result) -> None:
        """Handle an answer: a result, or the error that the result or the session has expired."""
        if isinstance(result, SessionExpired):
            self._session_expired()
        elif isinstance(result, RequestExpired) and self._client.waits_for(self):
            what = f"{self._client.name} waits for a result that was dropped before the client acknowledged it"
            raise Violation("first result", what)
        else:
            self._client.ended(self, Outcome.DONE, result)

    def _session_expired(self) -> None:
        """If the request was sent only once, it was not executed, so it is sent again in a new session."""
        client = self._client
        if not client.waits_for(self):
            return
        if isinstance(client, PipeliningClient):
            client.session_expired(self)
        elif self._sent > 1:
            client.ended(self, Outcome.UNKNOWN)
        else:
            self.request_id = client.new_session_id(ReplicaId(self._replica))
            self._sent = 0
            self.send()

    def aborted(self) -> None:
        """Handle an abort, which means not executed: send the request again, or count it as failed."""
        if self._retries_for_ever:
            self._send_to_next_later()
            return
        self.attempts_left -= 1 if not self.in_row else self.attempts_left
        if not self._client.waits_for(self):
            return
        if self.attempts_left > 0:
            self.send()
        else:
            self._client.ended(self, Outcome.FAILED)

    def refused(self) -> None:
        """Handle a refusal, since the replica is down: try the next one, until all were tried."""
        if self._retries_for_ever:
            self._send_to_next_later()
            return
        self._hosts_left -= 1 if not self.in_row else self._hosts_left
        if not self._client.waits_for(self):
            return
        if self._hosts_left > 0:
            self._replica = (self._replica + 1) % len(self._client.clients.hosts)
            pause_us = self._client.clients.context.settings.patience_us // _TRIES_PER_PATIENCE
            self._client.clients.context.schedule.after(pause_us, self._try_next)
        else:
            self._client.ended(self, Outcome.FAILED)

    def _try_next(self) -> None:
        if self._client.waits_for(self):
            self.send()

    def broken(self) -> None:
        """Handle a broken connection: the outcome is unknown."""
        if self._retries_for_ever:
            self._send_to_next_later()
        else:
            self._client.ended(self, Outcome.UNKNOWN)


class SimulatedClient:
    """Executes its operations in order, one at a time."""

    def __init__(self, number: int, clients: "SimulatedClients") -> None:
        self.number = number
        self.clients = clients
        self.current: PendingRequest | None = None
        self._later: deque[Operation] = deque()
        self._last_ids: dict[str, RequestId] = {}
        """The last id that was used, by the process that granted its session."""

    @property
    def busy(self) -> bool:
        """Whether the client waits for an answer."""
        return self.current is not None

    def waits_for(self, request: PendingRequest) -> bool:
        """Whether this request has not ended for the client."""
        return self.current is request

    def acknowledged(self, request: PendingRequest) -> int:
        """The sequence below which the client wants no more answers."""
        return sequence_of(request.request_id)

    def operate(self, operation: Operation) -> None:
        """Begin this operation, now or when the previous one has ended."""
        self._later.append(operation)
        self._next()

    def _next(self) -> None:
        if self.current is not None or not self._later:
            return
        operation = self._later.popleft()
        context = self.clients.context
        id = self._next_id(ReplicaId(operation.replica))
        request = self.current = self.clients.request(self, operation, id)
        request.send()
        if context.settings.retrying and context.settings.doubling:
            request.send_to_next()
        context.schedule.after(context.settings.patience_us, self._give_up, request)

    def _next_id(self, replica: ReplicaId) -> RequestId:
        """The next id of the session that the replica's process granted; of an ungranted session while it is down."""
        process = self.clients.hosts[replica].process
        last = None if process is None else self._last_ids.get(process.name)
        if last is None:
            walls = self.clients.context.walls
            last = self.clients.new_session(replica, walls.now_ms if process is None else process.clock.session_ms())
            if process is not None:
                process.begin_session(last)
        id = request_at(last, 1)
        if process is not None:
            self._last_ids[process.name] = id
        return id

    def new_session_id(self, replica: ReplicaId) -> RequestId:
        """The first id of a new session, after the old one expired."""
        process = self.clients.hosts[replica].process
        if process is not None:
            self._last_ids.pop(process.name, None)
        return self._next_id(replica)

    @property
    def name(self) -> str:
        """The name in the trace."""
        return f"client {self.number}"

    def _give_up(self, request: PendingRequest) -> None:
        """The client has waited for `patience_us`."""
        settings = self.clients.context.settings
        if settings.retrying and self.current is request:
            request.send_to_next()
            self.clients.context.schedule.after(settings.patience_us, self._give_up, request)
        elif not self.clients.patient:
            self.ended(request, Outcome.UNKNOWN)

    def ended(self, request: PendingRequest, outcome: Outcome, result: Result = None) -> None:
        """Record the first outcome of the present request; later ones are ignored."""
        if self.current is not request:
            return
        self.current = None
        self.clients.note(self.name, request, outcome, result)
        self._next()

    def retire(self) -> None:
        """Drop the planned operations that have not begun."""
        self._later.clear()


AnyClient = SimulatedClient | PipeliningClient


class SimulatedClients:
    """All clients, and their history. `patient` clients wait for ever: after the heal they must be answered."""

    def __init__(self, context: Context, workload: Workload, hosts: Sequence[Host]) -> None:
        self.context = context
        self.workload = workload
        self.hosts = hosts
        self.history = History()
        self.requests: list[PendingRequest] = []
        self.patient = False
        self._clients: dict[int, AnyClient] = {}
        self._sessions = 0

    def operate(self, operation: Operation) -> None:
        """Execute an operation of the plan."""
        client = self._clients.get(operation.client)
        if client is None:
            kind = PipeliningClient if self.context.settings.pipelined else SimulatedClient
            client = self._clients[operation.client] = kind(operation.client, self)
        client.operate(operation)

    def request(self, client: "AnyClient", operation: Operation, id: RequestId) -> PendingRequest:
        """Create a request that begins now."""
        context, ask = self.context, self.workload.ask(operation.command)
        call = None
        if ask is not None:
            now = begin_time(context.schedule.steps)
            call = self.history.begin(now, client.number, ask.key, ask.action, ask.argument)
            call.other_keys = ask.other_keys
        context.counts.calls += 1
        request = PendingRequest(client, operation, id, call, _ROUNDS_MAX * len(self.hosts))
        self.requests.append(request)
        request.attempts_left = context.settings.attempts_max
        if context.tracing:
            command = operation.command.decode("ascii", "backslashreplace")
            context.log(client.name, f"asks r{operation.replica} to {command}")
        return request

    def note(self, name: str, request: PendingRequest, outcome: Outcome, result: Result) -> None:
        """Record the outcome of a request in the history, the counts and the trace."""
        now, history, call = end_time(self.context.schedule.steps), self.history, request.call
        seen = self.workload.seen(result)
        self.context.log(name, f"gets {seen!r}" if outcome is Outcome.DONE else f"ends: {outcome.value}")
        counts = self.context.counts
        match outcome:
            case Outcome.DONE:
                counts.calls_done += 1
                if call is not None:
                    history.done(call, now, seen)
            case Outcome.FAILED:
                counts.calls_failed += 1
                if call is not None:
                    history.failed(call, now)
            case _:
                counts.calls_unknown += 1
                if call is not None:
                    history.unknown(call, now)

    def new_session(self, replica: ReplicaId, now_ms: int) -> RequestId:
        """The id of a new session, with the present time."""
        self._sessions += 1
        return request_id(now_ms, replica, self._sessions, 0)

    def carry(self, request: PendingRequest, replica: int) -> None:
        """Deliver the request to the replica after the client's latency."""
        self.context.schedule.after(self.context.settings.client_us, self.hosts[replica].submit, request)

    def retire(self) -> None:
        """End the phase of faults: clients begin nothing new, and wait until their requests have ended."""
        self.patient = True
        for client in self._clients.values():
            client.retire()

    def waiting(self) -> list["AnyClient"]:
        """The clients that wait for an answer."""
        return [client for client in self._clients.values() if client.busy]
