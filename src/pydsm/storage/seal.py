"""What SQLite does not keep: checksums of the pages of its file, and how far its log was durable.

Guards that nothing which was durable is missing at the next start without being noticed, wherever it was: in the
database, or at the end of its log. Two small files beside the database do it:

- the *seal* has a checksum of every page, as of the last time when the log was moved into the database. It is replaced
  before that is done, so pages that are in the log are not compared: they will be written again from there;
- the *mark* says how many frames of the log were durable. It is written behind each commit, and not synchronised: a
  killed process leaves it exact, a power cut may leave an older one, never a newer one. It has two places in turn, so
  that one which is cut short leaves the other.

See docs/decisions/sealed-pages-and-a-durable-mark.md.
"""

import os
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from zlib import crc32

from pydsm.storage.wal import FRAME, HEADER, LogReport, Salts

SEAL_NAME = "replica.seal"
MARK_NAME = "replica.mark"

_MAGIC = b"PyDSM seal 1\0"
_SEAL = Struct(">QIIIQQ")
"""Generation, page size, two salts and frames of the log that is included, number of pages."""
_CRC = Struct(">I")
_MARK = Struct(">QQIIQ")
"""Sequence number, generation of the seal, two salts and frames of the log."""
_PLACE_BYTES = 512
"""Distance of the two places of the mark: never in one sector."""


@dataclass(slots=True)
class Seal:
    """Checksums of all pages, with what is in the log up to `frames` frames of these salts.

    Generation 0 is that of a database that is being made, and was never used.
    """

    generation: int = 0
    page_bytes: int = 0
    salts: Salts = (0, 0)
    frames: int = 0
    pages: "array[int]" = field(default_factory=lambda: array("I"))
    """The first is that of page 1."""


@dataclass(frozen=True, slots=True)
class Mark:
    """So many frames of the log with these salts are durable. `sequence` grows with each one."""

    sequence: int
    generation: int
    salts: Salts
    frames: int


def page_sum(number: int, data: bytes) -> int:
    """Of one page; another one with the same content has another."""
    return crc32(data, number & 0xFFFFFFFF)


def write_seal(directory: Path, seal: Seal) -> None:
    """Replace the seal, durably. Raises OSError where the disk does."""
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
    """The seal; None if it is damaged. Raises FileNotFoundError if there is none."""
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
    """As it stands in one of the two places."""
    content = _MARK.pack(mark.sequence, mark.generation, *mark.salts, mark.frames)
    return content + _CRC.pack(crc32(content))


def place_of(mark: Mark) -> int:
    """Where in the file it goes."""
    return mark.sequence % 2 * _PLACE_BYTES


def write_first_mark(directory: Path) -> None:
    """Make the file, durably, with a mark that asks for nothing in both places."""
    with (directory / MARK_NAME).open("wb") as file:
        for mark in (Mark(0, 0, (0, 0), 0), Mark(1, 0, (0, 0), 0)):
            file.seek(place_of(mark))
            file.write(encode_mark(mark))
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def read_mark(directory: Path) -> Mark | None:
    """The newer of the two marks; None if none is whole. Raises FileNotFoundError if the file is missing."""
    data = (directory / MARK_NAME).read_bytes()
    found = []
    for start in (0, _PLACE_BYTES):
        content = data[start : start + _MARK.size]
        if len(content) == _MARK.size and data[start + _MARK.size :][: _CRC.size] == _CRC.pack(crc32(content)):
            sequence, generation, salt, other_salt, frames = _MARK.unpack(content)
            found.append(Mark(sequence, generation, (salt, other_salt), frames))
    return max(found, key=lambda mark: mark.sequence, default=None)


def missing_from_log(seal: Seal, mark: Mark | None, log: LogReport) -> str | None:
    """What is not in the log any more although it was durable, and is not in the database."""
    if mark is None:
        return f"{MARK_NAME}, which says how much of the log was durable, is damaged"
    if mark.generation > seal.generation:
        return f"{SEAL_NAME} is older than {MARK_NAME}: the files are not of one time"
    wanted = 0
    if log.salts == seal.salts:  # writing a part of it once more would put old pages over new ones
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
    """Pages of the database that are not what was written, but for those that are in the log."""
    found = []
    with database.open("rb") as file:
        for number, expected in enumerate(seal.pages, 1):
            data = file.read(seal.page_bytes)
            if number not in log.pages and page_sum(number, data) != expected:
                where = f"{database}: page {number}, at byte {(number - 1) * seal.page_bytes}"
                found.append(f"{where}, is {'damaged' if len(data) == seal.page_bytes else 'missing'}")
    return found


def sealed_pages(seal: Seal, log: LogReport, log_file: int, database_file: int) -> Seal:
    """The next seal, which has what is in the log. Both files are open."""
    page_bytes = log.page_bytes
    pages = array("I", seal.pages[: log.database_pages])
    for number in range(len(pages) + 1, log.database_pages + 1):
        # A page that was never written, because it was free again before its first commit, is not in the log.
        data = os.pread(database_file, page_bytes, (number - 1) * page_bytes).ljust(page_bytes, b"\0")
        pages.append(page_sum(number, data))
    for number, frame in log.pages.items():
        if number <= log.database_pages:
            data = os.pread(log_file, page_bytes, log.offset(frame) + FRAME.size)
            pages[number - 1] = page_sum(number, data)
    assert log.salts is not None
    return Seal(seal.generation + 1, page_bytes, log.salts, log.frames, pages)


def follow_log(log: LogReport, log_file: int) -> None:
    """Take note of the commits behind those in `log`; what is in the file was written by this process."""
    start = os.pread(log_file, HEADER.size, 0)
    if len(start) < HEADER.size:
        return  # nothing was written since it was emptied
    header = HEADER.unpack(start)
    if log.salts != header[4:6]:
        log.salts, log.page_bytes, log.frames = header[4:6], header[2], 0
        log.pages.clear()
    seen: dict[int, int] = {}
    number = log.frames + 1
    while len(start := os.pread(log_file, FRAME.size, log.offset(number))) == FRAME.size:
        page, size, *salts, _, _ = FRAME.unpack(start)
        if tuple(salts) != log.salts:
            break
        seen[page] = number
        if size:
            log.frames, log.database_pages = number, size
            log.pages.update(seen)
            seen.clear()
        number += 1


def sync_directory(directory: Path) -> None:
    """A new file's name must survive a power cut as well as what is in it."""
    if os.name == "posix":
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
