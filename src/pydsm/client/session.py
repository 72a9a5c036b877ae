"""The ids of a client's requests: which session, which sequence, and what it has answers to.

Decides nothing about retries; guards that no two requests of a client have one id, that ids ascend in the order in
which requests are sent, and that nothing is acknowledged that is still waited for. See `core/sessions/sessions`.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from pydsm.core.types.ids import SEQUENCES, ReplicaId, RequestId, request_at, request_id, sequence_of, timestamp_of

RENEWAL_MS = 600_000
"""After so long a client goes on in another session: ids stay about in order of time, and none is ever too old."""


class Named(Protocol):
    """Commands that have ids."""

    @property
    def left(self) -> int:
        """How many have no outcome."""
        ...

    @property
    def name(self) -> RequestId | None:
        """The id of the first."""
        ...

    def take_name(self, name: RequestId) -> None:
        """From now on, until they get another one, the ids of these commands begin with this one."""
        ...


class ClientSession:
    """What one replica has granted to one client. `elapsed_ms` is the time since then."""

    def __init__(self, grant: RequestId, elapsed_ms: Callable[[], int], began_ms: int = 0) -> None:
        self._grant = grant
        self._elapsed_ms = elapsed_ms
        self._began_ms = began_ms
        number = int.from_bytes(grant[8:12], "big") & _NUMBER_MASK
        replica = ReplicaId(int.from_bytes(grant[6:8], "big") & _REPLICA_MASK)
        self._next = request_id(timestamp_of(grant) + began_ms, replica, number, 1)
        self._open: deque[tuple[RequestId, Named]] = deque()

    def assign(self, call: Named, count: int) -> RequestId:
        """Ids for so many commands, from the one that is given on."""
        first = self._next
        call.take_name(first)
        self._next = request_at(first, count)
        self._open.append((first, call))
        return first

    def acknowledged(self) -> int:
        """The sequence below which everything has an outcome."""
        while self._open and (not self._open[0][1].left or self._open[0][1].name != self._open[0][0]):
            self._open.popleft()
        return sequence_of(self._open[0][0] if self._open else self._next)

    @property
    def is_open(self) -> bool:
        """Whether a request of it has no outcome."""
        self.acknowledged()
        return bool(self._open)

    def is_over(self, count: int) -> bool:
        """Whether another session should begin before so many commands are sent."""
        return self._elapsed_ms() - self._began_ms >= RENEWAL_MS or sequence_of(self._next) + count >= SEQUENCES

    def renewed(self) -> "ClientSession":
        """Another session under the same grant, with nothing in it."""
        return ClientSession(self._grant, self._elapsed_ms, max(self._began_ms + 1, self._elapsed_ms()))


_NUMBER_MASK = (1 << 30) - 1
_REPLICA_MASK = (1 << 12) - 1
