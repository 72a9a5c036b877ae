"""Snapshot transfers with real files: what is sent and stored, and the order of the steps of an installation."""

import asyncio
import errno
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, PurgeRecord, ServePiece
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import Deps, ReplicaId
from pydsm.core.types.messages import SnapshotPiece
from pydsm.runtime import snapshot_transfer as module
from pydsm.runtime.snapshot_transfer import RestartRequired, SnapshotTransfers, TransferContext
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotReceiver
from tests.unit.storage.records import IDENTITY
from tests.unit.storage.test_snapshots import CHUNKS, checkpoint, numbers, source, written
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

P1, P2 = ReplicaId(1), ReplicaId(2)


class Bench:
    """Transfers of one replica; `told` lists the calls of its core, messages to peers, and actions of its node."""

    def __init__(self, directory: Path, files: SnapshotFiles | None) -> None:
        self.directory = directory
        self.checkpoint = 0
        self.replace_fails = False
        self.in_maintenance = False
        self.disputed = False
        self.told: list[object] = []
        self.transfers = SnapshotTransfers(
            TransferContext(
                core=self,  # type: ignore[arg-type]
                files=files,
                send=lambda to, piece: self.told.append((to, piece)),
                call_core=self._tell,
                may_replace=lambda: not self.in_maintenance,
                replace=self._replace,
                restart=lambda reason: self.told.append((type(reason), numbers(directory))),
            )
        )

    def _tell(self, action: Callable[[], None]) -> None:
        action()

    def fetched(self, number: int, offset: int, *, damaged: bool = False) -> None:
        """See `Replica.fetched`."""
        self.told.append(("damaged" if damaged else "good", number, offset))

    def cannot_keep(self, number: int) -> None:
        """See `Replica.cannot_keep`."""
        self.told.append(("cannot keep", number))

    def is_disputed(self, number: int, digests: Sequence[bytes]) -> bool:
        """See `Replica.is_disputed`."""
        return self.disputed

    def cannot_serve(self, to: ReplicaId) -> None:
        """See `Replica.cannot_serve`."""
        self.told.append(("cannot serve", to))

    async def _replace(self, record: PurgeRecord) -> None:
        if self.replace_fails:
            raise OperationalError("disk is full")
        self.told.append((record, numbers(self.directory)))

    async def come_to(self, *told: object) -> None:
        """Wait until exactly these entries were added to `told` since the last call."""
        await eventually(lambda: len(self.told) >= len(told), f"{told} is told, not {self.told}")
        assert self.told == list(told)
        self.told.clear()

    async def fetch(self, *pieces: bytes) -> None:
        """Begin with checkpoint 4, and keep these pieces."""
        offset = 0
        self.transfers.begin(BeginFetch(4))
        await self.come_to(("good", 4, 0))
        for piece in pieces:
            self.transfers.begin(KeepPiece(4, offset, piece))
            offset += len(piece)
            await self.come_to(("good", 4, offset))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, SnapshotFiles(tmp_path, IDENTITY))
    yield made
    await made.transfers.stop()


# Serving


async def test_a_peer_receives_the_requested_bytes_and_nothing_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES_MAX", 100)
    whole = written(bench.directory, 4).path.read_bytes()
    size = len(whole)
    for offset in (0, 100, size - 50, size):
        bench.transfers.begin(ServePiece(P1, 4, offset))
        await bench.come_to((P1, SnapshotPiece(4, offset, size, whole[offset : offset + 100])))
    assert bench.transfers.counters.sent == 4


async def test_an_absent_snapshot_cannot_be_served(bench: Bench) -> None:
    bench.transfers.begin(ServePiece(P1, 4, 0))
    await bench.come_to(("cannot serve", P1))


async def test_a_request_beyond_the_end_is_not_answered(bench: Bench) -> None:
    size = written(bench.directory, 4).path.stat().st_size
    bench.transfers.begin(ServePiece(P1, 4, size + 1))
    bench.transfers.begin(ServePiece(P2, 4, size))
    await bench.transfers.stop()
    await bench.come_to((P2, SnapshotPiece(4, size, size, b"")))


