"""Two small files beside the database: checksums of its pages (seal), and how much of its log was durable (mark).

SQLite stores neither. Guarantees that the next start notices if durable data are missing or damaged, in the database or
at the end of its log.

- The *seal* has a checksum of every page of the database, including what is in the log at the time. It is replaced
  before the log is moved into the database. Pages that are in the log are not compared, because SQLite will write them
  again from there.
- The *mark* has the number of durable frames in the log. It is written after each commit and not synchronised: after a
  killed process it is exact, after a power failure it may be older, never newer. Two slots are written alternately, so
  that an incomplete write leaves the other slot intact.

See docs/decisions/sealed-pages-and-a-durable-mark.md.
"""

import os
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from pydsm.storage.wal import FRAME, HEADER, LogReport, Salts, page_sum

SEAL_NAME = "replica.seal"
MARK_NAME = "replica.mark"

_MAGIC = b"PyDSM seal 1\0"
_SEAL = Struct(">QIIIQQ")
"""Generation, page size, two salts and frames of the log that is included, number of pages."""
_CRC = Struct(">I")
_MARK = Struct(">QQIIQ")
"""Sequence number, generation of the seal, two salts and frames of the log."""
_FRAMES_AT_A_TIME = 256
"""Frames of one read: each read waits for the interpreter, which the event loop holds for milliseconds under load."""
_SLOT_BYTES = 512
"""Distance of the two slots of the mark, so that they are never in one sector."""


@dataclass(slots=True)
class Seal:
    """Checksums of all pages, including the content of the log with these salts up to frame `frames`.

    Generation 0 is a database that is being created and was never used.
    """

    generation: int = 0
    page_bytes: int = 0
    salts: Salts = (0, 0)
    frames: int = 0
    pages: "array[int]" = field(default_factory=lambda: array("I"))
    """One CRC-32 per page, beginning with page 1."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The first `frames` frames of the log with these salts are durable. `sequence` grows with each mark."""

    sequence: int
    generation: int
    salts: Salts
    frames: int


def write_seal(directory: Path, seal: Seal) -> None:
    """Replace the seal durably and atomically. Raises OSError if writing fails."""
    pages = array("I", seal.pages)
    if sys.byteorder == "little":
        pages.byteswap()
    content = _SEAL.pack(seal.generation, seal.page_bytes, *seal.salts, seal.frames, len(pages)) + pages.tobytes()
    unfinished = directory / f"{SEAL_NAME}.unfinished"
    with unfinished.open("wb") as file:
        file.write(_MAGIC + content + _CRC.pack(crc32(content)))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(directory / SEAL_NAME)
    sync_directory(directory)


def read_seal(directory: Path) -> Seal | None:
    """Read the seal; None if it is damaged. Raises FileNotFoundError if there is none."""
    data = (directory / SEAL_NAME).read_bytes()
    content = data[len(_MAGIC) : -_CRC.size]
    if not data.startswith(_MAGIC) or len(content) < _SEAL.size or data[-_CRC.size :] != _CRC.pack(crc32(content)):
        return None
    generation, page_bytes, salt, other_salt, frames, count = _SEAL.unpack_from(content)
    pages = array("I")
    pages.frombytes(content[_SEAL.size :])
    if sys.byteorder == "little":
        pages.byteswap()
    return Seal(generation, page_bytes, (salt, other_salt), frames, pages) if len(pages) == count else None


def encode_mark(mark: Mark) -> bytes:
    """The bytes of a mark in its slot."""
    content = _MARK.pack(mark.sequence, mark.generation, *mark.salts, mark.frames)
    return content + _CRC.pack(crc32(content))


def slot_offset(mark: Mark) -> int:
    """Byte offset of the slot of this mark."""
    return mark.sequence % 2 * _SLOT_BYTES


def write_first_mark(directory: Path) -> None:
    """Create the file durably, with a mark of 0 frames in both slots."""
    with (directory / MARK_NAME).open("wb") as file:
        for mark in (Mark(0, 0, (0, 0), 0), Mark(1, 0, (0, 0), 0)):
            file.seek(slot_offset(mark))
            file.write(encode_mark(mark))
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def read_mark(directory: Path) -> Mark | None:
    """The newer valid mark; None if both slots are damaged. Raises FileNotFoundError if the file is missing."""
    data = (directory / MARK_NAME).read_bytes()
    found = []
    for start in (0, _SLOT_BYTES):
        content = data[start : start + _MARK.size]
        if len(content) == _MARK.size and data[start + _MARK.size :][: _CRC.size] == _CRC.pack(crc32(content)):
            sequence, generation, salt, other_salt, frames = _MARK.unpack(content)
            found.append(Mark(sequence, generation, (salt, other_salt), frames))
    return max(found, key=lambda mark: mark.sequence, default=None)


