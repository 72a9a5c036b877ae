"""The wire format: what a reader makes of good and of bad bytes."""

import pytest

from pydsm.core.faults import PeerFault
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    GREETING_BYTES_MAX,
    PREAMBLE,
    FrameReader,
    Hello,
    Refusal,
    decode_greeting,
    decode_messages,
    encode_greeting,
    encode_messages,
)

HELLO = Hello("group", 1, 3, 42, 0)


def greeted_reader() -> FrameReader:
    """A reader that has seen a greeting."""
    reader = FrameReader()
    reader.feed(PREAMBLE + encode_greeting(HELLO))
    assert [decode_greeting(payload) for payload in reader.payloads()] == [HELLO]
    reader.allow_messages()
    return reader


def test_greeting_and_messages_come_out_as_they_went_in_byte_by_byte() -> None:
    reader, payloads = FrameReader(), []
    for byte in PREAMBLE + encode_greeting(HELLO) + encode_messages([b"one", b"", b"three"]):
        reader.feed(bytes([byte]))
        payloads += list(reader.payloads())
    assert decode_greeting(payloads[0]) == HELLO
    assert [bytes(message) for message in decode_messages(payloads[1])] == [b"one", b"", b"three"]


def test_several_frames_in_one_piece_all_come_out() -> None:
    reader = greeted_reader()
    reader.feed(encode_messages([b"a"]) * 3)
    assert len(list(reader.payloads())) == 3


def test_refusal_is_a_greeting() -> None:
    reader = FrameReader()
    reader.feed(PREAMBLE + encode_greeting(Refusal("why")))
    assert [decode_greeting(payload) for payload in reader.payloads()] == [Refusal("why")]


@pytest.mark.parametrize(
    ("garbage", "named"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (b"\0", "does not speak this protocol"),
        (PREAMBLE[:-1] + b"\xff", "speaks version 255 of the protocol, we speak 2"),
        (PREAMBLE + (GREETING_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4), "claims 4097 bytes"),
        (b"PyDSM\0\0\1", "speaks version 1 of the protocol, we speak 2: run the same release"),
        (b"\x16\x03\x01\x02\x00", "it speaks TLS and we do not"),
        (b"\xff\0\0\0\0\0\0\0\1\x7f", "it speaks ZeroMQ and we do not"),
        (PREAMBLE + bytes(8), "claims 0 bytes"),
        (PREAMBLE + b"\0\0\0\1" + bytes(4) + b"x", "checksum"),
    ],
)
def test_garbage_instead_of_a_greeting_is_a_fault(garbage: bytes, named: str) -> None:
    reader = FrameReader()
    reader.feed(garbage)
    with pytest.raises(PeerFault, match=named):
        list(reader.payloads())


def test_oversize_frame_is_a_fault_before_its_payload_arrives() -> None:
    reader = greeted_reader()
    reader.feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4))
    with pytest.raises(PeerFault, match="the limit is"):
        list(reader.payloads())


def test_flipped_bit_is_a_fault() -> None:
    frame = bytearray(encode_messages([b"message"]))
    frame[-1] ^= 1
    reader = greeted_reader()
    reader.feed(bytes(frame))
    with pytest.raises(PeerFault, match="checksum"):
        list(reader.payloads())


@pytest.mark.parametrize("payload", [b"\0\0", b"\0\0\0\5abc"])
def test_payload_that_does_not_divide_into_messages_is_a_fault(payload: bytes) -> None:
    with pytest.raises(PeerFault, match="a frame ends inside"):
        list(decode_messages(payload))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xc0", id="of another type"),
        pytest.param(b"\x92\x02\xa2\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x93\x02\xa3why" + b"\x91" * 4000 + b"\x00", id="nested 4,000 deep"),
        pytest.param(b"\x93\x02\xa3why\x91\x00", id="nested once, where nothing belongs"),
    ],
)
def test_greeting_that_is_no_greeting_is_a_fault(payload: bytes) -> None:
    with pytest.raises(PeerFault, match="greeting does not parse"):
        decode_greeting(payload)
