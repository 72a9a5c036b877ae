"""Snapshots on disk: complete or absent, the last two, damage detected."""

from pathlib import Path

import pytest

from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.storage import snapshots as module
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotReceiver
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


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
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


def test_a_damaged_one_stays_and_is_not_one_of_the_last_two(tmp_path: Path) -> None:
    """The snapshot up to which records are purged must exist if the next one is damaged."""
    written(tmp_path, 3)
    damaged = written(tmp_path, 4)
    damaged.path.write_bytes(damaged.path.read_bytes()[:-1])
    files = SnapshotFiles(tmp_path, IDENTITY)
    assert [one.checkpoint.number for one in files.load()] == [3]
    files.begin(checkpoint(5)).commit()
    assert sorted(one.stem for one in (tmp_path / "snapshots").iterdir()) == [f"{n:012}" for n in (3, 4, 5)]
    assert numbers(tmp_path) == [3, 5]
    files.begin(checkpoint(6)).commit()
    assert sorted(one.stem for one in (tmp_path / "snapshots").iterdir()) == [f"{n:012}" for n in (5, 6)]


def test_a_damaged_one_that_is_written_again_counts(tmp_path: Path) -> None:
    written(tmp_path, 3)
    damaged = written(tmp_path, 4)
    damaged.path.write_bytes(b"")
    files = SnapshotFiles(tmp_path, IDENTITY)
    files.load()
    files.begin(checkpoint(4)).commit()
    files.begin(checkpoint(5)).commit()
    assert numbers(tmp_path) == [4, 5]


@pytest.mark.parametrize("replaced", [False, True])
def test_one_that_is_removed_or_replaced_is_noticed(tmp_path: Path, replaced: bool) -> None:
    files = SnapshotFiles(tmp_path, IDENTITY)
    files.check_not_replaced()
    paths = [files.begin(checkpoint(number)).commit().path for number in (1, 2, 3)]
    files.check_not_replaced()
    paths[1].rename(tmp_path / "away")
    if replaced:
        paths[1].write_bytes((tmp_path / "away").read_bytes())
    with pytest.raises(OperationalError, match=r"000002\.snapshot was removed or replaced while the replica ran"):
        files.check_not_replaced()
    with pytest.raises(OperationalError, match="nothing more is acknowledged"):
        files.check_not_replaced()


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
    with pytest.raises(OperationalError):
        list(file.chunks())


def test_a_directory_marked_as_diverged_is_refused_with_its_report(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path, IDENTITY)
    files.check()
    files.mark_diverged("because of this")
    with pytest.raises(OperationalError, match=r"DIVERGED states why .*: because of this"):
        files.check()


def test_a_snapshot_of_another_group_is_not_used(tmp_path: Path) -> None:
    written(tmp_path, 1)
    for other in (Identity("other", "r1", ReplicaId(0), 3), Identity("test", "r1", ReplicaId(0), 5)):
        assert SnapshotFiles(tmp_path, other).load() == []


# For peers


def test_a_snapshot_has_the_same_bytes_on_every_replica(tmp_path: Path) -> None:
    one = written(tmp_path / "r1", 4)
    writer = SnapshotFiles(tmp_path / "r2", Identity("test", "r2", ReplicaId(1), 3)).begin(checkpoint(4))
    writer.append(CHUNKS)
    assert writer.commit().path.read_bytes() == one.path.read_bytes()


def test_a_snapshot_is_read_from_any_byte_on(tmp_path: Path) -> None:
    whole, files = written(tmp_path, 4).path.read_bytes(), SnapshotFiles(tmp_path, IDENTITY)
    size = len(whole)
    assert files.read(4, 0, 10) == (size, whole[:10])
    assert files.read(4, 10, 1 << 20) == (size, whole[10:])
    assert files.read(4, size, 10) == files.read(4, size + 5, 10) == (size, b"")


def test_an_absent_snapshot_is_not_read(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path, IDENTITY)
    assert files.read(4, 0, 10) is None
    written(tmp_path, 4)
    assert files.read(5, 0, 10) is None


def test_a_snapshot_is_not_removed_while_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SnapshotFiles(tmp_path, IDENTITY)

    def write(number: int) -> list[int]:
        writer = files.begin(checkpoint(number))
        writer.commit()
        return sorted(int(path.stem) for path in (tmp_path / "snapshots").iterdir())

    assert [write(number) for number in (1, 2)] == [[1], [1, 2]]
    assert files.read(1, 0, 10) is not None
    assert [write(number) for number in (3, 4)] == [[1, 2, 3], [1, 3, 4]]
    assert numbers(tmp_path) == [3, 4]
    monkeypatch.setattr(module, "SERVED_SECONDS", 0.0)
    assert write(5) == [4, 5]


# From peers


def received(directory: Path) -> Path:
    """The path of checkpoint 4 while it is received."""
    return directory / "snapshots" / "000000000004.fetched"


