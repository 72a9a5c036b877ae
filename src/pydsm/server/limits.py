"""Limits of the ports for clients."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RespLimits:
    """The limits of the Redis port."""

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
    """Bytes of their words; they are replicated as one command."""
    write_buffer_bytes_max: int = 32 << 20
    """Bytes of answers that a client has not read yet; beyond these, nothing more is written to it or read from it.

    Generous, because some clients send a whole pipeline before they read the first answer."""
    idle_seconds_before_probe: int = 300
    """Seconds without traffic after which the operating system sends TCP keepalive probes."""
    reply_bytes_max: int = 64 << 20
    """Bytes of one answer; a longer one is replaced by an error."""
    answer_seconds_max: float = 10.0
    """Seconds after which a command without a result is answered with an error."""
    connections_max: int = 10_000
    """Clients at a time; a further one gets an error and is disconnected."""


@dataclass(frozen=True, slots=True)
class NativeLimits:
    """The limits of the port for native clients."""

    connections_max: int = 10_000
    """Clients at a time; a further one gets an error and is disconnected."""
    handshake_seconds_max: float = 5.0
    """How long a client may take to complete the handshake."""
    command_bytes_max: int = 8 << 20
    """Bytes of one command, the largest that the replica accepts; Welcome carries the limit to the client."""
    frame_bytes_max: int = 16 << 20
    """Bytes of one frame of commands; a longer one ends the connection."""
    frame_commands_max: int = 50_000
    """Commands in one frame; more end the connection."""
    unanswered_commands_max: int = 50_000
    """Commands of one connection without an answer; once there are so many, no further frame of it is executed, and
    nothing is read from it."""
    write_buffer_bytes_max: int = 16 << 20
    """Bytes of answers that a client has not read; beyond these, nothing is read from it."""
    idle_seconds_before_probe: int = 300
    """Seconds without traffic after which the operating system sends TCP keepalive probes."""
    answer_bytes_max: int = 64 << 20
    """Bytes of one frame of answers; a single longer answer is replaced by an error."""
    ahead_ms_max: int = 60_000
    """How far after `NativeServerContext.now_ms` a session may begin. A later timestamp would make
    the detection of expired sessions less reliable."""
