"""Keeps seal and mark of an open database, and notices when its files are not those of its directory any more.

Guards the order that `seal` rests on: the mark behind a commit, the seal before the log is moved into the database, the
log emptied before anything new is in it. SQLite moves nothing by itself meanwhile: its own checkpoints are switched
off, and a second connection, closed last and read-only, keeps it from making one when the other is closed or lost.

The database is read through one descriptor of ours, which is opened before SQLite opens it and closed behind it: the
system would otherwise take SQLite's locks away.
"""

import os
import sqlite3
import weakref
from enum import Enum, auto
from pathlib import Path

from pydsm.core.types.errors import OperationalError
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME, Examination
from pydsm.storage.seal import (
    MARK_NAME,
    SEAL_NAME,
    Mark,
    encode_mark,
    follow_log,
    place_of,
    sealed_pages,
    write_seal,
)
from pydsm.storage.wal import LogReport

LOG_FRAMES_MAX = 4000
"""From so many frames on, the log is moved into the database."""


class OpenFiles:
    """Descriptors of a data directory, to be closed behind SQLite's connections."""

    def __init__(self, directory: Path, lock: sqlite3.Connection) -> None:
        self.directory = os.open(directory, os.O_RDONLY)
        self.database = os.open(directory / DATABASE_NAME, os.O_RDONLY)
        self.mark = os.open(directory / MARK_NAME, os.O_WRONLY)
        self.seal = os.open(directory / SEAL_NAME, os.O_RDONLY)
        self.log = -1
        self.connections: list[sqlite3.Connection] = []
        """The one that writes, then the guard."""
        self._lock = lock

    def close(self) -> None:
        """The connections in their order, then all descriptors; the lock last."""
        for connection in self.connections:
            connection.close()
        for descriptor in (self.directory, self.database, self.mark, self.seal, self.log):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock.close()


class StorePhase(Enum):
    """Of the files of an open database."""

    OPENING = auto()
    """They are examined, and nothing was written yet."""
    OPEN = auto()
    """All commits in the log are known to be durable."""
    FAILED = auto()
    """A write failed. Frames of its commit may be in the log, whole or in part; whether they count is for the next
    start to find out, and nothing is changed until then."""


class Sealing:
    """Of one open database. Everything in `files` is closed by `close`, or with this object."""

    def __init__(self, directory: Path, files: OpenFiles) -> None:
        self._directory = directory
        self._files = files
        self._log = LogReport(directory / LOG_NAME)
        self._log_path = str(directory / LOG_NAME)  # it is looked up at each commit
        self._next_frames = LOG_FRAMES_MAX
        self._phase = StorePhase.OPENING
        self._finalizer = weakref.finalize(self, files.close)

    def begin(self, found: Examination) -> None:
        """Go on where `found` ends: empty the log.

        Raises OperationalError if another program keeps it from being emptied.
        """
        self._seal, self._sequence, self._log = found.seal, found.sequence, found.log
        for connection in self._files.connections:  # SQLite opens the log when something is read
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        self._open_log()
        if os.fstat(self._files.log).st_size and not self.empty_log():
            raise OperationalError(
                f"data directory {self._directory} is read by another program: end it, then start the replica again"
            )
        self._phase = StorePhase.OPEN

    def committed(self) -> None:
        """A commit is durable: mark that. Raises OperationalError if it went into files that are not there any more.

        After a write that failed it cannot be known to be durable: the system may have dropped what it could not write.
        """
        self._check_log()
        if self._phase is StorePhase.FAILED:
            raise OperationalError(f"an earlier write to {self._directory} failed: start the replica again")
        follow_log(self._log, self._files.log)
        if self._log.salts is None:
            return
        self._sequence += 1
        mark = Mark(self._sequence, self._seal.generation, self._log.salts, self._log.frames)
        os.pwrite(self._files.mark, encode_mark(mark), place_of(mark))
        if self._log.frames >= self._next_frames:
            emptied = self.empty_log()
            self._next_frames = LOG_FRAMES_MAX if emptied else self._log.frames + LOG_FRAMES_MAX

    def failed(self) -> None:
        """A write failed: from here on the files stay as they are, and no commit counts any more."""
        self._phase = StorePhase.FAILED

    def empty_log(self) -> bool:
        """Seal what is in the log and move it into the database. False if somebody who reads is in the way."""
        if self._log.frames and (self._log.salts, self._log.frames) != (self._seal.salts, self._seal.frames):
            self._seal = sealed_pages(self._seal, self._log, self._files.log, self._files.database)
            write_seal(self._directory, self._seal)
            os.close(self._files.seal)
            self._files.seal = os.open(self._directory / SEAL_NAME, os.O_RDONLY)
        (busy, _, _) = self._files.connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def check_place(self) -> None:
        """Raises OperationalError if the directory, or a file in it, was removed or replaced."""
        self._check(self._directory, self._files.directory)
        self._check(self._directory / DATABASE_NAME, self._files.database)
        self._check(self._directory / MARK_NAME, self._files.mark)
        self._check(self._directory / SEAL_NAME, self._files.seal)
        self._check_log()

    def close(self) -> None:
        """Empty the log if that succeeds, and release everything."""
        try:
            if self._may_empty() and self.empty_log():
                self._files.connections.reverse()  # nothing is left to be moved, so SQLite may remove the log
        except (sqlite3.Error, OSError, OperationalError):
            pass  # what is in the log stays there
        self._finalizer()

    def _may_empty(self) -> bool:
        """Only if the files are ours and known to be whole; otherwise all stays as it is. Raises OperationalError."""
        if self._phase is not StorePhase.OPEN or not self._finalizer.alive:
            return False
        self.check_place()
        follow_log(self._log, self._files.log)
        return True

    def _open_log(self) -> None:
        self._files.log = os.open(self._directory / LOG_NAME, os.O_RDONLY)

    def _check_log(self) -> None:
        self._check(self._log_path, self._files.log)

    def _check(self, path: Path | str, descriptor: int) -> None:
        try:
            there = os.stat(path)
        except OSError as error:
            raise OperationalError(self._gone(path, error.strerror or str(error))) from error
        ours = os.fstat(descriptor)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise OperationalError(self._gone(path, "another one is in its place"))

    def _gone(self, path: Path | str, how: str) -> str:
        return (
            f"{path} was removed or replaced while the replica ran ({how}): nothing more is acknowledged. Put it back "
            "as it was if that is possible; if not, this member is lost, and a new one must take its place"
        )
