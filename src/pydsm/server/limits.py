"""How much one client may ask for, hold and leave unread."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RespLimits:
    """Every limit of the Redis port."""

    bulk_bytes_max: int = 8 << 20
    """Bytes of one argument; a longer one is a protocol error."""
    arguments_max: int = 1 << 20
    """Words of one command; more are a protocol error."""
    query_buffer_bytes_max: int = 16 << 20
    """Bytes of one command, its framing included; more are a protocol error."""
    line_bytes_max: int = 64 << 10
    """Bytes of one line: an inline command, or a length; a longer one is a protocol error."""
    unanswered_commands_max: int = 1024
    """Commands of one connection without an answer; beyond these, nothing is read from it."""
    write_buffer_bytes_max: int = 1 << 20
    """Bytes of answers that a client has not taken yet; beyond these, nothing is written to it nor read from it."""
    reply_bytes_max: int = 64 << 20
    """Bytes in one answer; a longer one is an error instead."""
    connections_max: int = 10_000
    """Clients at a time; one more is told so and disconnected."""
