"""The Redis port: listens, accepts connections, and stops.

Decides which clients may connect, and answers commands that have waited too long. Each client is left to its
`connection`, agreement to `submit_many`.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import SubmitMany
from pydsm.server.client_port import ClientPort
from pydsm.server.connection import RespConnection
from pydsm.server.limits import RespLimits
from pydsm.server.session import Session
from pydsm.server.shared import SharedServerState
from pydsm.transport.address import Address

_LATE_SECONDS = 0.25


class RespServer:
    """Serves the commands of `machines.kv` to Redis clients. All calls from one event loop."""

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
        self._port: ClientPort[RespConnection, Session] = ClientPort(self.shared, self.limits.connections_max)

    @property
    def port(self) -> int:
        """The port number on which it listens; useful after starting with port 0."""
        return self._port.number

    async def start(self, address: Address) -> None:
        """Listen. Raises OperationalError if the address cannot be used."""
        await self._port.start(lambda: RespConnection(self), address, "Redis clients")
        self._answer_late_commands()

    async def stop(self) -> None:
        """Stop listening, send the answers that are known, and close all connections. Idempotent."""
        if self._late is not None:
            self._late.cancel()
        await self._port.stop(RespConnection.close)

    def connections(self) -> Sequence[RespConnection]:
        """Open connections, oldest first."""
        return self._port.registry.connections()

    # For connections

    def sessions(self) -> Sequence[Session]:
        """See `CommandContext`."""
        return self._port.registry.details()

    def now_seconds(self) -> float:
        """See `CommandContext`."""
        return asyncio.get_running_loop().time()

    def opened(self, connection: RespConnection) -> Session | CommandFailed:
        """See `ServerContext`."""
        if not self._port.is_open:
            return CommandFailed("ERR this replica is stopping; connect to another")
        if not self._port.reserve():
            return CommandFailed("ERR max number of clients reached")
        session = connection.new_session(next(self._ids), self.now_seconds())
        self._port.add(connection, session)
        return session

    def closed(self, connection: RespConnection) -> None:
        """See `ServerContext`."""
        self._port.remove(connection)

    @property
    def refusal(self) -> str | None:
        """See `ServerContext`."""
        return self.shared.refusal

    @property
    def connections_max(self) -> int:
        """See `CommandContext`."""
        return min(self.limits.connections_max, self.shared.clients.most)

    def _answer_late_commands(self) -> None:
        """Answer commands that have waited too long with an error that states that their outcome is unknown."""
        loop = asyncio.get_running_loop()
        seconds = self.limits.answer_seconds_max
        reason = self.shared.reason or "the group is slow"
        error = CommandFailed(
            f"CLUSTERDOWN no answer within {seconds:g} s ({reason}): whether the command was or will be executed is "
            "unknown"
        )
        for connection in self._port.registry.connections():
            connection.answer_late(loop.time() - seconds, error)
        self._late = loop.call_later(min(_LATE_SECONDS, seconds / 4), self._answer_late_commands)
