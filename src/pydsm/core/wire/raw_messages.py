"""How messages and records carry batches: as bytes that are made once and read once.

A batch travels in a PreAccept and again in each Accept and Commit of its instance, and lies in its record. Encoding and
decoding it is most of what a message costs, so a carrier holds it as the bytes that it already has (`Batch.encoded`),
and a batch that came before is recognised by its bytes instead of being decoded again. The format is the same as if the
message had been encoded whole. What the bytes must be is checked by `codec`.
"""

from collections import OrderedDict
from collections.abc import Callable

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
"""Stands in a record for a first batch that is the value."""
_NOP = msgspec.Raw(msgspec.msgpack.encode(m.NOP))


class RawPreAccept(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A PreAccept."""

    id: InstanceId
    batch: msgspec.Raw
    deps: Deps


class RawAccept(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """An Accept."""

    id: InstanceId
    ballot: Ballot
    value: msgspec.Raw
    deps: Deps


class RawCommit(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A Commit."""

    id: InstanceId
    value: msgspec.Raw
    deps: Deps


class RawInstanceRecord(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """An InstanceRecord."""

    id: InstanceId
    status: Status
    promised: Ballot
    voted: Ballot | None
    value: msgspec.Raw
    deps: Deps
    initial_batch: msgspec.Raw
    initial_deps: Deps


CarriedMessage = (
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
CarriedRecord = RawInstanceRecord | ReservationRecord | FrontierRecord | PurgeRecord


class BatchCache:
    """The batches that came lately, so that one which comes again is recognised.

    Keeps `bytes_max` bytes of them, the latest; one that was forgotten is decoded again, nothing else changes.
    """

    def __init__(self, bytes_max: int = 32 << 20) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._batches: OrderedDict[InstanceId, Batch] = OrderedDict()

    def find(self, id: InstanceId, encoded: bytes) -> Batch | None:
        """The batch of this instance, if it came before in exactly these bytes."""
        batch = self._batches.get(id)
        return batch if batch is not None and batch.encoded == encoded else None

    def keep(self, id: InstanceId, batch: Batch) -> None:
        """Remember a batch that was found to be well-formed."""
        self.forget(id)
        self._batches[id] = batch
        self._bytes += len(batch.encoded)
        while self._bytes > self._bytes_max:
            self.forget(next(iter(self._batches)))

    def forget(self, id: InstanceId) -> None:
        """Its batch will hardly come again."""
        batch = self._batches.pop(id, None)
        if batch is not None:
            self._bytes -= len(batch.encoded)


def to_wire(message: m.Message) -> m.Message | CarriedMessage:
    """The message with its batch, if it has one that may come again, as bytes."""
    match message:
        case m.PreAccept():
            return RawPreAccept(message.id, _carried(message.batch), message.deps)
        case m.Accept():
            return RawAccept(message.id, message.ballot, _carried(message.value), message.deps)
        case m.Commit():
            return RawCommit(message.id, _carried(message.value), message.deps)
        case _:
            return message


def from_wire(carried: CarriedMessage, known: BatchCache | None) -> m.Message:
    """The message that was carried. Raises what decoding may raise."""
    match carried:
        case RawPreAccept():
            batch = _taken(carried.id, carried.batch, known)
            if not isinstance(batch, Batch):
                raise ValueError("a PreAccept without a batch")
            return m.PreAccept(carried.id, batch, carried.deps)
        case RawAccept():
            return m.Accept(carried.id, carried.ballot, _taken(carried.id, carried.value, known), carried.deps)
        case RawCommit():
            return m.Commit(carried.id, _taken(carried.id, carried.value, known), carried.deps)
        case _:
            return carried


def record_to_wire(record: Record) -> CarriedRecord:
    """The record with its batches as bytes, and one that it has twice only once."""
    if not isinstance(record, InstanceRecord):
        return record
    value, first = record.value, record.initial_batch
    return RawInstanceRecord(
        record.id,
        record.status,
        record.promised,
        record.voted,
        _NONE if value is None else _carried(value),
        record.deps,
        _NONE if first is None else _AS_VALUE if first is value else _carried(first),
        record.initial_deps,
    )


def record_from_wire(carried: CarriedRecord) -> Record:
    """The record that was carried. Raises what decoding may raise."""
    if not isinstance(carried, RawInstanceRecord):
        return carried
    value = None if carried.value == _NONE else _decoded(bytes(carried.value))
    first = None if carried.initial_batch == _NONE else value
    if carried.initial_batch not in (_NONE, _AS_VALUE):
        first = _decoded(bytes(carried.initial_batch))
    if isinstance(first, Nop) or (first is None and carried.initial_batch != _NONE):
        raise ValueError("a record whose first batch is none")
    return InstanceRecord(
        carried.id,
        carried.status,
        carried.promised,
        carried.voted,
        value,
        carried.deps,
        first,
        carried.initial_deps,
    )


def _carried(value: Value) -> msgspec.Raw:
    return msgspec.Raw(value.encoded) if isinstance(value, Batch) else _NOP


def _taken(id: InstanceId, raw: msgspec.Raw, known: BatchCache | None) -> Value:
    encoded = bytes(raw)
    return (known and known.find(id, encoded)) or _decoded(encoded)


def _decoded(encoded: bytes) -> Value:
    value = _decode_value(encoded)
    if isinstance(value, Batch):
        value.__dict__["encoded"] = encoded  # it is passed on and stored as it came
    return value
