"""`pydsm inspect` with data directories that are undamaged, damaged, in use, or without a replica."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pydsm.cli.inspect import parse_instance
from pydsm.cli.main import run
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.effects import InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId, request_id
from pydsm.core.types.messages import NOP, Batch, Footprint, Run
from pydsm.core.types.status import Status
from pydsm.machines.kv import encode
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import FORMAT_VERSION, LOCK_NAME, SqliteStore
from tests.unit.storage.directories import alter
from tests.unit.storage.records import IDENTITY, instance_record

LEADER = ReplicaId(2)
BATCH = Batch(
    (Run(request_id(1_700_000_000_000, ReplicaId(1), 7, 9), 2),),
    (encode([b"SET", b"a b", b"\xff"]), b"opaque"),
    Footprint(reads=(b"fruit",), writes=(b"a b",), updates=((b"add", (b"visits",)),)),
    1_700_000_000_123,
)
VOTED = InstanceRecord(
    InstanceId(LEADER, 4),
    Status.ACCEPTED,
    Ballot(3, ReplicaId(0)),
    Ballot(1, LEADER),
    BATCH,
    (1, 0, 3),
    None,
    (0, 0, 0),
)
NOP_RECORD = InstanceRecord(
    InstanceId(LEADER, 2), Status.COMMITTED, Ballot(0, LEADER), None, NOP, (0, 0, 0), None, (0, 0, 0)
)
RECORDS: list[Record] = [ReservationRecord(32), instance_record(0, 1), instance_record(0, 2), NOP_RECORD, VOTED]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A stopped replica's directory: two instances of leader 0; of leader 2 a nop, one undecided, and two missing."""
    store = SqliteStore(tmp_path / "data", IDENTITY)
    store.write(RECORDS)
    store.save_peer(ReplicaId(1), 0xABC)
    store.close()
    return tmp_path / "data"


