"""Incoming connections that have not completed the handshake: their limits, and which one is closed beyond them.

Prevents idle connections from keeping a member out. A new connection is never refused: the oldest pending one is
closed instead, of the same address if that has reached its limit, otherwise of the address that has the most. A member
completes the handshake within a round trip, so it is rarely the oldest. The addresses of members have limits of their
own, so connections from other addresses cannot use them up.
"""

import ipaddress
from collections.abc import Iterable
from typing import Generic, TypeVar

from pydsm.core.types.ids import ReplicaId
from pydsm.transport.limits import TransportLimits

PendingConnection = TypeVar("PendingConnection")


def comparable_host(host: str) -> str:
    """The canonical form of an IP address; any other text is returned unchanged."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class PendingConnections(Generic[PendingConnection]):
    """Connections by the address that they come from, oldest first."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._hosts: dict[str, dict[PendingConnection, None]] = {}
        self._host_of: dict[PendingConnection, str] = {}
        self._resolved: dict[ReplicaId, frozenset[str]] = {}
        self._seen: dict[ReplicaId, str] = {}

    def __len__(self) -> int:
        return len(self._host_of)

    def all(self) -> list[PendingConnection]:
        """Oldest first."""
        return list(self._host_of)

    def member_is_at(self, member: ReplicaId, hosts: Iterable[str]) -> None:
        """The address of this member resolves to these hosts now."""
        self._resolved[member] = frozenset(map(comparable_host, hosts))

    def note_member_host(self, member: ReplicaId, host: str) -> None:
        """This member completed a handshake from this host, which may differ from its listening address."""
        self._seen[member] = comparable_host(host)

    def add(self, connection: PendingConnection, host: str) -> PendingConnection | None:
        """Add a connection. Returns the one that must be closed for it, which is already removed, or None."""
        host = comparable_host(host)
        members = self._members_at(host)
        mine = self._hosts.setdefault(host, {})
        mine[connection] = None
        self._host_of[connection] = host
        if len(mine) > self._limits.unauthenticated_per_address_max * max(1, members):
            return self._drop_oldest(host)
        if not members:
            others = {name: len(theirs) for name, theirs in self._hosts.items() if not self._members_at(name)}
            if sum(others.values()) > self._limits.unauthenticated_connections_max:
                return self._drop_oldest(max(others, key=lambda name: others[name]))
        return None

    def remove(self, connection: PendingConnection) -> None:
        """Remove a connection that completed the handshake or is closed; ignored when absent."""
        host = self._host_of.pop(connection, None)
        if host is not None:
            del self._hosts[host][connection]
            if not self._hosts[host]:
                del self._hosts[host]

    def _members_at(self, host: str) -> int:
        members = self._resolved.keys() | self._seen.keys()
        return sum(host == self._seen.get(one) or host in self._resolved.get(one, ()) for one in members)

    def _drop_oldest(self, host: str) -> PendingConnection:
        oldest = next(iter(self._hosts[host]))
        self.remove(oldest)
        return oldest
