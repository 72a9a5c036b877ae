"""The Redis port: listens, keeps the connections, and stops.

Decides who may connect. Leaves each client to its `connection`, agreement to `submit_many`.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import SubmitMany
from pydsm.server.connection import Connection
from pydsm.server.crowd import Crowd
from pydsm.server.limits import RespLimits
from pydsm.server.session import Session


class RespServer:
    """Serves the commands of `machines.kv` to Redis clients. All from one loop."""

    def __init__(
        self, submit_many: SubmitMany, info: Callable[[], dict[str, dict[str, str]]], limits: RespLimits | None = None
    ) -> None:
        self.submit_many = submit_many
        self.info = info
        self.limits = limits or RespLimits()
        self._ids = itertools.count(1)
        self._crowd: Crowd[Connection, Session] = Crowd()
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
        self._server = await loop.create_server(lambda: Connection(self), host, port)

    async def stop(self) -> None:
        """Listen no more, send what is answered, and disconnect everyone. Twice is no more than once."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        await self._crowd.send_away(Connection.close)
        await server.wait_closed()

    def connections(self) -> Sequence[Connection]:
        """Everyone who is connected, oldest first."""
        return self._crowd.everyone()

    # What connections see

    def sessions(self) -> Sequence[Session]:
        """See `Surroundings`."""
        return self._crowd.known()

    def now_seconds(self) -> float:
        """See `Surroundings`."""
        return asyncio.get_running_loop().time()

    def opened(self, connection: Connection) -> Session | CommandFailed:
        """See `Port`."""
        if self._server is None:
            return CommandFailed("ERR this replica is stopping; connect to another")
        if len(self._crowd) >= self.limits.connections_max:
            return CommandFailed("ERR max number of clients reached")
        peer, here = connection.addresses()
        now = self.now_seconds()
        session = Session(next(self._ids), peer, here, now, last_seconds=now)
        self._crowd.add(connection, session)
        return session

    def closed(self, connection: Connection) -> None:
        """See `Port`."""
        self._crowd.left(connection)