def missing_from_log(seal: Seal, mark: Mark | None, log: LogReport) -> str | None:
    """Describe durable frames that are missing from the log and are not in the database either; None if none are."""
    if mark is None:
        return f"{MARK_NAME}, which has the number of durable frames of the log, is damaged"
    if mark.generation > seal.generation:
        return f"{SEAL_NAME} is older than {MARK_NAME}: the files are not of one time"
    wanted = 0
    if log.salts == seal.salts:
        # The log was sealed and perhaps moved already. If only a part of it is left, SQLite would move that part again
        # and put old pages over new ones, so all sealed frames must still be there.
        wanted = seal.frames
    if mark.generation == seal.generation and mark.frames:
        covered = mark.salts == seal.salts and mark.frames <= seal.frames
        if log.salts != mark.salts and not covered:
            return (
                f"{log.path}, which had {mark.frames} durable frames, is missing, empty or another one: it was "
                "removed, damaged, or emptied by another program that opened the database"
            )
        if log.salts == mark.salts:
            wanted = max(wanted, mark.frames)
    if log.frames >= wanted:
        return None
    bad = log.bad_frame or log.frames + 1
    how = "is damaged" if log.bad_frame is not None else "is missing"
    return f"{log.path}: frame {bad}, at byte {log.offset(bad)}, {how}, and {wanted} frames were durable"


def damaged_pages(seal: Seal, log: LogReport, database: Path) -> list[str]:
    """Describe each page of the database whose checksum differs from the seal, except pages that are in the log."""
    found = []
    with database.open("rb") as file:
        for number, expected in enumerate(seal.pages, 1):
            data = file.read(seal.page_bytes)
            if number not in log.pages and page_sum(number, data) != expected:
                where = f"{database}: page {number}, at byte {(number - 1) * seal.page_bytes}"
                found.append(f"{where}, is {'damaged' if len(data) == seal.page_bytes else 'missing'}")
    return found


def sealed_pages(seal: Seal, log: LogReport, database_file: int) -> Seal:
    """The next seal: the checksums after the log is moved into the database, whose descriptor is open for reading."""
    page_bytes = log.page_bytes
    pages = array("I", seal.pages[: log.database_pages])
    for number in range(len(pages) + 1, log.database_pages + 1):
        if number in log.pages:
            pages.append(log.pages[number])
        else:
            # The page was never written, because it was free again before its first commit.
            data = os.pread(database_file, page_bytes, (number - 1) * page_bytes).ljust(page_bytes, b"\0")
            pages.append(page_sum(number, data))
    for number, checksum in log.pages.items():
        if number <= len(seal.pages) and number <= log.database_pages:
            pages[number - 1] = checksum
    assert log.salts is not None
    return Seal(seal.generation + 1, page_bytes, log.salts, log.frames, pages)


class LogEnd(NamedTuple):
    """Where the last commit in a log ends."""

    salts: Salts
    frames: int


def end_of_log(log_file: int, log_bytes: int, before: LogEnd | None) -> LogEnd | None:
    """The end of the log behind a commit, from its size: at each commit there is no time to read all frames.

    Args:
        log_file: descriptor, open for reading.
        log_bytes: the size of the file.
        before: the end behind the commit before; None if the log was empty then.

    Returns None if the log may contain frames of an earlier log behind the new ones, so that they must be read.
    """
    header = HEADER.unpack(os.pread(log_file, HEADER.size, 0))
    salts, frame_bytes = (header[4], header[5]), FRAME.size + header[2]
    if before is not None and before.salts != salts:
        return None
    frames = (log_bytes - HEADER.size) // frame_bytes
    last = os.pread(log_file, FRAME.size, HEADER.size + (frames - 1) * frame_bytes)
    _, database_pages, salt, other_salt, _, _ = FRAME.unpack(last)
    return LogEnd(salts, frames) if database_pages and (salt, other_salt) == salts else None


def follow_log(log: LogReport, log_file: int) -> None:
    """Add to `log` the commits behind its last one. Checksums are not verified: this process wrote these frames."""
    start = os.pread(log_file, HEADER.size, 0)
    if len(start) < HEADER.size:
        return  # nothing was written since the log was emptied
    header = HEADER.unpack(start)
    if log.salts != header[4:6]:
        log.salts, log.page_bytes, log.frames = header[4:6], header[2], 0
        log.pages.clear()
    frame_bytes = FRAME.size + log.page_bytes
    seen: dict[int, int] = {}
    number = log.frames + 1
    while data := memoryview(os.pread(log_file, _FRAMES_AT_A_TIME * frame_bytes, log.offset(number))):
        for offset in range(0, len(data) - frame_bytes + 1, frame_bytes):
            page, size, *salts, _, _ = FRAME.unpack_from(data, offset)
            if tuple(salts) != log.salts:
                return
            seen[page] = page_sum(page, data[offset + FRAME.size : offset + frame_bytes])
            if size:
                log.frames, log.database_pages = number, size
                log.pages.update(seen)
                seen.clear()
            number += 1
        if len(data) < _FRAMES_AT_A_TIME * frame_bytes:
            return


def sync_directory(directory: Path) -> None:
    """Make the names of new files in a directory durable: synchronising a file does not include its name."""
    if os.name == "posix":
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
