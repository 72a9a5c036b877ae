"""The port for native clients: listens, accepts connections, and stops.

Decides which clients may connect. Each client is left to its `native_connection`.
"""

import logging

from pydsm.logs import LogLimiter
from pydsm.runtime.batching import SubmitRequests
from pydsm.server.client_port import ClientPort
from pydsm.server.connection_registry import ConnectionRegistry
from pydsm.server.limits import NativeLimits
from pydsm.server.native_connection import NativeConnection, NativeServerContext
from pydsm.server.shared import SharedServerState
from pydsm.transport.address import Address

log = logging.getLogger("pydsm.native")


class NativeServer:
    """Serves any state machine to native clients. All calls from one event loop."""

    def __init__(
        self,
        submit_requests: SubmitRequests,
        host: NativeServerContext,
        limits: NativeLimits | None = None,
        shared: SharedServerState | None = None,
    ) -> None:
        """`shared` is the state that all client ports have in common."""
        self.submit_requests = submit_requests
        self.host = host
        self.limits = limits or NativeLimits()
        self.shared = shared or SharedServerState()
        self._port: ClientPort[NativeConnection, None] = ClientPort(self.shared, self.limits.connections_max)
        self.refusals = LogLimiter(log, lines_max=1)

    @property
    def port(self) -> int:
        """The port number on which it listens; useful after starting with port 0."""
        return self._port.number

    @property
    def registry(self) -> ConnectionRegistry[NativeConnection, None]:
        """The open connections."""
        return self._port.registry

    async def start(self, address: Address) -> None:
        """Listen. Raises OperationalError if the address cannot be used."""
        await self._port.start(lambda: NativeConnection(self), address, "clients")

    async def stop(self) -> None:
        """Stop listening, send the answers that are ready, and close all connections. Idempotent."""
        await self._port.stop(lambda connection: connection.close("this replica is stopping"))

    def opened(self, connection: NativeConnection) -> str | None:
        """See `NativeConnectionOwner`."""
        if not self._port.is_open:
            return "this replica is stopping; connect to another"
        if not self._port.reserve():
            return f"{len(self.registry)} clients are connected already; connect to another replica"
        self._port.add(connection, None)
        return None

    def closed(self, connection: NativeConnection) -> None:
        """See `NativeConnectionOwner`."""
        self._port.remove(connection)
