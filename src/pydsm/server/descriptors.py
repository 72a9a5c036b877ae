"""How many clients there may be, by the descriptors that this process may open.

Guards that peers, storage, snapshots and the HTTP port have theirs whatever clients do: each connection takes one, and
a process that has none left can accept nobody, not even the replicas that it needs for a majority.
"""

import errno
import logging
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydsm.core.types.errors import OperationalError
from pydsm.logs import LogLimiter

log = logging.getLogger("pydsm.serve")

_BASE = 96
"""Standard streams, the loop, storage, snapshots, log, listeners, and libraries that open files for a moment."""
_PER_REPLICA = 8
"""Connections to and from each, with attempts that overlap."""
_UNAUTHENTICATED = 64
"""Connections at the port for replicas that have not completed the handshake."""
_REFUSED_CONNECTIONS = 64
"""Connections that are accepted in one turn of the event loop only to be refused because there are too many."""
CLIENTS_MIN = 8
"""With fewer than this, a replica does not start."""

_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the operating system lets this process open: now, and if it asks."""

    soft: int
    hard: int


def reserve(replicas: int, http_connections: int) -> int:
    """Descriptors that are not for clients."""
    return _BASE + _PER_REPLICA * replicas + _UNAUTHENTICATED + _REFUSED_CONNECTIONS + http_connections


def clients_that_fit(asked: int, reserved: int, descriptors: Descriptors) -> tuple[int, int]:
    """How many clients there may be at a time, and the soft limit that they need.

    Raises OperationalError when there is no room for any.
    """
    wanted = asked + reserved
    soft = max(descriptors.soft, min(wanted, descriptors.hard))
    fitting = min(asked, soft - reserved)
    if fitting < min(asked, CLIENTS_MIN):
        raise OperationalError(
            f"this process may open {soft} descriptors, of which {reserved} are for replicas, files and HTTP: none is "
            f"left for clients; raise the limit (ulimit -n, LimitNOFILE) to {wanted}"
        )
    return fitting, soft


def room_for_clients(asked: int, reserved: int) -> int:
    """Raise the limit of this process as far as needed and possible; how many clients there may be then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    most = asked + reserved
    now = Descriptors(most if soft == unlimited else soft, most if hard == unlimited else hard)
    if now.hard > now.soft and most > now.soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, now.hard), hard))
        except (OSError, ValueError) as error:
            log.warning("cannot raise the limit of %d open descriptors: %s", now.soft, error)
            now = replace(now, hard=now.soft)
    fitting, soft = clients_that_fit(asked, reserved, now)
    if fitting < asked:
        log.warning(
            "at most %d clients at a time, not %d: this process may open %d descriptors, of which %d are for replicas, "
            "files and HTTP; raise the limit (ulimit -n, LimitNOFILE) to %d for all of them",
            fitting,
            asked,
            soft,
            reserved,
            asked + reserved,
        )
    return fitting


class ClientCount:
    """Clients of all ports together, of which there may be so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0
        self._refused = LogLimiter(log, lines_max=1)

    def enter(self, port_is_full: bool = False) -> bool:
        """Count one more client; False when this or its port's limit is reached."""
        if port_is_full or self.now >= self.most:
            self._refused.warning("full", "a client was refused: %d are connected, which is the limit", self.now)
            return False
        self.now += 1
        return True

    def leave(self) -> None:
        """Count one client less."""
        self.now -= 1


_exhausted = LogLimiter(log, lines_max=1)


def log_exhaustion(context: Mapping[str, Any]) -> bool:
    """Whether what a loop reports is that there are no descriptors left; then one line says so, from time to time."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS):
        return False
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    _exhausted.warning(
        "exhausted",
        "no descriptor is left to accept a connection (%s): this process may open %d; raise the limit (ulimit -n, "
        "LimitNOFILE) or allow fewer clients",
        error.strerror,
        soft,
    )
    return True
