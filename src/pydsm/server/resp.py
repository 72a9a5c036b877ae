"""The Redis port: listens, keeps the connections, and stops.

Decides who may connect. Leaves each client to its `connection`, agreement to `submit`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence

from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import Submit
from pydsm.server.connection import Connection
from pydsm.server.limits import RespLimits
from pydsm.server.session import Session

_STOP_SECONDS_MAX = 2.0


class RespServer:
    """Serves the commands of `machines.kv` to Redis clients. All from one loop."""

    def __init__(self, submit: Submit, info: Callable[[], dict[str, str]], limits: RespLimits | None = None) -> None:
        self.submit = submit
        self.info = info
        self.limits = limits or RespLimits()
        self._ids = itertools.count(1)
        self._connections: dict[Connection, Session] = {}
        self._everyone_left = asyncio.Event()
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
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self._wait_until_alone()
        for connection in list(self._connections):
            connection.abort()
        await self._wait_until_alone()
        await server.wait_closed()

    async def _wait_until_alone(self) -> None:
        while self._connections:
            self._everyone_left.clear()
            await self._everyone_left.wait()

    def connections(self) -> Sequence[Connection]:
        """Everyone who is connected, oldest first."""
        return list(self._connections)

    # What connections see

    def sessions(self) -> Sequence[Session]:
        """See `Surroundings`."""
        return list(self._connections.values())

    def now_seconds(self) -> float:
        """See `Surroundings`."""
        return asyncio.get_running_loop().time()

    def opened(self, connection: Connection) -> Session | CommandFailed:
        """See `Port`."""
        if self._server is None:
            return CommandFailed("ERR this replica is stopping; connect to another")
        if len(self._connections) >= self.limits.connections_max:
            return CommandFailed("ERR max number of clients reached")
        peer, here = connection.addresses()
        now = self.now_seconds()
        session = Session(next(self._ids), peer, here, now, last_seconds=now)
        self._connections[connection] = session
        return session

    def closed(self, connection: Connection) -> None:
        """See `Port`."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._everyone_left.set()
