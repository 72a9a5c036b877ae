"""The open connections of one port, and how all of them are closed."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_STOP_SECONDS_MAX = 2.0


class RegisteredConnection(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close immediately; the connection calls `ConnectionRegistry.left` when it is closed."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=RegisteredConnection)
DetailsT = TypeVar("DetailsT")


class ConnectionRegistry(Generic[ConnectionT, DetailsT]):
    """Open connections, oldest first, each with its details."""

    def __init__(self) -> None:
        self._known: dict[ConnectionT, DetailsT] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, one: ConnectionT, known: DetailsT) -> None:
        """Register a connection."""
        self._known[one] = known

    def left(self, one: ConnectionT) -> bool:
        """Remove a connection; False when it was not registered."""
        was_here = one in self._known
        self._known.pop(one, None)
        if not self._known:
            self._empty.set()
        return was_here

    def connections(self) -> list[ConnectionT]:
        """Oldest first."""
        return list(self._known)

    def known(self) -> list[DetailsT]:
        """Their details, oldest first."""
        return list(self._known.values())

    async def close_all(self, close_gracefully: Callable[[ConnectionT], None]) -> None:
        """Close all connections gracefully, then abort those still open after the time limit."""
        for one in self.connections():
            close_gracefully(one)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self._wait_until_empty()
        for one in self.connections():
            one.abort()
        await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        while self._known:
            self._empty.clear()
            await self._empty.wait()
