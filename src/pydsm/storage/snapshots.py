"""Snapshot files of the last two checkpoints, each complete or absent.

Decides how snapshots are stored and which of them are valid. A file is written under another name, synchronised, then
renamed, and its checksums are verified before it is restored. A snapshot fetched from peers is written to a file that
grows across restarts. Calls block, and may come from several threads; each file has one writer. The bytes are defined
in `snapshot_format`, the content of chunks by the state machine.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import Deps, merge
from pydsm.storage.examination import SNAPSHOTS_NAME
from pydsm.storage.identity import Identity
from pydsm.storage.seal import sync_directory
from pydsm.storage.snapshot_format import (
    DIGEST_BYTES,
    SNAPSHOT_VERSION,
    Head,
    SnapshotChecker,
    closing,
    digest,
    framed,
    opening,
    read_chunks,
)

log = logging.getLogger("pydsm.snapshots")

DIVERGENCE_MARKER = "DIVERGED"
"""File in the data directory of a replica whose state diverged."""

SNAPSHOTS_KEPT = 2

SERVED_SECONDS = 30.0
"""An older snapshot is kept for this long after the last request of a peer for it."""

_BYTES_BEFORE_SYNC = 8 << 20
_READ_BYTES = 1 << 20
_SUFFIX, _UNFINISHED, _FETCHED = ".snapshot", ".unfinished", ".fetched"


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A complete snapshot. `digests` has 32 bytes per chunk; equal states have equal digests."""

    path: Path
    checkpoint: Checkpoint
    digests: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """One digest of the whole snapshot, 32 bytes."""
        return hashlib.blake2b(b"".join(self.digests), digest_size=DIGEST_BYTES).digest()

    def chunks(self) -> Iterator[bytes]:
        """The chunks of the state machine. Raises OperationalError if the file was damaged since it was checked."""
        with self.path.open("rb") as file:
            try:
                yield from read_chunks(file, self.digests)
            except OperationalError as fault:
                raise OperationalError(f"snapshot {self.path} cannot be used: {fault}") from fault


