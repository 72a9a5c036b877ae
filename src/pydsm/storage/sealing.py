"""Maintains seal and mark of an open database, and detects when its files were removed or replaced.

Guarantees the order that `seal` relies on: the mark is written after a commit, the seal before the log is moved into
the database, and the log is emptied before new frames are written to it. SQLite must not move the log automatically
meanwhile. So its own checkpoints are switched off, and a second connection, read-only and closed last, prevents the
checkpoint that SQLite makes when its last connection to a database is closed.

The database is read through one descriptor that is opened before SQLite opens the file and closed after SQLite closes
it: POSIX releases all locks of a process on a file, SQLite's included, when any descriptor of it is closed.
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
    LogEnd,
    Mark,
    encode_mark,
    end_of_log,
    follow_log,
    sealed_pages,
    slot_offset,
    write_seal,
)
from pydsm.storage.wal import LogReport

LOG_FRAMES_MAX = 4000
"""From this many frames on, the log is moved into the database."""


class OpenFiles:
    """Descriptors of the files in a data directory; they are closed after SQLite's connections."""

    def __init__(self, directory: Path, lock: sqlite3.Connection) -> None:
        self.directory = os.open(directory, os.O_RDONLY)
        self.database = os.open(directory / DATABASE_NAME, os.O_RDONLY)
        self.mark = os.open(directory / MARK_NAME, os.O_WRONLY)
        self.seal = os.open(directory / SEAL_NAME, os.O_RDONLY)
        self.log = -1
        self.connections: list[sqlite3.Connection] = []
        """The connection that writes, then the read-only one that prevents a checkpoint on close."""
        self._lock = lock

    def close(self) -> None:
        """Close the connections in their order, then all descriptors, and the lock last."""
        for connection in self.connections:
            connection.close()
        for descriptor in (self.directory, self.database, self.mark, self.seal, self.log):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock.close()


class StorePhase(Enum):
    """State of the files of an open database."""

    OPENING = auto()
    """The files were examined, and nothing was written yet."""
    OPEN = auto()
    """All commits in the log are known to be durable."""
    FAILED = auto()
    """A write failed. Frames of its commit may be in the log, completely or in part. The next start determines whether
    they count; until then the files are not changed."""


