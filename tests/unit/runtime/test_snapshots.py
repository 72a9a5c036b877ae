"""Snapshots beside the loop, and nodes that begin with one."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.config import Config
from pydsm.core.types.errors import Diverged, OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.machines.base import Result
from pydsm.machines.kv import KeyValue, encode
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.snapshots import SnapshotTaker
from pydsm.runtime.starts import StartLimits
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotWriter
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.unit.storage.records import IDENTITY
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

FIRST = Checkpoint(1, InstanceId(ReplicaId(0), 1), Position((0, 0, 0), (InstanceId(ReplicaId(0), 1),)), (1, 0, 0), 7)


class Slow:
    """A machine whose snapshot continues until the test ends it."""

    def __init__(self) -> None:
        self.enough = False
        self.closed = False

    def snapshot(self) -> Iterator[bytes]:
        try:
            while not self.enough:
                yield b"more"
        finally:
            self.closed = True

    def restore(self, chunks: Iterable[bytes]) -> None:
        raise AssertionError("nobody asked for that")


class FullDisk(SnapshotFiles):
    def begin(self, checkpoint: Checkpoint) -> SnapshotWriter:
        raise OSError("disk is full")


async def test_the_loop_is_not_blocked_while_a_snapshot_is_taken(tmp_path: Path) -> None:
    machine, taken = Slow(), list[SnapshotFile]()
    taker = SnapshotTaker(machine, SnapshotFiles(tmp_path, IDENTITY), taken.append)
    taker.take(FIRST)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not taken
    machine.enough = True
    await eventually(lambda: len(taken) == 1, "the snapshot is taken")
    assert [file.checkpoint for file in SnapshotFiles(tmp_path, IDENTITY).load()] == [FIRST]
    assert (taker.counters.taken, taker.counters.last_number, machine.closed) == (1, 1, True)


async def test_one_at_a_time_and_the_next_one_when_it_is_done(tmp_path: Path) -> None:
    machine, taken = Slow(), list[SnapshotFile]()
    taker = SnapshotTaker(machine, SnapshotFiles(tmp_path, IDENTITY), taken.append)
    taker.take(FIRST)
    taker.take(FIRST)
    assert taker.counters.skipped == 1
    machine.enough = True
    await eventually(lambda: len(taken) == 1, "the snapshot is taken")
    taker.note_change()
    taker.take(FIRST)
    await eventually(lambda: len(taken) == 2, "another snapshot is taken")


async def test_an_unchanged_state_is_saved_again_only_on_request(tmp_path: Path) -> None:
    machine, taken = Slow(), list[SnapshotFile]()
    machine.enough = True
    files = SnapshotFiles(tmp_path, IDENTITY)
    taker = SnapshotTaker(machine, files, taken.append)
    second, third = (msgspec.structs.replace(FIRST, number=number) for number in (2, 3))
    taker.take(FIRST)
    await eventually(lambda: len(taken) == 1, "the snapshot is taken")
    taker.take(second)
    assert (taker.counters.skipped, taker._task) == (0, None)
    taker.take(third, wanted=True)
    await eventually(lambda: [file.checkpoint for file in taken] == [FIRST, third], "the wanted one is taken")
    again = SnapshotTaker(machine, files, taken.append)
    again.begin_at(3)
    again.take(msgspec.structs.replace(FIRST, number=4))
    assert again._task is None
    again.note_change()
    again.take(msgspec.structs.replace(FIRST, number=5))
    await eventually(lambda: len(taken) == 3, "what has changed is saved")


async def test_a_snapshot_that_fails_changes_nothing_and_the_next_one_is_tried(tmp_path: Path) -> None:
    machine, taken = Slow(), list[SnapshotFile]()
    taker = SnapshotTaker(machine, FullDisk(tmp_path, IDENTITY), taken.append)
    for attempt in (1, 2):
        taker.take(FIRST)
        await eventually(lambda attempt=attempt: taker.counters.failed == attempt, "the snapshot has failed")  # type: ignore[misc]
    assert taken == []


async def test_a_machine_that_raises_at_a_checkpoint_costs_a_snapshot_and_not_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Slow()
    taken: list[SnapshotFile] = []
    taker = SnapshotTaker(machine, SnapshotFiles(tmp_path, IDENTITY), taken.append)
    with monkeypatch.context() as patch:
        patch.setattr(Slow, "snapshot", lambda self: 1 // 0)
        taker.take(FIRST)
    assert taker.counters.failed == 1
    machine.enough = True
    taker.take(FIRST)
    await eventually(lambda: len(taken) == 1, "the next one is taken")


async def test_stopping_abandons_an_unfinished_snapshot(tmp_path: Path) -> None:
    machine, taken = Slow(), list[SnapshotFile]()
    taker = SnapshotTaker(machine, SnapshotFiles(tmp_path, IDENTITY), taken.append)
    taker.take(FIRST)
    directory = tmp_path / "snapshots"
    await eventually(lambda: any(directory.glob("*.unfinished")), "the snapshot is begun")
    await taker.stop()
    assert (taken, machine.closed) == ([], True)
    assert list((tmp_path / "snapshots").iterdir()) == []


class Counting(KeyValue):
    """Counts the commands that it executes."""

    def __init__(self) -> None:
        super().__init__()
        self.executed = 0

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        self.executed += len(commands)
        return super().apply(commands, timestamp_ms)


class Flipping(Counting):
    """Not deterministic: it stores a wrong value for one key."""

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        wrong = encode([b"SET", b"7", b"flipped"])
        return super().apply([wrong if b"\xc4\x017" in one else one for one in commands], timestamp_ms)


QUICK = StartLimits(grace_seconds_min=0.02, save_seconds=0.02)


class Group:
    """Three nodes with data directories, in one process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hub = MemoryHub()
        self.nodes: dict[int, Node] = {}
        self.machines: dict[int, Counting] = {}

    async def start(self, replica: int, machine: Counting | None = None) -> Node:
        me, data = ReplicaId(replica), self.directory / str(replica)
        identity = Identity("test", f"r{replica}", me, 3)
        config = Config(
            me, 3, recovery_timeout_ticks=100, gossip_ticks=20, checkpoint_instances_max=10, digest_ticks=50
        )

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> MemoryTransport:
            return MemoryTransport(LocalIdentity("test", me, 3, incarnation), self.hub, admit, starts)

        machine = machine or Counting()
        parts = NodeComponents(
            machine, SqliteStore(data, identity), transport, snapshots=SnapshotFiles(data, identity), starts=QUICK
        )
        node = Node(config, parts)
        await node.start()
        self.nodes[replica], self.machines[replica] = node, machine
        return node

    async def set(self, replica: int, key: int, value: int) -> None:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.nodes[replica].submit(encode([b"SET", b"%d" % key, b"%d" % value]), answer.set_result)
        async with asyncio.timeout(10):
            assert await answer == "OK"

    async def set_many(self, first: int, count: int, *replicas: int) -> None:
        for number in range(first, first + count):
            await self.set(replicas[number % len(replicas)], number % 50, number)

    def info(self, replica: int, name: str) -> str:
        return self.nodes[replica].info()[name]

    async def agree(self) -> None:
        await eventually(lambda: len({one.digest() for one in self.machines.values()}) == 1, "all have one state")


