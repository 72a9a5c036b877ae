"""Whether a replica takes more requests of a session, by what it has of it now.

Guards that no client makes a replica keep results without end. What was agreed on is executed and kept all the same,
within the limits of `core.sessions.sessions.SessionLimits`: every replica decides only for what comes to itself. So all
sessions together keep at most the limit here, and what the instances under way at that moment leave, each at most
`SessionLimits.batch_results_bytes_max`.
"""

from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.ids import session_of
from pydsm.core.types.messages import Run

SESSION_RESULTS_MAX = 100_000
"""Results of one session that nobody has acknowledged, beyond which this replica takes no more of its requests."""
SESSION_RANGES_MAX = 1000
"""Gaps in the executed sequences of one session, left by requests that were given up, beyond which it takes no more."""
SESSIONS_MAX = 500_000
"""Sessions, beyond which this replica takes no request of a new one."""
BOOKKEEPING_BYTES_MAX = 512 << 20
"""What all sessions are counted as without their results; beyond it this replica takes no request of a new session, nor
of one with gaps."""

_SHARE_MAX = 2.0
"""How often `SessionLimits.results_bytes_max` the results of all sessions may be counted as, beyond which this replica
takes no request of any until a checkpoint, which drops results."""
_CHECKPOINT_SHARE = 1.5
"""The same, beyond which a checkpoint is due at once."""


def wants_checkpoint(sessions: Sessions) -> bool:
    """Whether sessions keep so much that the next checkpoint should not wait for its time."""
    return sessions.results_bytes > _CHECKPOINT_SHARE * sessions.results_bytes_max


def rejection_reason(sessions: Sessions, run: Run) -> str | None:
    """One line that says why nothing more is taken of this session, or None."""
    session = session_of(run.first)
    if sessions.results_bytes > _SHARE_MAX * sessions.results_bytes_max:
        return (
            f"results that no client has acknowledged are {sessions.results_bytes} bytes, over the limit of "
            f"{_SHARE_MAX * sessions.results_bytes_max:.0f}; some are dropped at the next checkpoint"
        )
    if sessions.is_full(session, run.acknowledged, SESSION_RESULTS_MAX):
        return (
            f"{SESSION_RESULTS_MAX} results of this session are not acknowledged, or half of the bytes that are kept "
            "of one; acknowledge some"
        )
    if sessions.ranges(session) >= SESSION_RANGES_MAX:
        return f"{SESSION_RANGES_MAX} requests of this session were given up; begin another one"
    if len(sessions) >= SESSIONS_MAX and session not in sessions:
        return f"there are {SESSIONS_MAX} sessions already"
    if sessions.held_bytes - sessions.results_bytes > BOOKKEEPING_BYTES_MAX and sessions.ranges(session) != 1:
        return f"there are sessions and requests that were given up for {BOOKKEEPING_BYTES_MAX} bytes already"
    return None
