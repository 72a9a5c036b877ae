"""Proxies between replicas, one for each direction, which can be cut in several ways.

A replica sends only on connections that it has dialled itself, so cutting the proxy through which r1 dials r2 blocks
only the messages from r1 to r2.
"""

import asyncio
import contextlib
from enum import Enum

from pydsm.transport.address import Address

_CHUNK_BYTES = 1 << 16


class Cut(Enum):
    """The ways in which a wire fails."""

    HELD = "held: nothing arrives until it is healed"
    SWALLOWED = "swallowed: what is sent is gone, and nobody is told"
    RESET = "reset: connections break, and new ones are refused"


class Wire:
    """A proxy in front of one address."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._cut: Cut | None = None
        self._bytes_left: int | None = None
        self._healed = asyncio.Event()
        self._healed.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._spoilt: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Address:
        """Listen. Returns the address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self, how: Cut) -> None:
        """Cut the wire from now on."""
        self._cut = how
        if how is Cut.RESET:
            for writer in self._writers:
                writer.transport.abort()
        else:
            self._healed.clear()

    def hold_after(self, bytes_more: int) -> None:
        """Let about this number of bytes pass, and hold the rest."""
        self._bytes_left = bytes_more

    def heal(self) -> None:
        """Restore the wire. A connection that has lost bytes is unusable and is closed."""
        self._cut = self._bytes_left = None
        self._healed.set()
        for writer in self._spoilt:
            writer.transport.abort()
        self._spoilt.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # the wire is stopped
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._serving.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut is Cut.RESET:
            return
        await self._healed.wait()
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers.add(far_writer)
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.transport.abort()
            self._writers.discard(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self._cut is Cut.SWALLOWED:
                self._spoilt.add(writer)
                continue
            await self._healed.wait()
            writer.write(data)
            await writer.drain()
            self._count(len(data))

    def _count(self, passed: int) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= passed
            if self._bytes_left <= 0:
                self.cut(Cut.HELD)
