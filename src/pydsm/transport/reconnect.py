"""When a peer is dialled again: after a jittered, growing wait, or immediately when that peer connects to us."""

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

_COMPLAINT_CHARACTERS_MAX = 2100


class Reconnector(ABC):
    """Keeps a connection to one peer up. Subclasses make one. `name` is for logs."""

    def __init__(self, name: str, address: Address, limits: TransportLimits) -> None:
        self.name = name
        self.address = address
        self._limits = limits
        self._last_complaint = ""
        self._peer_is_back = asyncio.Event()

    def dial_now(self) -> None:
        """End the wait: the peer has just connected, so it is reachable."""
        self._peer_is_back.set()

    @abstractmethod
    async def one_connection(self) -> str | None:
        """Dial, and return when the connection has ended: None if the peer was accepted, else what went wrong."""

    async def run(self) -> NoReturn:
        """Dial, do the handshake, wait for its end, and repeat; a failure is logged if it differs from the last."""
        backoff = self._limits.backoff_seconds_min
        while True:
            self._peer_is_back.clear()
            complaint = await self.one_connection()
            complaint = None if complaint is None else printable(complaint, _COMPLAINT_CHARACTERS_MAX)
            if complaint is None:
                backoff = self._limits.backoff_seconds_min
            elif complaint != self._last_complaint:
                log.warning("no connection to %s at %s: %s; trying again", self.name, self.address, complaint)
            self._last_complaint = complaint or ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff * random.uniform(0.5, 1.5)):
                    await self._peer_is_back.wait()
            backoff = min(2 * backoff, self._limits.backoff_seconds_max)
