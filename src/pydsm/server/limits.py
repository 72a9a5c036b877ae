"""Limits of the Redis port."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RespLimits:
    """Every limit of the Redis port."""

    bulk_bytes_max: int = 8 << 20
    """Bytes of one argument; a command with a longer one is skipped and answered with an error."""
    arguments_max: int = 1 << 20
    """Words of one command; one with more is skipped and answered with an error."""
    query_buffer_bytes_max: int = 16 << 20
    """Bytes of one command, its framing included; a longer one is skipped and answered with an error."""
    line_bytes_max: int = 64 << 10
    """Bytes of one line: an inline command, or a length; a longer one is a protocol error."""
    unanswered_commands_max: int = 1024
    """Commands of one connection without an answer; beyond these, nothing is read from it."""
    transaction_commands_max: int = 10_000
    """Commands between MULTI and EXEC; a further one is refused, and EXEC too."""
    transaction_bytes_max: int = 4 << 20
    """Bytes of their words; they are agreed on as one command."""
    write_buffer_bytes_max: int = 32 << 20
    """Bytes of answers that a client has not read yet; beyond these, nothing is written to it nor read from it.

    Generous, because some clients send a whole pipeline before they read the first answer."""
    idle_seconds_before_probe: int = 300
    """Seconds of silence after which the operating system asks whether a client's machine is still there."""
    reply_bytes_max: int = 64 << 20
    """Bytes in one answer; a longer one is an error instead."""
    answer_seconds_max: float = 10.0
    """After which a command that has no result is answered with an error that says so."""
    connections_max: int = 10_000
    """Clients at a time; a further one gets an error and is disconnected."""
