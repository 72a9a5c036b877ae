"""Replicas of a class in programs: over TCP, from clients, without asyncio, in a rolling upgrade, after kill -9."""

import asyncio
import contextlib
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from pydsm import (
    ClientClosed,
    CommandAborted,
    NoReplicaReachable,
    NotAvailable,
    OperationalError,
    OutcomeUnknown,
    Replica,
    StateMachine,
    UsageError,
    blocking,
    connect,
)
from pydsm.runtime.snapshot_transfer import RestartRequired
from pydsm.server import lingering_close
from tests.ports import free_ports
from tests.unit.machines.declared.shops import Inventory, OutOfStock
from tests.unit.machines.declared.test_versions import ShopV1, ShopV2
from tests.waiting import eventually

_EXAMPLE = Path(__file__).parents[2] / "examples" / "inventory.py"


class Members:
    """Three replicas in this process, over TCP, with data directories."""

    def __init__(self, cls: type[StateMachine], directory: Path) -> None:
        ports = free_ports(6)
        self.peers = {name: f"127.0.0.1:{port}" for name, port in zip("abc", ports[:3], strict=True)}
        self.clients = {name: f"127.0.0.1:{port}" for name, port in zip("abc", ports[3:], strict=True)}
        self.directory = directory
        self.replicas = {name: self.make(name, cls) for name in "abc"}

    def make(self, name: str, cls: type[StateMachine]) -> Replica[StateMachine]:
        return Replica(
            cls,
            name=name,
            listen=self.peers[name],
            peers=self.peers,
            data_dir=self.directory / name,
            clients=self.clients[name],
            checkpoint_instances=40,
        )

    async def restart(self, name: str, cls: type[StateMachine]) -> None:
        await self.replicas[name].stop()
        self.replicas[name] = self.make(name, cls)
        await self.replicas[name].start()
        await self.replicas[name].ready()


@contextlib.asynccontextmanager
async def members(cls: type[StateMachine], directory: Path) -> AsyncIterator[Members]:
    group = Members(cls, directory)
    try:
        for replica in group.replicas.values():
            await replica.start()
        for replica in group.replicas.values():
            await replica.ready()
        yield group
    finally:
        await asyncio.gather(*(replica.stop(drain=0.1) for replica in group.replicas.values()))
        # a client that was refused while a replica stopped may take a moment to close its side
        await eventually(lambda: not lingering_close._lingering, "all connections are closed")


