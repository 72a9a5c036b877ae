"""Checks the files of a data directory for damage before SQLite opens them, because SQLite drops and repairs silently.

Decides from the files alone and changes nothing. The content of records is checked when they are read; whether records
and snapshots belong together is checked by the core.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pydsm.storage.seal import MARK_NAME, SEAL_NAME, Seal, damaged_pages, missing_from_log, read_mark, read_seal
from pydsm.storage.wal import LogReport, read_log

DATABASE_NAME = "replica.sqlite"
"""The database with the records."""

LOG_NAME = f"{DATABASE_NAME}-wal"
"""SQLite's write-ahead log: the last commits, not yet in the database."""

SNAPSHOTS_NAME = "snapshots"
"""The directory with the snapshots of the last checkpoints."""


class Condition(Enum):
    """State of a data directory."""

    NEW = "new"
    """It is empty."""
    UNFINISHED = "unfinished"
    """Its creation was interrupted, and it was never used."""
    USED = "used"


@dataclass(slots=True)
class Examination:
    """Result of `examine`. `damage` names each file, position and fault; if there is any, no replica may start."""

    condition: Condition
    log: LogReport
    seal: Seal = field(default_factory=Seal)
    sequence: int = 0
    """Sequence number of the newest mark."""
    damage: list[str] = field(default_factory=list)


def examine(directory: Path) -> Examination:
    """Examine all files except the snapshots. Raises OSError if reading fails."""
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
    _check_mark(directory, found)
    database = directory / DATABASE_NAME
    if DATABASE_NAME in names:
        found.damage += damaged_pages(seal, log, database)
    else:
        found.damage.append(f"{database} is missing")
    return found


def _is_unused(directory: Path) -> bool:
    """Whether no commit was ever marked as durable. The first mark may be incomplete after a crash."""
    try:
        mark = read_mark(directory)
    except FileNotFoundError:
        return True
    return mark is None or mark.generation == 0


def _check_mark(directory: Path, found: Examination) -> None:
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
