"""When a peer is dialled again: after a jittered, growing wait, or immediately when that peer has connected."""

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from typing import NoReturn

from pydsm.logs import printable
from pydsm.transport.address import Address
from pydsm.transport.limits import TransportLimits

log = logging.getLogger("pydsm.transport")

_REASON_CHARACTERS_MAX = 2100


class Reconnector(ABC):
    """Keeps a connection to one peer open; a subclass makes the connection. `name` is for logs."""

    def __init__(self, name: str, address: Address, limits: TransportLimits) -> None:
        self.name = name
        self.address = address
        self._limits = limits
        self._last_reason = ""
        self._peer_connected = asyncio.Event()

    def dial_now(self) -> None:
        """End the wait: the peer has just connected, so it is reachable."""
        self._peer_connected.set()

    @abstractmethod
    async def one_connection(self) -> str | None:
        """Dial, and return when the connection has ended: None if the handshake was completed, else the reason."""

    async def run(self) -> NoReturn:
        """Dial, wait until the connection ends, and repeat; a reason is logged if it differs from the last one."""
        backoff = self._limits.backoff_seconds_min
        while True:
            self._peer_connected.clear()
            reason = await self.one_connection()
            reason = None if reason is None else printable(reason, _REASON_CHARACTERS_MAX)
            if reason is None:
                backoff = self._limits.backoff_seconds_min
            elif reason != self._last_reason:
                log.warning("no connection to %s at %s: %s; trying again", self.name, self.address, reason)
            self._last_reason = reason or ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff * random.uniform(0.5, 1.5)):
                    await self._peer_connected.wait()
            backoff = min(2 * backoff, self._limits.backoff_seconds_max)
