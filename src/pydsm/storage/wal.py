"""SQLite's write-ahead log, read without SQLite: which commits are in it, and whether damage hides some of them.

SQLite takes everything behind the first frame that does not fit for the rest of a write that a crash cut short, and
drops it in silence. This module tells the two apart. The format is https://www.sqlite.org/fileformat2.html, section 4.

The store synchronises the log with every commit, and empties it before it writes with new salts. So a crash leaves
whole commits, and behind them at most a part of one more, the last that was being written: any sectors of its frames,
of which only the last one has the mark of a commit. A commit frame with a further frame of the same salts behind it was
synchronised, because a commit begins only then. Where such a frame does not follow from the first frame on, something
before it is damaged.

Nothing here can tell a last commit that was damaged from one that was cut short: `seal` can.
"""

from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, iter_unpack
from typing import BinaryIO

HEADER = Struct(">IIIIIIII")
"""Magic number, version, page size, sequence number, two salts, two checksums."""
FRAME = Struct(">IIIIII")
"""Page, size of the database in pages if this ends a commit (else 0), two salts, two checksums."""

_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF

Salts = tuple[int, int]


@dataclass(slots=True)
class LogReport:
    """What is in a log. `frames` of it are whole commits; `pages` maps each page to its last frame among them."""

    path: Path
    salts: Salts | None = None
    """None for a log without content."""
    page_bytes: int = 0
    frames: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    database_pages: int = 0
    """Size of the database behind the last commit; 0 if there is none."""
    bad_frame: int | None = None
    """The first frame that does not follow, counted from 1, if there is one."""
    damage: str | None = None
    """What only damage can have done, if that is seen."""

    def offset(self, frame: int) -> int:
        """Where a frame begins; they are counted from 1."""
        return HEADER.size + (frame - 1) * (FRAME.size + self.page_bytes)


def read_log(path: Path) -> LogReport:
    """Look through a log, which may be missing. Raises OSError where the disk does."""
    report = LogReport(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return report
    with file:
        start = file.read(HEADER.size)
        if not _read_header(start, report):
            # It is synchronised before the first frame is written.
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
            _look_behind(file, report)
            return
        seen[page] = number
        if size:
            report.frames, report.database_pages = number, size
            report.pages.update(seen)
            seen.clear()


def _look_behind(file: BinaryIO, report: LogReport) -> None:
    """Whether frames from the bad one on show that it was not the last commit that is bad, see above."""
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
    """How pairs of words are read for checksums: the lowest bit of the magic number says it."""
    return ">II" if magic & 1 else "<II"


def checksum(data: bytes, before: tuple[int, int], words: str) -> tuple[int, int]:
    """SQLite's checksum of these bytes behind those of `before`."""
    one, two = before
    for first, second in iter_unpack(words, data):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
