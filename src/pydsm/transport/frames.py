"""The wire format between replicas, without any I/O: preamble, frames, handshake messages.

A connection is used in one direction. Each side begins with `PREAMBLE` and a frame that holds its Hello; then the side
that dialled sends a Claim, the other one a Confirmation. From then on the side that dialled sends frames of messages,
and the other one at most a Refusal. Either side may send a Refusal instead of the next message, and then closes. A
frame is its payload's length (4 bytes), CRC-32 (4 bytes), payload; a payload of messages is a stamp (the number of the
sender's start, 8 bytes, and its position, 8 bytes; see `core.protocol.starts`), then a sequence of length (4 bytes) and
encoded message. All numbers are big-endian.

Guarantees that a reader returns valid payloads or raises PeerProtocolError, whatever bytes arrive, and buffers at most
one frame.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple
from zlib import crc32

import msgspec

from pydsm.core.protocol.starts import PeerReport, StartInfo
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.wire.codec import DOES_NOT_PARSE
from pydsm.logs import printable
from pydsm.transport.members import Member

PROTOCOL_VERSION = 3
"""Changes when frames or handshake messages do; messages have a version of their own in `core.wire.codec`."""

_VERSION_BYTES = 2

PREAMBLE = b"PyDSM\0" + PROTOCOL_VERSION.to_bytes(_VERSION_BYTES, "big")
"""The first bytes on a connection, in both directions."""

FRAME_BYTES_MAX = 64 << 20
"""A longer frame is refused."""

HANDSHAKE_BYTES_MAX = 16 << 10
"""A handshake message in a longer frame is refused."""

_HEADER = struct.Struct(">II")
_LENGTH = struct.Struct(">I")
_STAMP = struct.Struct(">QQ")
_ZEROMQ = b"\xff\0\0\0"
_TLS_RECORDS = (b"\x16\x03", b"\x15\x03")  # a handshake, or an alert


NONCE_BYTES = 32
"""Random bytes in each Hello."""

_Number = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack has none of more than 64 bits


class Stamp(NamedTuple):
    """The number of the sender's start, and the position of its store (durable groups of records) at the sending."""

    start: int
    position: int


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The first message of a replica: its identity and group, and whether it will prove them. Has nothing secret."""

    group: str
    replica: Annotated[int, msgspec.Meta(ge=0)]
    name: str
    replicas: Annotated[int, msgspec.Meta(ge=1)]
    members_digest: bytes
    """The digest of the number of members and their names in order; see `members`."""
    members: tuple[Member, ...]
    """The members with their addresses, to be shown in a refusal; only the first if there are too many to send."""
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    """Drawn for this connection."""
    proves: bool
    """Whether this replica was given a group secret."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The last message on a connection: why it is closed."""

    reason: str
    remembered: PeerReport | None = None
    """If the refused replica has an older copy of its data: what the sender has stored about it."""
    proof: bytes = b""
    """If `remembered` is given, the proof as in a Confirmation, because that report can stop a replica."""