def contents(directory: Path) -> dict[str, bytes]:
    """The content of every file, except SQLite's index of a log, which has no data."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """The single line on standard error."""
    assert run(arguments) == status
    said = capsys.readouterr().err
    assert said.startswith("pydsm: ")
    assert said.count("\n") == 1
    return said


def found(directory: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    """The output of --json."""
    assert run(["inspect", str(directory), "--json"]) == status
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_whole_directory_is_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(directory)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("r1: replica 0 of 3 in group test, data ")
    assert "peers connected before: 1 (0000000000000abc)" in said
    assert "own indexes reserved up to 32" in said
    assert "│ committed │ 2 │ 0 │ 1 │" in said
    assert "│ missing │ 0 │ 0 │ 2 │" in said
    assert "undecided: 1 2.4 accepted" in said
    assert "whole: 4 records, every checksum fits" in said


def test_json_contains_the_same(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = found(directory, capsys)
    assert (said["name"], said["replicas"], said["reservation"]) == ("r1", 3, 32)
    assert said["format"] == FORMAT_VERSION
    assert said["leaders"] == [
        {**dict.fromkeys(COUNTED, 0), "leader": 0, "highest": 2, "records": 2, "committed": 2},
        {**dict.fromkeys(COUNTED, 0), "leader": 1},
        {
            **dict.fromkeys(COUNTED, 0),
            "leader": 2,
            "highest": 4,
            "records": 2,
            "missing": 2,
            "committed": 1,
            "accepted": 1,
            "nops": 1,
        },
    ]
    assert said["undecided"] == [{"instance": "2.4", "status": "accepted"}]
    assert said["damage"] == []


COUNTED = ("highest", "records", "missing", "unknown", "pre_accepted", "accepted", "committed", "nops", "damaged")


def test_inspection_changes_no_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(directory)
    directory.chmod(0o500)
    try:
        assert run(["inspect", str(directory)]) == 0
    finally:
        directory.chmod(0o700)
    assert contents(directory) == before
    assert not list(directory.glob("*-shm"))


def test_log_of_a_killed_replica_is_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = SqliteStore(tmp_path / "data", IDENTITY)
    store.write(RECORDS)
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    store.close()
    before = contents(tmp_path / "killed")
    assert found(tmp_path / "killed", capsys)["reservation"] == 32
    assert contents(tmp_path / "killed") == before
    SqliteStore(tmp_path / "killed", IDENTITY).close()


def test_directory_in_use_is_refused_and_free_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    store.write(RECORDS)
    assert "is in use by a running replica: stop it first" in refusal(["inspect", str(tmp_path)], capsys)
    store.close()
    assert run(["inspect", str(tmp_path)]) == 0


def test_copy_of_the_database_alone_is_enough(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / LOCK_NAME).unlink()
    assert found(directory, capsys)["damage"] == []
    assert not (directory / LOCK_NAME).exists()


def test_directory_without_a_replica_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["inspect", str(tmp_path / "none")], capsys)
    assert "it is not the data directory of a replica" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        ("UPDATE instances SET record = zeroblob(40) WHERE id = 1", "the record of instance 0.1: its checksum differs"),
        ("UPDATE instances SET record = 'text' WHERE id = 1", "the record of instance 0.1: its checksum differs"),
        ("UPDATE instances SET id = 3 WHERE id = 2", "the record of instance 0.3: its checksum differs"),
        ("UPDATE reservation SET checksum = 0", "the index reservation: its checksum differs"),
        ("DELETE FROM meta WHERE name = 'incarnation'", "the meta table: it has no incarnation"),
        ("UPDATE instances SET id = 99 << 40 WHERE id = 2", "the record of instance 99.0: its checksum differs"),
    ],
)
def test_damage_is_named_and_the_other_records_are_read(
    directory: Path, change: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(directory, change)
    said = found(directory, capsys, status=1)
    assert said["damage"] == [damage]
    assert said["undecided"] == [{"instance": "2.4", "status": "accepted"}]
    assert run(["inspect", str(directory)]) == 1
    captured = capsys.readouterr()
    assert f"DAMAGED: 1\n  {damage}\n" in captured.out
    assert "every checksum fits" not in captured.out
    assert f"is damaged: {damage}. Do not start a replica with it" in captured.err


def test_all_damage_is_found_and_a_long_list_is_shortened(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = SqliteStore(directory, IDENTITY)
    store.write([instance_record(1, index) for index in range(1, 31)])
    store.close()
    alter(directory, "UPDATE instances SET checksum = 0 WHERE leader = 1")
    assert run(["inspect", str(directory)]) == 1
    captured = capsys.readouterr()
    assert "DAMAGED: 30" in captured.out
    assert "... and 10 more, all of them with --json" in captured.out
    assert "and 29 more" in captured.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE instances", "is damaged: no such table: instances; keep it as evidence"),
        ("DROP TABLE meta", "is damaged: no such table: meta"),
        ("DELETE FROM meta WHERE name = 'group'", "the meta table in"),
        ("UPDATE meta SET value = '99' WHERE name = 'format'", "has format 99, this PyDSM reads format"),
        ("UPDATE meta SET value = 'x' WHERE name = 'replica id'", "the meta table in"),
    ],
)
def test_an_unreadable_database_is_one_line(
    directory: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(directory, change)
    assert said in refusal(["inspect", str(directory)], capsys)


def test_file_that_is_no_database_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / DATABASE_NAME).write_bytes(b"not a database, " * 400)
    assert "is damaged: file is not a database" in refusal(["inspect", str(directory)], capsys)


def test_torn_page_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = directory / DATABASE_NAME
    data = bytearray(file.read_bytes())
    data[-4096:] = b"\xff" * 4096
    file.write_bytes(data)
    assert "is damaged" in refusal(["inspect", str(directory)], capsys)


def test_instance_is_shown_in_full(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(directory), "--instance", "2.4"]) == 0
    said = capsys.readouterr().out
    for line in (
        "instance: 2.4",
        "status: accepted",
        "promised: round 3 of replica 0",
        "voted: round 1 of replica 2",
        "deps: 1, 0, 3",
        "  time: 2023-11-14T22:13:20.123+00:00",
        r"  SET 'a b' '\xff'",
        "  b'opaque'",
        "    reads: fruit",
        "      add: visits",
        "    barrier: no",
        "initial batch: unknown",
    ):
        assert f"{line}\n" in said


def test_instance_is_given_as_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(directory), "--instance", "2.2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["instance"], said["status"], said["value"], said["voted"]) == ("2.2", "committed", "nop", None)


@pytest.mark.parametrize("id", ["2.1", "7.1", "8388608.1", "99999999999999999.1"])
def test_missing_instance_is_reported(id: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["inspect", str(directory), "--instance", id], capsys)
    assert f"has no record of instance {id}" in said


def test_damaged_instance_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter(directory, "UPDATE instances SET checksum = 0 WHERE leader = 2 AND position = 4")
    said = refusal(["inspect", str(directory), "--instance", "2.4"], capsys)
    assert "the record of instance 2.4" in said
    assert "is damaged: its checksum differs" in said


@pytest.mark.parametrize("text", ["4", "a.b", "1.", ".1", "1.0", "-1.1", "1.2.3", "0.1099511627776", "1.²"])
def test_invalid_instance_name_is_a_usage_error(text: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not an instance" in refusal(["inspect", str(directory), f"--instance={text}"], capsys, status=2)


def test_instance_name_is_parsed_in_every_form() -> None:
    assert parse_instance("2.17") == InstanceId(ReplicaId(2), 17)


# Damage of files


def killed(tmp_path: Path) -> Path:
    """The directory of a killed replica with two commits in its database's log."""
    store = SqliteStore(tmp_path / "data", IDENTITY)
    store.write([instance_record(0, 1)])
    store.write([instance_record(0, 2)])
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    store.close()
    return tmp_path / "killed"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_log_is_named_and_what_is_before_the_damage_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = killed(tmp_path)
    flip(directory / LOG_NAME, -100)
    said = found(directory, capsys, status=1)
    (damage,) = said["damage"]
    assert re.search(r"replica\.sqlite-wal: frame \d+, at byte \d+, is damaged, and \d+ frames were durable", damage)
    assert said["leaders"][0]["committed"] == 1
    said_by_start = refused_start(directory)
    assert damage in said_by_start


