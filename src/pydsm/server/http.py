"""The HTTP port: liveness, readiness, metrics and status, for monitoring systems.

Decides what each path answers, and limits clients: one request for each connection, short requests, few connections.
These paths only read. Requests that change the replica are handled by `admin`; readiness is defined in
`runtime/observation`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
from aiohttp import web

from pydsm.core.sessions.session_limits import RequestState
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import RequestId, first_replica_of
from pydsm.runtime.maintenance import Maintenance
from pydsm.runtime.observation import Observation, ReadyLimits, not_ready_reason
from pydsm.runtime.traces import RequestTrace
from pydsm.server.admin import VERBS, AdminRoutes
from pydsm.server.http_callers import Hosts
from pydsm.server.listener import Listener
from pydsm.server.metrics import CONTENT_TYPE, Metrics
from pydsm.server.report import make_report
from pydsm.server.silent import SilentConnections, SilentLimits
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from pydsm.transport.sockets import peer_address

_REQUEST_ID_UUID_VERSION = 7

log = logging.getLogger("pydsm.http")

PATHS = ("/health", "/ready", "/metrics", "/status", "/trace/REQUEST_ID")
"""The paths, besides those of `server.admin.VERBS`."""

_quiet = logging.getLogger("pydsm.http.protocol")
_quiet.setLevel(logging.CRITICAL)
"""Input that is not HTTP is answered 400; a log line with a traceback for each would fill the log."""

_STOP_SECONDS_MAX = 1.0
_LINGERING_SECONDS = 1.0
"""Seconds for which the rest of a request that is too long is read, so that the answer arrives."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of the HTTP port."""

    connections_max: int = 64
    """Open at the same time; a further one is closed immediately."""
    connection_seconds_max: float = 10.0
    """Seconds after which a connection is closed in any case. Each carries one request."""
    line_bytes_max: int = 4096
    """Bytes of the request line and of each header; a longer one is answered 400."""
    headers_max: int = 64
    body_bytes_max: int = 1024
    """Bytes of the body, which no path needs; a longer one is answered 413."""
    silent: SilentLimits = field(
        default_factory=lambda: SilentLimits(grace_seconds=2.0, per_address_max=16, connections_max=32)
    )
    """Connections without a complete request; they are closed after `connection_seconds_max` like all others."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The replica that is reported on. `names` has the names of all members, in the order of the group."""

    identity: Identity
    names: tuple[str, ...]
    observe: Callable[[], Observation]
    trace: Callable[[RequestId], RequestTrace]
    maintenance: Maintenance | None = None
    """Actions for callers on the replica's own computer; None if there are none."""
    hosts: tuple[str, ...] = ()
    """Host names that requests may have, besides addresses and localhost; `ANY_HOST` allows all."""
    closed_silent: Callable[[], int] = lambda: 0
    """The number of connections of the other ports that were closed because they had sent no request."""