def source(directory: Path, chunks: list[bytes] | None = None, identity: Identity = IDENTITY) -> bytes:
    """The bytes that a peer has of checkpoint 4."""
    writer = SnapshotFiles(directory / "peer", identity).begin(checkpoint(4))
    writer.append(CHUNKS if chunks is None else chunks)
    return writer.commit().path.read_bytes()


def receiving(directory: Path, *pieces: bytes) -> SnapshotReceiver:
    receiver = SnapshotFiles(directory, IDENTITY).receive(4)
    for piece in pieces:
        receiver.append(piece)
    return receiver


def test_a_fetched_snapshot_is_an_own_one_when_it_is_adopted(tmp_path: Path) -> None:
    whole, files = source(tmp_path), SnapshotFiles(tmp_path, IDENTITY)
    receiver = receiving(tmp_path, whole[:50], whole[50:])
    assert (receiver.offset, receiver.checkpoint) == (len(whole), checkpoint(4))
    assert files.finish(receiver).checkpoint == checkpoint(4)
    receiver.close()
    assert numbers(tmp_path) == []
    files.adopt(checkpoint(4).position.up_to)
    (found,) = loaded(tmp_path)
    assert (found.checkpoint, list(found.chunks())) == (checkpoint(4), CHUNKS)
    assert found.path.read_bytes() == whole
    assert not received(tmp_path).exists()


