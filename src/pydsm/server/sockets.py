"""How the ports for clients close sockets, so that what was said last arrives, and keep watch on silent ones.

Whoever closes a socket that has unread bytes in it resets the connection, and the other side may lose what it has not
read yet: the very line that says why. So the end is announced, what still comes is read and thrown away, and the socket
is closed when the other side has closed it, or after a moment.
"""

import asyncio
import contextlib
import socket

_SECONDS_MAX = 2.0
_MANY = 64

_lingering: set[asyncio.Transport] = set()


def notice_if_it_vanishes(transport: asyncio.BaseTransport, idle_seconds_before_probe: int) -> None:
    """Enable TCP keepalive, with the first probe after this much silence."""
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_seconds_before_probe)


def close_when_heard(transport: asyncio.Transport) -> None:
    """What the protocol receives from here on it should ignore, and at the end of it return False."""
    if len(_lingering) >= _MANY or not transport.can_write_eof():
        transport.close()
        return
    with contextlib.suppress(OSError, RuntimeError):
        transport.write_eof()
        transport.resume_reading()
    _lingering.add(transport)
    asyncio.get_running_loop().call_later(_SECONDS_MAX, _close, transport)


def heard(transport: asyncio.Transport) -> None:
    """The connection is gone."""
    _lingering.discard(transport)


def _close(transport: asyncio.Transport) -> None:
    _lingering.discard(transport)
    transport.abort()