class HttpServer:
    """Serves `PATHS`. Runs on the event loop of the replica, so that no request is answered while that loop hangs."""

    def __init__(
        self, subject: Subject, ready_limits: ReadyLimits | None = None, limits: HttpLimits | None = None
    ) -> None:
        self._subject = subject
        self._ready_limits = ready_limits or ReadyLimits()
        self._limits = limits or HttpLimits()
        self._metrics = Metrics(subject.identity, subject.observe, self._ready_limits, self._closed_silent)
        self._hosts = Hosts(subject.hosts)
        self._deadlines: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._silent = SilentConnections(self._limits.silent, log)
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port number on which it listens; useful after starting with port 0."""
        assert self._listener is not None, "the server is not started"
        return self._listener.port

    async def start(self, address: Address) -> None:
        """Listen on this address. Raises OperationalError if it cannot be used."""
        app = web.Application(middlewares=[self._answer_everything], client_max_size=self._limits.body_bytes_max)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ready", self._ready),
                web.get("/metrics", self._numbers),
                web.get("/status", self._status),
                web.get("/trace/{request}", self._trace),
            ]
        )
        if self._subject.maintenance is not None:
            app.add_routes(AdminRoutes(self._subject.maintenance, self._allow).routes())
        runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_quiet,
            max_line_size=self._limits.line_bytes_max,
            max_field_size=self._limits.line_bytes_max,
            max_headers=self._limits.headers_max,
            lingering_time=_LINGERING_SECONDS,
            shutdown_timeout=_STOP_SECONDS_MAX,
        )
        await runner.setup()
        self._runner = runner
        try:
            self._listener = await Listener.open(self._accept, address, "HTTP")
        except OperationalError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and close all connections. Idempotent."""
        self._silent.stop()
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if listener is not None:
            listener.close()
        if runner is not None:
            await runner.cleanup()
        if listener is not None:
            await listener.wait_closed()

    def _accept(self) -> asyncio.BaseProtocol:
        manager = self._runner.server if self._runner is not None else None
        if manager is None or len(manager.connections) >= self._limits.connections_max:
            return _Refusal()
        connection = manager()
        self._allow(connection, self._limits.connection_seconds_max)
        self._silent.opened(_HttpConnection(connection))
        return connection

    def _closed_silent(self) -> int:
        return self._silent.closed + self._subject.closed_silent()

    def _allow(self, connection: web.RequestHandler, seconds: float) -> None:
        """Set the deadline of a connection, in seconds from now."""
        if (before := self._deadlines.pop(connection, None)) is not None:
            before.cancel()
        self._deadlines[connection] = asyncio.get_running_loop().call_later(seconds, self._abort, connection)

    def _abort(self, connection: web.RequestHandler) -> None:
        self._deadlines.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    @web.middleware
    async def _answer_everything(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Handle the only request of a connection; a refused request is answered with one line."""
        response: web.StreamResponse
        try:
            foreign = None if request.path == "/health" else self._hosts.why_not(request.headers)
            if foreign is not None:
                response = _line(421, foreign)
            elif not await _is_whole(request):
                response = _line(400, "the request's body is cut short or does not parse")
            else:
                self._silent.settled(_HttpConnection(request.protocol))
                response = await handler(request)
        except web.HTTPNotFound:
            response = _line(404, f"no such path: use {', '.join(PATHS)}, or POST to {', '.join(VERBS)}")
        except web.HTTPMethodNotAllowed as refusal:
            allowed = ", ".join(sorted(refusal.allowed_methods))
            response = _line(405, f"{request.method} is not possible here: use {allowed}")
            response.headers["Allow"] = allowed
        except web.HTTPRequestEntityTooLarge:
            response = _line(413, f"the request is longer than {self._limits.body_bytes_max} bytes: send no body")
        except web.HTTPException as refusal:
            response = _line(refusal.status, refusal.reason)
        except Exception:
            log.exception("cannot answer %s", request.path)
            response = _line(500, "the replica could not answer: see its log")
        response.headers["Cache-Control"] = "no-store"
        response.headers["Server"] = "PyDSM"
        response.force_close()
        return response

    async def _health(self, request: web.Request) -> web.Response:
        failure = self._subject.observe().failure
        return _line(200, "healthy") if failure is None else _line(503, f"it has failed: {failure}")

    async def _ready(self, request: web.Request) -> web.Response:
        reason = not_ready_reason(self._subject.observe(), self._ready_limits)
        return _line(200, "ready") if reason is None else _line(503, reason)

    async def _numbers(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, request: web.Request) -> web.Response:
        subject = self._subject
        report = make_report(subject.identity, subject.names, subject.observe(), self._ready_limits)
        return web.Response(body=msgspec.json.encode(report), content_type="application/json")

    async def _trace(self, request: web.Request) -> web.Response:
        text = request.match_info["request"]
        try:
            id = UUID(text)
        except ValueError:
            return _line(400, "that is no request id: it is a UUID of 32 hexadecimal digits")
        foreign = self._why_foreign(id)
        if foreign is not None:
            return _line(404, f"{id} is no request of group {self._subject.identity.group}: {foreign}")
        found = self._subject.trace(RequestId(id.bytes))
        if not found.instances and found.state == RequestState.NEW.value:
            return _line(
                404,
                f"{id} is not known at {self._subject.identity.name}: none of the {found.remembered_instances} "
                f"instances of the last {found.remembered_seconds:.0f} s has it, and no request of its session was "
                "executed; it was never sent, or to another group, or has not come here yet",
            )
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    def _why_foreign(self, id: UUID) -> str | None:
        """Why no request of this group can have this id; None if one may have it."""
        if id.version != _REQUEST_ID_UUID_VERSION:
            return f"it is a UUID of version {id.version}, and request ids have version {_REQUEST_ID_UUID_VERSION}"
        first = first_replica_of(RequestId(id.bytes))
        replicas = self._subject.identity.replicas
        if first >= replicas:
            return f"it was first sent to replica {first}, and the group has replicas 0 to {replicas - 1}"
        return None


async def _is_whole(request: web.Request) -> bool:
    """Whether the body is complete and valid. Raises web.HTTPException if it is too long."""
    try:
        await request.read()
    except web.HTTPException:
        raise
    except Exception:  # the client disconnected, or the body is cut short or not valid
        return False
    return True


@dataclass(frozen=True, slots=True)
class _HttpConnection:
    """A `silent.SilentConnection`. Two are equal if they have the same handler."""

    handler: web.RequestHandler

    def host(self) -> str | None:
        address = peer_address(self.handler.transport)
        return None if address is None else address.host

    def half_sent_bytes(self) -> int:
        return 0

    def abort(self) -> None:
        if self.handler.transport is not None:
            self.handler.transport.abort()


class _Refusal(asyncio.Protocol):
    """Closes a connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _line(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")
