"""The common part of Redis and native client connections: writing, flow control, accounting and closing."""

import asyncio
from abc import abstractmethod
from typing import Protocol, cast

from pydsm.server.lingering_close import close_lingering, remove_lingering
from pydsm.server.memory import ClientMemory
from pydsm.transport.sockets import enable_keepalive, peer_address


class ConnectionLimits(Protocol):
    """The limits of one connection, which `RespLimits` and `NativeLimits` document."""

    @property
    def write_buffer_bytes_max(self) -> int:
        """Bytes that the client has not read, beyond which nothing more is written."""
        ...

    @property
    def idle_seconds_before_probe(self) -> int:
        """See `enable_keepalive`."""
        ...


class ClientConnection(asyncio.Protocol):
    """The connection of one client: a `memory.Holder` and a `silent.SilentConnection`."""

    def __init__(self, memory: ClientMemory) -> None:
        self._memory = memory
        self._transport: asyncio.Transport | None = None
        self._read_paused = False
        self._write_paused = False
        self._ending = False
        """The reason for closing was sent; further input is discarded."""
        self._written_bytes = 0

    def pause_writing(self) -> None:
        """The client does not read."""
        self._write_paused = True
        self._memory.note(self)

    @property
    def write_paused(self) -> bool:
        """Whether nothing more is written to the client, because it has left too many bytes unread."""
        return self._write_paused

    @property
    def buffered_bytes(self) -> int:
        """Bytes of answers that the client has not read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # For `SilentConnections`

    def host(self) -> str | None:
        """See `silent.SilentConnection`."""
        if self._transport is None or self._transport.is_closing():
            return None
        address = peer_address(self._transport)
        return "an unknown address" if address is None else address.host

    # For `ClientMemory`

    @abstractmethod
    def half_sent_bytes(self) -> int:
        """See `memory.Holder`."""

    @abstractmethod
    def commands_read(self) -> int:
        """See `memory.Holder`."""

    @abstractmethod
    def other_bytes(self) -> int:
        """See `memory.Holder`."""

    @abstractmethod
    def who(self) -> str:
        """See `memory.Holder`."""

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

    # For subclasses

    def _attach(self, transport: asyncio.BaseTransport, limits: ConnectionLimits) -> None:
        """Begin with this transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.write_buffer_bytes_max)
        enable_keepalive(transport, limits.idle_seconds_before_probe)

    def _detach(self) -> None:
        """The transport is closed."""
        if self._transport is not None:
            remove_lingering(self._transport)
        self._memory.remove(self)
        self._transport = None

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._written_bytes += len(data)
            self._transport.write(data)

    def _read_unless(self, full: bool) -> None:
        """Pause reading if `full`, otherwise resume it."""
        if full != self._read_paused and self._transport is not None and not self._transport.is_closing():
            self._read_paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _end(self) -> None:
        """Close such that the last message arrives even while the client is sending."""
        if self._transport is not None and not self._ending:
            self._ending = True
            close_lingering(self._transport)
