"""The messages between replicas, and the batches that they agree on. Values only; `wire/codec` encodes them.

Field order is the wire format. A field may be added at the end with a default; nothing else may change without a
new `codec.WIRE_VERSION`.
"""

from functools import cached_property
from typing import Annotated, assert_never

import msgspec

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import SEQUENCES, Deps, InstanceId, RequestId, SessionId, is_tracked, request_at, session_of
from pydsm.core.types.status import Status

_encode = msgspec.msgpack.Encoder().encode

Kind = bytes
"""Name of a family of commuting updates: two updates of one key conflict unless their kinds are equal."""


Access = bytes | bool
"""How a column of a footprint touches its keys: False reads, True writes, bytes name a kind of commuting update."""

READS: Access = False
WRITES: Access = True


class Footprint(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The keys that a batch touches. A key is at most once in a column, and may be in several columns.

    `barrier` conflicts with everything: a checkpoint, a reconfiguration, or a command over all keys.
    """

    reads: tuple[bytes, ...] = ()
    writes: tuple[bytes, ...] = ()
    updates: tuple[tuple[Kind, tuple[bytes, ...]], ...] = ()
    barrier: bool = False

    @cached_property
    def columns(self) -> tuple[tuple[Access, tuple[bytes, ...]], ...]:
        """The columns that have keys."""
        named = ((READS, self.reads), (WRITES, self.writes), *self.updates)
        return tuple((access, keys) for access, keys in named if keys)

    @cached_property
    def key_sets(self) -> tuple[frozenset[bytes], ...]:
        """The keys of each of `columns`, made once for the many footprints that this one is compared with."""
        return tuple(frozenset(keys) for _, keys in self.columns)


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Requests of one session with consecutive sequences: the id of the first, and how many they are.

    The client has the answers to all requests of this session with a sequence below `acknowledged`, or does not need
    them. Unless `after` is 0, the requests are executed only after the one with that sequence is executed or
    acknowledged (docs/reference/protocol.md, section 7, "Program order"); the batch then has the session in `retried`.
    """

    first: RequestId
    count: Annotated[int, msgspec.Meta(ge=1)]
    acknowledged: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCES)] = 0
    after: Annotated[int, msgspec.Meta(ge=0, lt=SEQUENCES)] = 0


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=1, dict=True):
    """The value of an instance: requests in columns (runs of ids, and one opaque command each), and a footprint.

    The runs give the ids of the commands, in their order. `timestamp_ms` is the Unix time of the members' clocks when
    the batch was proposed, 0 for none; the batch is executed at that time within the limits of `agreed_time`.
    """

    runs: tuple[Run, ...]
    commands: tuple[bytes, ...]
    footprint: Footprint
    timestamp_ms: int = 0
    retried: tuple[SessionId, ...] = ()
    """Sessions of which this batch may have requests that are also in another instance, or requests that must be
    executed after those of another instance (see `core/sessions/sessions`)."""
    clocks: tuple[int, ...] = ()
    """Of a checkpoint: the reading of each member's wall clock, Unix time in ms, 0 if unknown; its execution sets
    agreed time from them (see `core/clocks/agreed_time`). Empty in other batches."""

    @property
    def name(self) -> RequestId | None:
        """The id of the first request, the public name of the instance; None without requests."""
        return self.runs[0].first if self.runs else None

    @property
    def request_ids(self) -> tuple[RequestId, ...]:
        """The id of each command. For tools: takes time per request."""
        return tuple(request_at(run.first, offset) for run in self.runs for offset in range(run.count))

    @cached_property
    def sessions(self) -> frozenset[SessionId]:
        """The sessions whose requests may be sent twice. Nothing may depend on the order of this set."""
        return frozenset([session_of(run.first) for run in self.runs if is_tracked(run.first)])

    @cached_property
    def encoded(self) -> bytes:
        """The batch as bytes, for messages and records; encoded once (see `core/wire/raw_messages`)."""
        return _encode(self)


