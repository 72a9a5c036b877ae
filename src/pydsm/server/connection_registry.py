"""The open connections of one port, and how all of them are closed."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_STOP_SECONDS_MAX = 2.0


class RegisteredConnection(Protocol):
    """A connection that can be closed immediately."""

    def abort(self) -> None:
        """Close immediately. `ConnectionRegistry.remove` must be called when the connection is lost."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=RegisteredConnection)
DetailsT = TypeVar("DetailsT")


class ConnectionRegistry(Generic[ConnectionT, DetailsT]):
    """Open connections, oldest first, each with its details."""

    def __init__(self) -> None:
        self._details: dict[ConnectionT, DetailsT] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._details)

    def add(self, connection: ConnectionT, details: DetailsT) -> None:
        """Register a connection."""
        self._details[connection] = details

    def remove(self, connection: ConnectionT) -> bool:
        """Remove a connection; False if it was not registered."""
        was_registered = connection in self._details
        self._details.pop(connection, None)
        if not self._details:
            self._empty.set()
        return was_registered

    def connections(self) -> list[ConnectionT]:
        """The connections, oldest first."""
        return list(self._details)

    def details(self) -> list[DetailsT]:
        """The details of the connections, oldest first."""
        return list(self._details.values())

    async def close_all(self, close_gracefully: Callable[[ConnectionT], None]) -> None:
        """Close all connections gracefully, then abort those still open after the time limit."""
        for connection in self.connections():
            close_gracefully(connection)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self._wait_until_empty()
        for connection in self.connections():
            connection.abort()
        await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        while self._details:
            self._empty.clear()
            await self._empty.wait()
