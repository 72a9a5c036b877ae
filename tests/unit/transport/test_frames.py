"""The wire format: how a reader handles valid and invalid bytes."""

import pytest
from msgspec.structs import replace

from pydsm.core.protocol.starts import Start, StartInfo
from pydsm.core.types.errors import PeerProtocolError
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    HANDSHAKE_BYTES_MAX,
    NONCE_BYTES,
    PREAMBLE,
    Claim,
    Confirmation,
    FrameReader,
    HandshakeMessage,
    Hello,
    Refusal,
    Stamp,
    decode_handshake,
    decode_messages,
    decode_stamp,
    encode_handshake,
    encode_messages,
    handshake_payload,
)
from pydsm.transport.members import Member

START = StartInfo(Start(3, 1 << 63), 17)
HELLO = Hello("group", 1, "r2", 2, b"digest", (Member("r1", "h:1"), Member("r2")), 0, bytes(NONCE_BYTES), False)
STAMP = Stamp(3, 18)


def greeted_reader() -> FrameReader:
    """A reader after the handshake."""
    reader = FrameReader()
    reader.feed(PREAMBLE + encode_handshake(HELLO))
    assert [decode_handshake(payload) for payload in reader.payloads()] == [HELLO]
    reader.allow_messages()
    return reader


def test_a_handshake_and_messages_are_decoded_byte_by_byte() -> None:
    reader, payloads = FrameReader(), []
    for byte in PREAMBLE + encode_handshake(HELLO) + encode_messages([b"one", b"", b"three"], STAMP):
        reader.feed(bytes([byte]))
        payloads += list(reader.payloads())
    assert decode_handshake(payloads[0]) == HELLO
    assert [bytes(message) for message in decode_messages(payloads[1])] == [b"one", b"", b"three"]


def test_several_frames_in_one_piece_are_all_decoded() -> None:
    reader = greeted_reader()
    reader.feed(encode_messages([b"a"], STAMP) * 3)
    assert len(list(reader.payloads())) == 3


@pytest.mark.parametrize("said", [Refusal("why"), Claim((1 << 64) - 1, START, b"proof"), Confirmation(0, START)])
def test_other_handshake_messages_are_decoded_unchanged(said: HandshakeMessage) -> None:
    reader = FrameReader()
    reader.feed(PREAMBLE + encode_handshake(said))
    assert [decode_handshake(payload) for payload in reader.payloads()] == [said]


@pytest.mark.parametrize("nonce", [b"", bytes(NONCE_BYTES - 1), bytes(NONCE_BYTES + 1)])
def test_greeting_with_too_few_random_bytes_is_a_fault(nonce: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="does not parse"):
        decode_handshake(handshake_payload(replace(HELLO, nonce=nonce)))


def test_fault_of_a_greeting_holds_no_control_characters() -> None:
    with pytest.raises(PeerProtocolError) as caught:
        decode_handshake(b"\x9f\xd9\x04\x1b[2J" * 3)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("garbage", "named"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (b"\0", "does not speak this protocol"),
        (PREAMBLE[:-1] + b"\xff", "speaks version 255 of the protocol, we speak 3"),
        (PREAMBLE + (HANDSHAKE_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4), "claims 16385 bytes"),
        (b"PyDSM\0\0\1", "speaks version 1 of the protocol, we speak 3: run the same release"),
        (b"\x16\x03\x01\x02\x00", "it speaks TLS and we do not"),
        (b"\xff\0\0\0\0\0\0\0\1\x7f", "it speaks ZeroMQ and we do not"),
        (PREAMBLE + bytes(8), "claims 0 bytes"),
        (PREAMBLE + b"\0\0\0\1" + bytes(4) + b"x", "checksum"),
    ],
)
def test_garbage_instead_of_a_greeting_is_a_fault(garbage: bytes, named: str) -> None:
    reader = FrameReader()
    reader.feed(garbage)
    with pytest.raises(PeerProtocolError, match=named):
        list(reader.payloads())


def test_oversize_frame_is_a_fault_before_its_payload_arrives() -> None:
    reader = greeted_reader()
    reader.feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4))
    with pytest.raises(PeerProtocolError, match="the limit is"):
        list(reader.payloads())


def test_flipped_bit_is_a_fault() -> None:
    frame = bytearray(encode_messages([b"message"], STAMP))
    frame[-1] ^= 1
    reader = greeted_reader()
    reader.feed(bytes(frame))
    with pytest.raises(PeerProtocolError, match="checksum"):
        list(reader.payloads())


@pytest.mark.parametrize("payload", [b"\0\0", b"\0\0\0\5abc"])
def test_payload_that_does_not_divide_into_messages_is_a_fault(payload: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="a frame ends inside"):
        list(decode_messages(bytes(16) + payload))


def test_a_frame_of_messages_has_the_start_and_position_of_its_sender() -> None:
    payload = encode_messages([b"one"], Stamp(3, 1 << 40))[8:]
    assert decode_stamp(payload) == Stamp(3, 1 << 40)
    with pytest.raises(PeerProtocolError, match="a frame ends inside its stamp"):
        decode_stamp(payload[:15])


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
    with pytest.raises(PeerProtocolError, match="handshake message does not parse"):
        decode_handshake(payload)