class SlowFiles(SnapshotFiles):
    """Reads when it may."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, IDENTITY)
        self.may = threading.Event()
        self.reads = 0

    def read(self, number: int, offset: int, bytes_max: int) -> tuple[int, bytes] | None:
        """See `SnapshotFiles`."""
        self.reads += 1
        self.may.wait(30)
        return super().read(number, offset, bytes_max)


async def test_a_peer_is_served_one_piece_at_a_time_for_any_number_of_requests(tmp_path: Path) -> None:
    files = SlowFiles(tmp_path)
    bench = Bench(tmp_path, files)
    for peer in (P1, P1, P2, P1, P2):
        bench.transfers.begin(ServePiece(peer, 4, 0))
    await eventually(lambda: files.reads == 2, "both peers are served")
    files.may.set()
    await eventually(lambda: len(bench.told) == 2, "both are answered")
    assert sorted(map(str, bench.told)) == ["('cannot serve', 1)", "('cannot serve', 2)"]
    bench.told.clear()
    bench.transfers.begin(ServePiece(P1, 4, 0))
    await bench.come_to(("cannot serve", P1))
    assert files.reads == 3


async def test_a_snapshot_that_cannot_be_read_is_not_answered_and_the_next_question_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written(bench.directory, 4)
    with monkeypatch.context() as broken:
        broken.setattr(SnapshotFiles, "read", failing)
        bench.transfers.begin(ServePiece(P1, 4, 0))
        await eventually(lambda: "cannot be read for replica 1: [Errno 28]" in caplog.text, "the log says so")
    assert bench.told == []
    bench.transfers.begin(ServePiece(P1, 4, 0))
    await eventually(lambda: len(bench.told) == 1, "it is sent")


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


# Fetching


async def test_a_piece_is_on_disk_before_the_core_is_notified(bench: Bench) -> None:
    whole = source(bench.directory)
    await bench.fetch(whole[:90], whole[90:200])
    await bench.transfers.stop()
    again = Bench(bench.directory, SnapshotFiles(bench.directory, IDENTITY))
    again.transfers.begin(BeginFetch(4))
    good = whole.index(b"first") + len(b"first")
    await again.come_to(("good", 4, good))
    await again.transfers.stop()


async def test_a_new_fetch_continues_with_the_existing_bytes(bench: Bench) -> None:
    whole = source(bench.directory)
    await bench.fetch(whole[:200])
    bench.transfers.begin(BeginFetch(4))
    await bench.come_to(("good", 4, 200))
    await bench.transfers.stop()
    bench.transfers.begin(BeginFetch(4))
    await bench.come_to(("good", 4, whole.index(b"first") + len(b"first")))
    bench.transfers.begin(BeginFetch(5))
    await bench.come_to(("good", 5, 0))


async def test_a_damaged_piece_is_reported_with_the_number_of_valid_bytes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    whole = source(bench.directory)
    place = whole.index(b"first")
    await bench.fetch(whole[:place])
    bench.transfers.begin(KeepPiece(4, place, b"f1rst" + whole[place + 5 :]))
    await bench.come_to(("damaged", 4, place - 8))
    assert "a piece of snapshot 4 is damaged, asking another peer: a checksum differs" in caplog.text
    counters = bench.transfers.counters
    assert (counters.kept, counters.damaged) == (1, 1)
    bench.transfers.begin(KeepPiece(4, place - 8, whole[place - 8 :]))
    await bench.come_to(("good", 4, len(whole)))


async def test_requests_of_one_turn_are_performed_in_order(bench: Bench) -> None:
    whole = source(bench.directory)
    for transfer in (BeginFetch(4), KeepPiece(4, 0, whole[:90]), KeepPiece(4, 90, whole[90:]), InstallSnapshot(4)):
        bench.transfers.begin(transfer)
    await bench.come_to(("good", 4, 0), ("good", 4, 90), ("good", 4, len(whole)), (PURGE, []), (RestartRequired, [4]))


# Installing

PURGE = PurgeRecord(checkpoint(4).position.up_to, checkpoint(4).position.exceptions)


async def test_an_installation_syncs_the_file_then_replaces_records_then_renames_then_restarts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, adopt = SnapshotFiles.finish, SnapshotFiles.adopt

    def finishing(files: SnapshotFiles, receiver: SnapshotReceiver) -> SnapshotFile:
        bench.told.append("durable")
        return finish(files, receiver)

    def adopting(files: SnapshotFiles, purged: Deps) -> None:
        bench.told.append(("adopted", purged))
        adopt(files, purged)

    monkeypatch.setattr(SnapshotFiles, "finish", finishing)
    monkeypatch.setattr(SnapshotFiles, "adopt", adopting)
    await bench.fetch(source(bench.directory))
    bench.transfers.begin(InstallSnapshot(4))
    await bench.come_to("durable", (PURGE, []), ("adopted", PURGE.up_to), (RestartRequired, [4]))
    (found,) = SnapshotFiles(bench.directory, IDENTITY).load()
    assert list(found.chunks()) == CHUNKS


async def test_one_that_is_not_whole_replaces_nothing_and_is_fetched_from_its_beginning(bench: Bench) -> None:
    await bench.fetch(source(bench.directory)[:-1])
    bench.transfers.begin(InstallSnapshot(4))
    await bench.come_to(("damaged", 4, 0))


async def test_one_that_was_overtaken_while_it_was_finished_replaces_nothing(bench: Bench) -> None:
    await bench.fetch(source(bench.directory))
    bench.checkpoint = 4
    bench.transfers.begin(InstallSnapshot(4))
    await bench.come_to(("cannot keep", 4))
    assert numbers(bench.directory) == []


async def test_a_snapshot_is_not_installed_while_the_machine_is_paused(bench: Bench) -> None:
    await bench.fetch(source(bench.directory))
    bench.in_maintenance = True
    bench.transfers.begin(InstallSnapshot(4))
    await bench.come_to(("cannot keep", 4))
    assert numbers(bench.directory) == []


async def test_a_snapshot_of_a_disputed_state_is_not_installed_and_this_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.fetch(source(bench.directory))
    bench.disputed = True
    for _ in range(2):
        bench.transfers.begin(InstallSnapshot(4))
        await bench.come_to(("cannot keep", 4))
    assert numbers(bench.directory) == []
    assert caplog.text.count("members report different states at checkpoint 4") == 1


async def test_one_that_is_whole_and_waits_is_not_looked_through_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.fetch(whole := source(bench.directory))
    monkeypatch.setattr(SnapshotFiles, "receive", None)
    bench.transfers.begin(BeginFetch(4))
    await bench.come_to(("good", 4, len(whole)))


async def test_records_that_cannot_be_replaced_stay_and_nothing_begins_again(bench: Bench) -> None:
    await bench.fetch(source(bench.directory))
    bench.replace_fails = True
    bench.transfers.begin(InstallSnapshot(4))
    await bench.transfers.stop()
    assert (bench.told, numbers(bench.directory)) == ([], [])


async def test_an_installation_whose_rename_fails_is_completed_by_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This start has written its last record, so the replica must restart."""
    await bench.fetch(source(bench.directory))
    with monkeypatch.context() as broken:
        broken.setattr(SnapshotFiles, "adopt", failing)
        bench.transfers.begin(InstallSnapshot(4))
        await bench.come_to((PURGE, []), (RestartRequired, []))
    assert "[Errno 28] no space left on device" in caplog.text
    SnapshotFiles(bench.directory, IDENTITY).adopt(PURGE.up_to)
    assert numbers(bench.directory) == [4]


