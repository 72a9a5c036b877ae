"""What is kept of sessions and for how long, and the words for what became of a request."""

from dataclasses import dataclass, field
from enum import Enum

from pydsm.core.clocks.agreed_time import TimeLimits


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """A request of a session that was forgotten: not executed now, and whether it ever was cannot be told."""

    reason: str = "its session was idle for too long, and is forgotten"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What is kept, and for how long. The same at every replica of a group, like the machine: it decides results."""

    idle_ms_max: int = 3_600_000
    """A session without a request for so long is forgotten at the next checkpoint; what comes of it then is refused."""
    session_results_bytes_max: int = 16 << 20
    """Encoded results of one session; when there are more, the oldest are dropped at once."""
    batch_results_bytes_max: int = 16 << 20
    """Results that are kept of one batch, about; those in front of the last ones that fit are never kept."""
    results_bytes_max: int = 128 << 20
    """Encoded results of all sessions; at a barrier, those of the session that keeps most are dropped, then those of
    the next, until the rest fits. Between barriers, replicas take no more than `runtime.admission` says."""
    time: TimeLimits = field(default_factory=TimeLimits)
    """How agreed time moves."""


class RequestState(Enum):
    """What the sessions of one replica say of one request, at this moment."""

    KEPT = "executed, and its result is kept"
    DROPPED = "executed or given up, and its result is dropped: its client has acknowledged it"
    OPEN = "not executed here so far"
    NEW = "not executed here so far, nor any other request of its session"
    FORGOTTEN = "its session is forgotten: nobody can tell any more whether it was executed"
    UNKEPT = "of a connection whose requests are never sent again: no results are kept"
