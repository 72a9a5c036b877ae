"""The limits of a native client."""

from dataclasses import dataclass

from pydsm.core.types.errors import UsageError


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits of a client. Raises UsageError if one of them is not above 0."""

    timeout_seconds: float = 10.0
    """Seconds that a command may take, including retries; then it ends with the outcome known so far."""
    in_flight_commands_max: int = 10_000
    """Commands without an outcome; further commands wait."""
    in_flight_bytes_max: int = 64 << 20
    """Bytes of these commands; further commands wait."""
    connect_seconds_max: float = 2.0
    """Seconds that connecting and the handshake may take."""
    silence_seconds_max: float = 2.0
    """Seconds without any answer after which open commands are sent through another replica as well."""
    rediscovery_interval_seconds: float = 10.0
    """Seconds between two checks for a nearer replica or the preferred one."""
    backoff_seconds_max: float = 0.5
    """Seconds between two attempts of a command or of a connection, at most."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
