"""Reads SQLite's write-ahead log without SQLite: which commits it contains, and whether damage hides some of them.

SQLite treats everything behind the first invalid frame as the rest of a write that a crash interrupted, and drops it
silently. This module distinguishes an interrupted write from damage. For the format of the log see
https://www.sqlite.org/fileformat2.html, section 4.

The store synchronises the log with every commit, and empties it before it writes frames with new salts. So a crash
leaves complete commits, followed by at most a part of one more commit: any sectors of its frames, of which only the
last is a commit frame. A commit frame with another frame of the same salts behind it was synchronised, because the next
commit begins only after that. If such a frame is behind an invalid one, the invalid one is damage.

A damaged last commit and an interrupted last commit look the same here; `seal` distinguishes them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, iter_unpack
from typing import BinaryIO
from zlib import crc32

HEADER = Struct(">IIIIIIII")
"""Magic number, version, page size, sequence number, two salts, two checksums."""
FRAME = Struct(">IIIIII")
"""Page, size of the database in pages if this ends a commit (else 0), two salts, two checksums."""

_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF

Salts = tuple[int, int]


def page_sum(number: int, data: bytes | memoryview) -> int:
    """Checksum of a page; its number is included, so that exchanged pages are noticed."""
    return crc32(data, number & 0xFFFFFFFF)


@dataclass(slots=True)
class LogReport:
    """Content of a log. The first `frames` frames are complete commits."""

    path: Path
    salts: Salts | None = None
    """None if the log is empty."""
    page_bytes: int = 0
    frames: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    """Checksum (`page_sum`) of each page in the complete commits, as its last frame has it."""
    database_pages: int = 0
    """Size of the database in pages after the last commit; 0 if there is none."""
    bad_frame: int | None = None
    """The first invalid frame, counted from 1, if there is one."""
    damage: str | None = None
    """A description, if something is found that only damage can have caused."""

    def offset(self, frame: int) -> int:
        """Byte offset of a frame; frames are counted from 1."""
        return HEADER.size + (frame - 1) * (FRAME.size + self.page_bytes)


def read_log(path: Path) -> LogReport:
    """Read a log; the file may be missing. Raises OSError if reading fails."""
    report = LogReport(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return report
    with file:
        start = file.read(HEADER.size)
        if not _read_header(start, report):
            # SQLite synchronises the header before the first frame, so a bad header with content behind it is damage.
            if any(file.read(1 << 20)):
                report.damage = f"{path}: its header, at byte 0, is damaged"
            return report
        _read_frames(file, report, HEADER.unpack(start))
    return report


def _read_header(start: bytes, report: LogReport) -> bool:
    if len(start) < HEADER.size:
        return False
    magic, _, page_bytes, _, salt, other_salt, sum, other_sum = HEADER.unpack(start)
    if magic & ~1 != _MAGIC or checksum(start[:24], (0, 0), _words(magic)) != (sum, other_sum):
        return False
    report.salts, report.page_bytes = (salt, other_salt), page_bytes
    return True


def _read_frames(file: BinaryIO, report: LogReport, header: tuple[int, ...]) -> None:
    words = _words(header[0])
    chain = (header[6], header[7])
    seen: dict[int, int] = {}
    number = 0
    while len(frame := file.read(FRAME.size + report.page_bytes)) == FRAME.size + report.page_bytes:
        number += 1
        page, size, salt, other_salt, sum, other_sum = FRAME.unpack_from(frame)
        chain = checksum(frame[:8], chain, words)
        chain = checksum(frame[FRAME.size :], chain, words)
        if (salt, other_salt) != report.salts or chain != (sum, other_sum):
            report.bad_frame = number
            _find_later_commits(file, report)
            return
        seen[page] = page_sum(page, frame[FRAME.size :])
        if size:
            report.frames, report.database_pages = number, size
            report.pages.update(seen)
            seen.clear()


def _find_later_commits(file: BinaryIO, report: LogReport) -> None:
    """Report damage if the frames behind the bad one show that it is not in the last commit (see the module)."""
    assert report.bad_frame is not None
    last, commits = 0, []
    number = report.bad_frame
    while True:
        file.seek(report.offset(number))
        if len(start := file.read(FRAME.size)) < FRAME.size:
            break
        _, size, salt, other_salt, _, _ = FRAME.unpack(start)
        if (salt, other_salt) == report.salts:
            last = number
            if size:
                commits.append(number)
        number += 1
    if commits and (len(commits) > 1 or commits[0] != last):
        report.damage = (
            f"{report.path}: frame {report.bad_frame}, at byte {report.offset(report.bad_frame)}, is damaged, and "
            f"commits that were durable are behind it, up to frame {commits[-1]}"
        )


def _words(magic: int) -> str:
    """Byte order of the words in checksums, given by the lowest bit of the magic number."""
    return ">II" if magic & 1 else "<II"


def checksum(data: bytes, before: tuple[int, int], words: str) -> tuple[int, int]:
    """SQLite's checksum of these bytes, continued from the checksum `before`."""
    one, two = before
    for first, second in iter_unpack(words, data):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
