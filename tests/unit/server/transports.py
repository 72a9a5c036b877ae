"""A transport without a socket, for tests that call the methods of a connection themselves."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class RecordingTransport(asyncio.Transport):
    """Records what a connection writes and how it closes. The client reads everything immediately."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 6)})
        self.written = b""
        self.is_reading_paused = False
        self.end: str | None = None
        """How the connection was closed: `close`, `abort`, or `write_eof` while the client may still send."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Unconnected() if name == "socket" else super().get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.end = "write_eof"

    def close(self) -> None:
        self.end = "close"

    def abort(self) -> None:
        self.end = "abort"

    def is_closing(self) -> bool:
        return self.end is not None

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


class Unconnected:
    """A socket that accepts every option."""

    def setsockopt(self, *option: int) -> None:
        pass


@contextmanager
def opened(connection: ProtocolT) -> Iterator[tuple[ProtocolT, RecordingTransport]]:
    """Open a connection, and lose it at the end, so that its server can stop."""
    transport = RecordingTransport()
    connection.connection_made(transport)
    try:
        yield connection, transport
    finally:
        connection.connection_lost(None)