class Claim(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """From the side that dialled: which data it has, and the proof of the group secret."""

    incarnation: _Number
    start: StartInfo
    proof: bytes = b""
    """Empty without a secret; otherwise computed over all other bytes of the handshake so far."""


class Confirmation(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """From the side that was dialled: the same, but only the fingerprint of its incarnation."""

    fingerprint: _Number
    start: StartInfo
    """With the records about the replica that dialled."""
    proof: bytes = b""


HandshakeMessage = Hello | Refusal | Claim | Confirmation
"""Unknown fields are forbidden: the version in the preamble determines the fields. Skipping unknown fields would accept
any nesting depth that the interpreter's stack allows, which differs between interpreters."""

_handshake_decoder: msgspec.msgpack.Decoder[HandshakeMessage] = msgspec.msgpack.Decoder(HandshakeMessage)


def encode_handshake(message: HandshakeMessage) -> bytes:
    """The frame of a handshake message; the first one in each direction follows the preamble."""
    return encode_frame(handshake_payload(message))


def handshake_payload(message: HandshakeMessage) -> bytes:
    """The payload of a handshake message, over which proofs are computed."""
    return msgspec.msgpack.encode(message)


def decode_handshake(payload: bytes) -> HandshakeMessage:
    """Raises PeerProtocolError for anything but a handshake message."""
    try:
        return _handshake_decoder.decode(payload)
    except DOES_NOT_PARSE as error:
        raise PeerProtocolError(f"the handshake message does not parse: {printable(str(error))}") from error


def encode_messages(messages: Iterable[bytes], stamp: Stamp) -> bytes:
    """One frame of encoded messages, with the stamp of the time at which it is sent."""
    chunks = [_STAMP.pack(*stamp)]
    for message in messages:
        chunks += (_LENGTH.pack(len(message)), message)
    return _frame(chunks)


def decode_stamp(payload: bytes) -> Stamp:
    """The stamp at the beginning of a frame's payload. Raises PeerProtocolError when the payload is too short."""
    if len(payload) < _STAMP.size:
        raise PeerProtocolError("a frame ends inside its stamp")
    return Stamp(*_STAMP.unpack_from(payload))


def decode_messages(payload: bytes) -> Iterator[memoryview]:
    """The encoded messages of a frame. Raises PeerProtocolError when the payload does not divide into messages."""
    view = memoryview(payload)
    start, end = _STAMP.size, len(view)
    while start < end:
        body = start + _LENGTH.size
        if body > end:
            raise PeerProtocolError("a frame ends inside the length of a message")
        (length,) = _LENGTH.unpack_from(view, start)
        start = body + length
        if start > end:
            raise PeerProtocolError("a frame ends inside a message")
        yield view[body:start]


def open_handshake(data: bytes) -> bytes:
    """The payload of a Hello: preamble and frame in one piece. Raises PeerProtocolError for anything else."""
    if len(data) > len(PREAMBLE) + _HEADER.size + HANDSHAKE_BYTES_MAX:
        raise PeerProtocolError(f"its handshake message has {len(data)} bytes, the limit is {HANDSHAKE_BYTES_MAX}")
    reader = FrameReader()
    reader.feed(data)
    for payload in reader.payloads():
        return payload
    raise PeerProtocolError("its handshake message is cut short")


def open_frame(data: bytes, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """The payload of data that are exactly one frame. Raises PeerProtocolError for anything else."""
    if len(data) - _HEADER.size > bytes_max:
        raise PeerProtocolError(f"a frame of {len(data) - _HEADER.size} bytes, the limit is {bytes_max}")
    if len(data) < _HEADER.size:
        raise PeerProtocolError("a frame is cut short")
    length, checksum = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if len(payload) != length:
        raise PeerProtocolError(f"a frame claims {length} bytes and has {len(payload)}")
    if crc32(payload) != checksum:
        raise PeerProtocolError("the checksum of a frame differs")
    return payload


def message_bytes(message: bytes) -> int:
    """Bytes that an encoded message takes in a frame."""
    return _LENGTH.size + len(message)


def encode_frame(payload: bytes) -> bytes:
    """One frame with this payload."""
    return _frame([payload])


def _frame(chunks: list[bytes]) -> bytes:
    checksum = 0
    for chunk in chunks:
        checksum = crc32(chunk, checksum)
    return b"".join((_HEADER.pack(sum(map(len, chunks)), checksum), *chunks))


class FrameReader:
    """Splits the bytes of one connection into payloads: first those of the handshake, then those of message frames.

    `preamble` ends with a version of two bytes.
    """

    def __init__(self, preamble: bytes = PREAMBLE) -> None:
        self._preamble = preamble
        self._buffer = bytearray()
        self._preamble_seen = False
        self._limit = HANDSHAKE_BYTES_MAX

    def allow_messages(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        """Allow large frames: the handshake is complete."""
        self._limit = frame_bytes_max

    @property
    def held_bytes(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes; `payloads` then returns the payloads that are complete."""
        self._buffer += data

    def payloads(self) -> Iterator[bytes]:
        """Complete payloads so far. Raises PeerProtocolError for a wrong preamble, checksum, or length."""
        if not self._preamble_seen and not self._take_preamble():
            return
        while len(self._buffer) >= _HEADER.size:
            length, checksum = _HEADER.unpack_from(self._buffer)
            if not 0 < length <= self._limit:
                raise PeerProtocolError(f"a frame claims {length} bytes, the limit is {self._limit}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
            if crc32(payload) != checksum:
                raise PeerProtocolError("the checksum of a frame differs")
            yield payload

    def _take_preamble(self) -> bool:
        size, version = len(self._preamble), len(self._preamble) - _VERSION_BYTES
        given = bytes(self._buffer[:size])
        if given == self._preamble:
            del self._buffer[:size]
            self._preamble_seen = True
        elif len(given) == size or not self._preamble[:version].startswith(given[:version]):
            raise PeerProtocolError(_describe_unknown(given, self._preamble))
        return self._preamble_seen


def _describe_unknown(beginning: bytes, preamble: bytes) -> str:
    """Describe the protocol that these first bytes suggest; they are not the expected preamble."""
    version = len(preamble) - _VERSION_BYTES
    if beginning.startswith(preamble[:version]):
        theirs, ours = (int.from_bytes(one[version:], "big") for one in (beginning, preamble))
        return f"it speaks version {theirs} of the protocol, we speak {ours}: run the same release of PyDSM everywhere"
    if beginning.startswith(_TLS_RECORDS):
        return "it speaks TLS and we do not: give --tls-cert, --tls-key and --tls-ca to all replicas or to none"
    if beginning.startswith(_ZEROMQ):
        return "it speaks ZeroMQ and we do not: give the same --transport to all replicas"
    return "it does not speak this protocol"
