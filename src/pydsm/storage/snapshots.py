"""Snapshots on disk: a file for each of the last two checkpoints, whole or not there at all.

Decides how a snapshot lies on disk, and which ones are good. A file is written beside its place, synchronised, then
renamed, so that a damaged or cut one is recognised and never restored. One that comes from a peer grows there too,
across restarts. Blocking, and safe to use from several threads: each file has one that writes it. What the bytes are is
`snapshot_format`'s business, what chunks mean the machine's.
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
"""In the data directory of a replica whose state was not the agreed one."""

SNAPSHOTS_KEPT = 2

SERVED_SECONDS = 30.0
"""A snapshot that a peer has asked for lately is kept for so long, though two newer ones are there."""

_BYTES_BEFORE_SYNC = 8 << 20
_READ_BYTES = 1 << 20
_SUFFIX, _UNFINISHED, _FETCHED = ".snapshot", ".unfinished", ".fetched"


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A whole snapshot. `digests` has one of 32 bytes for each chunk: equal states have equal ones."""

    path: Path
    checkpoint: Checkpoint
    digests: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """One for all of it."""
        return hashlib.blake2b(b"".join(self.digests), digest_size=DIGEST_BYTES).digest()

    def chunks(self) -> Iterator[bytes]:
        """What the machine gave. Raises OperationalError if the file was damaged since it was looked at."""
        with self.path.open("rb") as file:
            try:
                yield from read_chunks(file, self.digests)
            except OperationalError as fault:
                raise OperationalError(f"snapshot {self.path} cannot be used: {fault}") from fault


class SnapshotWriter:
    """One snapshot on its way to the disk: `append` chunks, then `commit`; or `abandon`."""

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
        """Write some more; synchronises now and then, so that the end takes no longer than the rest."""
        for chunk in chunks:
            self._file.write(framed(chunk))
            self._unsynced += len(chunk)
            self._digests.append(digest(chunk))
        if self._unsynced > _BYTES_BEFORE_SYNC:
            _sync(self._file)
            self._unsynced = 0

    def commit(self) -> SnapshotFile:
        """Make it durable, in its place, and remove what is older than the last two."""
        self._file.write(closing(self._digests))
        _sync(self._file)
        self._file.close()
        self._files.put(self._unfinished, self._path)
        return SnapshotFile(self._path, self._checkpoint, tuple(self._digests))

    def abandon(self) -> None:
        """It will not be finished."""
        self._file.close()
        with suppress(OSError):
            self._unfinished.unlink()


class SnapshotReceiver:
    """One snapshot that comes from peers, in pieces. `offset` bytes are there, and good as far as can be told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checker = SnapshotChecker()
        self._unsynced = 0
        self._file: BinaryIO = path.open("r+b" if path.is_file() else "w+b")
        with suppress(OperationalError):
            while data := self._file.read(_READ_BYTES):
                self._checker.take(data)
        self._back()

    @property
    def offset(self) -> int:
        """Where the next piece begins."""
        return self._checker.offset

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What it is of, once all of it is there and good."""
        head = self._checker.head
        return head.checkpoint if head is not None and self._checker.complete else None

    def append(self, data: bytes) -> None:
        """Write the next piece. Raises OperationalError if it is damaged; `offset` is then behind what is good."""
        self._file.write(data)  # first, since frames that end in it may be good
        try:
            self._checker.take(data)
        except OperationalError:
            self._back()
            raise
        self._unsynced += len(data)
        if self._unsynced > _BYTES_BEFORE_SYNC:
            _sync(self._file)
            self._unsynced = 0

    def finish(self, identity: Identity) -> SnapshotFile:
        """Make it durable, under this name. Raises OperationalError if it is not what it should be, and begins anew."""
        try:
            file = _judged(self.path, self._checker, identity)
        except OperationalError:
            self._checker = SnapshotChecker()
            self._back()
            raise
        _sync(self._file)
        sync_directory(self.path.parent)
        return file

    def close(self) -> None:
        """Keep what is there, to go on later. What the disk does not take any more is not there."""
        with suppress(OSError):
            self._file.close()

    def _back(self) -> None:
        self._checker.back()
        self._file.flush()
        self._file.truncate(self._checker.offset)
        self._file.seek(self._checker.offset)