class Sealing:
    """Seal and mark of one open database. Everything in `files` is closed by `close`, or with this object."""

    def __init__(self, directory: Path, files: OpenFiles) -> None:
        self._directory = directory
        self._files = files
        self._log = LogReport(directory / LOG_NAME)
        self._log_path = str(directory / LOG_NAME)  # used at each commit
        self._end: LogEnd | None = None
        """Where the last commit ends; None while the log is empty."""
        self._next_frames = LOG_FRAMES_MAX
        self._phase = StorePhase.OPENING
        self._finalizer = weakref.finalize(self, files.close)

    def begin(self, found: Examination) -> None:
        """Continue from the examined files: empty the log, so that new frames get new salts.

        Raises OperationalError if another program prevents that.
        """
        self._seal, self._sequence, self._log = found.seal, found.sequence, found.log
        for connection in self._files.connections:  # SQLite opens the log when something is read
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        self._open_log()
        # The frames of an earlier process count only as far as their checksums are right, which `found.log` tells.
        if os.fstat(self._files.log).st_size and not self._seal_and_move():
            raise OperationalError(
                f"data directory {self._directory} is read by another program: end it, then start the replica again"
            )
        self._phase = StorePhase.OPEN

    def committed(self) -> None:
        """Mark a commit as durable, and empty the log if it is long.

        Raises OperationalError if the log was removed or replaced, or if an earlier write failed: after that a commit
        cannot be known to be durable, because the system may have dropped pages that it could not write.
        """
        # The mark comes after the commit, which has synchronised the log. A mark written earlier could name frames that
        # a power failure removed, and the next start would report a correct directory as damaged.
        # It needs no sync of its own: an older mark only means that damage of the last commits may not be noticed.
        log_bytes = self._check_log()
        if self._phase is StorePhase.FAILED:
            raise OperationalError(f"an earlier write to {self._directory} failed: start the replica again")
        if not log_bytes:
            return  # the transaction changed nothing
        end = end_of_log(self._files.log, log_bytes, self._end) or self._read_end()
        self._end = end
        self._sequence += 1
        mark = Mark(self._sequence, self._seal.generation, end.salts, end.frames)
        os.pwrite(self._files.mark, encode_mark(mark), slot_offset(mark))
        if end.frames >= self._next_frames:
            emptied = self.empty_log()
            self._next_frames = LOG_FRAMES_MAX if emptied else end.frames + LOG_FRAMES_MAX

    def _read_end(self) -> LogEnd:
        follow_log(self._log, self._files.log)
        assert self._log.salts is not None, "a commit has written a header"
        return LogEnd(self._log.salts, self._log.frames)

    def failed(self) -> None:
        """Note that a write failed: from now on the files are not changed, and no commit is acknowledged."""
        self._phase = StorePhase.FAILED

    def empty_log(self) -> bool:
        """Seal the content of the log and move it into the database. Returns False if a reader prevents that."""
        follow_log(self._log, self._files.log)
        return self._seal_and_move()

    def _seal_and_move(self) -> bool:
        # The seal is replaced before the log is moved. If the process stops between the two, the sealed pages are still
        # in the log, and SQLite moves them at the next start. In the other order, the database would have pages that no
        # seal describes and no log contains, which look like damage.
        # The log is truncated to nothing: frames behind new ones would look like commits behind a damaged frame.
        if self._log.frames and (self._log.salts, self._log.frames) != (self._seal.salts, self._seal.frames):
            self._seal = sealed_pages(self._seal, self._log, self._files.database)
            write_seal(self._directory, self._seal)
            os.close(self._files.seal)
            self._files.seal = os.open(self._directory / SEAL_NAME, os.O_RDONLY)
        (busy, _, _) = self._files.connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            return False
        self._end = None
        return True

    def check_not_replaced(self) -> None:
        """Raise OperationalError if the directory or a file in it was removed or replaced."""
        self._check(self._directory, self._files.directory)
        self._check(self._directory / DATABASE_NAME, self._files.database)
        self._check(self._directory / MARK_NAME, self._files.mark)
        self._check(self._directory / SEAL_NAME, self._files.seal)
        self._check_log()

    def close(self) -> None:
        """Empty the log if possible, and release everything."""
        try:
            if self._can_empty() and self.empty_log():
                self._files.connections.reverse()  # the log is empty, so SQLite may remove it on close
        except (sqlite3.Error, OSError, OperationalError):
            pass  # the commits stay in the log, and the next start finds them there
        self._finalizer()

    def _can_empty(self) -> bool:
        """Whether the log may be emptied: not after a failed write. Raises OperationalError if a file was replaced."""
        if self._phase is not StorePhase.OPEN or not self._finalizer.alive:
            return False
        self.check_not_replaced()
        return True

    def _open_log(self) -> None:
        self._files.log = os.open(self._directory / LOG_NAME, os.O_RDONLY)

    def _check_log(self) -> int:
        """The size of the log in bytes. Raises OperationalError if it was removed or replaced."""
        return self._check(self._log_path, self._files.log)

    def _check(self, path: Path | str, descriptor: int) -> int:
        try:
            there = os.stat(path)
        except OSError as error:
            raise OperationalError(self._replaced_error(path, error.strerror or str(error))) from error
        ours = os.fstat(descriptor)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise OperationalError(self._replaced_error(path, "another one is in its place"))
        return ours.st_size

    def _replaced_error(self, path: Path | str, how: str) -> str:
        return (
            f"{path} was removed or replaced while the replica ran ({how}): nothing more is acknowledged. Put it back "
            "as it was if that is possible; if not, this member is lost (docs/howto/operate.md)"
        )
