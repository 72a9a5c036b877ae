"""Limits the connections of clients that have not sent a complete request: their number, and how long they stay open.

Prevents silent connections from keeping other clients out. A connection counts only after it has been
silent for some seconds, so that thousands that are opened together from one address are accepted. The connection to
close is chosen as at the port for replicas: the oldest of its address if that has reached its limit, otherwise the
oldest of the address that has most. Connections with an incomplete request are closed by `memory`.
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
    """The limits of all ports that share one `SilentConnections`."""

    grace_seconds: float = 5.0
    """Seconds that a connection may be silent without being counted."""
    silent_seconds_max: float = 60.0
    """Seconds after which a connection that has sent nothing is closed."""
    per_address_max: int = 1250
    """Silent connections from one address."""
    connections_max: int = 5000
    """Silent connections from all addresses."""

    @staticmethod
    def among(clients_max: int) -> "SilentLimits":
        """The limits if there may be `clients_max` clients: half of them silent, an eighth from one address."""
        return SilentLimits(per_address_max=max(1, clients_max // 8), connections_max=max(1, clients_max // 2))


class SilentConnection(Protocol):
    """A connection that may be silent."""

    def host(self) -> str | None:
        """The address of the client, without the port; None if the connection is closed."""
        ...

    def half_sent_bytes(self) -> int:
        """Bytes received of a request that is not complete."""
        ...

    def abort(self) -> None:
        """Close immediately."""
        ...


class SilentConnections:
    """Call `opened` for a new connection, and `settled` when it has sent a request or is closed."""

    def __init__(self, limits: SilentLimits, log: logging.Logger) -> None:
        self.limits = limits
        self.closed = 0
        """The number of connections that were closed by these limits since the start."""
        self._lines = LogLimiter(log, lines_max=1)
        self._fresh: dict[SilentConnection, float] = {}
        """The connections within the grace period and their opening times in seconds, oldest first."""
        self._silent: dict[SilentConnection, float] = {}
        """The connections that count, likewise."""
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
        """A connection has sent a complete request, or is closed. Ignored if it is not registered."""
        self._fresh.pop(connection, None)
        if self._silent.pop(connection, None) is not None:
            self._pending.remove(connection)

    def stop(self) -> None:
        """Cancel the periodic check."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.check(loop.time())
        more = self._fresh or self._silent
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep) if more else None

    def check(self, now: float) -> None:
        """Count connections whose grace period is over at `now`; close those over a limit, or silent for too long."""
        for connection in [one for one in self._silent if one.host() is None]:
            self.settled(connection)
        for connection, since in list(self._fresh.items()):
            if now - since < self.limits.grace_seconds:
                break
            del self._fresh[connection]
            host = connection.host()
            if host is not None:
                self._silent[connection] = since
                excess = self._pending.add(connection, host)
                if excess is not None:
                    self._close(excess, "too many connections have sent no request, this one longest")
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
