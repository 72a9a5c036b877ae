"""The listening socket of a port for clients."""

import asyncio
from collections.abc import Callable

from pydsm.transport.address import Address, cannot_listen


class Listener:
    """Accepts connections at one address until it is closed. Create it with `open`."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @staticmethod
    async def open(make_protocol: Callable[[], asyncio.BaseProtocol], address: Address, purpose: str) -> "Listener":
        """Listen. Raises OperationalError, "cannot listen for `purpose` on ...", if the address cannot be used."""
        try:
            server = await asyncio.get_running_loop().create_server(make_protocol, address.host, address.port)
        except OSError as error:
            raise cannot_listen(purpose, address, error) from error
        return Listener(server)

    @property
    def port(self) -> int:
        """The port number, which the system has chosen if the address had port 0."""
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    def close(self) -> None:
        """Accept no more connections. Those that are open stay open."""
        self._server.close()

    async def wait_closed(self) -> None:
        """Wait until the connections are closed; call it after `close`."""
        await self._server.wait_closed()
