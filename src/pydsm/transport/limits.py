"""Limits of every transport."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Resources that a peer or an unauthenticated connection may use."""

    peer_queue_bytes_max: int = 64 << 20
    """Bytes waiting for one peer; messages beyond are dropped."""
    disconnected_queue_bytes_max: int = 1 << 20
    """Bytes queued for a peer without a connection; the oldest messages are dropped."""
    frame_bytes_target: int = 1 << 20
    """Bytes after which a frame is complete, so that a receiver is never busy with one frame for long."""
    linger_seconds_max: float = 0.002
    """How long a message that can wait (see `coalescing`) is delayed to share a frame with others; 0: not at all."""
    linger_bytes_max: int = 4096
    """Bytes of messages that can wait, queued for one peer, above which they are sent at the end of the turn."""
    handshake_seconds_max: float = 5.0
    """How long dialling and the handshake may take together."""
    silence_seconds_max: float = 10.0
    """How long sent bytes may stay unacknowledged before the connection is given up (where the system allows it)."""
    backoff_seconds_min: float = 0.05
    """Wait before the first redial, times a random factor between 0.5 and 1.5."""
    backoff_seconds_max: float = 2.0
    """The wait doubles up to this."""
    unauthenticated_connections_max: int = 64
    """Incoming connections without a completed handshake, from addresses of no known member; see `pending`."""
    unauthenticated_per_address_max: int = 16
    """Incoming connections without a completed handshake from one address, for each member with it."""