@asynccontextmanager
async def group(directory: Path) -> AsyncIterator[Group]:
    made = Group(directory)
    for replica in range(3):
        await made.start(replica)
    try:
        yield made
    finally:
        for node in made.nodes.values():
            await node.stop(drain_seconds_max=0)


def records(directory: Path, replica: int) -> int:
    store = SqliteStore(directory / str(replica), Identity("test", f"r{replica}", ReplicaId(replica), 3))
    try:
        return len(store.load())
    finally:
        store.close()


async def test_a_node_begins_with_its_snapshot_and_executes_only_later_instances(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 200, 0, 1, 2)
        await eventually(lambda: int(nodes.info(2, "snapshot")) >= 10, "snapshots are taken")
        await nodes.agree()
        await nodes.nodes[2].stop()
        await nodes.start(2)
        assert nodes.machines[2].executed < 100
        await nodes.agree()
        await nodes.set_many(200, 20, 2, 0)
        await nodes.agree()


async def test_records_are_purged_and_a_restart_executes_only_the_remaining_ones(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 300, 0, 1, 2)
        await eventually(lambda: int(nodes.info(1, "purged_instances")) > 150, "records are purged")
        await nodes.agree()
        await nodes.nodes[1].stop()
        assert records(tmp_path, 1) < 200
        await nodes.start(1)
        await nodes.agree()
    assert len(list((tmp_path / "1" / "snapshots").iterdir())) == 2


async def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 200, 0, 1, 2)
        await eventually(lambda: int(nodes.info(0, "snapshot")) >= 5, "snapshots are taken")
        await nodes.agree()
        await nodes.nodes[0].stop()
        older, newer = sorted((tmp_path / "0" / "snapshots").iterdir())
        newer.write_bytes(newer.read_bytes()[:-1])
        node = await nodes.start(0)
        assert int(node.info()["snapshot"]) >= int(older.stem)
        await nodes.agree()


async def test_a_whole_group_restarts_from_its_snapshots(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 200, 0, 1, 2)
        await eventually(lambda: int(nodes.info(0, "snapshot")) >= 5, "snapshots are taken")
        await nodes.agree()
        before = nodes.machines[0].digest()
        for node in nodes.nodes.values():
            await node.stop()
        for replica in range(3):
            await nodes.start(replica)
        # not only `agree`: all may begin at one earlier state, and wait for a barrier of which no disk has the commit
        await eventually(lambda: nodes.machines[0].digest() == before, "everything is executed again")
        await nodes.agree()
        await nodes.set_many(200, 50, 0, 1, 2)
        await nodes.agree()


async def test_a_diverged_replica_stops_and_reports_the_difference_and_the_remedy(
    tmp_path: Path,
) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(50, 30, 0, 1, 2)
        await nodes.agree()
        await nodes.nodes[2].stop()
        machine = Flipping()
        await nodes.start(2, machine)
        await nodes.set_many(0, 60, 0, 1)
        failure = await asyncio.wait_for(nodes.nodes[2].failure, 10)
        assert isinstance(failure, Diverged)
        told = (tmp_path / "2" / "DIVERGED").read_text()
        assert f"the state at checkpoint {failure.number} is not that of replicas 0, 1" in told
        assert "keys from" in told
        await nodes.set_many(60, 20, 0, 1)
        await nodes.nodes[2].stop()
        with pytest.raises(OperationalError, match="states why this replica must not start"):
            SnapshotFiles(tmp_path / "2", Identity("test", "r2", ReplicaId(2), 3)).check()
        # as it says
        (tmp_path / "2" / "DIVERGED").unlink()
        for path in (tmp_path / "2" / "snapshots").iterdir():
            if int(path.stem) >= failure.number:
                path.unlink()
        await nodes.start(2)
        await nodes.set_many(80, 50, 0, 1, 2)
        await nodes.agree()