async def test_a_client_of_a_replica_has_the_same_commands_and_exceptions(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group:
        async with connect(list(group.clients.values()), Inventory) as inventory:
            await inventory.add("bolt", 3)
            assert await inventory.take("bolt") == 2
            with pytest.raises(OutOfStock, match="bolt"):
                await inventory.take("bolt", 3)
            with pytest.raises(KeyError, match="nut"):
                await inventory.broken("nut")
            with pytest.raises(TypeError, match=r"Inventory\.add"):
                await inventory.add("bolt", None)  # type: ignore[call-overload]
            assert await inventory.everything_left() == {"bolt": 2}

        def without_asyncio() -> int:
            with blocking.connect(",".join(group.clients.values()), Inventory) as shop:
                shop.add("bolt", 1)
                with pytest.raises(OutOfStock):
                    shop.take("bolt", 10)
                return shop.call(Inventory.left, "bolt")

        assert await asyncio.to_thread(without_asyncio) == 3


async def test_a_client_repeats_a_command_of_unknown_outcome_under_its_request_id(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group, connect(group.clients["a"], Inventory) as inventory:
        await inventory.add("bolt", 3)
        for name in "bc":
            await group.replicas[name].stop()
        with pytest.raises(OutcomeUnknown) as unknown:
            await inventory.take("bolt", timeout=0.2)
        for name in "bc":
            await group.restart(name, Inventory)
        for _ in range(3):
            await inventory.add("nut", 1)
        assert await unknown.value.again() == 2 == await unknown.value.again()
        assert await inventory.left("bolt") == 2


def test_a_replica_without_asyncio(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    for expected in (5, 10):
        with blocking.Replica(Inventory, name="a", listen=address, peers={}, data_dir=tmp_path) as shop:
            shop.add("bolt", 5)
            assert shop.left("bolt") == expected
    replica = blocking.Replica(Inventory, name="a", listen=address, peers={}, data_dir=tmp_path)
    with replica as shop:
        replica.ready()
        replica.pause()
        replica.resume()
        assert replica.snapshot().path
        assert shop.left("bolt") == 10


async def test_without_asyncio_an_unknown_outcome_can_be_repeated_too(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group:
        await cast(Inventory, group.replicas["a"].handle).add("bolt", 3)
        for name in "bc":
            await group.replicas[name].stop()
        connection = blocking.connect(group.clients["a"], Inventory)
        shop = await asyncio.to_thread(connection.start)
        with pytest.raises(OutcomeUnknown) as unknown:
            await asyncio.to_thread(shop.take, "bolt", timeout=0.2)
        for name in "bc":
            await group.restart(name, Inventory)
        assert await asyncio.to_thread(shop.again, unknown.value, timeout=5.0) == 2
        await asyncio.to_thread(connection.stop)
        await asyncio.to_thread(connection.stop)
        with pytest.raises(ClientClosed):
            shop.left("bolt")
        with pytest.raises(AttributeError, match="no command or query lefft"):
            shop.lefft("bolt")


def test_without_asyncio_a_replica_that_cannot_start_leaves_no_thread(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        before = threading.active_count()
        replica = blocking.Replica(Inventory, name="a", listen=address, peers={}, data_dir=tmp_path)
        with pytest.raises(OperationalError, match="cannot listen"):
            replica.start()
        assert threading.active_count() <= before
    connection = blocking.connect(address, Inventory)
    connection.stop()
    with pytest.raises(ClientClosed, match="never opened"):
        connection._thread.run(asyncio.sleep(0))


async def test_a_replica_object_starts_once_and_says_when_it_is_not_ready(tmp_path: Path) -> None:
    peers = {name: f"127.0.0.1:{port}" for name, port in zip("abc", free_ports(3), strict=True)}
    replica = Replica(Inventory, name="a", listen=peers["a"], peers=peers, data_dir=tmp_path)
    assert replica.members == peers
    assert replica.not_ready_reason == "it is not running"
    with pytest.raises(UsageError, match="is not started"):
        await replica.failed()
    async with replica:
        with pytest.raises(UsageError, match="started already"):
            await replica.start()
        with pytest.raises(OperationalError, match="replica a is not ready: "):
            await replica.ready(timeout=0.05)


async def test_a_rolling_upgrade_under_load_loses_nothing(tmp_path: Path) -> None:
    async with members(ShopV1, tmp_path) as group:
        added = 0
        stopping = asyncio.Event()

        async def load() -> None:
            nonlocal added
            async with connect(list(group.clients.values()), ShopV1) as shop:
                while not stopping.is_set():
                    await shop.add("bolt", 1)
                    added += 1

        loading = [asyncio.create_task(load()) for _ in range(3)]
        for name in "abc":
            before = added
            await eventually(lambda before=before: added > before + 30, "the load goes on")  # type: ignore[misc]
            await group.restart(name, ShopV2)
        async with connect(list(group.clients.values()), ShopV2) as shop:
            done = False
            while not done:
                with contextlib.suppress(NotAvailable):
                    await shop.add("bolt", 100, "there")
                    done = True
            before = added
            await eventually(lambda: added > before + 30, "old clients go on with the new version")
            stopping.set()
            await asyncio.gather(*loading)
            assert await shop.left("bolt") == added + 100


class Program:
    """One process of the example."""

    def __init__(self, script: Path, name: str) -> None:
        self.script, self.name = script, name
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self.script),
            self.name,
            cwd=self.script.parent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def type(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        return (await self.process.stdout.readline()).decode().strip()

    async def end(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()  # its standard input stays open until then
        await self.process.communicate()


async def test_the_example_of_the_readme_survives_kill_9(tmp_path: Path) -> None:
    text = _EXAMPLE.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) < 30
    assert re.findall(r"^(?:from|import) .*pydsm.*", text, re.MULTILINE) == [
        "from pydsm import Replica, StateMachine, command, query"
    ]
    script = tmp_path / "inventory.py"
    for old, new in zip(("7000", "7001", "7002"), free_ports(3), strict=True):
        text = text.replace(old, str(new))
    script.write_text(text)
    programs = {name: Program(script, name) for name in "abc"}
    try:
        for program in programs.values():
            await program.start()
        assert await programs["a"].type("add bolt 5") == "bolt: 5"
        assert await programs["b"].type("left bolt") == "bolt: 5"
        await programs["c"].end(signal.SIGKILL)
        assert await programs["a"].type("add bolt 2") == "bolt: 7"
        await programs["c"].start()
        assert await programs["c"].type("left bolt") == "bolt: 7"
        for program in programs.values():
            await program.end(signal.SIGKILL)
        for program in programs.values():
            await program.start()
        assert await programs["c"].type("add bolt 1") == "bolt: 8"
        assert "add SKU NUMBER" in await programs["c"].type("add bolt many")
        await programs["c"].end(signal.SIGINT)  # while it waits for a line
    finally:
        for program in programs.values():
            await program.end(signal.SIGKILL)


async def test_calls_go_on_when_the_replica_restarts_from_a_snapshot_that_it_fetched(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group:
        replica = group.replicas["a"]
        inventory = cast(Inventory, replica.handle)
        before = replica._running()
        calls = [asyncio.create_task(inventory.add("bolt", 1)) for _ in range(200)]
        await asyncio.sleep(0)
        before._restart_required(RestartRequired("a snapshot was fetched"))
        calls += [asyncio.create_task(inventory.add("bolt", 1)) for _ in range(100)]
        await asyncio.gather(*calls)
        assert await inventory.left("bolt") == 300
        assert replica._running() is not before
        assert replica.failure is None


async def test_a_replica_that_fails_gives_its_calls_an_unknown_outcome_and_refuses_more(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group:
        replica = group.replicas["a"]
        inventory = cast(Inventory, replica.handle)
        for name in "bc":
            await group.replicas[name].stop(drain=0)
        call = asyncio.create_task(inventory.add("bolt", 1))
        failed = asyncio.create_task(replica.failed())
        await eventually(lambda: replica.observe().commands_waiting > 0, "the call is submitted")
        replica._running()._fail(OperationalError("the disk is gone"))
        with pytest.raises(OutcomeUnknown, match="the disk is gone"):
            await call
        assert str(await failed) == "the disk is gone" == str(replica.failure)
        with pytest.raises(CommandAborted, match="not executed now: replica a has failed"):
            await inventory.add("bolt", 1)
        assert replica.not_ready_reason == "the disk is gone"


async def test_clients_and_replicas_of_another_group_are_refused(tmp_path: Path) -> None:
    async with members(Inventory, tmp_path) as group:
        with pytest.raises(NoReplicaReachable, match="asks for group 'other'"):
            async with connect(group.clients["a"], Inventory, group="other", timeout=0.5):
                pass