def refused_start(directory: Path) -> str:
    with pytest.raises(OperationalError) as caught:
        SqliteStore(directory, IDENTITY)
    return str(caught.value)


def test_a_log_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = killed(tmp_path)
    (directory / LOG_NAME).unlink()
    (damage,) = found(directory, capsys, status=1)["damage"]
    assert "durable frames, is missing, empty or another one" in damage


def test_a_valid_page_of_an_older_state_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a write that the disk lost: all remaining records have valid checksums."""
    older = (directory / DATABASE_NAME).read_bytes()
    store = SqliteStore(directory, IDENTITY)
    store.write([instance_record(1, 1)])
    store.close()
    (directory / DATABASE_NAME).write_bytes(older)
    damage = found(directory, capsys, status=1)["damage"]
    assert all("replica.sqlite: page" in one for one in damage)
    assert damage


def test_a_missing_database_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / DATABASE_NAME).unlink()
    assert "has no replica.sqlite; " in refusal(["inspect", str(directory)], capsys)


def snapshot(directory: Path, number: int, up_to: int) -> Path:
    id = InstanceId(LEADER, up_to)
    point = Checkpoint(number, id, Position((up_to, 0, 0)), (up_to, 0, 0), 1)
    writer = SnapshotFiles(directory, IDENTITY).begin(point)
    writer.append([b"chunk"])
    return writer.commit().path


def test_a_damaged_snapshot_is_only_a_remark_if_there_is_another(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot(directory, 1, 1)
    flip(snapshot(directory, 2, 2), -1)
    said = found(directory, capsys)
    assert said["snapshots"] == [1]
    assert said["damage"] == []
    (remark,) = said["remarks"]
    assert "000000000002.snapshot is damaged" in remark
    assert run(["inspect", str(directory)]) == 0
    assert "damaged, and not needed: 1" in capsys.readouterr().out


def test_records_that_are_older_than_the_snapshot_are_named(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot(directory, 1, 3)
    (damage,) = found(directory, capsys, status=1)["damage"]
    assert damage == "the record of instance 0.3 is missing, and the snapshot of checkpoint 1 has it"


def test_a_missing_snapshot_that_the_records_need_is_named(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = SqliteStore(directory, IDENTITY)
    store.write([PurgeRecord((1, 0, 0))])
    store.close()
    (damage,) = found(directory, capsys, status=1)["damage"]
    assert "records up to (1, 0, 0) were purged, and the newest good snapshot reaches to (0, 0, 0)" in damage
