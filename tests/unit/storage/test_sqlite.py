"""What the SQLite store keeps across restarts, and what it refuses."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from pydsm.core.protocol.starts import Met, Start
from pydsm.core.types.effects import PurgeRecord, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.storage.examination import DATABASE_NAME
from pydsm.storage.identity import Identity
from pydsm.storage.sqlite import FORMAT_VERSION, SqliteStore
from tests.unit.storage.directories import alter
from tests.unit.storage.records import IDENTITY, instance_record


def filled(directory: Path) -> None:
    """Make a closed store of two instances and a reservation."""
    store = SqliteStore(directory, IDENTITY)
    store.write([ReservationRecord(32), instance_record(0, 1), instance_record(2, 17)])
    store.close()


def test_reopened_store_has_its_records_incarnation_and_peers(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "data", IDENTITY)
    store.write([instance_record(1, 1)])
    store.remember_peer(ReplicaId(2), 5)
    incarnation = store.incarnation
    store.close()
    reopened = SqliteStore(tmp_path / "new" / "data", IDENTITY)
    assert reopened.load() == [instance_record(1, 1)]
    assert reopened.incarnation == incarnation
    assert reopened.peers() == {2: 5}


def test_database_is_synchronised_fully(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    database = store._open_database()
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_second_user_of_a_directory_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    with pytest.raises(OperationalError, match="in use by another process"):
        SqliteStore(tmp_path, IDENTITY)
    store.close()
    SqliteStore(tmp_path, IDENTITY).close()


def test_open_database_can_be_read_by_tools(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.write([instance_record(2, 17)])
    reader = sqlite3.connect(f"file:{tmp_path / DATABASE_NAME}?mode=ro", uri=True)
    assert reader.execute("SELECT leader, position FROM instances").fetchall() == [(2, 17)]
    reader.close()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(IDENTITY, group="elsewhere"), "group is test, not elsewhere"),
        (replace(IDENTITY, name="r2"), "replica is r1, not r2"),
        (replace(IDENTITY, replica=ReplicaId(1)), "replica id is 0, not 1"),
        (replace(IDENTITY, replicas=5), "group size is 3, not 5"),
    ],
)
def test_directory_of_another_replica_is_refused(tmp_path: Path, other: Identity, named: str) -> None:
    filled(tmp_path)
    with pytest.raises(OperationalError, match=named):
        SqliteStore(tmp_path, other)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    alter(tmp_path, "UPDATE meta SET value = '99' WHERE name = 'format'")
    with pytest.raises(OperationalError, match=f"has format 99, this PyDSM reads format {FORMAT_VERSION}"):
        SqliteStore(tmp_path, IDENTITY)


def test_damaged_meta_table_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    alter(tmp_path, "DELETE FROM meta WHERE name = 'incarnation'")
    with pytest.raises(OperationalError, match="incarnation in the meta table"):
        SqliteStore(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE instances SET record = zeroblob(40) WHERE leader = 2", "instance 2.17 .*checksum"),
        ("UPDATE instances SET record = 'text' WHERE leader = 2", "instance 2.17 .*checksum"),
        ("UPDATE instances SET id = id + 1 WHERE leader = 2", "instance 2.18 .*checksum"),
        ("UPDATE reservation SET checksum = checksum + 1", "index reservation .*checksum"),
        ("DROP TABLE instances", "the database .*instances"),
    ],
)
def test_damaged_record_is_named(tmp_path: Path, damage: str, named: str) -> None:
    filled(tmp_path)
    alter(tmp_path, damage)
    with pytest.raises(OperationalError, match=named):
        SqliteStore(tmp_path, IDENTITY).load()


def test_damaged_table_of_peers_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    alter(tmp_path, "DROP TABLE peers")
    store = SqliteStore(tmp_path, IDENTITY)
    with pytest.raises(OperationalError, match="the table of peers"):
        store.peers()


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / DATABASE_NAME).write_bytes(b"not a database, " * 400)
    with pytest.raises(OperationalError, match=r"replica\.sqlite: page 1, at byte 0, is damaged and \d+ more"):
        SqliteStore(tmp_path, IDENTITY)


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OperationalError, match="cannot use data directory"):
        SqliteStore(tmp_path / "file" / "data", IDENTITY)


def test_failed_write_keeps_nothing_of_the_group(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    alter(tmp_path, "CREATE TRIGGER full BEFORE INSERT ON reservation BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(OperationalError, match=r"cannot write .*disk is full"):
        store.write([instance_record(0, 1), ReservationRecord(32)])
    assert store.load() == []


# What was purged

BESIDES = (InstanceId(ReplicaId(1), 3), InstanceId(ReplicaId(2), 5))


def test_records_up_to_what_is_purged_and_those_besides_leave_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.write([instance_record(leader, index) for leader in (0, 1, 2) for index in (1, 2, 3, 5)])
    purge = PurgeRecord((2, 0, 1), BESIDES)
    store.write([purge])
    store.close()
    left = [(0, 3), (0, 5), (1, 1), (1, 2), (1, 5), (2, 2), (2, 3)]
    assert SqliteStore(tmp_path, IDENTITY).load() == [purge, *(instance_record(*one) for one in left)]


def test_a_later_purge_replaces_an_earlier_one_with_what_was_besides(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.write([PurgeRecord((2, 0, 1), BESIDES)])
    store.write([instance_record(1, 2), instance_record(1, 4), PurgeRecord((2, 3, 1), BESIDES[1:])])
    assert store.load() == [PurgeRecord((2, 3, 1), BESIDES[1:]), instance_record(1, 4)]


def test_a_purge_that_fails_leaves_every_record_where_it_was(tmp_path: Path) -> None:
    filled(tmp_path)
    store = SqliteStore(tmp_path, IDENTITY)
    before = store.load()
    alter(tmp_path, "CREATE TRIGGER full BEFORE DELETE ON instances BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(OperationalError, match=r"cannot write .*disk is full"):
        store.write([PurgeRecord((9, 9, 9), BESIDES)])
    assert store.load() == before


def test_a_damaged_note_of_what_was_purged_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.write([PurgeRecord((2, 0, 1), BESIDES)])
    store.close()
    alter(tmp_path, "UPDATE purged SET record = zeroblob(9)")
    with pytest.raises(OperationalError, match=r"what was purged .*checksum"):
        SqliteStore(tmp_path, IDENTITY).load()


def test_each_start_has_the_next_number_and_an_id_of_its_own(tmp_path: Path) -> None:
    starts = []
    for _ in range(3):
        store = SqliteStore(tmp_path, IDENTITY)
        starts.append(store.begin_start())
        store.close()
    assert [start.number for start in starts] == [1, 2, 3]
    assert len({start.id for start in starts}) == 3


def test_the_position_counts_groups_that_are_durable_and_goes_with_them(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    assert store.position == 0
    for up_to in range(1, 4):
        store.write([ReservationRecord(up_to)])
        assert store.position == up_to
    store.close()
    assert SqliteStore(tmp_path, IDENTITY).position == 3


def test_the_starts_seen_of_peers_are_kept(tmp_path: Path) -> None:
    met = {ReplicaId(1): Met((1 << 64) - 1, Start(3, (1 << 64) - 1), 17), ReplicaId(2): Met(0, Start(1, 0), 0)}
    store = SqliteStore(tmp_path, IDENTITY)
    store.save_starts({ReplicaId(1): Met(1, Start(1, 1), 1)})
    store.save_starts(met)
    store.close()
    assert SqliteStore(tmp_path, IDENTITY).starts() == met


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE position SET groups = groups + 1", "the count of groups of records"),
        ("DELETE FROM position", "the count of groups of records"),
        ("UPDATE own_start SET start = '[9,1]'", "the number of starts"),
        ("UPDATE starts SET met = '{}'", "the table of the starts of peers"),
    ],
)
def test_damage_in_what_is_known_of_starts_is_named(tmp_path: Path, change: str, words: str) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.begin_start()
    store.save_starts({ReplicaId(1): Met(1, Start(1, 1), 1)})
    store.close()
    alter(tmp_path, change)

    def look() -> None:
        store = SqliteStore(tmp_path, IDENTITY)
        store.starts()
        store.begin_start()

    with pytest.raises(OperationalError, match=words):
        look()
