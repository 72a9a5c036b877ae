"""Which requests are surely sent for the first time: those that a replica's own grant says so of (PROTOCOL 7).

Guards that two instances for the first time never have a request in common, on which `sessions` rests: each id of a
grant counts once, and no two lives of any replicas grant the same session.
"""

from pydsm.core.types.ids import UNTRACKED_SESSIONS_START, ReplicaId, RequestId, request_at, request_id


class Grant:
    """What one replica grants one client: to give its requests ids of the granted session, in ascending order.

    An id above all that came before it is a request that is sent for the first time; every other id, and every id of
    another grant, may be in an instance already. Nothing depends on what the client says of its requests. A client may
    go on to a later time in the ids of the same grant: that begins another session of its own.
    """

    __slots__ = ("_last", "id")

    def __init__(self, id: RequestId) -> None:
        self.id = self._last = id
        """The id itself is of no request: the first one has the next sequence."""

    def takes(self, first: RequestId, count: int) -> bool:
        """Whether so many requests from `first` on are sent for the first time. True only once for each."""
        if first <= self._last or first[6:12] != self._last[6:12]:
            return False
        self._last = request_at(first, count - 1)
        return True


class Grants:
    """Grants of one life of one replica: no two have a session in common, nor one with those of another life.

    Numbers follow one another from a random `start`, and come again only after half a billion of them; the time of the
    grant tells the lives apart.
    """

    def __init__(self, replica: ReplicaId, start: int) -> None:
        self._replica = replica
        self._next = start

    def grant(self, now_ms: int) -> Grant:
        """A new session that begins now."""
        number = self._next % UNTRACKED_SESSIONS_START
        self._next += 1
        return Grant(request_id(now_ms, self._replica, number, 0))