class SnapshotWriter:
    """Writes one snapshot: `append` chunks, then `commit` or `abandon`."""

    def __init__(self, files: "SnapshotFiles", head: Head) -> None:
        self._files = files
        self._path = files.path(head.checkpoint.number)
        self._unfinished = self._path.with_suffix(_UNFINISHED)
        self._checkpoint = head.checkpoint
        self._digests: list[bytes] = []
        self._unsynced = 0
        self._file: BinaryIO = self._unfinished.open("wb")
        self._file.write(opening(head))

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write more chunks; synchronises from time to time, so that `commit` does not take long."""
        for chunk in chunks:
            self._file.write(framed(chunk))
            self._unsynced += len(chunk)
            self._digests.append(digest(chunk))
        if self._unsynced > _BYTES_BEFORE_SYNC:
            _sync(self._file)
            self._unsynced = 0

    def commit(self) -> SnapshotFile:
        """Make the snapshot durable under its final name, and remove snapshots older than the last two."""
        self._file.write(closing(self._digests))
        _sync(self._file)
        self._file.close()
        self._files.put(self._unfinished, self._path)
        return SnapshotFile(self._path, self._checkpoint, tuple(self._digests))

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        with suppress(OSError):
            self._unfinished.unlink()


class SnapshotReceiver:
    """Writes one snapshot that is fetched from peers in pieces. `offset` bytes are on disk without known damage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checker = SnapshotChecker()
        self._unsynced = 0
        self._file: BinaryIO = path.open("r+b" if path.is_file() else "w+b")
        with suppress(OperationalError):
            while data := self._file.read(_READ_BYTES):
                self._checker.take(data)
        self._rewind()

    @property
    def offset(self) -> int:
        """Byte offset of the next piece."""
        return self._checker.offset

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the snapshot, once all of it is present and valid; else None."""
        head = self._checker.head
        return head.checkpoint if head is not None and self._checker.complete else None

    def append(self, data: bytes) -> None:
        """Write the next piece. Raises OperationalError if it is damaged; `offset` is then the end of the good part."""
        self._file.write(data)  # before the check, because frames that end in this piece may be valid
        try:
            self._checker.take(data)
        except OperationalError:
            self._rewind()
            raise
        self._unsynced += len(data)
        if self._unsynced > _BYTES_BEFORE_SYNC:
            _sync(self._file)
            self._unsynced = 0

    def finish(self, identity: Identity) -> SnapshotFile:
        """Make the file durable. If it is not the expected snapshot, empty it and raise OperationalError."""
        try:
            file = _validated(self.path, self._checker, identity)
        except OperationalError:
            self._checker = SnapshotChecker()
            self._rewind()
            raise
        _sync(self._file)
        sync_directory(self.path.parent)
        return file

    def close(self) -> None:
        """Close the file and keep it, so that the fetch can continue later. Bytes that cannot be written are lost."""
        with suppress(OSError):
            self._file.close()

    def _rewind(self) -> None:
        self._checker.rewind()
        self._file.flush()
        self._file.truncate(self._checker.offset)
        self._file.seek(self._checker.offset)


class SnapshotFiles:
    """The snapshots of one replica, in its data directory. Methods raise OSError if the disk fails."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self._directory = directory / SNAPSHOTS_NAME
        self._identity = identity
        self._served: dict[int, float] = {}
        self._damaged: set[Path] = set()
        """Damaged files found by `load`. They are kept as evidence and not used."""
        self._whole: dict[Path, tuple[int, int]] = {}
        """Paths of the last two valid snapshots, each with device and inode of the file."""
        self._changing = threading.Lock()
        """Held while files change that `check_not_replaced` compares."""

    def path(self, number: int) -> Path:
        """Path of the snapshot of this checkpoint."""
        return self._directory / f"{number:012}{_SUFFIX}"

    def begin(self, checkpoint: Checkpoint) -> SnapshotWriter:
        """Begin to write a new snapshot."""
        self._make_directory()
        return SnapshotWriter(self, Head(SNAPSHOT_VERSION, self._identity.group, self._identity.replicas, checkpoint))

    def _make_directory(self) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True)
            sync_directory(self._directory.parent)

    def put(self, written: Path, path: Path) -> None:
        """Rename a durable file to its final name, and remove older ones except the last two and those being served.

        Damaged files do not count among the last two, and are removed when both are newer. Partly fetched snapshots
        that are not newer than this one are removed as well.
        """
        with self._changing:
            # Rename, make the name durable, then remove older files: a crash between any two steps leaves two snapshots
            # or more. The file itself was synchronised before, so a name never stands for an incomplete file.
            written.rename(path)
            sync_directory(path.parent)
            self._damaged.discard(path)
            self._remove_older()
        for fetched in self._directory.glob(f"*{_FETCHED}"):
            if fetched.stem <= path.stem:
                fetched.unlink(missing_ok=True)

    def _remove_older(self) -> None:
        now = time.monotonic()
        self._served = {number: at for number, at in dict(self._served).items() if now - at < SERVED_SECONDS}
        served = {self.path(number) for number in self._served}
        found = sorted(self._directory.glob(f"*{_SUFFIX}"))
        last = [one for one in found if one not in self._damaged][-SNAPSHOTS_KEPT:]
        for old in found:
            if old < last[0] and old not in served:
                old.unlink(missing_ok=True)
                self._damaged.discard(old)
        self._record_files(last)

    # Requests of peers

    def read(self, number: int, offset: int, bytes_max: int) -> tuple[int, bytes] | None:
        """Size of this checkpoint's snapshot and at most `bytes_max` bytes from `offset` on; None if there is none."""
        try:
            with self.path(number).open("rb") as file:
                self._served[number] = time.monotonic()
                size = file.seek(0, os.SEEK_END)
                file.seek(offset)
                return size, file.read(bytes_max)
        except FileNotFoundError:
            return None

    def receive(self, number: int) -> SnapshotReceiver:
        """Begin or continue to receive the snapshot of this checkpoint; partly fetched other snapshots are removed."""
        self._make_directory()
        mine = self.path(number).with_suffix(_FETCHED)
        for other in self._directory.glob(f"*{_FETCHED}"):
            if other != mine:
                other.unlink(missing_ok=True)
        return SnapshotReceiver(mine)

    def finish(self, receiver: SnapshotReceiver) -> SnapshotFile:
        """See `SnapshotReceiver.finish`."""
        return receiver.finish(self._identity)

    def adopt(self, purged: Deps) -> None:
        """Rename a complete fetched snapshot to an own one if the records that it replaces were purged.

        `purged` is, per leader, the index up to which the store has no records.
        """
        # Installing a snapshot purges the records first and renames the file after that. After a crash between the two,
        # only this snapshot has what the purged records had, so the next start completes the installation here.
        for fetched in sorted(self._directory.glob(f"*{_FETCHED}")):
            with suppress(OperationalError):  # it is not complete yet
                checkpoint = self._examine(fetched).checkpoint
                if merge(purged, checkpoint.position.up_to) == purged:
                    self.put(fetched, self.path(checkpoint.number))

    # The own replica

    def mark_diverged(self, text: str) -> None:
        """Write `text` to the divergence marker: no replica starts with this directory until an operator removes it."""
        path = self._directory.parent / DIVERGENCE_MARKER
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)

    def check(self) -> None:
        """Raise OperationalError if the directory has a divergence marker."""
        path = self._directory.parent / DIVERGENCE_MARKER
        if path.is_file():
            raise OperationalError(
                f"{path} states why this replica must not start, and the remedy: {path.read_text('utf-8', 'replace')}"
            )

    def load(self) -> list[SnapshotFile]:
        """The last two valid snapshots, the older one first. Damaged ones are logged and kept as evidence."""
        for unfinished in self._directory.glob(f"*{_UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        found, faults = self.survey()
        for path, fault in faults.items():
            log.error("%s; it is not used", fault)
            self._damaged.add(path)
        with self._changing:
            self._record_files([one.path for one in found[-SNAPSHOTS_KEPT:]])
        return found[-SNAPSHOTS_KEPT:]

    def survey(self) -> tuple[list[SnapshotFile], dict[Path, str]]:
        """All valid snapshots, the oldest first, and the fault of each other one by path. Changes nothing."""
        found, faults = [], {}
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                found.append(self._examine(path))
            except OperationalError as fault:
                faults[path] = str(fault)
            except OSError as error:
                faults[path] = f"snapshot {path} cannot be read: {error.strerror or error}"
        return found, faults

    def check_not_replaced(self) -> None:
        """Raise OperationalError if one of the last two was removed or replaced. Their content is not read."""
        with self._changing:
            for path, file in self._whole.items():
                try:
                    there = path.stat()
                except OSError as error:
                    raise OperationalError(_replaced_error(path, error.strerror or str(error))) from error
                if (there.st_dev, there.st_ino) != file:
                    raise OperationalError(_replaced_error(path, "another one is in its place"))

    def _record_files(self, paths: Sequence[Path]) -> None:
        stats = {path: path.stat() for path in paths}
        self._whole = {path: (stat.st_dev, stat.st_ino) for path, stat in stats.items()}

    def _examine(self, path: Path) -> SnapshotFile:
        checker = SnapshotChecker()
        try:
            with path.open("rb") as file:
                while data := file.read(_READ_BYTES):
                    checker.take(data)
        except OperationalError as fault:
            raise OperationalError(f"snapshot {path} is damaged: {fault}") from fault
        return _validated(path, checker, self._identity)


def _validated(path: Path, checker: SnapshotChecker, identity: Identity) -> SnapshotFile:
    """The snapshot in a file whose bytes were all checked.

    Raises OperationalError if it is incomplete, of another group, or not of the checkpoint in its name.
    """
    head = checker.head
    if head is None or not checker.complete:
        raise OperationalError(f"snapshot {path} is damaged: it ends too early")
    if (head.group, head.replicas) != (identity.group, identity.replicas):
        raise OperationalError(f"snapshot {path} is of another group: {head.group} of {head.replicas} replicas")
    if head.checkpoint.number != number_of(path):
        raise OperationalError(
            f"snapshot {path} is of checkpoint {head.checkpoint.number}, and its name is that of another"
        )
    return SnapshotFile(path, head.checkpoint, tuple(checker.digests))


def _replaced_error(path: Path, how: str) -> str:
    return (
        f"{path} was removed or replaced while the replica ran ({how}): nothing more is acknowledged. Put it back as "
        "it was, then start the replica again"
    )


def number_of(path: Path) -> int | None:
    """The checkpoint number in the name of a snapshot file; None for other names."""
    return int(path.stem) if path.stem.isdecimal() else None


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
