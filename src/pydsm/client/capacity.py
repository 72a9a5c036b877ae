"""Limits the commands of a client that are in flight: further calls wait until others have their outcomes."""

import asyncio
from collections import deque

from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import ClientClosed


class Capacity:
    """Counts the commands in flight and their bytes. All calls from one event loop."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._commands = 0
        self._bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def add(self, commands: int, size_bytes: int) -> None:
        """Count commands that are in flight now, whether or not they fit."""
        self._commands += commands
        self._bytes += size_bytes

    def remove(self, commands: int, size_bytes: int) -> None:
        """Commands have their outcomes: count them no more, and wake the call that has waited longest."""
        self._commands -= commands
        self._bytes -= size_bytes
        self._wake_next()

    async def wait(self, commands: int, size_bytes: int) -> None:
        """Wait until these commands fit; a call larger than the limit is sent alone. Raises ClientClosed."""
        while self._commands and not self._fits(commands, size_bytes):
            if self._closed:
                raise ClientClosed("the client is closed")
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_next()  # this waiter was woken in vain
                raise

    def close(self) -> None:
        """Wake all waiting calls."""
        self._closed = True
        while self._waiters:
            self._wake_next()

    def _fits(self, commands: int, size_bytes: int) -> bool:
        limits = self._limits
        return (
            self._commands + commands <= limits.in_flight_commands_max
            and self._bytes + size_bytes <= limits.in_flight_bytes_max
        )

    def _wake_next(self) -> None:
        if self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