def test_a_large_one_is_synchronised_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the end takes no longer than the rest."""
    synchronised: list[int] = []
    monkeypatch.setattr(module, "_BYTES_BEFORE_SYNC", 10)
    monkeypatch.setattr(module, "_sync", lambda file: synchronised.append(file.tell()))
    whole = source(tmp_path)
    synchronised.clear()
    receiving(tmp_path, whole[:8], whole[8:20], whole[20:25], whole[25:]).close()
    assert synchronised == [20, len(whole)]


@pytest.mark.parametrize("came", [0, 7, 50, 300, 100_150])
def test_a_restart_continues_with_the_received_bytes(tmp_path: Path, came: int) -> None:
    whole = source(tmp_path)
    receiving(tmp_path, whole[:came]).close()
    receiver = receiving(tmp_path)
    assert receiver.offset <= came
    receiver.append(whole[receiver.offset :])
    assert receiver.checkpoint == checkpoint(4)
    receiver.close()
    assert received(tmp_path).read_bytes() == whole


def test_a_restart_keeps_only_complete_frames(tmp_path: Path) -> None:
    whole = source(tmp_path)
    end_of_first = whole.index(b"first") + len(b"first")
    receiving(tmp_path, whole[: end_of_first + 1000]).close()
    receiver = receiving(tmp_path)
    receiver.close()
    assert receiver.offset == end_of_first == received(tmp_path).stat().st_size


def test_a_restart_with_all_of_it_fetches_nothing_again(tmp_path: Path) -> None:
    whole = source(tmp_path)
    receiving(tmp_path, whole).close()
    receiver = receiving(tmp_path)
    assert (receiver.offset, receiver.checkpoint) == (len(whole), checkpoint(4))
    receiver.close()


def test_bytes_damaged_on_disk_between_two_starts_are_fetched_again(tmp_path: Path) -> None:
    whole = source(tmp_path)
    receiving(tmp_path, whole).close()
    last = whole.index(b"last")
    received(tmp_path).write_bytes(whole[:last] + b"l0st" + whole[last + 4 :])
    receiver = receiving(tmp_path)
    assert receiver.offset == last - 8
    receiver.append(whole[last - 8 :])
    assert receiver.checkpoint == checkpoint(4)
    receiver.close()
    assert received(tmp_path).read_bytes() == whole


def test_a_damaged_piece_is_refused_and_earlier_valid_bytes_stay(tmp_path: Path) -> None:
    whole = source(tmp_path)
    last = whole.index(b"last")
    receiver = receiving(tmp_path, whole[:last])
    with pytest.raises(OperationalError, match="a checksum differs"):
        receiver.append(b"l0st" + whole[last + 4 :])
    assert receiver.offset == last - 8
    receiver.append(whole[last - 8 :])
    assert receiver.checkpoint == checkpoint(4)
    receiver.close()
    assert received(tmp_path).read_bytes() == whole


def test_bytes_behind_the_end_are_refused_and_the_whole_snapshot_stays(tmp_path: Path) -> None:
    """A source whose file has grown; the next peer has nothing to add."""
    whole = source(tmp_path)
    receiver = receiving(tmp_path, whole[:50])
    with pytest.raises(OperationalError, match="continues after its end"):
        receiver.append(whole[50:] + b"more")
    assert (receiver.offset, receiver.checkpoint) == (len(whole), checkpoint(4))
    assert SnapshotFiles(tmp_path, IDENTITY).finish(receiver).checkpoint == checkpoint(4)
    receiver.close()
    assert received(tmp_path).read_bytes() == whole


def test_bytes_after_the_end_left_by_a_crash_are_removed(tmp_path: Path) -> None:
    """Otherwise the snapshot would be adopted and then be unusable, after its records were removed."""
    whole = source(tmp_path)
    receiving(tmp_path).close()
    received(tmp_path).write_bytes(whole + b"more")
    files = SnapshotFiles(tmp_path, IDENTITY)
    receiver = receiving(tmp_path)
    assert files.finish(receiver).checkpoint == checkpoint(4)
    receiver.close()
    files.adopt(checkpoint(4).position.up_to)
    assert numbers(tmp_path) == [4]


def test_an_incomplete_snapshot_is_not_finished_and_begins_again(tmp_path: Path) -> None:
    receiver = receiving(tmp_path, source(tmp_path)[:-1])
    with pytest.raises(OperationalError, match="it ends too early"):
        SnapshotFiles(tmp_path, IDENTITY).finish(receiver)
    assert (receiver.offset, received(tmp_path).stat().st_size) == (0, 0)
    receiver.append(source(tmp_path))
    assert SnapshotFiles(tmp_path, IDENTITY).finish(receiver).checkpoint == checkpoint(4)
    receiver.close()


@pytest.mark.parametrize("other", [Identity("other", "r1", ReplicaId(0), 3), Identity("test", "r1", ReplicaId(0), 5)])
def test_a_snapshot_of_another_group_is_not_finished_and_begins_again(tmp_path: Path, other: Identity) -> None:
    receiver = receiving(tmp_path, source(tmp_path, identity=other))
    with pytest.raises(OperationalError, match="of another group"):
        SnapshotFiles(tmp_path, IDENTITY).finish(receiver)
    assert receiver.offset == 0
    receiver.close()


def test_a_snapshot_without_any_bytes_is_not_finished(tmp_path: Path) -> None:
    receiver = receiving(tmp_path)
    with pytest.raises(OperationalError):
        SnapshotFiles(tmp_path, IDENTITY).finish(receiver)
    receiver.close()


def test_received_bytes_of_another_snapshot_are_removed(tmp_path: Path) -> None:
    receiving(tmp_path, source(tmp_path)[:90]).close()
    SnapshotFiles(tmp_path, IDENTITY).receive(5).close()
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["000000000005.fetched"]


def test_received_bytes_are_removed_when_an_own_snapshot_is_as_new(tmp_path: Path) -> None:
    receiver = receiving(tmp_path, source(tmp_path)[:90])
    written(tmp_path, 3)
    assert received(tmp_path).exists()
    written(tmp_path, 4)
    assert not received(tmp_path).exists()
    receiver.close()


# A crash between the steps


def whole_but_not_installed(directory: Path) -> None:
    """The file is durable; the records that it replaces still exist."""
    files, receiver = SnapshotFiles(directory, IDENTITY), receiving(directory, source(directory))
    files.finish(receiver)
    receiver.close()


@pytest.mark.parametrize("purged", [(0, 0, 0), (3, 9, 9), (9, 9, 2)])
def test_a_crash_before_the_records_are_purged_leaves_the_old_state(tmp_path: Path, purged: tuple[int, ...]) -> None:
    written(tmp_path, 3)
    whole_but_not_installed(tmp_path)
    SnapshotFiles(tmp_path, IDENTITY).adopt(purged)
    assert numbers(tmp_path) == [3]
    receiver = receiving(tmp_path)
    assert receiver.checkpoint == checkpoint(4)
    receiver.close()


@pytest.mark.parametrize("purged", [(4, 0, 3), (5, 1, 3)])
def test_a_crash_after_the_records_were_purged_is_repaired_by_the_next_start(
    tmp_path: Path, purged: tuple[int, ...]
) -> None:
    written(tmp_path, 3)
    whole_but_not_installed(tmp_path)
    SnapshotFiles(tmp_path, IDENTITY).adopt(purged)
    assert numbers(tmp_path) == [3, 4]
    SnapshotFiles(tmp_path, IDENTITY).adopt(purged)
    assert numbers(tmp_path) == [3, 4]


def test_an_incomplete_snapshot_is_not_adopted(tmp_path: Path) -> None:
    receiving(tmp_path, source(tmp_path)[:-1]).close()
    SnapshotFiles(tmp_path, IDENTITY).adopt((9, 9, 9))
    assert numbers(tmp_path) == []


def test_an_empty_directory_has_nothing_to_adopt(tmp_path: Path) -> None:
    SnapshotFiles(tmp_path, IDENTITY).adopt((9, 9, 9))
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_under_the_name_of_another_is_neither_finished_nor_used(tmp_path: Path) -> None:
    """Otherwise it would change which instances its replica treats as executed."""
    whole, files = source(tmp_path), SnapshotFiles(tmp_path, IDENTITY)
    receiver = files.receive(9)
    receiver.append(whole)
    with pytest.raises(OperationalError, match="its name is that of another"):
        files.finish(receiver)
    receiver.close()
    files.path(9).write_bytes(whole)
    assert files.load() == []
