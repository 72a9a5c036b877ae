"""Everyone who is connected to one port, and how they are sent away."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_STOP_SECONDS_MAX = 2.0


class Guest(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close at once; the connection tells the crowd when it is gone."""
        ...


Someone = TypeVar("Someone", bound=Guest)
Known = TypeVar("Known")


class Crowd(Generic[Someone, Known]):
    """Connections in the order in which they came, each with what is known of it."""

    def __init__(self) -> None:
        self._known: dict[Someone, Known] = {}
        self._everyone_left = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, one: Someone, known: Known) -> None:
        """Somebody came."""
        self._known[one] = known

    def left(self, one: Someone) -> bool:
        """Somebody is gone, or never came in: then False."""
        was_here = one in self._known
        self._known.pop(one, None)
        if not self._known:
            self._everyone_left.set()
        return was_here

    def everyone(self) -> list[Someone]:
        """Oldest first."""
        return list(self._known)

    def known(self) -> list[Known]:
        """What is known of them, oldest first."""
        return list(self._known.values())

    async def send_away(self, politely: Callable[[Someone], None]) -> None:
        """Ask everyone to leave, and cut off those who have not gone in time."""
        for one in self.everyone():
            politely(one)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await self._wait_until_alone()
        for one in self.everyone():
            one.abort()
        await self._wait_until_alone()

    async def _wait_until_alone(self) -> None:
        while self._known:
            self._everyone_left.clear()
            await self._everyone_left.wait()
