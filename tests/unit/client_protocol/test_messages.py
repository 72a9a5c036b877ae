"""The native clients' wire format: messages are decoded unchanged; other bytes are valid or a PeerProtocolError."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.client_protocol.messages import (
    CLIENT_PREAMBLE,
    ClientAnswers,
    ClientHello,
    ClientRequest,
    CloseReason,
    Welcome,
    decode_from_client,
    decode_from_replica,
    encode_answers,
    encode_message,
)
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import SEQUENCES, UNTRACKED_SESSIONS_START, ReplicaId, RequestId, request_id
from pydsm.core.types.messages import Run
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import NO_LIST, Members
from pydsm.transport.frames import PREAMBLE, FrameReader

plain = st.recursive(
    st.none() | st.binary() | st.text() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(), inner, max_size=3),
    max_leaves=8,
)
failures = st.one_of(
    *(st.builds(kind, st.text()) for kind in (CommandFailed, Aborted, Overloaded, SessionExpired, RequestExpired))
)


def payloads(frames: bytes) -> list[bytes]:
    """The messages that a reader on the other side decodes."""
    reader = FrameReader(CLIENT_PREAMBLE)
    reader.feed(CLIENT_PREAMBLE)
    reader.allow_messages()
    reader.feed(frames)
    return list(reader.payloads())


def answers_in(frames: bytes) -> list[tuple[int, object]]:
    """Numbers and answers, of all frames."""
    found: list[tuple[int, object]] = []
    for payload in payloads(frames):
        message = decode_from_replica(payload)
        assert isinstance(message, ClientAnswers)
        found += zip(message.numbers, message.answers, strict=True)
    return found


@given(st.lists(st.binary(), max_size=5), st.integers(0, 2**40))
def test_commands_arrive_as_they_were(commands: list[bytes], first: int) -> None:
    runs = [Run(request_id(5, ReplicaId(1), 7, 1), len(commands), 3)] if commands else []
    (payload,) = payloads(encode_message(ClientRequest(first, commands, runs)))
    assert decode_from_client(payload) == ClientRequest(first, commands, runs)


@pytest.mark.parametrize(
    ("runs", "what"),
    [
        ([], "0 request ids for 1 commands"),
        ([Run(request_id(5, ReplicaId(1), 7, 1), 2)], "2 request ids for 1 commands"),
        ([Run(RequestId(bytes(15)), 1)], "is not the id of a client's request"),
        ([Run(request_id(5, ReplicaId(1), 7, 0), 1)], "is not the id of a client's request"),
        ([Run(request_id(5, ReplicaId(1), UNTRACKED_SESSIONS_START, 1), 1)], "is not the id of a client's request"),
        ([Run(request_id(5, ReplicaId(1), 7, SEQUENCES - 1), 2)], "exceeds the last sequence"),
    ],
)
def test_ids_that_are_not_those_of_the_commands_are_refused(runs: list[Run], what: str) -> None:
    (payload,) = payloads(encode_message(ClientRequest(0, [b"x"], runs)))
    with pytest.raises(PeerProtocolError, match=what):
        decode_from_client(payload)


@given(st.lists(plain | failures | st.lists(st.builds(CommandFailed, st.text()), max_size=2), max_size=5))
def test_results_are_decoded_unchanged(answers: list[Any]) -> None:
    assert answers_in(encode_answers(range(len(answers)), answers, 1 << 20)) == list(enumerate(answers))


@pytest.mark.parametrize(
    "greeting", [ClientHello("g"), Welcome("g", "r1", 0, ("r1", "r2"), True, bytes(16), 8), CloseReason("why")]
)
def test_greetings_arrive_as_they_were(greeting: ClientHello | Welcome | CloseReason) -> None:
    (payload,) = payloads(encode_message(greeting))
    decode = decode_from_client if isinstance(greeting, ClientHello) else decode_from_replica
    assert decode(payload) == greeting


def test_a_status_and_a_string_stay_distinct_and_other_redis_types_become_plain_values() -> None:
    given: list[Answer] = ["OK", b"OK", Members([b"a"]), NO_LIST, (1, 2), math.inf]
    assert answers_in(encode_answers(range(6), given, 1 << 20)) == list(
        enumerate(["OK", b"OK", [b"a"], None, [1, 2], math.inf])
    )


@pytest.mark.parametrize("odd", [object(), 2**70, {1, 2}.__iter__(), "\ud800"])
def test_a_result_that_cannot_be_encoded_is_an_error_and_the_others_arrive(odd: object) -> None:
    found = answers_in(encode_answers(range(3), [b"x", odd, b"y"], 1 << 20))
    assert [number for number, _ in found] == [0, 1, 2]
    assert (found[0][1], found[2][1]) == (b"x", b"y")
    assert isinstance(found[1][1], CommandFailed)
    assert "the command was executed" in found[1][1].message


def test_long_answers_use_several_frames_and_a_single_too_long_one_is_an_error() -> None:
    frames = encode_answers(range(4), [b"x" * 600, b"y" * 600, b"z" * 2000, b"w"], 1000)
    assert all(len(payload) < 1000 for payload in payloads(frames))
    found = answers_in(frames)
    assert [answer for _, answer in found if isinstance(answer, bytes)] == [b"x" * 600, b"y" * 600, b"w"]
    assert isinstance(found[2][1], CommandFailed)


@given(st.binary())
def test_garbage_is_a_fault_of_the_peer_or_a_right_message(garbage: bytes) -> None:
    for decode in (decode_from_client, decode_from_replica):
        try:
            decode(garbage)
        except PeerProtocolError:
            continue


@given(st.data())
def test_a_cut_or_bent_message_is_a_fault_of_the_peer_or_a_right_message(data: st.DataObject) -> None:
    (payload,) = payloads(encode_answers([1, 2], [b"abc", CommandFailed("no")], 1 << 20))
    place = data.draw(st.integers(0, len(payload) - 1))
    bent = payload[:place] + bytes([payload[place] ^ data.draw(st.integers(1, 255))]) + payload[place + 1 :]
    for broken in (payload[:place], bent):
        try:
            decode_from_replica(broken)
        except PeerProtocolError:
            continue


def test_more_answers_than_numbers_are_refused() -> None:
    (payload,) = payloads(encode_message(ClientAnswers([1], [b"a", b"b"])))
    with pytest.raises(PeerProtocolError, match="different numbers of answers"):
        decode_from_replica(payload)


def test_a_replica_that_dials_a_client_port_is_recognised() -> None:
    reader = FrameReader(CLIENT_PREAMBLE)
    reader.feed(PREAMBLE)
    with pytest.raises(PeerProtocolError):
        list(reader.payloads())
