"""A replica with an older copy of its data directory is refused in every case, and the others are not affected.

Real stores and TCP, in one process. The rules are tested separately in `core/protocol/test_starts`.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

import pytest

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.config import Config
from pydsm.core.types.errors import OperationalError, RolledBack
from pydsm.core.types.ids import ReplicaId
from pydsm.machines.kv import KeyValue, encode
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, not_ready_reason
from pydsm.runtime.starts import StartLimits
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.tcp import TcpTransport
from tests.ports import free_ports
from tests.unit.storage.directories import alter, copy_of
from tests.unit.transport.groups import QUICK
from tests.waiting import eventually

QUICK_STARTS = StartLimits(grace_seconds_min=0.2, grace_seconds_max=1.0, save_seconds=0.02)


class Group:
    """Nodes with data directories. The last port is for a second process of one replica."""

    def __init__(self, directory: Path, replicas: int) -> None:
        self.directory = directory
        self.replicas = replicas
        self.ports = free_ports(replicas + 1)
        self.nodes: dict[int, Node] = {}
        self.machines: dict[int, KeyValue] = {}
        self.others: list[Node] = []

    def data(self, replica: int) -> Path:
        return self.directory / f"r{replica}"

    async def start(self, replica: int) -> Node:
        """From its own directory, in the place of the one before."""
        node, machine = self._make(replica, self.data(replica), self.ports[replica])
        await node.start()
        self.nodes[replica], self.machines[replica] = node, machine
        return node

    async def start_second(self, replica: int, data: Path) -> Node:
        """A second process of this replica, started from this directory while the first one runs."""
        node, _ = self._make(replica, data, self.ports[-1])
        self.others.append(node)
        await node.start()
        return node

    def _make(self, replica: int, data: Path, port: int) -> tuple[Node, KeyValue]:
        me = ReplicaId(replica)
        identity = Identity("test", f"r{replica}", me, self.replicas)
        config = Config(me, self.replicas, recovery_timeout_ticks=100, gossip_ticks=20, checkpoint_instances_max=20)

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> TcpTransport:
            peers = {
                ReplicaId(peer): Address("127.0.0.1", self.ports[peer])
                for peer in range(self.replicas)
                if peer != replica
            }
            here = Address("127.0.0.1", port)
            return TcpTransport(
                LocalIdentity("test", me, self.replicas, incarnation), here, peers, admit, starts, QUICK
            )

        machine = KeyValue()
        parts = NodeComponents(
            machine,
            SqliteStore(data, identity),
            transport,
            snapshots=SnapshotFiles(data, identity),
            starts=QUICK_STARTS,
        )
        return Node(config, parts), machine

    async def stop(self, replica: int) -> None:
        await self.nodes.pop(replica).stop(drain_seconds_max=0)

    async def set(self, replica: int, key: int, value: int) -> None:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.nodes[replica].submit(encode([b"SET", b"%d" % key, b"%d" % value]), answer.set_result)
        async with asyncio.timeout(20):
            assert await answer == "OK"

    async def set_many(self, replica: int, first: int, count: int) -> None:
        for number in range(first, first + count):
            await self.set(replica, number % 50, number)

    async def agree(self) -> None:
        def equal() -> bool:
            seen = [node.observe() for node in self.nodes.values()]
            executed = {one.frontier for one in seen} | {one.known for one in seen}
            return len(executed) == 1 and len({self.machines[one].digest() for one in self.nodes}) == 1

        await eventually(equal, "all replicas agree")

    async def saved(self) -> None:
        """All replicas have stored the starts of each other."""

        def all_written() -> bool:
            return all(
                node._starts._peer_starts.highest(ReplicaId(peer)) == node._store.starts().get(ReplicaId(peer))
                for me, node in self.nodes.items()
                for peer in self.nodes
                if peer != me
            )

        await eventually(all_written, "what was met is written down")

    def put_back(self, replica: int, copy: Path) -> None:
        shutil.rmtree(self.data(replica))
        shutil.copytree(copy, self.data(replica))


@asynccontextmanager
async def group(directory: Path, replicas: int = 3) -> AsyncIterator[Group]:
    made = Group(directory, replicas)
    try:
        for replica in range(replicas):
            await made.start(replica)
        yield made
    finally:
        for node in [*made.nodes.values(), *made.others]:
            await node.stop(drain_seconds_max=0)


async def failure_of(node: Node) -> str:
    async with asyncio.timeout(20):
        failure = await node.failure
    assert isinstance(failure, RolledBack), failure
    assert node.observe().traffic.messages_sent == 0
    return str(failure)


async def older_backup(nodes: Group, copy: Path) -> None:
    """A copy that was made while the replica was stopped."""
    await nodes.set_many(0, 0, 10)
    await nodes.stop(0)
    shutil.copytree(nodes.data(0), copy)
    await nodes.start(0)
    await nodes.set_many(0, 10, 10)


async def rolled_back_disk(nodes: Group, copy: Path) -> None:
    """A snapshot of the running machine's disk."""
    await nodes.set_many(0, 0, 10)
    shutil.copytree(nodes.data(0), copy)
    await nodes.set_many(0, 10, 10)


