"""The ids of a client's requests: their sessions and sequences, and which requests are acknowledged as answered.

Guarantees that no two requests of a client have the same id, that ids ascend in the order in which requests are sent,
and that no request without an outcome is acknowledged. Retries are decided by `client`. See `core/sessions/sessions`.
"""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pydsm.client.outcomes import OutcomeUnknown
from pydsm.core.types.ids import SEQUENCES, ReplicaId, RequestId, request_at, request_id, sequence_of, timestamp_of

RENEWAL_MS = 600_000
"""Milliseconds after which a client begins another session, so that timestamps of ids stay close to the present."""


class Identified(Protocol):
    """Commands with consecutive request ids."""

    @property
    def left(self) -> int:
        """The number of commands without an outcome."""
        ...

    @property
    def first_id(self) -> RequestId | None:
        """The id of the first command; None before ids are assigned."""
        ...

    def set_request_id(self, id: RequestId) -> None:
        """Set the id of the first command, which also determines the others."""
        ...


class ClientSession:
    """A session that a replica granted to a client. `elapsed_ms` returns the milliseconds since the grant."""

    def __init__(self, grant: RequestId, elapsed_ms: Callable[[], int], began_ms: int = 0) -> None:
        self._grant = grant
        self._elapsed_ms = elapsed_ms
        self._began_ms = began_ms
        number = int.from_bytes(grant[8:12], "big") & _NUMBER_MASK
        replica = ReplicaId(int.from_bytes(grant[6:8], "big") & _REPLICA_MASK)
        self._next = request_id(timestamp_of(grant) + began_ms, replica, number, 1)
        self._open: deque[tuple[RequestId, Identified]] = deque()
        self._kept: list[tuple[int, weakref.ref[OutcomeUnknown]]] = []

    def assign(self, call: Identified, count: int) -> RequestId:
        """Assign ids to a call of `count` commands; the first of them."""
        first = self._next
        call.set_request_id(first)
        self._next = request_at(first, count)
        self._open.append((first, call))
        return first

    def acknowledged(self) -> int:
        """The sequence below which all requests of the session have an outcome, and none is kept."""
        while self._open and (not self._open[0][1].left or self._open[0][1].first_id != self._open[0][0]):
            self._open.popleft()
        lowest = sequence_of(self._open[0][0] if self._open else self._next)
        if self._kept:
            self._kept = [(sequence, unknown) for sequence, unknown in self._kept if unknown() is not None]
            lowest = min([lowest, *(sequence for sequence, _ in self._kept)])
        return lowest

    def keep(self, unknown: OutcomeUnknown) -> None:
        """Do not acknowledge the request of this outcome while its object exists: the program may ask for it again."""
        if unknown.request_id is not None:
            self._kept.append((sequence_of(RequestId(unknown.request_id.bytes)), weakref.ref(unknown)))

    @property
    def is_open(self) -> bool:
        """Whether a request of the session has no outcome."""
        self.acknowledged()
        return bool(self._open)

    def is_over(self, count: int) -> bool:
        """Whether another session must begin before `count` commands are sent."""
        return self._elapsed_ms() - self._began_ms >= RENEWAL_MS or sequence_of(self._next) + count >= SEQUENCES

    def renewed(self) -> "ClientSession":
        """Another session under the same grant, without requests."""
        return ClientSession(self._grant, self._elapsed_ms, max(self._began_ms + 1, self._elapsed_ms()))


_NUMBER_MASK = (1 << 30) - 1
_REPLICA_MASK = (1 << 12) - 1
