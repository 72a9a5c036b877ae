"""A port for clients: the listener, the open connections, and the limits that it shares with the other ports.

Decides which connections are accepted. What a client is sent when it is refused is left to the kind of port.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from pydsm.server.connection_registry import ConnectionRegistry
from pydsm.server.listener import Listener
from pydsm.server.shared import SharedServerState
from pydsm.server.silent import SilentConnection
from pydsm.transport.address import Address

ConnectionT = TypeVar("ConnectionT", bound=SilentConnection)
DetailsT = TypeVar("DetailsT")


class ClientPort(Generic[ConnectionT, DetailsT]):
    """One port. For each new connection: check `is_open`, `reserve`, then `add`; `remove` when it is lost."""

    def __init__(self, shared: SharedServerState, connections_max: int) -> None:
        self.registry: ConnectionRegistry[ConnectionT, DetailsT] = ConnectionRegistry()
        self._shared = shared
        self._connections_max = connections_max
        self._listener: Listener | None = None

    @property
    def number(self) -> int:
        """The TCP port on which it listens; useful after starting with port 0."""
        assert self._listener is not None, "the server is not started"
        return self._listener.port

    @property
    def is_open(self) -> bool:
        """Whether it is started and not stopped."""
        return self._listener is not None

    async def start(self, make_protocol: Callable[[], asyncio.BaseProtocol], address: Address, purpose: str) -> None:
        """Listen. Raises OperationalError, "cannot listen for `purpose` on ...", if the address cannot be used."""
        self._listener = await Listener.open(make_protocol, address, purpose)

    async def stop(self, close_gracefully: Callable[[ConnectionT], None]) -> None:
        """Stop listening and close all connections: gracefully at first, after a time limit abort. Idempotent."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        await self.registry.close_all(close_gracefully)
        await listener.wait_closed()

    def reserve(self) -> bool:
        """Count one more client; False if the limit of this port, or of all ports together, is reached."""
        return self._shared.clients.enter(len(self.registry) >= self._connections_max)

    def add(self, connection: ConnectionT, details: DetailsT) -> None:
        """Register a connection for which `reserve` returned True."""
        self.registry.add(connection, details)
        self._shared.silent.opened(connection)

    def remove(self, connection: ConnectionT) -> None:
        """Remove a connection that is lost, also one that was never added."""
        self._shared.silent.settled(connection)
        if self.registry.remove(connection):
            self._shared.clients.leave()
