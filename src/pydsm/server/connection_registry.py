"""Everyone who is connected to one port, and how they are sent away."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_STOP_SECONDS_MAX = 2.0


class RegisteredConnection(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close at once; the connection tells the crowd when it is gone."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=RegisteredConnection)
DetailsT = TypeVar("DetailsT")


class ConnectionRegistry(Generic[ConnectionT, DetailsT]):
    """Connections in the order in which they came, each with what is known of it."""

    def __init__(self) -> None:
        self._known: dict[ConnectionT, DetailsT] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, one: ConnectionT, known: DetailsT) -> None:
        """Somebody came."""
        self._known[one] = known

    def left(self, one: ConnectionT) -> bool:
        """Somebody is gone, or never came in: then False."""
        was_here = one in self._known
        self._known.pop(one, None)
        if not self._known:
            self._empty.set()
        return was_here

    def connections(self) -> list[ConnectionT]:
        """Oldest first."""
        return list(self._known)

    def known(self) -> list[DetailsT]:
        """What is known of them, oldest first."""
        return list(self._known.values())

    async def close_all(self, close_gracefully: Callable[[ConnectionT], None]) -> None:
        """Ask everyone to leave, and cut off those who have not gone in time."""
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