# Disks that fail


async def test_a_file_that_cannot_be_created_is_reported_and_tried_again(bench: Bench) -> None:
    """The directory of snapshots is a file."""
    (bench.directory / "snapshots").write_bytes(b"")
    bench.transfers.begin(BeginFetch(4))
    await bench.come_to(("cannot keep", 4))
    (bench.directory / "snapshots").unlink()
    await bench.fetch(source(bench.directory))


@pytest.mark.parametrize("method", ["append", "finish"])
async def test_a_full_disk_is_reported_and_the_fetch_continues_with_the_stored_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    whole = source(bench.directory)
    await bench.fetch(whole)
    with monkeypatch.context() as full:
        full.setattr(SnapshotReceiver, method, failing)
        bench.transfers.begin(KeepPiece(4, len(whole), b"more") if method == "append" else InstallSnapshot(4))
        await bench.come_to(("cannot keep", 4))
    assert "the snapshot of checkpoint 4 cannot be kept: [Errno 28] no space left on device" in caplog.text
    bench.transfers.begin(BeginFetch(4))
    await bench.come_to(("good", 4, len(whole)))
    bench.transfers.begin(InstallSnapshot(4))
    await bench.come_to((PURGE, []), (RestartRequired, [4]))
    await bench.transfers.stop()


class Unwritten:
    """A file that accepts all writes, and reports a full disk when it is closed."""

    def close(self) -> None:
        failing()


async def test_a_disk_that_fills_up_at_the_very_end_does_not_keep_a_replica_from_stopping(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.fetch(source(bench.directory)[:90])
    receiver = bench.transfers._receiver
    assert receiver is not None
    receiver.close()
    monkeypatch.setattr(receiver, "_file", Unwritten())
    await bench.transfers.stop()
    await bench.transfers.stop()


async def test_stopping_waits_for_running_jobs(tmp_path: Path) -> None:
    files = SlowFiles(tmp_path)
    bench, whole = Bench(tmp_path, files), source(tmp_path)
    bench.transfers.begin(ServePiece(P1, 4, 0))
    bench.transfers.begin(BeginFetch(4))
    bench.transfers.begin(KeepPiece(4, 0, whole))
    stopping = asyncio.create_task(bench.transfers.stop())
    await eventually(lambda: len(bench.told) == 2, "the piece is kept")
    assert not stopping.done()
    files.may.set()
    await stopping
    assert bench.told[2:] == [("cannot serve", P1)]


# Without files


async def test_a_replica_without_snapshots_logs_once_that_it_cannot_rejoin_and_serves_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, None)
    with caplog.at_level(logging.ERROR):
        for number in (4, 4, 5):
            bench.transfers.begin(BeginFetch(number))
            bench.transfers.begin(ServePiece(P1, number, 0))
    assert bench.told == [("cannot keep", 4), ("cannot keep", 4), ("cannot keep", 5)]
    assert [record.getMessage() for record in caplog.records] == [
        "the instances missing here were compacted by the peers, and this replica does not store snapshots: "
        "this replica cannot rejoin"
    ]
    await bench.transfers.stop()
