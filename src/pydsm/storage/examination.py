"""Whether the files of a data directory are whole, before SQLite opens them: it drops or repairs without a word.

Decides only from the files themselves. What is in the records is judged when they are read, and whether they belong to
the snapshots by the core. Changes nothing.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pydsm.storage.seal import MARK_NAME, SEAL_NAME, Seal, damaged_pages, missing_from_log, read_mark, read_seal
from pydsm.storage.wal import LogReport, read_log

DATABASE_NAME = "replica.sqlite"
"""Holds the records."""

LOG_NAME = f"{DATABASE_NAME}-wal"
"""SQLite's write-ahead log: the last commits, which are not in the database yet."""

SNAPSHOTS_NAME = "snapshots"
"""The directory with those of the last checkpoints."""


class Condition(Enum):
    """What a data directory is."""

    NEW = "new"
    """Nothing is in it."""
    UNFINISHED = "unfinished"
    """It was being made when the process ended, and never used."""
    USED = "used"


@dataclass(slots=True)
class Examination:
    """What was found. `damage` names each file, place and fault; nothing may start if there is any."""

    condition: Condition
    log: LogReport
    seal: Seal = field(default_factory=Seal)
    sequence: int = 0
    """Of the newest mark."""
    damage: list[str] = field(default_factory=list)


def examine(directory: Path) -> Examination:
    """Look through all files but the snapshots. Raises OSError where the disk does."""
    log_path = directory / LOG_NAME
    names = [name for name in (DATABASE_NAME, LOG_NAME, MARK_NAME) if (directory / name).exists()]
    if any((directory / SNAPSHOTS_NAME).glob("*.snapshot")):
        names.append(SNAPSHOTS_NAME)
    try:
        seal = read_seal(directory)
    except FileNotFoundError:
        if not names:
            return Examination(Condition.NEW, LogReport(log_path))
        lost = (
            f"{directory / SEAL_NAME} is missing, and {', '.join(names)} is there: it was removed, or the rest is old"
        )
        return Examination(Condition.USED, read_log(log_path), damage=[lost])
    log = read_log(log_path)
    if seal is None:
        return Examination(Condition.USED, log, damage=[f"{directory / SEAL_NAME} is damaged: its checksum differs"])
    if seal.generation == 0 and SNAPSHOTS_NAME not in names and _is_unused(directory):
        return Examination(Condition.UNFINISHED, log, seal)
    found = Examination(Condition.USED, log, seal)
    if log.damage is not None:
        found.damage.append(log.damage)
    _look_at_mark(directory, found)
    database = directory / DATABASE_NAME
    if DATABASE_NAME in names:
        found.damage += damaged_pages(seal, log, database)
    else:
        found.damage.append(f"{database} is missing")
    return found


def _is_unused(directory: Path) -> bool:
    """Whether nothing was ever marked as durable. The first mark may have been cut short."""
    try:
        mark = read_mark(directory)
    except FileNotFoundError:
        return True
    return mark is None or mark.generation == 0


def _look_at_mark(directory: Path, found: Examination) -> None:
    try:
        mark = read_mark(directory)
    except FileNotFoundError:
        found.damage.append(f"{directory / MARK_NAME} is missing")
        return
    missing = missing_from_log(found.seal, mark, found.log)
    if missing is not None and found.log.damage is None:
        found.damage.append(missing)
    if mark is not None:
        found.sequence = mark.sequence
