"""The Redis port: listens, keeps the connections, and stops.

Decides who may connect. Leaves each client to its `connection`, agreement to `submit_many`.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import SubmitMany
from pydsm.server.connection import RespConnection
from pydsm.server.connection_registry import ConnectionRegistry
from pydsm.server.limits import RespLimits
from pydsm.server.session import Session
from pydsm.server.shared import SharedServerState

_LATE_SECONDS = 0.25


class RespServer:
    """Serves the commands of `machines.kv` to Redis clients. All from one loop."""

    def __init__(
        self,
        submit_many: SubmitMany,
        info: Callable[[], dict[str, dict[str, str]]],
        limits: RespLimits | None = None,
        shared: SharedServerState | None = None,
    ) -> None:
        """`shared` is the state that all client ports have in common."""
        self.submit_many = submit_many
        self.info = info
        self.limits = limits or RespLimits()
        self.shared = shared or SharedServerState()
        self.memory = self.shared.memory
        self.silent = self.shared.silent
        self._late: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)
        self._registry: ConnectionRegistry[RespConnection, Session] = ConnectionRegistry()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens; useful after starting with port 0."""
        assert self._server is not None, "the server is not started"
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: RespConnection(self), host, port)
        self._look_for_late_answers()

    async def stop(self) -> None:
        """Listen no more, send what is answered, and close all connections. Idempotent."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        if self._late is not None:
            self._late.cancel()
        await self._registry.close_all(RespConnection.close)
        await server.wait_closed()

    def connections(self) -> Sequence[RespConnection]:
        """Open connections, oldest first."""
        return self._registry.connections()

    # What connections see

    def sessions(self) -> Sequence[Session]:
        """See `CommandContext`."""
        return self._registry.known()

    def now_seconds(self) -> float:
        """See `CommandContext`."""
        return asyncio.get_running_loop().time()

    def opened(self, connection: RespConnection) -> Session | CommandFailed:
        """See `ServerContext`."""
        if self._server is None:
            return CommandFailed("ERR this replica is stopping; connect to another")
        if not self.shared.clients.enter(len(self._registry) >= self.limits.connections_max):
            return CommandFailed("ERR max number of clients reached")
        session = connection.new_session(next(self._ids), self.now_seconds())
        self._registry.add(connection, session)
        self.shared.silent.opened(connection)
        return session

    def closed(self, connection: RespConnection) -> None:
        """See `ServerContext`."""
        self.shared.silent.settled(connection)
        if self._registry.left(connection):
            self.shared.clients.leave()

    @property
    def refusal(self) -> str | None:
        """See `ServerContext`."""
        return self.shared.refusal

    @property
    def connections_max(self) -> int:
        """See `CommandContext`."""
        return min(self.limits.connections_max, self.shared.clients.most)

    def _look_for_late_answers(self) -> None:
        """Answer commands that have waited too long with an error: their outcome is unknown."""
        loop = asyncio.get_running_loop()
        seconds = self.limits.answer_seconds_max
        reason = self.shared.reason or "the group is slow"
        error = CommandFailed(
            f"CLUSTERDOWN no answer within {seconds:g} s ({reason}): whether the command was or will be executed is "
            "unknown"
        )
        for connection in self._registry.connections():
            connection.answer_late(loop.time() - seconds, error)
        self._late = loop.call_later(min(_LATE_SECONDS, seconds / 4), self._look_for_late_answers)
