"""The client and HTTP ports of one replica, with their shared state."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.core.types.errors import UsageError
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, not_ready_reason
from pydsm.server.availability import POLL_SECONDS, AnswerLimits, Availability
from pydsm.server.descriptors import ClientCount, log_exhaustion, reserve, room_for_clients
from pydsm.server.limits import NativeLimits, RespLimits
from pydsm.server.memory import ClientMemory, MemoryLimits
from pydsm.server.native import NativeServer
from pydsm.server.native_connection import NativeServerContext
from pydsm.server.resp import RespServer
from pydsm.server.shared import SharedServerState
from pydsm.server.silent import SilentConnections, SilentLimits
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address

log = logging.getLogger("pydsm.serve")

_HTTP_CONNECTIONS = 64
_CLIENT_MEMORY_BYTES_MIN = 32 << 20


@dataclass(frozen=True, slots=True)
class PortLimits:
    """Limits for all clients together. Raises UsageError for invalid values."""

    clients_max: int = 10_000
    client_memory_bytes: int = 1 << 30
    answer_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.clients_max < 1:
            raise UsageError(f"--max-clients must be at least 1, got {self.clients_max}")
        if self.client_memory_bytes < _CLIENT_MEMORY_BYTES_MIN:
            raise UsageError(
                f"--client-memory-bytes must be at least {_CLIENT_MEMORY_BYTES_MIN}, so that the largest command fits, "
                f"got {self.client_memory_bytes}"
            )
        if not 0.1 <= self.answer_seconds <= 3600:
            raise UsageError(f"--answer-seconds must be from 0.1 to 3600, got {self.answer_seconds:g}")


@dataclass(frozen=True, slots=True)
class PortSettings:
    """Addresses and limits of the ports."""

    identity: Identity
    names: tuple[str, ...]
    redis: Address | None
    native: Address | None
    http: Address | None
    http_hosts: tuple[str, ...]
    ready_limits: ReadyLimits
    limits: PortLimits
    batch_limits: BatchLimits


class ClientPorts:
    """The open ports. Call `open` when the replica takes part, and `close` when it stops."""

    def __init__(self, settings: PortSettings, node: Node, info: Callable[[], dict[str, dict[str, str]]]) -> None:
        self._settings = settings
        self._node = node
        limits = settings.limits
        # done first, since files and sockets that are opened later need these descriptors
        fitting = room_for_clients(limits.clients_max, reserve(settings.identity.replicas, _HTTP_CONNECTIONS))
        self._shared = SharedServerState(
            ClientCount(fitting),
            ClientMemory(MemoryLimits(client_memory_bytes_max=limits.client_memory_bytes)),
            SilentConnections(SilentLimits.among(fitting), log),
        )
        resp_limits = RespLimits(connections_max=fitting, answer_seconds_max=limits.answer_seconds)
        self._redis = RespServer(node.submit_many, info, resp_limits, self._shared)
        self._poll_timer: asyncio.TimerHandle | None = None
        self._exit_stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Listen. Raises OperationalError if an address is not available."""
        settings = self._settings
        asyncio.get_running_loop().set_exception_handler(_handle_loop_error)
        if settings.redis is not None:
            await self._open_redis(settings.redis)
        if settings.native is not None:
            await self._open_native(settings.native)
        if settings.http is not None:
            await self._open_http(settings.http)

    def watch(self, ready: Callable[[], None]) -> None:
        """Check periodically whether the replica can serve clients; `ready` is called the first time it can."""
        limits = AnswerLimits(self._settings.limits.answer_seconds)
        self._poll(Availability(self._node.observe, self._settings.ready_limits, limits, ready))

    async def close_redis(self) -> None:
        """Send the finished answers to Redis clients, and close their port."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        await self._redis.stop()

    async def close(self) -> None:
        """Close everything."""
        await self.close_redis()
        self._shared.memory.stop()
        self._shared.silent.stop()
        await self._exit_stack.aclose()

    def _poll(self, availability: Availability) -> None:
        loop = asyncio.get_running_loop()
        availability.check(loop.time())
        self._shared.reason, self._shared.refusal = availability.reason, availability.refusal
        self._poll_timer = loop.call_later(POLL_SECONDS, self._poll, availability)

    async def _open_redis(self, address: Address) -> None:
        await self._redis.start(address)

    async def _open_native(self, address: Address) -> None:
        settings, node = self._settings, self._node
        host = NativeServerContext(
            settings.identity,
            settings.names,
            lambda: not_ready_reason(node.observe(), settings.ready_limits) is None,
            node.grant,
            node.session_ms,
        )
        limits = NativeLimits(
            connections_max=self._shared.clients.most, command_bytes_max=settings.batch_limits.command_bytes_max
        )
        server = NativeServer(node.submit_requests, host, limits, self._shared)
        await server.start(address)
        self._exit_stack.push_async_callback(server.stop)

    async def _open_http(self, address: Address) -> None:
        """Open the HTTP port. Its modules are imported only here, so that a replica without this port starts faster."""
        from pydsm.server.http import HttpLimits, HttpServer, Subject

        settings, node = self._settings, self._node
        hosts = (address.host, socket.gethostname(), *settings.http_hosts)
        subject = Subject(
            settings.identity,
            settings.names,
            node.observe,
            node.trace,
            node.maintenance,
            hosts,
            lambda: self._shared.silent.closed,
        )
        server = HttpServer(subject, settings.ready_limits, HttpLimits(connections_max=_HTTP_CONNECTIONS))
        await server.start(address)
        self._exit_stack.push_async_callback(server.stop)


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    if not log_exhaustion(context):
        loop.default_exception_handler(context)
