"""Limits the number of clients by the file descriptors that this process may open.

Guarantees that descriptors remain for peers, storage, snapshots and the HTTP port. Each connection takes one, and a
process without free descriptors accepts no connection, not even those of the replicas that it needs for a majority.
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
"""Standard streams, the event loop, storage, snapshots, log, listeners, and files that libraries open briefly."""
_PER_REPLICA = 8
"""Connections to and from each peer, including attempts that overlap."""
_UNAUTHENTICATED = 64
"""Connections at the port for replicas that have not completed the handshake."""
_REFUSED_CONNECTIONS = 64
"""Connections that are accepted in one turn of the event loop only to be refused because there are too many."""
CLIENTS_MIN = 8
"""With fewer than this, a replica does not start."""

_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


@dataclass(frozen=True, slots=True)
class Descriptors:
    """How many descriptors this process may open: now, and after raising its limit as far as the system permits."""

    soft: int
    hard: int


def reserve(replicas: int, http_connections: int) -> int:
    """The number of descriptors that are not for clients."""
    return _BASE + _PER_REPLICA * replicas + _UNAUTHENTICATED + _REFUSED_CONNECTIONS + http_connections


def clients_that_fit(asked: int, reserved: int, descriptors: Descriptors) -> tuple[int, int]:
    """The number of clients that there may be at a time, at most `asked`, and the soft limit that they need.

    Raises OperationalError if fewer than CLIENTS_MIN, or fewer than `asked` if that is smaller, are possible.
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
    """Raise the limit of this process as far as needed and possible; the number of clients that there may be then."""
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
    """Counts the clients of all ports together; `most` is their limit."""

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
    """Whether an event loop reports that no descriptor is left; if so, log it, but not every time."""
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
