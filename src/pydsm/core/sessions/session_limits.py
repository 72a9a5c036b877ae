"""Limits of what is kept of sessions, and the states of a request."""

from dataclasses import dataclass, field
from enum import Enum

from pydsm.core.clocks.agreed_time import TimeLimits


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """Result of a request whose session expired: not executed now; whether it was executed before is unknown."""

    reason: str = "its session was idle for too long and has expired"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What is kept, and for how long. Must be the same at every replica of a group, because it affects results."""

    idle_ms_max: int = 3_600_000
    """A session without a request for this long expires at the next checkpoint; its later requests are refused."""
    session_results_bytes_max: int = 16 << 20
    """Encoded results of one session; above this, the oldest are dropped immediately."""
    batch_results_bytes_max: int = 16 << 20
    """Results kept of one batch, approximately: the last ones that fit. The others are never kept."""
    results_bytes_max: int = 128 << 20
    """Encoded results of all sessions. At a barrier the results of the largest session are dropped, then those of the
    next one, until the rest fits. Between barriers, `runtime/admission` limits what replicas accept."""
    time: TimeLimits = field(default_factory=TimeLimits)
    """The limits of agreed time."""


class RequestState(Enum):
    """The state of one request according to the sessions of one replica, now."""

    KEPT = "executed, and its result is kept"
    DROPPED = "executed or given up, and its result is dropped: its client has acknowledged it"
    OPEN = "not executed here so far"
    NEW = "not executed here so far, nor any other request of its session"
    EXPIRED = "its session has expired: whether it was executed is no longer known"
    UNTRACKED = "of a connection whose requests are never sent again: no results are kept"
