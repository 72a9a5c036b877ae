"""Decides whether a replica accepts more requests of a session, depending on what it stores for sessions now.

Guarantees that no client can make a replica store results without limit. Agreed requests are executed and stored in any
case, within `core.sessions.sessions.SessionLimits`: a replica decides only about requests that it receives itself. So
all sessions together store at most the limit here, plus the results of the instances in flight at that time, each at
most `SessionLimits.batch_results_bytes_max`.
"""

from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.ids import session_of
from pydsm.core.types.messages import Run

SESSION_RESULTS_MAX = 100_000
"""Unacknowledged results of one session; at this limit the replica refuses further requests of the session."""
SESSION_RANGES_MAX = 1000
"""Ranges of executed sequences of one session, separated by requests that were given up; at this limit the replica
refuses further requests of the session."""
SESSIONS_MAX = 500_000
"""Number of sessions; at this limit the replica refuses requests of new ones."""
BOOKKEEPING_BYTES_MAX = 512 << 20
"""Counted bytes of all sessions without their results; beyond this limit the replica refuses requests of new sessions
and of sessions with gaps."""

_SHARE_MAX = 2.0
"""Bytes of the results of all sessions, as a multiple of `SessionLimits.results_bytes_max`; beyond it the replica
refuses all requests until a checkpoint, which drops results."""
_CHECKPOINT_SHARE = 1.5
"""The same multiple, beyond which a checkpoint is due immediately."""


def needs_checkpoint(sessions: Sessions) -> bool:
    """Whether the sessions store so many results that a checkpoint is due immediately."""
    return sessions.results_bytes > _CHECKPOINT_SHARE * sessions.results_bytes_max


def rejection_reason(sessions: Sessions, run: Run) -> str | None:
    """Why further requests of this session are refused, in one line; None if they are accepted."""
    session = session_of(run.first)
    if sessions.results_bytes > _SHARE_MAX * sessions.results_bytes_max:
        return (
            f"results that no client has acknowledged are {sessions.results_bytes} bytes, over the limit of "
            f"{_SHARE_MAX * sessions.results_bytes_max:.0f}; some are dropped at the next checkpoint"
        )
    if sessions.is_full(session, run.acknowledged, SESSION_RESULTS_MAX):
        return (
            f"{SESSION_RESULTS_MAX} results of this session are not acknowledged, or they use half of the bytes that "
            "one session may store; acknowledge some"
        )
    if sessions.ranges(session) >= SESSION_RANGES_MAX:
        return f"{SESSION_RANGES_MAX} requests of this session were given up; begin another session"
    if len(sessions) >= SESSIONS_MAX and session not in sessions:
        return f"there are {SESSIONS_MAX} sessions already"
    if sessions.held_bytes - sessions.results_bytes > BOOKKEEPING_BYTES_MAX and sessions.ranges(session) != 1:
        return f"sessions and requests that were given up use {BOOKKEEPING_BYTES_MAX} bytes already"
    return None
