"""Which requests of a native client are refused because an earlier request of their session was refused."""

from pydsm.core.types.ids import SessionId, sequence_of, session_of
from pydsm.core.types.messages import Run

_SESSIONS_MAX = 16


class RefusedRequests:
    """For each session of a connection: the first refused request that was not retried yet.

    Ordered requests behind it would be committed and then skipped at execution until it is retried, so they are
    refused immediately (`docs/reference/protocol.md`, section 7, "Program order").
    """

    def __init__(self) -> None:
        self._sequences: dict[SessionId, int] = {}

    def refused(self, run: Run, offset: int) -> None:
        """The requests of a run from `offset` on were not executed."""
        sequence, session = sequence_of(run.first) + offset, session_of(run.first)
        self._sequences[session] = min(sequence, self._sequences.get(session, sequence))
        if len(self._sequences) > _SESSIONS_MAX:
            del self._sequences[next(iter(self._sequences))]

    def is_ahead(self, run: Run) -> bool:
        """Whether the run is ordered behind a refused request that must be retried first."""
        if not self._sequences:
            return False
        session, first = session_of(run.first), sequence_of(run.first)
        sequence = self._sequences.get(session)
        if sequence is None or not run.after or first + run.count <= sequence:
            return False
        if first <= sequence or run.acknowledged > sequence:
            del self._sequences[session]
            return False
        return True
