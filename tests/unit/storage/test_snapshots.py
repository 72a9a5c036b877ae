"""Snapshots on disk: whole or not there, the last two, damage recognised."""

from pathlib import Path

import pytest

from pydsm.core.checkpoint import Checkpoint, Position
from pydsm.core.faults import WorldFault
from pydsm.core.ids import InstanceId, ReplicaId
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles
from tests.unit.storage.records import IDENTITY

CHUNKS = [b"first", b"x" * 100_000, b"last"]


def checkpoint(number: int) -> Checkpoint:
    barrier = InstanceId(ReplicaId(1), number)
    return Checkpoint(number, barrier, Position((number, 0, 3), (barrier,)), (number, number, 3), 99)


def written(directory: Path, number: int, chunks: list[bytes] | None = None) -> SnapshotFile:
    writer = SnapshotFiles(directory, IDENTITY).begin(checkpoint(number))
    for chunk in CHUNKS if chunks is None else chunks:
        writer.append([chunk])
    return writer.commit()


def loaded(directory: Path) -> list[SnapshotFile]:
    return SnapshotFiles(directory, IDENTITY).load()


def numbers(directory: Path) -> list[int]:
    return [file.checkpoint.number for file in loaded(directory)]


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = written(tmp_path, 1)
    (found,) = loaded(tmp_path)
    assert (found, found.digest) == (file, file.digest)
    assert found.checkpoint == checkpoint(1)
    assert list(found.chunks()) == CHUNKS


def test_one_without_chunks_is_one_too(tmp_path: Path) -> None:
    written(tmp_path, 1, [])
    assert [list(found.chunks()) for found in loaded(tmp_path)] == [[]]


def test_equal_chunks_have_equal_digests_and_others_have_not(tmp_path: Path) -> None:
    one, same, other = written(tmp_path, 1), written(tmp_path, 2), written(tmp_path, 3, [b"first", b"?", b"last"])
    assert (one.digest, one.digests) == (same.digest, same.digests)
    assert one.digest != other.digest
    assert [left == right for left, right in zip(one.digests, other.digests, strict=True)] == [True, False, True]


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11):
        written(tmp_path, number)
    assert numbers(tmp_path) == [10, 11]


def test_an_empty_directory_has_none(tmp_path: Path) -> None:
    assert loaded(tmp_path) == []


def test_one_that_was_not_finished_is_none_and_is_cleaned_up(tmp_path: Path) -> None:
    written(tmp_path, 1)
    (tmp_path / "snapshots" / "000000000002.unfinished").write_bytes(b"half")
    assert numbers(tmp_path) == [1]
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_an_abandoned_one_leaves_nothing(tmp_path: Path) -> None:
    writer = SnapshotFiles(tmp_path, IDENTITY).begin(checkpoint(2))
    writer.append([b"half"])
    writer.abandon()
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_any_flipped_byte_and_any_cut_is_recognised(tmp_path: Path) -> None:
    written(tmp_path, 1)
    file = written(tmp_path, 2, [b"chunk", b"other"])
    whole = file.path.read_bytes()
    for place in range(len(whole)):
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert numbers(tmp_path) == [1], place
        file.path.write_bytes(whole[:place])
        assert numbers(tmp_path) == [1], place
    file.path.write_bytes(whole)
    assert numbers(tmp_path) == [1, 2]


def test_a_chunk_that_was_left_out_is_recognised(tmp_path: Path) -> None:
    file = written(tmp_path, 2, [b"chunk", b"other"])
    whole = file.path.read_bytes()
    start = whole.index(b"chunk") - 8
    file.path.write_bytes(whole[:start] + whole[start + 8 + len(b"chunk") :])
    assert loaded(tmp_path) == []


def test_damage_after_it_was_looked_at_is_no_state(tmp_path: Path) -> None:
    file = written(tmp_path, 1)
    file.path.write_bytes(file.path.read_bytes().replace(b"first", b"fourth"[:5]))
    with pytest.raises(WorldFault):
        list(file.chunks())


def test_a_condemned_directory_is_refused_with_what_was_left_there(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path, IDENTITY)
    files.check()
    files.condemn("because of this")
    with pytest.raises(WorldFault, match=r"DIVERGED says why .*: because of this"):
        files.check()


def test_a_snapshot_of_another_group_is_not_used(tmp_path: Path) -> None:
    written(tmp_path, 1)
    for other in (Identity("other", "r1", ReplicaId(0), 3), Identity("test", "r1", ReplicaId(0), 5)):
        assert SnapshotFiles(tmp_path, other).load() == []
