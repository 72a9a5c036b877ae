"""Messages and records as bytes: one version byte, then MessagePack.

Decoding gives a valid value or a clear error, never an invalid value. msgspec checks types; this module checks
replica numbers, lengths of vectors, bounds of numbers, and that a state has the fields which its status needs. The
handlers interpret the values. `raw_messages` carries the batches inside as bytes.
"""

from typing import assert_never

import msgspec

from pydsm.core.clocks.agreed_time import CLOCK_MS_MAX
from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.core.types.ids import INDEX_MAX, SEQUENCES, Deps, InstanceId, sequence_of, session_of
from pydsm.core.types.messages import Footprint, MemberMessage, Message
from pydsm.core.types.status import Status
from pydsm.core.wire.raw_messages import (
    BatchCache,
    RawMessage,
    RawRecord,
    from_wire,
    record_from_wire,
    record_to_wire,
    to_wire,
)

WIRE_VERSION = 3
"""First byte of every encoded message and record. A different one is refused."""

DOES_NOT_PARSE = (ValueError, msgspec.DecodeError, RecursionError)
"""Everything that decoding may raise. RecursionError: an unknown field is skipped and may be deeply nested."""

_REQUEST_ID_BYTES = 16
_PREFIX = bytes([WIRE_VERSION])
_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[RawMessage] = msgspec.msgpack.Decoder(RawMessage)
_record_decoder: msgspec.msgpack.Decoder[RawRecord] = msgspec.msgpack.Decoder(RawRecord)


def encode_message(message: Message) -> bytes:
    """Encode a message."""
    return _PREFIX + _encoder.encode(to_wire(message))


def decode_message(data: bytes | memoryview, replicas: int, cache: BatchCache | None = None) -> Message:
    """Decode a message of a peer in a group of `replicas`. Raises PeerProtocolError if it is not well-formed.

    A batch that is in `cache` is not decoded again; batches that may come again are added to it.
    """
    try:
        message = from_wire(_message_decoder.decode(_body(data)), cache)
        check_message(message, replicas)
    except DOES_NOT_PARSE as error:
        raise PeerProtocolError(
            f"a message does not parse: {error}; the peer runs other software or sends invalid data"
        ) from error
    if cache is not None:
        _cache_batch(cache, message)
    return message


def _cache_batch(cache: BatchCache, message: Message) -> None:
    match message:
        case m.PreAccept():
            cache.keep(message.id, message.batch)
        case m.PreAcceptOk() | m.AcceptOk() | m.Frontier():
            pass
        case m.Commit():
            cache.discard(message.id)
        case m.Accept():
            if isinstance(message.value, m.Batch):
                cache.keep(message.id, message.value)
        case m.PrepareOk() | m.Validate():
            pass  # they have a batch, but are too rare to displace others
        case m.Prepare() | m.ValidateOk() | m.Waiting() | m.Refuse() | m.CommitQuery():
            pass
        case m.StateDigest() | m.Compacted() | m.FetchSnapshot() | m.SnapshotPiece():
            pass
        case unreachable:
            assert_never(unreachable)


def encode_record(record: Record) -> bytes:
    """Encode a record."""
    return _PREFIX + _encoder.encode(record_to_wire(record))


def decode_record(data: bytes | memoryview, replicas: int) -> Record:
    """Decode a stored record. Raises OperationalError if it is not well-formed."""
    try:
        record = record_from_wire(_record_decoder.decode(_body(data)))
        _check_record(record, replicas)
    except DOES_NOT_PARSE as error:
        raise OperationalError(
            f"a stored record does not parse: {error}; this replica cannot rejoin with this disk"
        ) from error
    return record


def _body(data: bytes | memoryview) -> memoryview:
    if not data:
        raise ValueError("it is empty")
    if data[0] != WIRE_VERSION:
        raise ValueError(f"it has format version {data[0]}, this is {WIRE_VERSION}")
    return memoryview(data)[1:]


def check_message(message: Message, replicas: int) -> None:
    """Raises ValueError if the message names a replica or carries a vector that a group of this size cannot have."""
    match message:  # frequent messages first, here and below: a case that does not match costs time
        case m.PreAccept():
            _check_deps((message.deps,), replicas)
            _check_batches((message.batch,), replicas)
        case m.PreAcceptOk():
            _check_deps((message.deps,), replicas)
        case m.Commit():
            _check_deps((message.deps,), replicas)
            _check_batches((message.value,), replicas)
        case m.AcceptOk() | m.Prepare():
            _check_ballots((message.ballot,), replicas)
        case m.Accept():
            _check_ballots((message.ballot,), replicas)
            _check_deps((message.deps,), replicas)
            _check_batches((message.value,), replicas)
        case m.Waiting():
            pass
        case m.PrepareOk():
            _check_ballots((message.ballot, message.voted), replicas)
            _check_deps((message.deps, message.initial_deps), replicas)
            _check_batches((message.value, message.initial_batch), replicas)
            _check_complete(message)
        case m.Validate():
            _check_ballots((message.ballot,), replicas)
            _check_deps((message.deps,), replicas)
            _check_batches((message.batch,), replicas)
        case m.ValidateOk():
            _check_ballots((message.ballot,), replicas)
            for invalidator in message.invalidators:
                _check_instance(invalidator.id, replicas)
        case m.Refuse():
            _check_ballots((message.ballot, message.promised), replicas)
        case m.Frontier() | m.CommitQuery() | m.StateDigest() | m.Compacted() | m.FetchSnapshot() | m.SnapshotPiece():
            _check_about_members(message, replicas)
            return
        case unreachable:
            assert_never(unreachable)
    _check_instance(message.id, replicas)


