"""Grants decide which requests are certainly first attempts (docs/reference/protocol.md, section 7).

Guarantees that no request is in two instances as a first attempt, which `sessions` relies on: each id of a grant counts
once, and no two runs of any replicas grant the same session.
"""

from pydsm.core.types.ids import UNTRACKED_SESSIONS_START, ReplicaId, RequestId, request_at, request_id


class Grant:
    """The right of one client to use the ids of one session, in ascending order, granted by one replica.

    A request with an id above all earlier ones of the grant is a first attempt; every other id, and every id of another
    grant, may be in an instance already. Nothing depends on statements of the client. A client may use a later
    timestamp in the ids of the same grant: that begins another session of the same client.
    """

    __slots__ = ("_last", "id")

    def __init__(self, id: RequestId) -> None:
        self.id = self._last = id
        """This id itself is not used by a request: the first request has the next sequence."""

    def takes(self, first: RequestId, count: int) -> bool:
        """Whether the `count` requests from `first` on are first attempts. True only once per request."""
        if first <= self._last or first[6:12] != self._last[6:12]:
            return False
        self._last = request_at(first, count - 1)
        return True


class Grants:
    """The grants of one run of one replica. No two have the same session, also not with those of another run.

    Session numbers count up from a random `start` and repeat only after half a billion; the time of the grant
    distinguishes runs of one replica.
    """

    def __init__(self, replica: ReplicaId, start: int) -> None:
        self._replica = replica
        self._next = start

    def grant(self, now_ms: int) -> Grant:
        """Grant a new session that begins at `now_ms` (Unix time)."""
        number = self._next % UNTRACKED_SESSIONS_START
        self._next += 1
        return Grant(request_id(now_ms, self._replica, number, 0))
