"""Connections of clients that have sent no complete request yet: how many there may be, and for how long.

Prevents idle connections from keeping other clients out. A connection counts only after it has been silent for some
seconds, so that thousands opened together from one address are accepted. The connection to close is chosen as at the
port for replicas: the oldest of the address that has its share, else of the one that has most. Connections with an
incomplete request are closed by `memory`.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from pydsm.logs import LogLimiter
from pydsm.transport.limits import TransportLimits
from pydsm.transport.pending import PendingConnections

_SWEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SilentLimits:
    """For all ports that share one `SilentConnections`."""

    grace_seconds: float = 5.0
    """How long a connection may be silent without being counted."""
    silent_seconds_max: float = 60.0
    """After this, a connection that has sent nothing is closed."""
    per_address_max: int = 1250
    """Silent connections from one address."""
    connections_max: int = 5000
    """Silent connections from all addresses."""

    @staticmethod
    def among(clients_max: int) -> "SilentLimits":
        """Where there may be so many clients: half of them silent, an eighth of one address."""
        return SilentLimits(per_address_max=max(1, clients_max // 8), connections_max=max(1, clients_max // 2))


class SilentConnection(Protocol):
    """A connection that may be silent."""

    def host(self) -> str | None:
        """The address that it comes from, without the port; None when it is gone."""
        ...

    def half_sent_bytes(self) -> int:
        """Of a request that is not complete."""
        ...

    def abort(self) -> None:
        """Close immediately."""
        ...


class SilentConnections:
    """Connections are `opened`, and `settled` when they have sent a request or are gone."""

    def __init__(self, limits: SilentLimits, log: logging.Logger) -> None:
        self.limits = limits
        self.closed = 0
        """Connections that were closed for their silence, since the start."""
        self._lines = LogLimiter(log, lines_max=1)
        self._fresh: dict[SilentConnection, float] = {}
        """When each was opened, those within the grace period, oldest first."""
        self._silent: dict[SilentConnection, float] = {}
        """The same, of those that count."""
        self._pending: PendingConnections[SilentConnection] = PendingConnections(
            TransportLimits(
                unauthenticated_connections_max=limits.connections_max,
                unauthenticated_per_address_max=limits.per_address_max,
            )
        )
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._silent)

    def opened(self, connection: SilentConnection) -> None:
        """A client has connected."""
        loop = asyncio.get_running_loop()
        self._fresh[connection] = loop.time()
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def settled(self, connection: SilentConnection) -> None:
        """It has sent a complete request, or is closed. Ignored for a connection that is not registered."""
        self._fresh.pop(connection, None)
        if self._silent.pop(connection, None) is not None:
            self._pending.remove(connection)

    def stop(self) -> None:
        """Cancel the periodic check."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.look(loop.time())
        more = self._fresh or self._silent
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep) if more else None

    def look(self, now: float) -> None:
        """Count those whose grace period is over, and close those that are too many or silent for too long."""
        for connection in [one for one in self._silent if one.host() is None]:
            self.settled(connection)
        for connection, since in list(self._fresh.items()):
            if now - since < self.limits.grace_seconds:
                break
            del self._fresh[connection]
            host = connection.host()
            if host is not None:
                self._silent[connection] = since
                crowded_out = self._pending.add(connection, host)
                if crowded_out is not None:
                    self._close(crowded_out, "too many connections have sent no request, this one longest")
        for connection, since in list(self._silent.items()):
            if now - since < self.limits.silent_seconds_max:
                break
            if not connection.half_sent_bytes():
                self._close(connection, f"it sent nothing within {self.limits.silent_seconds_max:g} s")

    def _close(self, connection: SilentConnection, why: str) -> None:
        host = connection.host()
        self.settled(connection)
        self.closed += 1
        self._lines.warning((host, why), "a client at %s was disconnected: %s", host, why)
        connection.abort()
