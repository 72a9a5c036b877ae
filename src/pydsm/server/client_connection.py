"""Common base of Redis and native client connections: writing, flow control, accounting and closing."""

import asyncio

from pydsm.server.sockets import close_when_heard


class ClientConnection(asyncio.Protocol):
    """Begin with `_transport` set. A `memory.Holder`, but for what only the kind of connection knows."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._read_paused = False
        self._ending = False
        """The reason for closing was sent; further input is discarded."""
        self._written_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes of answers that wait for the client."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def host(self) -> str | None:
        """See `silent.Connection`."""
        if self._transport is None or self._transport.is_closing():
            return None
        address = self._transport.get_extra_info("peername")
        return str(address[0]) if isinstance(address, tuple) else str(address)

    def unread_bytes(self) -> int:
        """See `memory.Holder`."""
        return self.buffered_bytes

    def taken_bytes(self) -> int:
        """See `memory.Holder`."""
        return self._written_bytes - self.buffered_bytes

    def abort(self) -> None:
        """Close immediately."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._written_bytes += len(data)
            self._transport.write(data)

    def _read_unless(self, full: bool) -> None:
        """Read from the client, or not."""
        if full != self._read_paused and self._transport is not None and not self._transport.is_closing():
            self._read_paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _end(self) -> None:
        """Close in such a manner that the last reply arrives even while the client is still sending."""
        if self._transport is not None and not self._ending:
            self._ending = True
            close_when_heard(self._transport)
