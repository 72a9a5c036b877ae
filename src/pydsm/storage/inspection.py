"""Reads the data directory of a stopped replica without changing it, and reports its content and all damage.

Continues after damage, so that all of it is found. Guarantees that nothing is changed and that no replica starts with
the directory meanwhile. The presentation is left to the command line.

If a killed replica left a write-ahead log, SQLite may renew its index of that log (`-shm`), which has no data.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydsm.core.protocol.starts import Start
from pydsm.core.types.checkpoint import first_missing
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import InstanceId, ReplicaId, merge
from pydsm.core.types.messages import Nop
from pydsm.core.types.status import Status
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME, examine
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import FORMAT_VERSION, LOCK_NAME, name_row, read_position, read_row, read_text, row_of


@dataclass(slots=True)
class LeaderCounts:
    """Counts of the records of one leader's instances."""

    by_status: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    nops: int = 0
    """Instances decided nop; counted in `by_status` as well."""
    damaged: int = 0
    highest: int = 0
    """Highest index with a record, or purged."""
    purged: int = 0
    """Indexes up to this one were purged."""

    @property
    def records(self) -> int:
        """Number of records, valid or damaged."""
        return sum(self.by_status.values()) + self.damaged

    @property
    def missing(self) -> int:
        """Indexes below the highest without a record here; other replicas may have records of them."""
        return self.highest - self.purged - self.records


@dataclass(frozen=True, slots=True)
class UndecidedInstance:
    """An instance whose value was not final when the replica stopped."""

    id: InstanceId
    status: Status


@dataclass(slots=True)
class Findings:
    """The content of a data directory."""

    identity: Identity
    format: int
    incarnation: str
    """Its fingerprint."""
    peers: dict[int, str]
    """Fingerprint of the incarnation of every peer that took part."""
    starts: int = 0
    """How often this directory was started."""
    position: int = 0
    """Groups of records that were ever written."""
    reservation: int = 0
    """Own indexes up to here may have been used."""
    executed: tuple[int, ...] = ()
    """Per leader, the executed prefix that this replica has reported to its peers; empty if none yet."""
    purged: tuple[int, ...] = ()
    """Per leader, the index up to which records were purged; empty if none were."""
    leaders: list[LeaderCounts] = field(default_factory=list)
    undecided: list[UndecidedInstance] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    """Descriptions of damage: files and pages, then records in database order, then snapshots."""
    snapshots: list[int] = field(default_factory=list)
    """Numbers of the checkpoints of which there is a valid snapshot."""
    remarks: list[str] = field(default_factory=list)
    """Damaged snapshots that do not prevent a start, because there is another valid one."""


