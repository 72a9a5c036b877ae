"""What replicas say to each other, and the batches that they agree on. Values only; bytes are made in `codec`.

Field order is the wire format. A field may be added at the end with a default; nothing else may change without a
new `codec.WIRE_VERSION`.
"""

from functools import cached_property
from typing import Annotated

import msgspec

from pydsm.core.ballots import Ballot
from pydsm.core.ids import Deps, InstanceId, RequestId
from pydsm.core.status import Status

_encode = msgspec.msgpack.Encoder().encode

Kind = bytes
"""Name of a family of commuting updates: two updates of one key conflict unless their kinds are equal."""


Access = bytes | bool
"""How a column of a footprint touches its keys: False reads, True writes, bytes name a kind of commuting update."""

READS: Access = False
WRITES: Access = True


class Footprint(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The keys that a batch touches. Each key stands once per column; a key may stand in several columns.

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


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=1, dict=True):
    """What one instance agrees on: requests in columns (one id and one opaque command each) and their footprint.

    `timestamp_ms` is the Unix time that every replica uses while it executes the batch.
    """

    request_ids: tuple[RequestId, ...]
    commands: tuple[bytes, ...]
    footprint: Footprint
    timestamp_ms: int = 0

    @cached_property
    def encoded(self) -> bytes:
        """How the batch travels and is stored: made once, however often it is sent (see `codec`)."""
        return _encode(self)


class Nop(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The value of an abandoned instance: ordered, executed as nothing."""


NOP = Nop()
Value = Batch | Nop


class PreAccept(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Leader to all, round 0: the batch and the dependencies that the leader knows (`initial`)."""

    id: InstanceId
    batch: Batch
    deps: Deps


class PreAcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The dependencies after adding what the sender knows."""

    id: InstanceId
    deps: Deps


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Vote for this value in this ballot."""

    id: InstanceId
    ballot: Ballot
    value: Value
    deps: Deps


class AcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The sender has voted in `ballot`, durably."""

    id: InstanceId
    ballot: Ballot


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Final. Taken by any replica, whatever it has promised."""

    id: InstanceId
    value: Value
    deps: Deps


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Join `ballot` and say what you know."""

    id: InstanceId
    ballot: Ballot


class PrepareOk(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """All that the sender knows of a not yet committed instance, having promised `ballot`."""

    id: InstanceId
    ballot: Ballot
    status: Status
    voted: Ballot | None
    value: Value | None
    deps: Deps
    initial_batch: Batch | None
    initial_deps: Deps


class Validate(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Could `(batch, deps)` have been committed on the fast path? Remember it, and name what speaks against it."""

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
    """No to `ballot`: the sender has promised a higher one."""

    id: InstanceId
    ballot: Ballot
    promised: Ballot


class Inquire(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Are these committed? Answered by a Commit for each that is, and by nothing for the others."""

    ids: tuple[InstanceId, ...]


class Frontier(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Gossip: per leader, the prefix executed here, and the highest index heard of."""

    executed: Deps
    known: Deps


Message = (
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
    | Inquire
    | Frontier
)
