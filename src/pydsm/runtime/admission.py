"""Whether a replica takes more requests of a session, by what it has of it now.

Guards that no client makes a replica keep results without end. What was agreed on is executed and kept all the same:
every replica decides only for what comes to itself.
"""

from pydsm.core.ids import session_of
from pydsm.core.messages import Run
from pydsm.core.sessions import Sessions

SESSION_RESULTS_MAX = 100_000
"""Results of one session that nobody has acknowledged, beyond which this replica takes no more of its requests."""
SESSION_RANGES_MAX = 1000
"""Gaps in the executed sequences of one session, left by requests that were given up, beyond which it takes no more."""
SESSIONS_MAX = 1_000_000
"""Sessions, beyond which this replica takes no request of a new one."""


def why_not_take(sessions: Sessions, run: Run) -> str | None:
    """One line that says why nothing more is taken of this session, or None."""
    session = session_of(run.first)
    if sessions.is_full(session, run.acknowledged, SESSION_RESULTS_MAX):
        return f"{SESSION_RESULTS_MAX} results of this session are not acknowledged; acknowledge some"
    if sessions.ranges(session) >= SESSION_RANGES_MAX:
        return f"{SESSION_RANGES_MAX} requests of this session were given up; begin another one"
    if len(sessions) >= SESSIONS_MAX and session not in sessions:
        return f"there are {SESSIONS_MAX} sessions already"
    return None
