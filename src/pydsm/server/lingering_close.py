"""Closes the connection of a client such that the last message arrives.

If a socket is closed while it has unread input, the operating system resets the connection, and the client may lose
the last message, which states the reason for closing. Therefore the output is ended first, further input is read and
discarded, and the socket is closed when the client has closed its side, or after a time limit.
"""

import asyncio
import contextlib

_SECONDS_MAX = 2.0
_CONNECTIONS_MAX = 64

_lingering: set[asyncio.Transport] = set()


def close_lingering(transport: asyncio.Transport) -> None:
    """End the output, and close when the client has closed its side, at the latest after a time limit.

    From now on the protocol must ignore received data, return False from `eof_received`, and call `remove_lingering`
    from `connection_lost`. Closes immediately if too many connections linger already.
    """
    if len(_lingering) >= _CONNECTIONS_MAX or not transport.can_write_eof():
        transport.close()
        return
    with contextlib.suppress(OSError, RuntimeError):
        transport.write_eof()
        transport.resume_reading()
    _lingering.add(transport)
    asyncio.get_running_loop().call_later(_SECONDS_MAX, _abort, transport)


def remove_lingering(transport: asyncio.Transport) -> None:
    """The connection is closed. Ignored if it was not lingering."""
    _lingering.discard(transport)


def _abort(transport: asyncio.Transport) -> None:
    _lingering.discard(transport)
    transport.abort()