async def volume_of_last_week(nodes: Group, copy: Path) -> None:
    """The others have compacted that state, and were restarted since."""
    await nodes.set_many(0, 0, 5)
    await nodes.stop(0)
    shutil.copytree(nodes.data(0), copy)
    await nodes.start(0)
    await nodes.set_many(0, 5, 80)
    await nodes.agree()
    await nodes.saved()
    for replica in (1, 2):
        await nodes.stop(replica)
        await nodes.start(replica)


@pytest.mark.parametrize("happen", [older_backup, rolled_back_disk, volume_of_last_week])
async def test_a_data_directory_that_was_put_back_is_refused_and_the_newest_one_is_not(
    tmp_path: Path, happen: Callable[[Group, Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    async with group(tmp_path) as nodes:
        copy, newest = tmp_path / "copy", tmp_path / "newest"
        await happen(nodes, copy)  # type: ignore[misc]
        await nodes.stop(0)
        shutil.copytree(nodes.data(0), newest)
        nodes.put_back(0, copy)
        node = await nodes.start(0)
        reason = await failure_of(node)
        assert "has a record of data that is missing here" in reason
        assert "fewer" in reason
        assert "Restore the newest copy of the directory" in reason
        assert node.observe().counters.proposed == 0
        assert "decided twice" not in caplog.text
        await nodes.stop(0)
        await nodes.set_many(1, 200, 5)
        nodes.put_back(0, newest)
        node = await nodes.start(0)
        await nodes.set_many(0, 300, 5)
        await nodes.agree()


async def test_a_truncated_log_is_refused_before_peers_are_asked(tmp_path: Path) -> None:
    """SQLite would open the rest as an older state."""
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 0, 20)
        copy = copy_of(nodes.data(0), tmp_path / "copy")
        wal = copy / LOG_NAME
        size = wal.stat().st_size
        assert size > 50_000
        with wal.open("r+b") as file:
            file.truncate(size // 2)
        (copy / f"{DATABASE_NAME}-shm").unlink(missing_ok=True)
        await nodes.stop(0)
        nodes.put_back(0, copy)
        with pytest.raises(OperationalError, match="frames were durable"):
            await nodes.start(0)


async def test_of_two_processes_from_copies_of_one_directory_the_second_is_refused(tmp_path: Path) -> None:
    """Both would have the same number of their start, and each another id."""
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 0, 5)
        await nodes.stop(0)
        shutil.copytree(nodes.data(0), tmp_path / "copy")
        await nodes.start(0)
        await nodes.set_many(0, 10, 5)
        second = await nodes.start_second(0, tmp_path / "copy")
        reason = await failure_of(second)
        assert "another process was started from a copy of this data directory" in reason
        await nodes.set_many(0, 20, 5)
        await nodes.agree()


async def test_a_start_that_is_no_longer_the_latest_stops(tmp_path: Path) -> None:
    """Its machine was taken for dead, and a later start from the same disk has taken its place."""
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 0, 5)
        await nodes.agree()
        core = nodes.nodes[0]._core
        peers = [nodes.nodes[peer]._core for peer in (1, 2)]
        await eventually(
            lambda: all(peer.remembered(ReplicaId(0))[1] == core.frontier for peer in peers),
            "all that it has executed is durable, and told to its peers",
        )
        copy_of(nodes.data(0), tmp_path / "copy")
        later = f"UPDATE position SET groups = 100000, checksum = {checksum_of(100_000)}"
        alter(tmp_path / "copy", later)
        second = await nodes.start_second(0, tmp_path / "copy")
        async with asyncio.timeout(20):
            failure = await nodes.nodes[0].failure
        assert isinstance(failure, RolledBack)
        assert "it has seen start 2" in str(failure)
        await eventually(lambda: second._starts.takes_part, "the second takes part")


def checksum_of(groups: int) -> int:
    return crc32(b"%d" % groups)


async def test_an_honest_crash_is_no_older_copy(tmp_path: Path) -> None:
    """The last write is lost, and no peer has received anything that depends on it."""
    async with group(tmp_path) as nodes:
        for turn in range(3):
            await nodes.set_many(turn, 10 * turn, 10)
            await nodes.stop(turn)
            await nodes.start(turn)
        await nodes.agree()
        assert not any(node.failure.done() for node in nodes.nodes.values())


@pytest.mark.parametrize(("replicas", "down"), [(3, 1), (5, 2), (1, 0)])
async def test_a_whole_group_starts_again_with_as_many_down_as_may_fail(
    tmp_path: Path, replicas: int, down: int
) -> None:
    async with group(tmp_path, replicas) as nodes:
        await nodes.set_many(0, 0, 5)
        for replica in range(replicas):
            await nodes.stop(replica)
        for replica in range(replicas - down):
            await nodes.start(replica)
        await nodes.set_many(replicas - down - 1, 5, 5)
        await nodes.agree()


async def test_a_replica_with_too_few_reports_waits_and_logs_it(tmp_path: Path) -> None:
    made = Group(tmp_path, 5)
    for replica in (0, 1):
        await made.start(replica)
    try:
        seen = made.nodes[0].observe
        await eventually(
            lambda: "1 have answered, 2 are needed" in (seen().not_participating_reason or ""), "one answers"
        )
        assert not_ready_reason(seen(), ReadyLimits()) == seen().not_participating_reason
        assert seen().traffic.messages_sent == 0
        await made.start(2)
        await eventually(lambda: seen().not_participating_reason is None, "it takes part")
        await made.set(0, 1, 1)
    finally:
        for replica in tuple(made.nodes):
            await made.stop(replica)


async def test_a_late_report_of_newer_state_stops_a_replica_that_the_others_accepted(tmp_path: Path) -> None:
    """It is no proof: replica 2 was away when the copy was made, and replica 1 is away when it is put back."""
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 0, 5)
        await nodes.agree()
        await nodes.saved()
        await nodes.stop(2)
        shutil.copytree(nodes.data(0), tmp_path / "copy")
        await nodes.set_many(0, 10, 40)
        await nodes.saved()
        await nodes.stop(0)
        await nodes.stop(1)
        nodes.put_back(0, tmp_path / "copy")
        await nodes.start(2)
        node = await nodes.start(0)
        await eventually(lambda: node._starts.takes_part, "nobody objects")
        await nodes.start(1)
        async with asyncio.timeout(20):
            assert isinstance(await node.failure, RolledBack)
