"""Operations on the socket of an asyncio transport that all kinds of connections use."""

import asyncio
import contextlib
import socket

from pydsm.transport.address import Address


def enable_keepalive(transport: asyncio.BaseTransport, idle_seconds: int | None = None) -> None:
    """Enable TCP keepalive, which detects machines that disappeared without closing the connection.

    `idle_seconds` is the time without traffic before the first probe, where the system supports it; None for the
    system's default.
    """
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None:
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if idle_seconds is not None and hasattr(socket, "TCP_KEEPIDLE"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_seconds)


def peer_address(transport: asyncio.BaseTransport | None) -> Address | None:
    """The address of the other end; None without a connection, or if it is not an IP address."""
    return None if transport is None else _address(transport.get_extra_info("peername"))


def own_address(transport: asyncio.BaseTransport) -> Address | None:
    """The address of this end; None if it is not an IP address."""
    return _address(transport.get_extra_info("sockname"))


def _address(name: object) -> Address | None:
    return Address(str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None