def _check_about_members(message: MemberMessage, replicas: int) -> None:
    match message:
        case m.Frontier():
            _check_deps((message.executed, message.known), replicas)
            _check_clocks((message.clock_ms,))
            if message.echoes and len(message.echoes) != replicas:
                raise ValueError(f"{len(message.echoes)} echoes in a group of {replicas}")
        case m.CommitQuery():
            if len(message.ids) > m.COMMIT_QUERY_IDS_MAX:
                raise ValueError(
                    f"a query about {len(message.ids)} instances, at most {m.COMMIT_QUERY_IDS_MAX} are allowed"
                )
            for id in message.ids:
                _check_instance(id, replicas)
        case m.StateDigest():
            if not 1 <= message.number <= INDEX_MAX or len(message.parts) > m.DIGEST_PARTS_MAX:
                raise ValueError(f"a digest of {len(message.parts)} parts of the state at checkpoint {message.number}")
        case m.Compacted():
            _check_checkpoint(message.number)
            _check_deps((message.up_to,), replicas)
        case m.FetchSnapshot():
            _check_checkpoint(message.number)
            if not 0 <= message.offset <= INDEX_MAX:
                raise ValueError(f"a request for a snapshot from byte {message.offset} on")
        case m.SnapshotPiece():
            _check_checkpoint(message.number)
            end = message.offset + len(message.data)
            if message.offset < 0 or len(message.data) > m.PIECE_BYTES_MAX or not end <= message.size <= INDEX_MAX:
                raise ValueError(f"bytes {message.offset} to {end} of a snapshot of {message.size} bytes")
        case unreachable:
            assert_never(unreachable)


def _check_checkpoint(number: int) -> None:
    if not 1 <= number <= INDEX_MAX:
        raise ValueError(f"a checkpoint number of {number}")


def _check_record(record: Record, replicas: int) -> None:
    match record:
        case InstanceRecord():
            _check_instance(record.id, replicas)
            _check_ballots((record.promised, record.voted), replicas)
            _check_deps((record.deps, record.initial_deps), replicas)
            _check_batches((record.value, record.initial_batch), replicas)
            _check_complete(record)
        case FrontierRecord():
            _check_deps((record.executed, record.dropped), replicas)
        case PurgeRecord():
            _check_deps((record.up_to,), replicas)
            for id in record.exceptions:
                _check_instance(id, replicas)
        case ReservationRecord():
            if not 0 <= record.up_to <= INDEX_MAX:
                raise ValueError(f"a reservation up to {record.up_to}")
        case unreachable:
            assert_never(unreachable)


def _check_instance(id: InstanceId, replicas: int) -> None:
    if not (0 <= id.leader < replicas and 1 <= id.index <= INDEX_MAX):
        raise ValueError(f"instance {id} is not possible in a group of {replicas}")


def _check_ballots(ballots: tuple[Ballot | None, ...], replicas: int) -> None:
    for ballot in ballots:
        if ballot is not None and not (0 <= ballot.round <= INDEX_MAX and 0 <= ballot.replica < replicas):
            raise ValueError(f"ballot {ballot} is not possible in a group of {replicas}")


def _check_deps(vectors: tuple[Deps, ...], replicas: int) -> None:
    for deps in vectors:
        if len(deps) != replicas or min(deps) < 0 or max(deps) > INDEX_MAX:
            raise ValueError(f"dependency vector {deps} does not fit a group of {replicas}")


def _check_batches(values: tuple[m.Value | None, ...], replicas: int) -> None:
    for value in values:
        if isinstance(value, m.Batch):
            _check_batch(value)
            if value.clocks:
                _check_clocks(value.clocks)
                if len(value.clocks) != replicas:
                    raise ValueError(f"readings of {len(value.clocks)} clocks in a group of {replicas}")


def _check_clocks(clocks: tuple[int, ...]) -> None:
    for clock_ms in clocks:
        if not 0 <= clock_ms <= CLOCK_MS_MAX:
            raise ValueError(f"a clock shows {clock_ms} ms, which is no Unix time")


def _check_batch(batch: m.Batch) -> None:
    named = 0
    for run in batch.runs:
        if len(run.first) != _REQUEST_ID_BYTES:
            raise ValueError(f"a request id has {len(run.first)} bytes instead of {_REQUEST_ID_BYTES}")
        if sequence_of(run.first) + run.count > SEQUENCES:
            raise ValueError("a run of request ids continues past the last sequence")
        named += run.count
    if named != len(batch.commands):
        raise ValueError(f"a batch has {named} request ids for {len(batch.commands)} commands")
    if batch.retried and not {session_of(run.first) for run in batch.runs}.issuperset(batch.retried):
        raise ValueError("a batch retries a session of which it has no requests")
    _check_footprint(batch.footprint)


def _check_footprint(footprint: Footprint) -> None:
    kinds = [kind for kind, _ in footprint.updates]
    if len(set(kinds)) != len(kinds):
        raise ValueError("a footprint has one kind of update twice")


def _check_complete(state: m.PrepareOk | InstanceRecord) -> None:
    match state.status:
        case Status.UNKNOWN:
            complete = True
        case Status.PRE_ACCEPTED:
            complete = isinstance(state.value, m.Batch) and state.initial_batch is not None
        case Status.ACCEPTED:
            complete = state.value is not None and state.voted is not None
        case Status.COMMITTED:
            complete = state.value is not None and isinstance(state, InstanceRecord)
        case Status.EXECUTED:
            complete = False  # never sent or stored
        case unreachable:
            assert_never(unreachable)
    if not complete:
        raise ValueError(
            f"a {type(state).__name__} of {state.id} lacks what status {state.status.name} requires, or cannot have it"
        )
