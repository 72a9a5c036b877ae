"""A data directory that is removed or replaced while a replica uses it: nothing more is called durable."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pydsm.core.types.effects import ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import ReplicaId
from pydsm.storage import sealing
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME
from pydsm.storage.seal import MARK_NAME, SEAL_NAME
from pydsm.storage.sqlite import SqliteStore
from tests.unit.storage.records import IDENTITY, instance_record


def opened(directory: Path) -> SqliteStore:
    store = SqliteStore(directory, IDENTITY)
    store.write([instance_record(1, 1)])
    store.check()
    return store


def contents(directory: Path) -> dict[str, bytes]:
    """All but the lock, which holds no data."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith("lock")}


def test_the_next_write_after_the_directory_was_removed_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(OperationalError, match="was removed or replaced while the replica ran"):
        store.write([ReservationRecord(32)])
    with pytest.raises(OperationalError, match="was removed or replaced"):
        store.save_peer(ReplicaId(1), 7)
    store.close()


def test_the_next_write_after_a_copy_was_put_in_its_place_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    (tmp_path / "data").rename(tmp_path / "away")
    (tmp_path / "copy").rename(tmp_path / "data")
    with pytest.raises(OperationalError, match=r"another one is in its place"):
        store.write([ReservationRecord(32)])
    store.close()


def test_a_directory_that_was_put_in_its_place_is_not_touched(tmp_path: Path) -> None:
    store = opened(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    (tmp_path / "data").rename(tmp_path / "away")
    (tmp_path / "copy").rename(tmp_path / "data")
    before = contents(tmp_path / "data")
    store.close()
    assert contents(tmp_path / "data") == before
    for directory in ("data", "away"):
        again = SqliteStore(tmp_path / directory, IDENTITY)
        assert again.load() == [instance_record(1, 1)]
        again.close()


@pytest.mark.parametrize("name", [DATABASE_NAME, LOG_NAME, MARK_NAME, SEAL_NAME])
@pytest.mark.parametrize("replaced", [False, True])
def test_each_file_that_is_removed_or_replaced_is_noticed(tmp_path: Path, name: str, replaced: bool) -> None:
    store = opened(tmp_path)
    (tmp_path / name).rename(tmp_path / "away")
    if replaced:
        shutil.copy(tmp_path / "away", tmp_path / name)
    with pytest.raises(OperationalError, match=name):
        store.check()
    store.close()


def test_a_program_that_reads_meanwhile_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader prevents that the log is emptied, and SQLite may then overwrite it from its beginning."""
    monkeypatch.setattr(sealing, "LOG_FRAMES_MAX", 6)
    store = SqliteStore(tmp_path, IDENTITY)
    with closing(sqlite3.connect(f"file:{tmp_path / DATABASE_NAME}?mode=ro", uri=True, isolation_level=None)) as reader:
        for index in range(1, 60):
            if index % 7 == 0:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM instances").fetchone()
            if index % 7 == 4 and reader.in_transaction:
                reader.execute("COMMIT")
            store.write([instance_record(1, index)])
            shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{index}"))
    store.close()
    for index in range(1, 60):
        copy = SqliteStore(tmp_path.with_name(f"{tmp_path.name}-{index}"), IDENTITY)
        assert len(copy.load()) == index
        copy.close()