class SnapshotFiles:
    """The snapshots of one replica, in its data directory. Raises OSError where the disk does."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self._directory = directory / SNAPSHOTS_NAME
        self._identity = identity
        self._served: dict[int, float] = {}
        self._damaged: set[Path] = set()
        """Found so by `load`. They stay as evidence, and count for nothing."""
        self._whole: dict[Path, tuple[int, int]] = {}
        """Where the last two good ones lie, and which file that was: device and inode."""
        self._changing = threading.Lock()
        """Held while files change of which `check_place` should know."""

    def path(self, number: int) -> Path:
        """Where the snapshot of this checkpoint lies."""
        return self._directory / f"{number:012}{_SUFFIX}"

    def begin(self, checkpoint: Checkpoint) -> SnapshotWriter:
        """A new snapshot."""
        self._make_directory()
        return SnapshotWriter(self, Head(SNAPSHOT_VERSION, self._identity.group, self._identity.replicas, checkpoint))

    def _make_directory(self) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True)
            sync_directory(self._directory.parent)

    def put(self, written: Path, path: Path) -> None:
        """Give a durable file its name, and remove older ones: all but the last two, and those that are served.

        A damaged one is not among the last two, and goes when both are newer. What has come of one that is not newer is
        of no use any more.
        """
        with self._changing:
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
        self._remember(last)

    # for peers

    def read(self, number: int, offset: int, bytes_max: int) -> tuple[int, bytes] | None:
        """The size of this checkpoint's snapshot, and its bytes from `offset` on; None if it is not there."""
        try:
            with self.path(number).open("rb") as file:
                self._served[number] = time.monotonic()
                size = file.seek(0, os.SEEK_END)
                file.seek(offset)
                return size, file.read(bytes_max)
        except FileNotFoundError:
            return None

    def receive(self, number: int) -> SnapshotReceiver:
        """Go on with the snapshot of this checkpoint, or begin it; what there is of others is given up."""
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
        """Take a fetched snapshot for an own one. Records up to it are gone: `purged` says how far."""
        for fetched in sorted(self._directory.glob(f"*{_FETCHED}")):
            with suppress(OperationalError):  # it is still on its way
                checkpoint = self._look_at(fetched).checkpoint
                if merge(purged, checkpoint.position.up_to) == purged:
                    self.put(fetched, self.path(checkpoint.number))

    # for this replica

    def condemn(self, text: str) -> None:
        """Leave word that no replica may start with this directory until somebody has seen to it."""
        path = self._directory.parent / DIVERGENCE_MARKER
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)

    def check(self) -> None:
        """Raises OperationalError if `condemn` was called here."""
        path = self._directory.parent / DIVERGENCE_MARKER
        if path.is_file():
            raise OperationalError(
                f"{path} says why this replica must not start, and what to do: {path.read_text('utf-8', 'replace')}"
            )

    def load(self) -> list[SnapshotFile]:
        """The last two that are whole, the older one first. A damaged one is named in the log, and stays."""
        for unfinished in self._directory.glob(f"*{_UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        found, faults = self.survey()
        for path, fault in faults.items():
            log.error("%s; it is not used", fault)
            self._damaged.add(path)
        with self._changing:
            self._remember([one.path for one in found[-SNAPSHOTS_KEPT:]])
        return found[-SNAPSHOTS_KEPT:]

    def survey(self) -> tuple[list[SnapshotFile], dict[Path, str]]:
        """All that are whole, the older ones first, and what is wrong with the others. Changes nothing."""
        found, faults = [], {}
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                found.append(self._look_at(path))
            except OperationalError as fault:
                faults[path] = str(fault)
            except OSError as error:
                faults[path] = f"snapshot {path} cannot be read: {error.strerror or error}"
        return found, faults

    def check_place(self) -> None:
        """Raises OperationalError if one of the last two was removed or replaced. Their content is not looked at."""
        with self._changing:
            for path, file in self._whole.items():
                try:
                    there = path.stat()
                except OSError as error:
                    raise OperationalError(_gone(path, error.strerror or str(error))) from error
                if (there.st_dev, there.st_ino) != file:
                    raise OperationalError(_gone(path, "another one is in its place"))

    def _remember(self, paths: Sequence[Path]) -> None:
        stats = {path: path.stat() for path in paths}
        self._whole = {path: (stat.st_dev, stat.st_ino) for path, stat in stats.items()}

    def _look_at(self, path: Path) -> SnapshotFile:
        checker = SnapshotChecker()
        try:
            with path.open("rb") as file:
                while data := file.read(_READ_BYTES):
                    checker.take(data)
        except OperationalError as fault:
            raise OperationalError(f"snapshot {path} is damaged: {fault}") from fault
        return _judged(path, checker, self._identity)


def _judged(path: Path, checker: SnapshotChecker, identity: Identity) -> SnapshotFile:
    """The snapshot whose bytes were all looked at.

    Raises OperationalError if it is not whole, or not what its name says.
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


def _gone(path: Path, how: str) -> str:
    return (
        f"{path} was removed or replaced while the replica ran ({how}): nothing more is acknowledged. Put it back as "
        "it was, then start the replica again"
    )


def number_of(path: Path) -> int | None:
    """The checkpoint that a snapshot's name says; None for the name of something else."""
    return int(path.stem) if path.stem.isdecimal() else None


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
