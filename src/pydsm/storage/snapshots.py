"""Snapshots on disk: a file for each of the last two checkpoints, whole or not there at all.

Decides how a snapshot lies on disk, and which ones are good. A file is written beside its place, synchronised, and then
renamed; every piece has a checksum, and the end says how many there were, so that a damaged or cut file is recognised
and never restored. Blocking; used from one thread at a time. What chunks mean is the machine's business.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO
from zlib import crc32

import msgspec

from pydsm.core.checkpoint import Checkpoint
from pydsm.core.faults import WorldFault
from pydsm.storage.identity import Identity

log = logging.getLogger("pydsm.snapshots")

SNAPSHOT_VERSION = 1
"""Layout of the file. Another one is refused."""

DIRECTORY_NAME = "snapshots"
"""Under the data directory."""

CONDEMNED_NAME = "DIVERGED"
"""In the data directory of a replica whose state was not the agreed one."""

SNAPSHOTS_KEPT = 2

_MAGIC = b"PyDSM snapshot\0"
_FRAME = Struct(">II")
_DIGEST_BYTES = 32
_BYTES_BEFORE_SYNC = 8 << 20
_SUFFIX, _UNFINISHED = ".snapshot", ".unfinished"


class _Head(msgspec.Struct, frozen=True):
    version: int
    group: str
    replicas: int
    checkpoint: Checkpoint


class _End(msgspec.Struct, frozen=True):
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A whole snapshot. `digests` has one of 32 bytes for each chunk: equal states have equal ones."""

    path: Path
    checkpoint: Checkpoint
    digests: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """One for all of it."""
        return hashlib.blake2b(b"".join(self.digests), digest_size=_DIGEST_BYTES).digest()

    def chunks(self) -> Iterator[bytes]:
        """What the machine gave. Raises WorldFault if the file was damaged since it was looked at."""
        for place, chunk in enumerate(_chunks(self.path)):
            if _digest(chunk) != self.digests[place]:
                raise WorldFault(f"snapshot {self.path} was changed while it was read")
            yield chunk


class SnapshotWriter:
    """One snapshot on its way to the disk: `append` chunks, then `commit`; or `abandon`."""

    def __init__(self, path: Path, head: _Head) -> None:
        self._path = path
        self._unfinished = path.with_suffix(_UNFINISHED)
        self._checkpoint = head.checkpoint
        self._digests: list[bytes] = []
        self._unsynced = 0
        self._file: BinaryIO = self._unfinished.open("wb")
        self._file.write(_MAGIC)
        self._write(msgspec.msgpack.encode(head))

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write some more; synchronises now and then, so that the end takes no longer than the rest."""
        for chunk in chunks:
            self._write(chunk)
            self._digests.append(_digest(chunk))
        if self._unsynced > _BYTES_BEFORE_SYNC:
            self._sync()

    def commit(self) -> SnapshotFile:
        """Make it durable, in its place, and remove what is older than the last two."""
        end = _End(tuple(self._digests))
        self._write(b"")
        self._write(msgspec.msgpack.encode(end))
        self._sync()
        self._file.close()
        self._unfinished.rename(self._path)
        _sync_directory(self._path.parent)
        for old in sorted(self._path.parent.glob(f"*{_SUFFIX}"))[:-SNAPSHOTS_KEPT]:
            old.unlink()
        return SnapshotFile(self._path, self._checkpoint, end.digests)

    def abandon(self) -> None:
        """It will not be finished."""
        self._file.close()
        with suppress(OSError):
            self._unfinished.unlink()

    def _write(self, payload: bytes) -> None:
        self._file.write(_FRAME.pack(len(payload), crc32(payload)))
        self._file.write(payload)
        self._unsynced += len(payload)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0


class SnapshotFiles:
    """The snapshots of one replica, in its data directory. Raises OSError where the disk does."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self._directory = directory / DIRECTORY_NAME
        self._identity = identity

    def begin(self, checkpoint: Checkpoint) -> SnapshotWriter:
        """A new snapshot."""
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True)
            _sync_directory(self._directory.parent)
        head = _Head(SNAPSHOT_VERSION, self._identity.group, self._identity.replicas, checkpoint)
        return SnapshotWriter(self._directory / f"{checkpoint.number:012}{_SUFFIX}", head)

    def condemn(self, text: str) -> None:
        """Leave word that no replica may start with this directory until somebody has seen to it."""
        path = self._directory.parent / CONDEMNED_NAME
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)

    def check(self) -> None:
        """Raises WorldFault if `condemn` was called here."""
        path = self._directory.parent / CONDEMNED_NAME
        if path.is_file():
            raise WorldFault(f"{path} says why this replica must not start, and what to do: {path.read_text('utf-8')}")

    def load(self) -> list[SnapshotFile]:
        """Those that are whole, the older one first. A damaged one is named in the log and left where it is."""
        for unfinished in self._directory.glob(f"*{_UNFINISHED}"):
            unfinished.unlink()
        found = []
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                found.append(self._look_at(path))
            except WorldFault as fault:
                log.error("%s; it is not used", fault)
        return found

    def _look_at(self, path: Path) -> SnapshotFile:
        head = _head(path)
        if (head.group, head.replicas) != (self._identity.group, self._identity.replicas):
            raise WorldFault(f"snapshot {path} is of another group: {head.group} of {head.replicas} replicas")
        digests = tuple(_digest(chunk) for chunk in _chunks(path))
        return SnapshotFile(path, head.checkpoint, digests)


def _digest(chunk: bytes) -> bytes:
    return hashlib.blake2b(chunk, digest_size=_DIGEST_BYTES).digest()


def _head(path: Path) -> _Head:
    with path.open("rb") as file:
        return _read_head(path, file)


def _read_head(path: Path, file: BinaryIO) -> _Head:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise WorldFault(f"{path} is no snapshot")
    try:
        head = msgspec.msgpack.decode(_read(path, file), type=_Head)
    except msgspec.DecodeError as error:
        raise WorldFault(f"snapshot {path} is damaged: {error}") from error
    if head.version != SNAPSHOT_VERSION:
        raise WorldFault(f"snapshot {path} has format {head.version}, this PyDSM reads format {SNAPSHOT_VERSION}")
    return head


def _read(path: Path, file: BinaryIO) -> bytes:
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        raise WorldFault(f"snapshot {path} is damaged: it ends too early")
    size, checksum = _FRAME.unpack(frame)
    payload = file.read(size)
    if len(payload) < size or crc32(payload) != checksum:
        raise WorldFault(f"snapshot {path} is damaged: a checksum differs")
    return payload


def _chunks(path: Path) -> Iterator[bytes]:
    """All chunks; raises WorldFault at the first damage, a missing end among them."""
    digests = []
    with path.open("rb") as file:
        _read_head(path, file)
        while chunk := _read(path, file):
            digests.append(_digest(chunk))
            yield chunk
        try:
            end = msgspec.msgpack.decode(_read(path, file), type=_End)
        except msgspec.DecodeError as error:
            raise WorldFault(f"snapshot {path} is damaged: {error}") from error
        if end.digests != tuple(digests):
            raise WorldFault(f"snapshot {path} is damaged: its chunks are not those that were written")


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
