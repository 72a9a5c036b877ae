"""A minimal Redis client (RESP2), for measurements and tests: commands to bytes, bytes to replies, and `ask`."""

import asyncio
from dataclasses import dataclass

from pydsm.core.types.errors import PeerProtocolError
from pydsm.transport.address import Address


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error reply: the command was not executed, or failed."""

    message: str


RespReply = bytes | int | None | ErrorReply | list["RespReply"]
"""Simple and bulk strings are bytes."""


def encode_command(*words: bytes) -> bytes:
    """The encoding of one command, as client libraries send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class RespReader:
    """Parses the bytes of one connection into replies."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[RespReply]:
        """The replies that `data` completes. Raises PeerProtocolError if the bytes are not a reply."""
        buffer = self._buffer + data if self._buffer else data
        replies: list[RespReply] = []
        start = 0
        while (parsed := _parse(buffer, start)) is not None:
            reply, start = parsed
            replies.append(reply)
        self._buffer = buffer[start:]
        return replies


def _parse(buffer: bytes, start: int) -> tuple[RespReply, int] | None:
    """The reply at `start` and where the next one begins; None while it is incomplete."""
    end = buffer.find(b"\r\n", start)
    if end < 0:
        return None
    kind, line, after = buffer[start : start + 1], buffer[start + 1 : end], end + 2
    if kind == b"+":
        return line, after
    if kind == b"-":
        return ErrorReply(line.decode(errors="replace")), after
    try:
        number = int(line)
    except ValueError as error:
        raise PeerProtocolError(f"the server answers {buffer[start:end]!r}, which is not a reply") from error
    if kind == b":":
        return number, after
    if kind == b"$":
        return _parse_bulk(buffer, number, after)
    if kind == b"*":
        return _parse_array(buffer, number, after)
    raise PeerProtocolError(f"the server answers {buffer[start:end]!r}, which is not a reply")


def _parse_bulk(buffer: bytes, length: int, start: int) -> tuple[RespReply, int] | None:
    if length < 0:
        return None, start
    end = start + length
    return (buffer[start:end], end + 2) if len(buffer) >= end + 2 else None


def _parse_array(buffer: bytes, length: int, start: int) -> tuple[RespReply, int] | None:
    items: list[RespReply] = []
    for _ in range(length):
        parsed = _parse(buffer, start)
        if parsed is None:
            return None
        item, start = parsed
        items.append(item)
    return (items if length >= 0 else None), start


async def ask(address: Address, *commands: bytes, seconds_max: float = 10) -> list[RespReply]:
    """Send encoded commands to one replica and wait for all replies.

    Raises OSError, TimeoutError or PeerProtocolError.
    """
    async with asyncio.timeout(seconds_max):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(b"".join(commands))
            parser, replies = RespReader(), list[RespReply]()
            while len(replies) < len(commands):
                data = await reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError(f"{address} closed the connection before it had answered")
                replies += parser.feed(data)
            return replies
        finally:
            writer.transport.abort()
