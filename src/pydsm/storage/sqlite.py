"""The default store: one SQLite file in WAL mode with full synchronisation, one transaction per write.

Decides how records are stored. Refuses a directory of another replica, group or format, one that another process uses,
and damaged records. The meaning of records is left to the core.

Each row has a checksum, because SQLite's file format has none: a changed bit must be reported, never executed. Missing
rows, and commits that SQLite would drop from its log, are detected by `examination` before SQLite opens the file.
"""

import secrets
import sqlite3
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar, assert_never
from urllib.parse import quote
from zlib import crc32

import msgspec

from pydsm.core.protocol.starts import SeenStart, Start
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.wire.codec import decode_record, encode_record
from pydsm.storage.examination import DATABASE_NAME, Condition, examine
from pydsm.storage.identity import Identity
from pydsm.storage.seal import MARK_NAME, Seal, sync_directory, write_first_mark, write_seal
from pydsm.storage.sealing import OpenFiles, Sealing
from pydsm.storage.wal import page_sum

FORMAT_VERSION = 3
"""Version of the file layout. Any other version is refused."""

LOCK_NAME = "lock.sqlite"
"""Database that is locked exclusively while the store is open, so that tools can still read the other one."""

_INDEX_BITS = 40

_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (replica INTEGER PRIMARY KEY, incarnation TEXT NOT NULL);
CREATE TABLE starts (replica INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, met TEXT NOT NULL);
CREATE TABLE own_start (id INTEGER PRIMARY KEY CHECK (id = 0), checksum INTEGER NOT NULL, start TEXT NOT NULL);
CREATE TABLE position (id INTEGER PRIMARY KEY CHECK (id = 0), checksum INTEGER NOT NULL, groups INTEGER NOT NULL);
INSERT INTO position VALUES (0, {crc32(b"0")}, 0);
CREATE TABLE reservation (id INTEGER PRIMARY KEY CHECK (id = 0), checksum INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE frontier (id INTEGER PRIMARY KEY CHECK (id = -1), checksum INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE purged (id INTEGER PRIMARY KEY CHECK (id = -2), checksum INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL,
    record BLOB NOT NULL,
    leader INTEGER GENERATED ALWAYS AS (id >> {_INDEX_BITS}) VIRTUAL,
    position INTEGER GENERATED ALWAYS AS (id & {(1 << _INDEX_BITS) - 1}) VIRTUAL
);
"""

WHAT_TO_DO = (
    "Starting with it could break agreement: keep the directory as evidence, and run pydsm inspect. "
    "Without an undamaged newest copy of it, this replica cannot rejoin (docs/howto/operate.md, 'When a data directory "
    "is damaged')"
)
"""Ends every message that reports damage."""

_UPSERT_INSTANCE = "INSERT OR REPLACE INTO instances (id, checksum, record) VALUES (?, ?, ?)"
_UPSERT_RESERVATION = "INSERT OR REPLACE INTO reservation (id, checksum, record) VALUES (?, ?, ?)"
_UPSERT_FRONTIER = "INSERT OR REPLACE INTO frontier (id, checksum, record) VALUES (?, ?, ?)"
_UPSERT_PURGE = "INSERT OR REPLACE INTO purged (id, checksum, record) VALUES (?, ?, ?)"
_UPDATE_POSITION = "UPDATE position SET checksum = ?, groups = ?"
_DELETE_INSTANCES = "DELETE FROM instances WHERE id BETWEEN ? AND ?"
_RESERVATION_ROW = 0
_FRONTIER_ROW = -1
_PURGED_ROW = -2


_Text = TypeVar("_Text", Start, SeenStart)


class SqliteStore:
    """The store of one replica in one directory, which is created if it is missing.

    Raises OperationalError if the directory belongs to another replica, or is in use, damaged or not writable. It is
    used from one thread at a time, not necessarily the one that opened it.
    """

    is_slow = True
    """See `storage.identity.ReplicaStore`."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self._directory = directory
        self._identity = identity
        self._database: sqlite3.Connection | None = None
        self._sealing: Sealing | None = None
        try:
            _make_directory(directory)
            lock = self._take_lock()
            try:
                self._open(lock)
            except BaseException:
                self.close()
                lock.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise OperationalError(
                f"cannot use data directory {directory}: {error}; check it, or give another one"
            ) from error

    def _open(self, lock: sqlite3.Connection) -> None:
        # The files are examined before SQLite opens them: opening drops an invalid end of the log, after which lost
        # commits can no longer be noticed.
        found = examine(self._directory)
        if found.damage:
            more = f" and {len(found.damage) - 1} more" if len(found.damage) > 1 else ""
            raise OperationalError(f"{found.damage[0]}{more}. {WHAT_TO_DO}")
        if found.condition is not Condition.USED:
            self._create()
            found = examine(self._directory)
        database = self._connect(lock)
        database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")
        self._open_sealing().begin(found)
        self._database = database
        self.incarnation = self._claim()
        self.position = self._read_position()
        """See `storage.base.Store`."""

    def _connect(self, lock: sqlite3.Connection) -> sqlite3.Connection:
        """Open the database twice, for writing and as guard; all files are closed together with the lock."""
        path = self._directory / DATABASE_NAME
        files = OpenFiles(self._directory, lock)
        self._sealing = Sealing(self._directory, files)
        database = _connect(path)
        files.connections += [database, _connect(path, read_only=True)]
        return database

    def load(self) -> list[Record]:
        """See `storage.base.Store`."""
        database = self._open_database()
        try:
            reservations = database.execute("SELECT id, checksum, record FROM reservation").fetchall()
            frontiers = database.execute("SELECT id, checksum, record FROM frontier").fetchall()
            purged = database.execute("SELECT id, checksum, record FROM purged").fetchall()
            instances = database.execute("SELECT id, checksum, record FROM instances ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise self._damaged("the database", str(error)) from error
        return [
            *(self._decode(*row, of=ReservationRecord) for row in reservations),
            *(self._decode(*row, of=FrontierRecord) for row in frontiers),
            *(self._decode(*row, of=PurgeRecord) for row in purged),
            *(self._decode(*row, of=InstanceRecord) for row in instances),
        ]

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`. Of several records of one instance only the last is written."""
        latest = {_row_id(record): record for record in records}
        purge = latest.get(_PURGED_ROW)
        position = self.position + 1
        rows = [(id, *_checked(id, encode_record(record))) for id, record in latest.items()]
        with self._commit() as database:
            database.executemany(_UPSERT_INSTANCE, [row for row in rows if row[0] > 0])
            database.executemany(_UPSERT_RESERVATION, [row for row in rows if row[0] == _RESERVATION_ROW])
            database.executemany(_UPSERT_FRONTIER, [row for row in rows if row[0] == _FRONTIER_ROW])
            database.executemany(_UPSERT_PURGE, [row for row in rows if row[0] == _PURGED_ROW])
            if purge is not None:
                database.executemany(_DELETE_INSTANCES, self._purge_ranges(purge))
            database.execute(_UPDATE_POSITION, (crc32(b"%d" % position), position))
        self.position = position

    @contextmanager
    def _commit(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable afterwards. Raises OperationalError if it fails; then no later write succeeds."""
        database, sealing = self._open_database(), self._open_sealing()
        # COMMIT returns when the log is synchronised, then the mark is written, then the caller may acknowledge. If any
        # step fails, the store stops for good: whether this commit is in the log is known only after the next start,
        # and a later commit behind it would be acknowledged although it might be dropped with it.
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
            sealing.committed()
        except BaseException as error:
            sealing.failed()
            if database.in_transaction:
                with suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
            if isinstance(error, (sqlite3.Error, OSError)):
                raise OperationalError(
                    f"cannot write to {self._directory}: {error}; free space or repair the disk, then start the "
                    "replica again"
                ) from error
            raise

    @staticmethod
    def _purge_ranges(purge: Record) -> list[tuple[int, int]]:
        """First and last row id of each purged range. Rows that were purged before no longer exist and cost nothing."""
        assert isinstance(purge, PurgeRecord)
        leaders = enumerate(purge.up_to)
        return [
            *(
                (row_of(InstanceId(ReplicaId(leader), 0)), row_of(InstanceId(ReplicaId(leader), last)))
                for leader, last in leaders
            ),
            *((row_of(id), row_of(id)) for id in purge.exceptions),
        ]

    def close(self) -> None:
        """See `storage.base.Store`."""
        if self._sealing is not None:
            self._sealing.close()
        self._database = self._sealing = None

    def check(self) -> None:
        """See `storage.identity.ReplicaStore`."""
        self._open_sealing().check_not_replaced()

    def begin_start(self) -> Start:
        """See `storage.identity.ReplicaStore`."""
        try:
            rows = self._open_database().execute("SELECT checksum, start FROM own_start").fetchall()
            number = max((read_text(*row, of=Start).number for row in rows), default=0)
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged("the number of starts", str(error)) from error
        start = Start(number + 1, secrets.randbits(64))
        with self._commit() as database:
            database.execute("INSERT OR REPLACE INTO own_start VALUES (0, ?, ?)", _checked_text(start))
        return start

    def starts(self) -> dict[ReplicaId, SeenStart]:
        """See `storage.identity.ReplicaStore`."""
        try:
            rows = self._open_database().execute("SELECT replica, checksum, met FROM starts").fetchall()
            return {ReplicaId(replica): read_text(checksum, text, of=SeenStart) for replica, checksum, text in rows}
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged("the table of the starts of peers", str(error)) from error

    def save_starts(self, starts: Mapping[ReplicaId, SeenStart]) -> None:
        """See `storage.identity.ReplicaStore`."""
        rows = [(replica, *_checked_text(met)) for replica, met in starts.items()]
        with self._commit() as database:
            database.executemany("INSERT OR REPLACE INTO starts VALUES (?, ?, ?)", rows)

    def _read_position(self) -> int:
        try:
            rows = self._open_database().execute("SELECT checksum, groups FROM position").fetchall()
        except sqlite3.Error as error:
            raise self._damaged("the count of groups of records", str(error)) from error
        try:
            ((checksum, groups),) = rows
            return read_position(checksum, groups)
        except ValueError as error:
            raise self._damaged("the count of groups of records", str(error)) from error

    def peers(self) -> dict[ReplicaId, int]:
        """See `storage.identity.ReplicaStore`."""
        try:
            rows = self._open_database().execute("SELECT replica, incarnation FROM peers").fetchall()
            return {ReplicaId(replica): int(incarnation, 16) for replica, incarnation in rows}
        except sqlite3.Error as error:
            raise self._damaged("the table of peers", str(error)) from error
        except ValueError as error:
            raise self._damaged("the table of peers", str(error)) from error

    def save_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """See `storage.identity.ReplicaStore`."""
        with self._commit() as database:
            database.execute("INSERT OR REPLACE INTO peers VALUES (?, ?)", (replica, f"{incarnation:016x}"))

    def _open_database(self) -> sqlite3.Connection:
        if self._database is None:
            raise UsageError(f"the store in {self._directory} is closed: open it again")
        return self._database

    def _open_sealing(self) -> Sealing:
        if self._sealing is None:
            raise UsageError(f"the store in {self._directory} is closed: open it again")
        return self._sealing

    def _take_lock(self) -> sqlite3.Connection:
        lock = _connect(self._directory / LOCK_NAME)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            lock.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise OperationalError(
                f"data directory {self._directory} is in use by another process: stop it or give another directory"
            ) from error
        return lock

    def _claim(self) -> int:
        """Check that the database belongs to this replica; returns its incarnation."""
        try:
            found = dict(self._open_database().execute("SELECT name, value FROM meta").fetchall())
        except sqlite3.Error as error:
            raise self._damaged("the meta table", str(error)) from error
        self._check_meta(found)
        try:
            return int(found["incarnation"], 16)
        except (KeyError, ValueError) as error:
            raise self._damaged("the incarnation in the meta table", str(error)) from error

    def _check_meta(self, found: dict[str, str]) -> None:
        version = found.get("format", "none")
        if version != str(FORMAT_VERSION):
            raise OperationalError(
                f"data directory {self._directory} has format {version}, this PyDSM reads format {FORMAT_VERSION}: "
                "run the PyDSM that wrote it"
            )
        for name, wanted in self._meta().items():
            if found.get(name) != wanted:
                raise OperationalError(
                    f"data directory {self._directory} belongs to another replica: its {name} is {found.get(name)}, "
                    f"not {wanted}; give the directory of this replica, or an empty one for the first start of a group"
                )

    def _create(self) -> None:
        """Create the database. A crash at any point leaves a directory that counts as new, unfinished or used."""
        directory = self._directory
        # The seal of generation 0 comes first and marks the directory as unfinished; that of generation 1 comes last,
        # after database and mark are durable. So an incomplete database is never used, and a used one is never replaced
        # by a new one.
        write_seal(directory, Seal())
        path = directory / DATABASE_NAME
        for name in (MARK_NAME, *(f"{DATABASE_NAME}{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))):
            (directory / name).unlink(missing_ok=True)
        meta = {"format": str(FORMAT_VERSION), "incarnation": f"{secrets.randbits(64):016x}", **self._meta()}
        with closing(_connect(path)) as database:
            database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE;" + _SCHEMA)
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            database.execute("COMMIT")
            (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        data = path.read_bytes()  # closing the connection moved the log into the file
        pages = (data[start : start + page_bytes] for start in range(0, len(data), page_bytes))
        sums = array("I", [page_sum(number, page) for number, page in enumerate(pages, 1)])
        write_first_mark(directory)
        write_seal(directory, Seal(1, page_bytes, pages=sums))

    def _meta(self) -> dict[str, str]:
        identity = self._identity
        return {
            "group": identity.group,
            "group size": str(identity.replicas),
            "replica": identity.name,
            "replica id": str(identity.replica),
        }

    def _decode(self, id: int, checksum: int, data: bytes, *, of: type[Record]) -> Record:
        try:
            return read_row(id, checksum, data, of=of, replicas=self._identity.replicas)
        except OperationalError as error:
            raise self._damaged(name_row(id), str(error)) from error

    def _damaged(self, what: str, how: str) -> OperationalError:
        return OperationalError(f"{what} in {self._directory / DATABASE_NAME} is damaged: {how}. {WHAT_TO_DO}")


def read_row(id: int, checksum: int, data: object, *, of: type[Record], replicas: int) -> Record:
    """Decode the record in a row. Raises OperationalError that describes the damage, if there is any."""
    if not isinstance(data, bytes) or crc32(data, id & 0xFFFFFFFF) != checksum:
        raise OperationalError("its checksum differs")
    record = decode_record(data, replicas)
    if not isinstance(record, of) or _row_id(record) != id:
        raise OperationalError("it is stored under another name")
    return record


def _checked_text(value: Start | SeenStart) -> tuple[int, str]:
    text = msgspec.json.encode(value)
    return crc32(text), text.decode()


def read_text(checksum: object, text: object, *, of: type[_Text]) -> _Text:
    """Decode a stored Start or SeenStart. Raises ValueError that describes the damage, if there is any."""
    if not isinstance(text, str) or crc32(text.encode()) != checksum:
        raise ValueError("its checksum differs")
    try:
        return msgspec.json.decode(text, type=of)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def read_position(checksum: object, groups: object) -> int:
    """The number of groups of records written. Raises ValueError if the row is damaged."""
    if not isinstance(groups, int) or checksum != crc32(b"%d" % groups):
        raise ValueError("the checksum of the count of groups differs")
    return groups


def _row_id(record: Record) -> int:
    """Row id of a record: positive and in the order of ids for instances, else 0 or negative."""
    match record:
        case InstanceRecord():
            return row_of(record.id)
        case ReservationRecord():
            return _RESERVATION_ROW
        case FrontierRecord():
            return _FRONTIER_ROW
        case PurgeRecord():
            return _PURGED_ROW
        case unreachable:
            assert_never(unreachable)


def row_of(id: InstanceId) -> int:
    """Row id of an instance."""
    return id.leader << _INDEX_BITS | id.index


def name_row(row_id: int) -> str:
    """Description of a row for messages."""
    if row_id == _RESERVATION_ROW:
        return "the index reservation"
    if row_id == _FRONTIER_ROW:
        return "the executed frontier"
    if row_id == _PURGED_ROW:
        return "what was purged"
    return f"the record of instance {InstanceId(ReplicaId(row_id >> _INDEX_BITS), row_id & ((1 << _INDEX_BITS) - 1))}"


def _checked(row_id: int, data: bytes) -> tuple[int, bytes]:
    return crc32(data, row_id & 0xFFFFFFFF), data


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    where = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(where, uri=True, timeout=0, isolation_level=None, check_same_thread=False)


def _make_directory(directory: Path) -> None:
    """Create a directory if it is missing, and make its name durable."""
    if directory.is_dir():
        return
    directory.mkdir(parents=True)
    sync_directory(directory.parent)
