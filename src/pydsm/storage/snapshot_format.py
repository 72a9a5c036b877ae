"""The bytes of a snapshot: a head, the chunks of the state machine, and an end; each in a frame with a checksum.

Defines the layout, and checks bytes as they arrive, in pieces of any size. Damage is found at the end of its frame, and
all frames before it stay valid. Equal snapshots have equal bytes on every replica, so a fetch may continue from another
source. This module does no I/O on paths; it reads files that are given to it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from struct import Struct
from typing import BinaryIO, assert_never
from zlib import crc32

import msgspec

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import OperationalError

SNAPSHOT_VERSION = 2
"""Version of the layout. Any other version is refused."""

MAGIC = b"PyDSM snapshot\0"
FRAME = Struct(">II")
"""Precedes each payload: its length in bytes and its CRC-32. An empty payload precedes the end."""
DIGEST_BYTES = 32


class Head(msgspec.Struct, frozen=True):
    """First payload: the group and the checkpoint of the snapshot."""

    version: int
    group: str
    replicas: int
    checkpoint: Checkpoint


class End(msgspec.Struct, frozen=True):
    """Last payload: one digest per chunk, so that missing and exchanged chunks are noticed."""

    digests: tuple[bytes, ...]


def digest(chunk: bytes) -> bytes:
    """BLAKE2b digest of one chunk, 32 bytes."""
    return hashlib.blake2b(chunk, digest_size=DIGEST_BYTES).digest()


def framed(payload: bytes) -> bytes:
    """The payload with its length and checksum."""
    return FRAME.pack(len(payload), crc32(payload)) + payload


def opening(head: Head) -> bytes:
    """The bytes before the chunks."""
    return MAGIC + framed(msgspec.msgpack.encode(head))


def closing(digests: Iterable[bytes]) -> bytes:
    """The bytes after the chunks."""
    return framed(b"") + framed(msgspec.msgpack.encode(End(tuple(digests))))


def encode_snapshot(head: Head, chunks: Sequence[bytes]) -> bytes:
    """The bytes of a whole snapshot."""
    return opening(head) + b"".join(map(framed, chunks)) + closing(map(digest, chunks))


def read_chunks(file: BinaryIO, digests: Iterable[bytes]) -> Iterator[bytes]:
    """Read the chunks of a snapshot that was checked before.

    Raises OperationalError if the file was changed since.
    """
    file.seek(len(MAGIC))
    _next_payload(file)
    for expected in digests:
        chunk = _next_payload(file)
        if digest(chunk) != expected:
            raise OperationalError("it was changed while it was read")
        yield chunk


def _next_payload(file: BinaryIO) -> bytes:
    """The next payload; damage is noticed by the caller, who compares its digest."""
    size, _ = FRAME.unpack(file.read(FRAME.size).ljust(FRAME.size, b"\0"))
    return file.read(size)


class _Expects(Enum):
    MAGIC = "the magic"
    FRAME = "length and checksum"
    PAYLOAD = "a payload"
    NOTHING = "nothing"


class _Part(Enum):
    HEAD = "head"
    CHUNK = "chunk"
    END = "end"


_SMALL_PAYLOAD_BYTES_MAX = 64 << 20
"""Largest head or end, which are read into memory as a whole."""


class SnapshotChecker:
    """Checks the bytes of one snapshot in order. After damage, call `back` and continue from offset `good`."""

    def __init__(self) -> None:
        self.offset = 0
        """Number of bytes taken."""
        self.good = 0
        """Number of bytes in complete, valid frames."""
        self.head: Head | None = None
        self.digests: list[bytes] = []
        self._expects = _Expects.MAGIC
        self._part = _Part.HEAD
        self._pending = bytearray()
        self._size = self._checksum = self._crc = 0
        self._done = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    @property
    def complete(self) -> bool:
        """Whether the end was reached and everything is valid."""
        return self._expects is _Expects.NOTHING

    def take(self, data: bytes) -> None:
        """Check the next bytes. Raises OperationalError that describes the fault, if there is one."""
        rest = memoryview(data)
        while rest:
            if self._expects is _Expects.NOTHING:
                raise OperationalError("it continues after its end")
            rest = self._take_payload(rest) if self._expects is _Expects.PAYLOAD else self._take_frame(rest)

    def rewind(self) -> None:
        """Discard everything after `good`. A complete snapshot stays complete, whatever followed its end."""
        if self.complete:
            return
        self._pending.clear()
        self.offset = self.good
        self._expects = _Expects.FRAME if self.good else _Expects.MAGIC

    def _take_frame(self, data: memoryview) -> memoryview:
        wanted = len(MAGIC) if self._expects is _Expects.MAGIC else FRAME.size
        part = data[: wanted - len(self._pending)]
        self._pending += part
        self.offset += len(part)
        if len(self._pending) == wanted:
            found = bytes(self._pending)
            self._pending.clear()
            if self._expects is _Expects.MAGIC:
                if found != MAGIC:
                    raise OperationalError("it is no snapshot")
                self._expects = _Expects.FRAME
            else:
                self._begin_payload(*FRAME.unpack(found))
        return data[len(part) :]

    def _begin_payload(self, size: int, checksum: int) -> None:
        if self._part is not _Part.CHUNK and size > _SMALL_PAYLOAD_BYTES_MAX:
            raise OperationalError(f"its {self._part.value} has {size} bytes")
        self._size, self._checksum = size, checksum
        self._done = self._crc = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._expects = _Expects.PAYLOAD
        if not size:
            self._end_payload()

    def _take_payload(self, data: memoryview) -> memoryview:
        part = data[: self._size - self._done]
        self._crc = crc32(part, self._crc)
        if self._part is _Part.CHUNK:
            self._hash.update(part)
        else:
            self._pending += part
        self._done += len(part)
        self.offset += len(part)
        if self._done == self._size:
            self._end_payload()
        return data[len(part) :]

    def _end_payload(self) -> None:
        if self._crc != self._checksum:
            raise OperationalError("a checksum differs")
        payload = bytes(self._pending)
        self._pending.clear()
        self._expects = _Expects.FRAME
        match self._part:
            case _Part.HEAD:
                self.head = decode_head(payload)
                self._part = _Part.CHUNK
            case _Part.CHUNK if self._size:
                self.digests.append(self._hash.digest())
            case _Part.CHUNK:
                self._part = _Part.END
            case _Part.END:
                if decode_end(payload).digests != tuple(self.digests):
                    raise OperationalError("its chunks are not those that were written")
                self._expects = _Expects.NOTHING
            case unreachable:
                assert_never(unreachable)
        self.good = self.offset


def decode_head(payload: bytes) -> Head:
    """Decode a head. Raises OperationalError if it is damaged or of another version."""
    try:
        head = msgspec.msgpack.decode(payload, type=Head)
    except msgspec.DecodeError as error:
        raise OperationalError(f"its head is damaged: {error}") from error
    if head.version != SNAPSHOT_VERSION:
        raise OperationalError(f"it has format {head.version}, this PyDSM reads format {SNAPSHOT_VERSION}")
    return head


def decode_end(payload: bytes) -> End:
    """Decode an end. Raises OperationalError if it is damaged."""
    try:
        return msgspec.msgpack.decode(payload, type=End)
    except msgspec.DecodeError as error:
        raise OperationalError(f"its end is damaged: {error}") from error
