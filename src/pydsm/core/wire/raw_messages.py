"""Messages and records with their batches as raw bytes, encoded once and decoded once.

A batch is sent in a PreAccept and again in each Accept and Commit of its instance, and stored in its record. Encoding
and decoding it is most of the cost of a message. So the raw form holds the bytes that exist already (`Batch.encoded`),
and a batch that was received before is found by its bytes instead of being decoded again. The format is the same as if
the message had been encoded as a whole. `codec` checks the content.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import assert_never

import msgspec

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.core.types.messages import Batch, Nop, Value
from pydsm.core.types.status import Status

_decode_value: Callable[[bytes], Value] = msgspec.msgpack.Decoder(Value).decode
_NONE = msgspec.Raw(msgspec.msgpack.encode(None))
_AS_VALUE = msgspec.Raw(msgspec.msgpack.encode(True))
"""Stands in a record for an initial batch that equals the value."""
_NOP = msgspec.Raw(msgspec.msgpack.encode(m.NOP))


class RawPreAccept(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A PreAccept, with its batch as bytes."""

    id: InstanceId
    batch: msgspec.Raw
    deps: Deps


class RawAccept(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """An Accept, with its value as bytes."""

    id: InstanceId
    ballot: Ballot
    value: msgspec.Raw
    deps: Deps


class RawCommit(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A Commit, with its value as bytes."""

    id: InstanceId
    value: msgspec.Raw
    deps: Deps


class RawInstanceRecord(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """An InstanceRecord, with its batches as bytes."""

    id: InstanceId
    status: Status
    promised: Ballot
    voted: Ballot | None
    value: msgspec.Raw
    deps: Deps
    initial_batch: msgspec.Raw
    initial_deps: Deps


RawMessage = (
    RawPreAccept
    | m.PreAcceptOk
    | RawAccept
    | m.AcceptOk
    | RawCommit
    | m.Prepare
    | m.PrepareOk
    | m.Validate
    | m.ValidateOk
    | m.Waiting
    | m.Refuse
    | m.CommitQuery
    | m.Frontier
    | m.StateDigest
    | m.Compacted
    | m.FetchSnapshot
    | m.SnapshotPiece
)
"""Everything that is decoded: each message in the form in which it is sent. One that is missing is refused."""

RawRecord = RawInstanceRecord | ReservationRecord | FrontierRecord | PurgeRecord


class BatchCache:
    """The batches received last, so that one received again need not be decoded.

    Keeps the latest ones, up to `bytes_max` bytes. A batch that was evicted is decoded again; nothing else changes.
    """

    def __init__(self, bytes_max: int = 32 << 20) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._batches: OrderedDict[InstanceId, Batch] = OrderedDict()

    def find(self, id: InstanceId, encoded: bytes) -> Batch | None:
        """The batch of this instance, if it is cached with exactly these bytes."""
        batch = self._batches.get(id)
        return batch if batch is not None and batch.encoded == encoded else None

    def keep(self, id: InstanceId, batch: Batch) -> None:
        """Add a batch that was checked to be well-formed; evicts the oldest ones above the limit."""
        self.discard(id)
        self._batches[id] = batch
        self._bytes += len(batch.encoded)
        while self._bytes > self._bytes_max:
            self.discard(next(iter(self._batches)))

    def discard(self, id: InstanceId) -> None:
        """Remove the batch of this instance, because it is unlikely to come again."""
        batch = self._batches.pop(id, None)
        if batch is not None:
            self._bytes -= len(batch.encoded)


def to_wire(message: m.Message) -> RawMessage:
    """The message in raw form, if it has a batch that may be sent again; else the message itself."""
    match message:
        case m.PreAccept():
            return RawPreAccept(message.id, _raw(message.batch), message.deps)
        case m.PreAcceptOk() | m.AcceptOk() | m.Frontier():
            return message
        case m.Commit():
            return RawCommit(message.id, _raw(message.value), message.deps)
        case m.Accept():
            return RawAccept(message.id, message.ballot, _raw(message.value), message.deps)
        case m.PrepareOk() | m.Validate():
            return message  # with a batch, but rare
        case m.Prepare() | m.ValidateOk() | m.Waiting() | m.Refuse() | m.CommitQuery():
            return message
        case m.StateDigest() | m.Compacted() | m.FetchSnapshot() | m.SnapshotPiece():
            return message
        case unreachable:
            assert_never(unreachable)


def from_wire(raw: RawMessage, cache: BatchCache | None) -> m.Message:
    """The message of a raw form. Raises what decoding may raise."""
    match raw:
        case RawPreAccept():
            batch = _value_of(raw.id, raw.batch, cache)
            if not isinstance(batch, Batch):
                raise ValueError("a PreAccept without a batch")
            return m.PreAccept(raw.id, batch, raw.deps)
        case m.PreAcceptOk() | m.AcceptOk() | m.Frontier():
            return raw
        case RawCommit():
            return m.Commit(raw.id, _value_of(raw.id, raw.value, cache), raw.deps)
        case RawAccept():
            return m.Accept(raw.id, raw.ballot, _value_of(raw.id, raw.value, cache), raw.deps)
        case m.Prepare() | m.PrepareOk() | m.Validate() | m.ValidateOk() | m.Waiting() | m.Refuse() | m.CommitQuery():
            return raw
        case m.StateDigest() | m.Compacted() | m.FetchSnapshot() | m.SnapshotPiece():
            return raw
        case unreachable:
            assert_never(unreachable)


def record_to_wire(record: Record) -> RawRecord:
    """The record in raw form; a batch that is both value and initial batch is included once."""
    if not isinstance(record, InstanceRecord):
        return record
    value, initial = record.value, record.initial_batch
    return RawInstanceRecord(
        record.id,
        record.status,
        record.promised,
        record.voted,
        _NONE if value is None else _raw(value),
        record.deps,
        _NONE if initial is None else _AS_VALUE if initial is value else _raw(initial),
        record.initial_deps,
    )


def record_from_wire(raw: RawRecord) -> Record:
    """The record of a raw form. Raises what decoding may raise."""
    if not isinstance(raw, RawInstanceRecord):
        return raw
    value = None if raw.value == _NONE else _decoded(bytes(raw.value))
    initial = None if raw.initial_batch == _NONE else value
    if raw.initial_batch not in (_NONE, _AS_VALUE):
        initial = _decoded(bytes(raw.initial_batch))
    if isinstance(initial, Nop) or (initial is None and raw.initial_batch != _NONE):
        raise ValueError("a record whose initial batch is not a batch")
    return InstanceRecord(
        raw.id,
        raw.status,
        raw.promised,
        raw.voted,
        value,
        raw.deps,
        initial,
        raw.initial_deps,
    )


def _raw(value: Value) -> msgspec.Raw:
    return msgspec.Raw(value.encoded) if isinstance(value, Batch) else _NOP


def _value_of(id: InstanceId, raw: msgspec.Raw, cache: BatchCache | None) -> Value:
    encoded = bytes(raw)
    return (cache and cache.find(id, encoded)) or _decoded(encoded)


def _decoded(encoded: bytes) -> Value:
    value = _decode_value(encoded)
    if isinstance(value, Batch):
        value.__dict__["encoded"] = encoded  # it is forwarded and stored in these bytes
    return value
