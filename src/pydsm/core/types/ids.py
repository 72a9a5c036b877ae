"""Ids of replicas, instances and requests, and the dependency vector.

Indexes start at 1, so that 0 in a dependency vector means "nothing of this leader".
"""

from typing import NamedTuple, NewType

ReplicaId = NewType("ReplicaId", int)
"""Position of a replica in every dependency vector; 0-based, never reused after the replica has left."""

Epoch = NewType("Epoch", int)
"""Number of a configuration of members; 0 is the first (docs/reference/protocol.md, section 8)."""

RequestId = NewType("RequestId", bytes)
"""16 bytes, a valid UUID (version 7 layout), ordered by time. See `request_id`."""

SessionId = NewType("SessionId", bytes)
"""The first 12 bytes of a request id, without the sequence. Unique per session."""

Tick = NewType("Tick", int)
"""The core's unit of time: a count that the caller advances (one tick is one millisecond in the runtime)."""

Deps = tuple[int, ...]
"""One entry per replica: `deps[r] == k` means "after every instance of r up to and including k"."""


INDEX_MAX = (1 << 40) - 1
"""The highest index, and the highest round of a ballot: 34 years at a thousand instances a second and leader."""


class InstanceId(NamedTuple):
    """The unit of agreement: the replica that first proposes it, and its number there, from 1."""

    leader: ReplicaId
    index: int  # type: ignore[assignment]  # the protocol's word; it hides tuple.index, which is not used

    def __str__(self) -> str:
        return f"{self.leader}.{self.index}"


def covers(deps: Deps, instance: InstanceId) -> bool:
    """Whether `deps` orders its owner after `instance` (docs/reference/protocol.md, section 1)."""
    return instance.index <= deps[instance.leader]


def merge(left: Deps, right: Deps) -> Deps:
    """Element-wise maximum: covers exactly what either vector covers."""
    return tuple(map(max, left, right))


def with_instance(deps: Deps, instance: InstanceId) -> Deps:
    """The smallest vector that covers `instance` and everything in `deps`."""
    if covers(deps, instance):
        return deps
    return (*deps[: instance.leader], instance.index, *deps[instance.leader + 1 :])


_SESSION_BITS = 30
_SEQUENCE_BITS = 32
_SEQUENCE_BYTES = 4

SEQUENCES = 1 << _SEQUENCE_BITS
"""Number of sequences in a session: 0 to `SEQUENCES - 1`."""


def request_id(timestamp_ms: int, replica: ReplicaId, session: int, sequence: int) -> RequestId:
    """A request id: Unix time in ms (48 bits), first replica (12), session (30), sequence (32), as a UUIDv7.

    Values are reduced modulo their widths. Ids compare in order of time.
    """
    tail = ((session % (1 << _SESSION_BITS)) << _SEQUENCE_BITS) | (sequence % (1 << _SEQUENCE_BITS))
    number = (timestamp_ms % (1 << 48)) << 80 | 0x7 << 76 | (replica % (1 << 12)) << 64 | 0b10 << 62 | tail
    return RequestId(number.to_bytes(16, "big"))


UNTRACKED_SESSIONS_START = 1 << (_SESSION_BITS - 1)
"""Session numbers from here on are of requests that are never sent twice: no results are kept for them."""

_SESSION_BYTES = 16 - _SEQUENCE_BYTES
_UNTRACKED_BIT = 0x20
"""Of byte 8, which begins with the two bits of the variant: the highest bit of the session's number."""


def session_of(id: RequestId) -> SessionId:
    """The session of a request."""
    return SessionId(id[:_SESSION_BYTES])


def is_tracked(session: bytes) -> bool:
    """Whether requests of this session may be sent twice, so that results are kept. Also takes a request id."""
    return not session[8] & _UNTRACKED_BIT


def timestamp_of(session: bytes) -> int:
    """Unix time in ms at which a session began; takes a session or a request id."""
    return int.from_bytes(session[:6], "big")


def first_replica_of(session: bytes) -> ReplicaId:
    """The replica that granted a session; takes a session or a request id."""
    return ReplicaId(int.from_bytes(session[6:8], "big") & 0xFFF)


def sequence_of(id: RequestId) -> int:
    """The sequence of a request."""
    return int.from_bytes(id[-_SEQUENCE_BYTES:], "big")


def request_at(first: RequestId, offset: int) -> RequestId:
    """The id whose sequence is `offset` above that of `first`. Raises OverflowError past the last sequence."""
    sequence = sequence_of(first) + offset
    return RequestId(first[:-_SEQUENCE_BYTES] + sequence.to_bytes(_SEQUENCE_BYTES, "big"))