class DataDirectory:
    """The data directory of a stopped replica, opened with `open_directory`."""

    def __init__(self, path: Path, database: sqlite3.Connection, damage: list[str]) -> None:
        self._path = path
        self._damage = damage
        self._database = database
        self._meta = self._read_meta()
        self._identity = self._read_identity()

    def survey(self) -> Findings:
        """Read and check every record. Raises OperationalError if the damage prevents any report."""
        findings = Findings(
            identity=self._identity,
            format=FORMAT_VERSION,
            incarnation=_fingerprint(self._meta.get("incarnation")),
            peers=dict(self._rows("SELECT replica, incarnation FROM peers ORDER BY replica")),
            leaders=[LeaderCounts() for _ in range(self._identity.replicas)],
            damage=list(self._damage),
        )
        if "incarnation" not in self._meta:
            findings.damage.append("the meta table: it has no incarnation")
        self._check_pages(findings)
        self._read_starts(findings)
        for id, checksum, data in self._rows("SELECT id, checksum, record FROM reservation"):
            record = self._read(id, checksum, data, ReservationRecord, findings)
            if isinstance(record, ReservationRecord):
                findings.reservation = record.up_to
        for id, checksum, data in self._rows("SELECT id, checksum, record FROM frontier"):
            record = self._read(id, checksum, data, FrontierRecord, findings)
            if isinstance(record, FrontierRecord):
                findings.executed = record.executed
        absent: set[InstanceId] = set()
        for id, checksum, data in self._rows("SELECT id, checksum, record FROM purged"):
            record = self._read(id, checksum, data, PurgeRecord, findings)
            if isinstance(record, PurgeRecord):
                absent.update(record.exceptions)
                findings.purged = record.up_to
                for counts, last in zip(findings.leaders, record.up_to, strict=True):
                    counts.purged = counts.highest = last
        for id, checksum, data in self._rows("SELECT id, checksum, record FROM instances ORDER BY id"):
            instance = self._read(id, checksum, data, InstanceRecord, findings)
            self._count(id, instance, findings)
            if isinstance(instance, InstanceRecord) and instance.status >= Status.COMMITTED:
                absent.add(instance.id)
        self._check_snapshots(findings, absent)
        return findings

    def _read_starts(self, findings: Findings) -> None:
        try:
            for checksum, text in self._rows("SELECT checksum, start FROM own_start"):
                findings.starts = read_text(checksum, text, of=Start).number
            for checksum, groups in self._rows("SELECT checksum, groups FROM position"):
                findings.position = read_position(checksum, groups)
        except ValueError as error:
            findings.damage.append(f"the records of starts: {error}")

    def _check_snapshots(self, findings: Findings, present: set[InstanceId]) -> None:
        """Compare snapshots and records. `present`: instances that have a decided record or need none."""
        whole, faults = SnapshotFiles(self._path, self._identity).survey()
        findings.snapshots = [one.checkpoint.number for one in whole]
        findings.remarks += faults.values()
        none = (0,) * self._identity.replicas
        purged = findings.purged or none
        newest = whole[-1].checkpoint if whole else None
        covered = newest.position.up_to if newest is not None else none
        if merge(covered, purged) != covered:
            findings.damage.append(
                f"the snapshots: records up to {purged} were purged, and the newest good snapshot reaches to {covered}"
            )
        elif newest is not None:
            missing = first_missing(newest.position, purged, present.__contains__)
            if missing is not None:
                findings.damage.append(
                    f"the record of instance {missing} is missing, and the snapshot of checkpoint {newest.number} "
                    "has it"
                )

    def instance(self, id: InstanceId) -> InstanceRecord | None:
        """One record, or None if there is none. Raises OperationalError when it is damaged."""
        if id.leader >= self._identity.replicas:
            return None
        row_id = row_of(id)
        for checksum, data in self._rows("SELECT checksum, record FROM instances WHERE id = ?", row_id):
            try:
                record = read_row(row_id, checksum, data, of=InstanceRecord, replicas=self._identity.replicas)
            except OperationalError as fault:
                raise OperationalError(f"{name_row(row_id)} in {self._path} is damaged: {fault}") from fault
            if isinstance(record, InstanceRecord):
                return record
        return None

    def _read_meta(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._rows("SELECT name, value FROM meta")}

    def _read_identity(self) -> Identity:
        version = self._meta.get("format", "none")
        if version != str(FORMAT_VERSION):
            raise OperationalError(
                f"data directory {self._path} has format {version}, this PyDSM reads format {FORMAT_VERSION}: "
                "run the PyDSM that wrote it"
            )
        try:
            return Identity(
                group=self._meta["group"],
                name=self._meta["replica"],
                replica=ReplicaId(int(self._meta["replica id"])),
                replicas=int(self._meta["group size"]),
            )
        except (KeyError, ValueError) as error:
            raise OperationalError(
                f"the meta table in {self._path} is damaged: {error}; nothing else can be read"
            ) from error

    def _rows(self, query: str, *arguments: int) -> Iterator[tuple[Any, ...]]:
        """Rows of a query. sqlite3 does not check types, so the caller must check each value."""
        try:
            yield from self._database.execute(query, arguments)
        except sqlite3.Error as error:
            more = f"; {self._damage[0]}" if self._damage else ""
            raise OperationalError(
                f"{self._path / DATABASE_NAME} is damaged: {error}{more}; keep it as evidence, and do not start the "
                "replica"
            ) from error

    def _check_pages(self, findings: Findings) -> None:
        for (result,) in self._rows("PRAGMA quick_check(20)"):
            if str(result) != "ok":
                findings.damage.append(f"the file: {result}")

    def _read(self, id: int, checksum: int, data: object, of: type[Record], findings: Findings) -> Record | None:
        try:
            return read_row(id, checksum, data, of=of, replicas=self._identity.replicas)
        except OperationalError as fault:
            findings.damage.append(f"{name_row(id)}: {fault}")
            return None

    def _count(self, row_id: int, record: Record | None, findings: Findings) -> None:
        leader, index = divmod(row_id, row_of(InstanceId(ReplicaId(1), 0)))
        if not 0 <= leader < len(findings.leaders):
            return  # reported as damage already; it belongs to no leader
        counts = findings.leaders[leader]
        counts.highest = max(counts.highest, index)
        if not isinstance(record, InstanceRecord):
            counts.damaged += 1
            return
        counts.by_status[record.status] += 1
        if record.status < Status.COMMITTED:
            findings.undecided.append(UndecidedInstance(record.id, record.status))
        elif isinstance(record.value, Nop):
            counts.nops += 1


@contextmanager
def open_directory(path: Path) -> Iterator[DataDirectory]:
    """Open a data directory for reading; no replica can use it meanwhile.

    Raises OperationalError if it has no replica's data, if a replica uses it, or if it cannot be read.
    """
    database_path = path / DATABASE_NAME
    try:
        with _locked(path):
            damage = examine(path).damage
            if not database_path.is_file():
                lost = f"; {damage[0]}" if damage else ": it is not the data directory of a replica"
                raise OperationalError(f"{path} has no {DATABASE_NAME}{lost}")
            with closing(_connect(database_path, changing=_has_log(path))) as database:
                yield DataDirectory(path, database, damage)
    except OSError as error:
        raise OperationalError(f"cannot read data directory {path}: {error}") from error
    except sqlite3.Error as error:
        raise OperationalError(f"cannot read data directory {path}: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a shared lock against replicas; a copy without the lock file needs none."""
    lock_path = path / LOCK_NAME
    if not lock_path.is_file():
        yield
        return
    with closing(_connect(lock_path, changing=True)) as lock:
        try:
            lock.execute("BEGIN")
            lock.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise OperationalError(
                f"data directory {path} is in use by a running replica: stop it first, or use pydsm status"
            ) from error
        yield


def _has_log(path: Path) -> bool:
    """Whether a killed replica left commits in the write-ahead log."""
    log = path / LOG_NAME
    return log.is_file() and log.stat().st_size > 0


def _connect(path: Path, *, changing: bool) -> sqlite3.Connection:
    """A read-only connection; unless the file may be `changing`, it creates no other files either."""
    mode = "mode=ro" if changing else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=0, isolation_level=None)


def _fingerprint(incarnation: str | None) -> str:
    """Fingerprint to display: the incarnation itself would let another process impersonate this replica."""
    if incarnation is None:
        return "missing"
    try:
        return f"{fingerprint(int(incarnation, 16)):016x}"
    except (ValueError, OverflowError):
        return "damaged"
