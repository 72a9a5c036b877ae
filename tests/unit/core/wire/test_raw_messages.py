"""Batches are sent and stored as bytes that are encoded once; a cached batch is recognised by its bytes."""

import msgspec
import pytest
from hypothesis import given

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId
from pydsm.core.types.messages import NOP, Batch, Footprint, Message, Run
from pydsm.core.types.status import Status
from pydsm.core.wire.codec import WIRE_VERSION, decode_message, decode_record, encode_message, encode_record
from pydsm.core.wire.raw_messages import BatchCache
from tests.unit.core.strategies import REPLICAS, batches, messages

ID = InstanceId(ReplicaId(0), 1)
OTHER = InstanceId(ReplicaId(0), 2)
BALLOT = Ballot(1, ReplicaId(2))
DEPS: Deps = (0, 1, 2)


def batch(text: bytes = b"command") -> Batch:
    return Batch((Run(RequestId(bytes(16)), 1),), (text,), Footprint(writes=(b"key",)), 5)


def batch_of(message: Message) -> object:
    return message.batch if isinstance(message, m.PreAccept) else getattr(message, "value", None)


@given(messages)
def test_the_state_of_the_cache_changes_no_message(message: Message) -> None:
    known = BatchCache()
    data = encode_message(message)
    assert decode_message(data, REPLICAS, known) == message
    assert decode_message(data, REPLICAS, known) == message


def test_a_cached_batch_is_not_decoded_again() -> None:
    known = BatchCache()
    first = decode_message(encode_message(m.PreAccept(ID, batch(), DEPS)), REPLICAS, known)
    for again in (m.Accept(ID, BALLOT, batch(), DEPS), m.Commit(ID, batch(), DEPS)):
        assert batch_of(decode_message(encode_message(again), REPLICAS, known)) is batch_of(first)


def test_a_batch_in_other_bytes_or_of_another_instance_is_decoded() -> None:
    known = BatchCache()
    decode_message(encode_message(m.PreAccept(ID, batch(b"one"), DEPS)), REPLICAS, known)
    for message in (m.Commit(OTHER, batch(b"one"), DEPS), m.Commit(ID, batch(b"two"), DEPS), m.Commit(ID, NOP, DEPS)):
        assert decode_message(encode_message(message), REPLICAS, known) == message


def test_the_latest_batches_are_cached_up_to_a_limit_in_bytes() -> None:
    size = len(batch().encoded)
    known = BatchCache(bytes_max=2 * size)
    for index in (1, 2, 3, 3):
        known.keep(InstanceId(ReplicaId(0), index), batch())
    found = [known.find(InstanceId(ReplicaId(0), index), batch().encoded) is not None for index in (1, 2, 3)]
    assert found == [False, True, True]


def test_a_batch_leaves_the_cache_once_it_is_committed() -> None:
    known = BatchCache()
    decode_message(encode_message(m.PreAccept(ID, batch(), DEPS)), REPLICAS, known)
    decode_message(encode_message(m.Commit(ID, batch(), DEPS)), REPLICAS, known)
    assert known.find(ID, batch().encoded) is None


def test_the_batch_of_a_refused_message_is_not_cached() -> None:
    known = BatchCache()
    wrong = Batch((Run(RequestId(bytes(16)), 1),), (), Footprint())
    with pytest.raises(PeerProtocolError):
        decode_message(encode_message(m.PreAccept(ID, wrong, DEPS)), REPLICAS, known)
    assert known.find(ID, wrong.encoded) is None


@given(batches())
def test_a_batch_is_forwarded_as_the_received_bytes(value: Batch) -> None:
    with_a_newer_field = msgspec.msgpack.encode([*msgspec.msgpack.decode(value.encoded), "newer"])
    data = bytes([WIRE_VERSION]) + msgspec.msgpack.encode([5, ID, msgspec.Raw(with_a_newer_field), DEPS])
    message = decode_message(data, REPLICAS)
    assert message == m.Commit(ID, value, DEPS)
    assert encode_message(message) == data


def test_a_pre_accept_of_a_nop_is_refused() -> None:
    data = bytes([WIRE_VERSION]) + msgspec.msgpack.encode([1, ID, NOP, DEPS])
    with pytest.raises(PeerProtocolError, match="without a batch"):
        decode_message(data, REPLICAS)


def test_a_record_holds_a_batch_once_even_if_it_is_both_the_value_and_the_first_one() -> None:
    value = batch(b"x" * 1000)
    record = InstanceRecord(ID, Status.PRE_ACCEPTED, BALLOT, None, value, DEPS, value, DEPS)
    encoded = encode_record(record)
    assert len(encoded) < 1100
    assert decode_record(encoded, REPLICAS) == record


def test_a_record_whose_first_batch_is_a_nop_or_a_missing_value_is_refused() -> None:
    for value, first in ((NOP, NOP), (None, True)):
        body = [1, ID, int(Status.ACCEPTED), BALLOT, BALLOT, value, DEPS, first, DEPS]
        with pytest.raises(OperationalError, match="initial batch"):
            decode_record(bytes([WIRE_VERSION]) + msgspec.msgpack.encode(body), REPLICAS)