class Nop(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The value of an abandoned instance: ordered, executed as nothing."""


NOP = Nop()
Value = Batch | Nop


class PreAccept(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """From the leader to all, round 0: the batch and the leader's own dependency vector (`initial`)."""

    id: InstanceId
    batch: Batch
    deps: Deps


class PreAcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Answer to PreAccept: the leader's vector merged with the conflicts at the sender, durable there."""

    id: InstanceId
    deps: Deps


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """From the leader of a ballot, slow path or recovery: request to vote for this value in this ballot."""

    id: InstanceId
    ballot: Ballot
    value: Value
    deps: Deps


class AcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The sender has voted in `ballot`, durably."""

    id: InstanceId
    ballot: Ballot


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The final value. Accepted by any replica, independent of its promise."""

    id: InstanceId
    value: Value
    deps: Deps


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Request to join `ballot` and to report the state of the instance."""

    id: InstanceId
    ballot: Ballot


class PrepareOk(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The state of a not yet committed instance at the sender, which has promised `ballot`."""

    id: InstanceId
    ballot: Ballot
    status: Status
    voted: Ballot | None
    value: Value | None
    deps: Deps
    initial_batch: Batch | None
    initial_deps: Deps


class Validate(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Request to store `(batch, deps)` as the first proposal, and to report its invalidators."""

    id: InstanceId
    ballot: Ballot
    batch: Batch
    deps: Deps


class Invalidator(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An instance that would not be ordered against the validated one, and whether it is already committed."""

    id: InstanceId
    committed: bool


class ValidateOk(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The exact invalidators at the sender, in order of their ids."""

    id: InstanceId
    ballot: Ballot
    invalidators: tuple[Invalidator, ...]


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """The sender's recovery of `id`, with `unchanged` unmodified pre-accepts, waits for its invalidators."""

    id: InstanceId
    unchanged: Annotated[int, msgspec.Meta(ge=0)]


class Refuse(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Refusal of `ballot`: the sender has promised a higher one."""

    id: InstanceId
    ballot: Ballot
    promised: Ballot


COMMIT_QUERY_IDS_MAX = 4096
"""Instances in one CommitQuery: each may be answered with a whole batch."""


class CommitQuery(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Question whether these are committed. Answered by a Commit for each that is; otherwise not answered."""

    ids: tuple[InstanceId, ...]


class Frontier(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Gossip: per leader, the prefix that the sender has executed, and the highest index known there.

    For measuring round trips: the sender's tick, and an echo of each member's tick (see `distances`).
    """

    executed: Deps
    known: Deps
    clock_ms: int = 0
    """Reading of the sender's wall clock, Unix time in ms; 0 for none."""
    sent_at: Annotated[int, msgspec.Meta(ge=0)] = 0
    echoes: tuple[int, ...] = ()
    """One per member, or empty."""


DIGEST_PARTS_MAX = 1024
"""Parts in one StateDigest; if the state has more, neighbouring parts are combined."""


class StateDigest(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Gossip: a digest of each part of the sender's state at a checkpoint. Equal at all correct replicas."""

    number: int
    parts: tuple[bytes, ...]


PIECE_BYTES_MAX = 1 << 20
"""Bytes of a snapshot's file that one SnapshotPiece carries."""


class Compacted(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """The sender has removed what the receiver lacks or asks about: it is in the snapshot of this checkpoint."""

    number: int
    """Number of the checkpoint; the sender has its snapshot."""
    up_to: Deps
    """Per leader, the prefix that is in it."""


class FetchSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Send the next bytes of this checkpoint's snapshot, from `offset` on. Answered by SnapshotPiece or Compacted."""

    number: int
    offset: int


class SnapshotPiece(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Bytes of a snapshot's file from `offset` on; `size` is that of the whole file. Empty at its end."""

    number: int
    offset: int
    size: int
    data: bytes


InstanceMessage = (
    PreAccept
    | PreAcceptOk
    | Accept
    | AcceptOk
    | Commit
    | Prepare
    | PrepareOk
    | Validate
    | ValidateOk
    | Waiting
    | Refuse
)
"""Messages about one instance, whose `id` they have."""

MemberMessage = CommitQuery | Frontier | StateDigest | Compacted | FetchSnapshot | SnapshotPiece
"""Messages about the state of a member, or about several instances."""

Message = InstanceMessage | MemberMessage
"""Everything that one replica sends to another.

A new message is added to one of the two groups, and a member message also to `MEMBER_MESSAGES`. The type checker then
names every place that must decide about it, because each `match` over messages ends with `assert_never`: the functions
below, `core/replica`, `core/wire`, `runtime/peers`, and in `sim` the invariants and the lines of a trace. The table in
CONTRIBUTING.md, "Add a message between replicas", also has the places that no tool finds.
"""

MEMBER_MESSAGES = (CommitQuery, Frontier, StateDigest, Compacted, FetchSnapshot, SnapshotPiece)
"""The classes of `MemberMessage`, for `isinstance`. If one is missing, mypy reports that it "has no attribute id"."""


def instance_of(message: Message) -> InstanceId | None:
    """The instance that a message is about; None for those about a member."""
    return None if isinstance(message, MEMBER_MESSAGES) else message.id


def ballot_of(message: Message) -> Ballot | None:
    """The ballot that a message belongs to; None for those without one."""
    match message:
        case Accept() | AcceptOk() | Prepare() | PrepareOk() | Validate() | ValidateOk() | Refuse():
            return message.ballot
        case PreAccept() | PreAcceptOk() | Commit() | Waiting():
            return None
        case CommitQuery() | Frontier() | StateDigest() | Compacted() | FetchSnapshot() | SnapshotPiece():
            return None
        case unreachable:
            assert_never(unreachable)


def batches_of(message: Message) -> tuple[Batch, ...]:
    """The batches that a message carries."""
    values: tuple[Value | None, ...]
    match message:
        case PreAccept() | Validate():
            values = (message.batch,)
        case Accept() | Commit():
            values = (message.value,)
        case PrepareOk():
            values = (message.value, message.initial_batch)
        case PreAcceptOk() | AcceptOk() | Prepare() | ValidateOk() | Waiting() | Refuse():
            values = ()
        case CommitQuery() | Frontier() | StateDigest() | Compacted() | FetchSnapshot() | SnapshotPiece():
            values = ()
        case unreachable:
            assert_never(unreachable)
    return tuple(value for value in values if isinstance(value, Batch))
