"""Every limit of a client, checked once."""

from dataclasses import dataclass

from pydsm.core.types.errors import UsageError


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Every limit of a client. Raises UsageError for one that cannot work."""

    timeout_seconds: float = 10.0
    """How long a command may take, including retries; then it ends with the outcome known so far."""
    in_flight_commands_max: int = 10_000
    """Commands without an outcome; further ones wait."""
    in_flight_bytes_max: int = 64 << 20
    """Bytes of those commands; further ones wait."""
    connect_seconds_max: float = 2.0
    """How long connecting and the handshake may take."""
    silence_seconds_max: float = 2.0
    """How long a replica may answer no open command; then they are sent to others too."""
    rediscovery_interval_seconds: float = 10.0
    """How often the client checks for a nearer replica or the preferred one."""
    backoff_seconds_max: float = 0.5
    """The longest wait between two attempts of a command or of a connection."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
