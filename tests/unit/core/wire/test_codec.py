"""The codec returns a valid value or raises PeerProtocolError, for any bytes."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.core.types.ids import INDEX_MAX, Deps, InstanceId, ReplicaId, RequestId, SessionId
from pydsm.core.types.messages import NOP, Batch, Footprint, Message, PrepareOk, Run
from pydsm.core.types.status import Status
from pydsm.core.wire.codec import (
    WIRE_VERSION,
    check_message,
    decode_message,
    decode_record,
    encode_message,
    encode_record,
)
from tests.unit.core.strategies import (
    MESSAGES,
    REPLICAS,
    ballots,
    batches,
    instance_ids,
    messages,
    records,
    vectors,
)

ID = InstanceId(ReplicaId(0), 1)
BALLOT = Ballot(1, ReplicaId(2))
DEPS: Deps = (0, 1, 2)
BATCH = Batch((Run(RequestId(bytes(16)), 1),), (b"command",), Footprint(writes=(b"key",)), 5)


def raw(body: object) -> bytes:
    """Bytes as a peer with other software might make them."""
    return bytes([WIRE_VERSION]) + msgspec.msgpack.encode(body)


def decode_or_fault(data: bytes) -> Message | None:
    """The message, checked to be valid in this group, or None for a PeerProtocolError. Nothing else may
    happen."""
    try:
        message = decode_message(data, REPLICAS)
    except PeerProtocolError:
        return None
    check_message(message, REPLICAS)
    assert decode_message(encode_message(message), REPLICAS) == message
    return message


def decode_record_or_fault(data: bytes) -> Record | None:
    try:
        record = decode_record(data, REPLICAS)
    except OperationalError:
        return None
    assert decode_record(encode_record(record), REPLICAS) == record
    return record


@pytest.mark.parametrize("kind", MESSAGES)
@given(data=st.data())
def test_a_message_survives_the_wire(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    decoded = decode_message(encode_message(message), REPLICAS)
    assert type(decoded) is kind
    assert decoded == message


@given(messages)
def test_a_message_is_decoded_from_a_view_into_a_larger_buffer(message: Message) -> None:
    buffer = b"before" + encode_message(message)
    assert decode_message(memoryview(buffer)[6:], REPLICAS) == message


@given(records)
def test_a_record_survives_the_disk(record: Record) -> None:
    assert decode_record(encode_record(record), REPLICAS) == record


def test_these_tests_try_every_kind_of_message() -> None:
    assert set(MESSAGES) == set(get_args(Message))


@given(messages, st.data())
def test_a_truncated_message_is_a_peer_fault(message: Message, data: st.DataObject) -> None:
    encoded = encode_message(message)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(PeerProtocolError):
        decode_message(encoded[:cut], REPLICAS)


@given(messages, st.binary(min_size=1, max_size=8))
def test_a_message_with_bytes_behind_it_is_a_peer_fault(message: Message, more: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        decode_message(encode_message(message) + more, REPLICAS)


@given(messages, st.data())
def test_a_flipped_bit_gives_a_valid_message_or_a_peer_fault(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(message))
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[position // 8] ^= 1 << position % 8
    decode_or_fault(bytes(encoded))


@given(st.binary(max_size=64))
def test_arbitrary_bytes_give_a_valid_message_or_a_peer_fault(data: bytes) -> None:
    decode_or_fault(data)
    decode_or_fault(bytes([WIRE_VERSION]) + data)


MESSAGE_PACK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=17),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=8), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=25,
)


@given(st.integers(1, len(MESSAGES)), st.lists(MESSAGE_PACK, max_size=8))
def test_well_formed_nonsense_gives_a_valid_message_or_a_peer_fault(tag: int, fields: list[object]) -> None:
    decode_or_fault(raw([tag, *fields]))


@given(records, st.data())
def test_a_damaged_record_gives_a_valid_record_or_a_world_fault(record: Record, data: st.DataObject) -> None:
    encoded = bytearray(encode_record(record))
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[position // 8] ^= 1 << position % 8
    decode_record_or_fault(bytes(encoded))


@given(records, st.data())
def test_a_truncated_record_is_a_world_fault(record: Record, data: st.DataObject) -> None:
    encoded = encode_record(record)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(OperationalError):
        decode_record(encoded[:cut], REPLICAS)


@given(messages)
def test_another_version_is_refused_and_named(message: Message) -> None:
    encoded = bytes([WIRE_VERSION + 1]) + encode_message(message)[1:]
    with pytest.raises(PeerProtocolError, match=f"format version {WIRE_VERSION + 1}, this is {WIRE_VERSION}"):
        decode_message(encoded, REPLICAS)


def test_no_bytes_are_refused_as_message_and_as_record() -> None:
    with pytest.raises(PeerProtocolError, match="empty"):
        decode_message(b"", REPLICAS)
    with pytest.raises(OperationalError, match="empty"):
        decode_record(b"", REPLICAS)


@given(messages)
def test_a_message_that_names_a_replica_outside_the_group_is_refused(message: Message) -> None:
    try:
        decode_message(encode_message(message), REPLICAS - 1)
    except PeerProtocolError:
        return
    without_vector = m.Waiting | m.CommitQuery | m.Prepare | m.AcceptOk | m.Refuse | m.ValidateOk | m.StateDigest
    assert isinstance(message, without_vector | m.FetchSnapshot | m.SnapshotPiece)
    assert f"leader={REPLICAS - 1}" not in repr(message)
    assert f"replica={REPLICAS - 1}" not in repr(message)


@pytest.mark.parametrize("depth", [10, 2_000, 300_000])
def test_endless_nesting_in_an_unknown_field_does_not_overflow_the_stack(depth: int) -> None:
    known = msgspec.msgpack.encode([4, ID, BALLOT])
    nested = bytes([WIRE_VERSION, 0x94]) + known[1:] + b"\x91" * depth + b"\x00"
    message = decode_or_fault(nested)
    assert message in (None, m.AcceptOk(ID, BALLOT))


def test_a_field_of_a_newer_version_at_the_end_is_ignored() -> None:
    assert decode_message(raw([4, ID, BALLOT, "new"]), REPLICAS) == m.AcceptOk(ID, BALLOT)


@pytest.mark.parametrize(
    "ballot",
    [
        Ballot(-1, ReplicaId(0)),
        Ballot(0, ReplicaId(-1)),
        Ballot(1, ReplicaId(REPLICAS)),
        Ballot(INDEX_MAX + 1, ReplicaId(0)),
        Ballot((1 << 64) - 1, ReplicaId(0)),
    ],
)
def test_a_ballot_that_no_replica_can_have_is_refused_wherever_it_stands(ballot: Ballot) -> None:
    answer = PrepareOk(ID, BALLOT, Status.ACCEPTED, ballot, NOP, DEPS, None, DEPS)
    wrong: list[Message] = [
        m.Prepare(ID, ballot),
        m.Accept(ID, ballot, NOP, DEPS),
        m.AcceptOk(ID, ballot),
        m.Validate(ID, ballot, BATCH, DEPS),
        m.ValidateOk(ID, ballot, ()),
        m.Refuse(ID, ballot, BALLOT),
        m.Refuse(ID, BALLOT, ballot),
        answer,
    ]
    for message in wrong:
        with pytest.raises(PeerProtocolError, match="ballot"):
            decode_message(encode_message(message), REPLICAS)
    for record in (
        InstanceRecord(ID, Status.UNKNOWN, ballot, None, None, DEPS, None, DEPS),
        InstanceRecord(ID, Status.ACCEPTED, BALLOT, ballot, NOP, DEPS, None, DEPS),
    ):
        with pytest.raises(OperationalError, match="ballot"):
            decode_record(encode_record(record), REPLICAS)


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if "ballot" in kind.__struct_fields__])
@given(data=st.data())
def test_no_message_may_have_a_ballot_of_a_replica_outside_the_group(kind: type[Message], data: st.DataObject) -> None:
    message = msgspec.structs.replace(data.draw(MESSAGES[kind]), ballot=Ballot(1, ReplicaId(REPLICAS)))
    with pytest.raises(PeerProtocolError, match="ballot"):
        decode_message(encode_message(message), REPLICAS)


@pytest.mark.parametrize("deps", [(), (0, 0), (0, 0, 0, 0), (0, -1, 0), (0, INDEX_MAX + 1, 0)])
def test_a_vector_that_does_not_fit_the_group_is_refused_wherever_it_stands(deps: Deps) -> None:
    wrong: list[Message] = [
        m.PreAccept(ID, BATCH, deps),
        m.PreAcceptOk(ID, deps),
        m.Accept(ID, BALLOT, NOP, deps),
        m.Commit(ID, NOP, deps),
        m.Validate(ID, BALLOT, BATCH, deps),
        m.Frontier(deps, DEPS),
        m.Frontier(DEPS, deps),
        m.Compacted(1, deps),
        PrepareOk(ID, BALLOT, Status.UNKNOWN, None, None, deps, None, DEPS),
        PrepareOk(ID, BALLOT, Status.UNKNOWN, None, None, DEPS, None, deps),
    ]
    for message in wrong:
        with pytest.raises(PeerProtocolError, match="dependency vector"):
            decode_message(encode_message(message), REPLICAS)


@pytest.mark.parametrize(
    "id",
    [
        InstanceId(ReplicaId(REPLICAS), 1),
        InstanceId(ReplicaId(-1), 1),
        InstanceId(ReplicaId(0), 0),
        InstanceId(ReplicaId(0), INDEX_MAX + 1),
    ],
)
def test_an_instance_that_cannot_exist_is_refused_wherever_it_stands(id: InstanceId) -> None:
    wrong: list[Message] = [
        m.PreAccept(id, BATCH, DEPS),
        m.Waiting(id, 2),
        m.CommitQuery((ID, id)),
        m.ValidateOk(ID, BALLOT, (m.Invalidator(id, True),)),
    ]
    for message in wrong:
        with pytest.raises(PeerProtocolError, match="instance"):
            decode_message(encode_message(message), REPLICAS)
    with pytest.raises(OperationalError, match="instance"):
        decode_record(encode_record(PurgeRecord(DEPS, (ID, id))), REPLICAS)
    with pytest.raises(OperationalError, match="instance"):
        decode_record(encode_record(InstanceRecord(id, Status.UNKNOWN, BALLOT, None, None, DEPS, None, DEPS)), REPLICAS)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        (Batch((), (b"command",), Footprint()), "request ids"),
        (Batch((Run(RequestId(bytes(15)), 1),), (b"command",), Footprint()), "15 bytes"),
        (Batch((Run(RequestId(bytes(16)), 2),), (b"command",), Footprint()), "2 request ids"),
        (Batch((), (), Footprint(), retried=(SessionId(bytes(12)),)), "of which it has no requests"),
        (Batch((Run(RequestId(b"\xff" * 16), 2),), (b"a", b"b"), Footprint()), "past the last sequence"),
        (Batch((), (), Footprint(updates=((b"incr", (b"a",)), (b"incr", (b"b",))))), "twice"),
    ],
)
def test_an_inconsistent_batch_is_refused_in_every_message_and_record(batch: Batch, what: str) -> None:
    wrong: list[Message] = [
        m.PreAccept(ID, batch, DEPS),
        m.Accept(ID, BALLOT, batch, DEPS),
        m.Commit(ID, batch, DEPS),
        m.Validate(ID, BALLOT, batch, DEPS),
        PrepareOk(ID, BALLOT, Status.PRE_ACCEPTED, None, BATCH, DEPS, batch, DEPS),
    ]
    for message in wrong:
        with pytest.raises(PeerProtocolError, match=what):
            decode_message(encode_message(message), REPLICAS)


STATES_WITHOUT_THEIR_CONTENT = [
    (Status.PRE_ACCEPTED, None, None, BATCH),
    (Status.PRE_ACCEPTED, None, NOP, BATCH),
    (Status.PRE_ACCEPTED, None, BATCH, None),
    (Status.ACCEPTED, None, BATCH, BATCH),
    (Status.ACCEPTED, BALLOT, None, BATCH),
    (Status.EXECUTED, BALLOT, BATCH, BATCH),
]


@pytest.mark.parametrize(("status", "voted", "value", "initial_batch"), STATES_WITHOUT_THEIR_CONTENT)
def test_a_state_without_the_fields_of_its_status_is_refused(
    status: Status, voted: Ballot | None, value: m.Value | None, initial_batch: Batch | None
) -> None:
    with pytest.raises(PeerProtocolError, match=status.name):
        decode_message(encode_message(PrepareOk(ID, BALLOT, status, voted, value, DEPS, initial_batch, DEPS)), REPLICAS)
    with pytest.raises(OperationalError, match=status.name):
        decode_record(
            encode_record(InstanceRecord(ID, status, BALLOT, voted, value, DEPS, initial_batch, DEPS)), REPLICAS
        )


def test_a_committed_instance_is_stored_but_never_answered_as_a_promise() -> None:
    record = InstanceRecord(ID, Status.COMMITTED, BALLOT, None, BATCH, DEPS, None, DEPS)
    assert decode_record(encode_record(record), REPLICAS) == record
    with pytest.raises(OperationalError, match="COMMITTED"):
        decode_record(
            encode_record(InstanceRecord(ID, Status.COMMITTED, BALLOT, None, None, DEPS, None, DEPS)), REPLICAS
        )
    with pytest.raises(PeerProtocolError, match="COMMITTED"):
        decode_message(
            encode_message(PrepareOk(ID, BALLOT, Status.COMMITTED, None, BATCH, DEPS, BATCH, DEPS)), REPLICAS
        )


@pytest.mark.parametrize(("number", "parts"), [(0, 1), (-1, 1), (INDEX_MAX + 1, 1), (1, m.DIGEST_PARTS_MAX + 1)])
def test_a_digest_out_of_bounds_is_refused(number: int, parts: int) -> None:
    with pytest.raises(PeerProtocolError, match="parts of the state at checkpoint"):
        decode_message(encode_message(m.StateDigest(number, (bytes(16),) * parts)), REPLICAS)


def test_a_frontier_is_decoded_and_one_of_another_group_refused() -> None:
    record = FrontierRecord((1, 2, 3), (0, 1, 0))
    assert decode_record(encode_record(record), REPLICAS) == record
    for wrong in (FrontierRecord((1, 2), (0, 0, 0)), FrontierRecord((0, 0, 0), (0, 0, -1))):
        with pytest.raises(OperationalError, match="does not fit a group"):
            decode_record(encode_record(wrong), REPLICAS)


@pytest.mark.parametrize("number", [0, -1, INDEX_MAX + 1])
def test_a_checkpoint_that_cannot_exist_is_refused_wherever_it_stands(number: int) -> None:
    for message in (m.Compacted(number, DEPS), m.FetchSnapshot(number, 0), m.SnapshotPiece(number, 0, 9, b"piece")):
        with pytest.raises(PeerProtocolError, match=f"checkpoint number of {number}"):
            decode_message(encode_message(message), REPLICAS)


@pytest.mark.parametrize("offset", [-1, INDEX_MAX + 1])
def test_negative_and_excessive_offsets_are_refused(offset: int) -> None:
    with pytest.raises(PeerProtocolError, match=f"from byte {offset} on"):
        decode_message(encode_message(m.FetchSnapshot(1, offset)), REPLICAS)


@pytest.mark.parametrize(
    ("offset", "size", "bytes_sent"),
    [(-1, 9, 5), (5, 9, 5), (10, 9, 0), (0, INDEX_MAX + 1, 5), (0, 1 << 30, m.PIECE_BYTES_MAX + 1)],
)
def test_a_piece_that_does_not_fit_its_snapshot_is_refused(offset: int, size: int, bytes_sent: int) -> None:
    with pytest.raises(
        PeerProtocolError, match=f"bytes {offset} to {offset + bytes_sent} of a snapshot of {size} bytes"
    ):
        decode_message(encode_message(m.SnapshotPiece(1, offset, size, bytes(bytes_sent))), REPLICAS)


@pytest.mark.parametrize(("offset", "size", "bytes_sent"), [(4, 9, 5), (9, 9, 0), (0, 1 << 30, m.PIECE_BYTES_MAX)])
def test_a_piece_that_just_fits_is_taken(offset: int, size: int, bytes_sent: int) -> None:
    piece = m.SnapshotPiece(1, offset, size, bytes(bytes_sent))
    assert decode_message(encode_message(piece), REPLICAS) == piece


def test_a_purge_record_without_exceptions_is_still_decoded() -> None:
    assert decode_record(raw([4, DEPS]), REPLICAS) == PurgeRecord(DEPS)


@pytest.mark.parametrize("up_to", [-1, INDEX_MAX + 1])
def test_a_reservation_out_of_bounds_is_refused(up_to: int) -> None:
    with pytest.raises(OperationalError, match="reservation"):
        decode_record(encode_record(ReservationRecord(up_to)), REPLICAS)


@given(instance_ids, ballots, batches(), vectors)
def test_the_same_message_is_always_the_same_bytes(id: InstanceId, ballot: Ballot, batch: Batch, deps: Deps) -> None:
    again = Batch(batch.runs, batch.commands, batch.footprint, batch.timestamp_ms)
    assert encode_message(m.Accept(id, ballot, batch, deps)) == encode_message(m.Accept(id, ballot, again, deps))


def test_the_wire_format_has_not_changed() -> None:
    """Other versions of PyDSM read these bytes: a difference requires a new WIRE_VERSION."""
    assert encode_message(m.AcceptOk(ID, BALLOT)).hex() == "03930492000192" + "0102"
    assert encode_message(m.PreAccept(ID, BATCH, DEPS)).hex() == (
        "03" "9401920001" "9701" + "9194c410" + "00" * 16 + "010000" + "91c407" + b"command".hex() + "9490"
        + "91c403" + b"key".hex() + "90c2" + "05" + "90" + "90" + "93000102"
    )  # fmt: skip
    assert encode_record(ReservationRecord(64)).hex() == "03920240"


def test_a_question_about_too_many_instances_is_a_fault_of_the_peer() -> None:
    """Each may be answered with a whole batch."""
    most = m.CommitQuery((ID,) * m.COMMIT_QUERY_IDS_MAX)
    assert decode_message(encode_message(most), 3) == most
    with pytest.raises(PeerProtocolError, match="a query about 4097 instances, at most 4096 are allowed"):
        decode_message(encode_message(m.CommitQuery((ID,) * (m.COMMIT_QUERY_IDS_MAX + 1))), 3)
