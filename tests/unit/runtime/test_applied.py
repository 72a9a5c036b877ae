"""Machines that keep their own state: nothing is executed twice, nothing is left out, results of before are known."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from examples.ledger import Ledger
from pydsm.client_protocol.answers import Answer
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.config import Config
from pydsm.core.types.errors import InvariantViolation, OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId, request_at
from pydsm.core.types.messages import Run
from pydsm.machines.base import CommandFailed, CommandRaised, DurableStateMachine, Result
from pydsm.runtime.applied import AppliedTracker, tracker_of
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.unit.runtime.machines import Lists
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

ME = ReplicaId(0)
INCARNATION = 0xABC


class DurableLists(Lists):
    """A durable machine; `kept` stands for the markers on its disk."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, bytes] = {}
        self.executed = 0

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        self.executed += 1
        return super().apply(commands, timestamp_ms)

    def snapshot(self) -> object:
        raise AssertionError("nobody asked for that")

    def restore(self, chunks: object) -> None:
        raise AssertionError("nobody asked for that")

    def commit(self, marker: str, content: bytes, obsolete: Sequence[str]) -> None:
        self.kept[marker] = content
        for name in obsolete:
            del self.kept[name]

    def marker(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def markers(self) -> list[str]:
        return list(self.kept)


def life(machine: DurableLists, incarnation: int = INCARNATION) -> AppliedTracker:
    """The state after a start."""
    made = tracker_of(machine, machine.apply, incarnation)
    assert made is not None
    made.begin()
    return made


def instance(index: int) -> InstanceId:
    return InstanceId(ME, index)


def checkpoint(number: int, index: int) -> Checkpoint:
    """One whose barrier is the instance of this index, and which has everything before."""
    return Checkpoint(number, instance(index), Position((index,)), (index,), 0)


def run(progress: AppliedTracker, *indexes: int) -> list[Result]:
    """Execute one command in each of these instances."""
    return [progress.apply(instance(index))([b"k %d" % index], 0)[0] for index in indexes]


async def test_batches_with_markers_are_answered_from_them_and_the_rest_is_executed() -> None:
    machine = DurableLists()
    assert run(life(machine), 1, 2) == [1, 2]
    again = life(machine)
    assert run(again, 2, 1, 3) == [2, 1, 3], "those that it has in another order"
    assert machine.executed == 3
    assert machine.lists == {b"k": [b"1", b"2", b"3"]}


async def test_machine_that_is_ahead_of_a_checkpoint_has_another_state_than_it() -> None:
    machine = DurableLists()
    first = life(machine)
    run(first, 1)
    assert first.checkpoint(checkpoint(1, 2))
    run(first, 3)
    again = life(machine)
    run(again, 1)
    assert not again.checkpoint(checkpoint(1, 2)), "it has 3 as well"
    run(again, 3)
    assert again.checkpoint(checkpoint(2, 4))


async def test_machine_that_lost_its_last_transactions_executes_them_again() -> None:
    machine = DurableLists()
    first = life(machine)
    run(first, 1, 2)
    first.checkpoint(checkpoint(1, 3))
    del machine.kept["0.3"], machine.kept["0.2"]
    machine.lists[b"k"].remove(b"2")
    again = life(machine)
    assert not again.has(checkpoint(1, 3))
    assert run(again, 1, 2) == [1, 2]
    assert again.checkpoint(checkpoint(1, 3))
    assert again.has(checkpoint(1, 3))


async def test_markers_covered_by_two_snapshots_are_deleted_a_few_at_a_time() -> None:
    machine = DurableLists()
    progress = life(machine)
    run(progress, *range(1, 20))
    for number, index in ((1, 20), (2, 22)):
        progress.checkpoint(checkpoint(number, index))
        progress.snapshot_durable(checkpoint(number, index))
        run(progress, index + 1)
    assert len(machine.kept) == 1 + 19 + 4 - 8
    run(progress, 24, 25)
    assert set(machine.kept) == {"replica", "0.20", "0.21", "0.22", "0.23", "0.24", "0.25"}


async def test_markers_that_are_obsolete_at_a_start_are_deleted_too() -> None:
    machine = DurableLists()
    first = life(machine)
    run(first, 1, 2)
    first.checkpoint(checkpoint(1, 3))
    run(first, 4)
    first.checkpoint(checkpoint(2, 5))
    run(first, 6)
    again = life(machine)
    again.begin_at([checkpoint(1, 3), checkpoint(2, 5)])
    run(again, 6, 7)
    assert set(machine.kept) == {"replica", "0.3", "0.4", "0.5", "0.6", "0.7"}
    assert machine.executed == 5


async def test_state_of_another_replica_is_refused() -> None:
    machine = DurableLists()
    life(machine)
    with pytest.raises(OperationalError, match="whose data have the fingerprint 394d9859b5940604"):
        life(machine, 0xDEF)


async def test_invalid_markers_are_refused() -> None:
    machine = DurableLists()
    run(life(machine), 1)
    again = life(machine)
    with pytest.raises(InvariantViolation, match=r"marker of instance 0.1 has 1 results for 2 commands"):
        again.apply(instance(1))([b"k", b"k"], 0)
    machine.kept["what"] = b""
    with pytest.raises(OperationalError, match="a marker 'what' that PyDSM did not create"):
        life(machine)


async def test_machine_without_markers_has_no_tracker() -> None:
    assert tracker_of(Lists(), Lists().apply, INCARNATION) is None


# A whole node, with the ledger of the examples


class CountingLedger(Ledger):
    """Counts the batches that it executes."""

    executed = 0

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        self.executed += 1
        return super().apply(commands, timestamp_ms)


class Alone:
    """A group of one, whose ledger is beside its data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "ledger.sqlite"

    @asynccontextmanager
    async def life(self, make: "type[CountingLedger] | None" = None) -> AsyncIterator[tuple[Node, CountingLedger]]:
        identity = Identity("test", "r1", ME, 1)

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> MemoryTransport:
            return MemoryTransport(LocalIdentity("test", ME, 1, incarnation), MemoryHub(), admit, starts)

        machine, files = (make or CountingLedger)(self.path), SnapshotFiles(self.directory, identity)
        parts = NodeComponents(machine, SqliteStore(self.directory, identity), transport, snapshots=files)
        node = Node(Config(ME, 1, checkpoint_instances_max=1000), parts)
        try:
            await node.start()
            yield node, machine
        finally:
            await node.stop(drain_seconds_max=0)

    def lose_ledger(self) -> None:
        """The file was removed."""
        for path in self.directory.glob("ledger.sqlite*"):
            path.unlink()

    def balances(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.path)) as file:
            return dict(file.execute("SELECT name, balance FROM accounts"))


async def ask(node: Node, *command: str | int) -> Answer:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    node.submit(json.dumps(command).encode(), answer.set_result)
    async with asyncio.timeout(10):
        return await answer


async def test_restarted_replica_executes_nothing_that_its_ledger_has(tmp_path: Path) -> None:
    group = Alone(tmp_path)
    async with group.life() as (node, _):
        await ask(node, "deposit", "A", 100)
        await node.maintenance.snapshot()
        await ask(node, "move", "A", "B", 30)
        assert isinstance(await ask(node, "move", "A", "B", 1000), CommandFailed)
    async with group.life() as (node, ledger):
        assert ledger.executed == 0
        assert await ask(node, "balance", "A") == 70
    assert group.balances() == {"A": 70, "B": 30}


async def test_ledger_that_was_lost_is_made_again_from_snapshot_and_records(tmp_path: Path) -> None:
    group = Alone(tmp_path)
    async with group.life() as (node, _):
        await ask(node, "deposit", "A", 100)
        await node.maintenance.snapshot()
        await ask(node, "move", "A", "B", 30)
    group.lose_ledger()
    async with group.life() as (node, ledger):
        assert ledger.executed == 1
        assert await ask(node, "balance", "B") == 30
    async with group.life() as (_, ledger):
        assert ledger.executed == 0
    assert group.balances() == {"A": 70, "B": 30}


@pytest.mark.parametrize("snapshots_behind", [False, True])
async def test_ledger_from_a_backup_catches_up(tmp_path: Path, snapshots_behind: bool) -> None:
    group, backup = Alone(tmp_path), tmp_path / "backup"
    async with group.life() as (node, _):
        await ask(node, "deposit", "A", 100)
    shutil.copy(group.path, backup)
    async with group.life() as (node, _):
        await ask(node, "move", "A", "B", 30)
        if snapshots_behind:
            await node.maintenance.snapshot()
        await ask(node, "move", "A", "B", 30)
    group.lose_ledger()
    shutil.copy(backup, group.path)
    async with group.life() as (node, _):
        assert await ask(node, "balance", "B") == 60
    assert group.balances() == {"A": 40, "B": 60}


async def test_a_replica_behind_its_ledger_takes_no_snapshot_until_it_has_caught_up(tmp_path: Path) -> None:
    group = Alone(tmp_path)
    async with group.life() as (node, _):
        for _ in range(3):
            await ask(node, "deposit", "A", 100)
            await node.maintenance.snapshot()
        await ask(node, "deposit", "A", 100)
    older, newest = sorted((tmp_path / "snapshots").glob("*.snapshot"))
    newest.unlink()
    async with group.life() as (node, ledger):
        assert ledger.executed == 0
        assert node.info()["snapshot"] == str(int(older.stem)), "none of the next, whose state the ledger is beyond"
        assert (await node.maintenance.snapshot()).number > int(newest.stem)
    assert group.balances() == {"A": 400}


async def test_a_retried_request_gets_its_first_result_also_if_its_batch_was_skipped(
    tmp_path: Path,
) -> None:
    async def send(node: Node, run: Run, *, is_retry: bool) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        command = json.dumps(["move", "A", "B", 30]).encode()
        node.submit_requests(run, [command], lambda offset, given: answer.set_result(given[0]), is_retry=is_retry)
        async with asyncio.timeout(10):
            return await answer

    group = Alone(tmp_path)
    async with group.life() as (node, _):
        await ask(node, "deposit", "A", 100)
        run = Run(request_at(node.grant().id, 1), 1)
        assert await send(node, run, is_retry=False) == 70
        await ask(node, "deposit", "A", 1)
    async with group.life() as (node, ledger):
        assert await send(node, run, is_retry=True) == 70
        assert ledger.executed == 0
    assert group.balances() == {"A": 71, "B": 30}


async def test_ledger_of_another_replica_keeps_the_replica_from_starting(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = Alone(tmp_path / "one"), Alone(tmp_path / "other")
    async with one.life() as (node, _):
        await ask(node, "deposit", "A", 100)
    shutil.copy(one.path, other.path)
    with pytest.raises(OperationalError, match="the machine's stored state belongs to a replica whose data"):
        async with other.life():
            pass
    assert one.balances() == {"A": 100}


async def test_ledger_is_closed_during_a_pause_and_has_everything_afterwards(tmp_path: Path) -> None:
    group = Alone(tmp_path)
    async with group.life() as (node, ledger):
        assert isinstance(ledger, DurableStateMachine)
        await ask(node, "deposit", "A", 100)
        await node.maintenance.pause()
        with pytest.raises(sqlite3.ProgrammingError):
            ledger.digest()
        await node.maintenance.resume()
        assert await ask(node, "balance", "A") == 100


async def test_command_that_raises_in_the_ledger_is_undone_and_the_rest_of_its_batch_kept(tmp_path: Path) -> None:
    class Careless(CountingLedger):
        def _execute(self, verb: str, account: str, *rest: str | int) -> Result:
            result = super()._execute(verb, account, *rest)
            if verb == "move":
                raise ZeroDivisionError("a mistake behind the move")
            return result

    group = Alone(tmp_path)
    async with group.life(Careless) as (node, _):
        answers: list[object] = []
        for command in (["deposit", "A", 100], ["move", "A", "B", 7], ["balance", "A"]):
            node.submit(json.dumps(command).encode(), answers.append)
        await eventually(lambda: len(answers) == 3, "all are answered")
        assert answers == [None, CommandRaised("ZeroDivisionError", ""), 100]
    async with group.life() as (node, _):
        assert await ask(node, "balance", "A") == 100


async def test_a_snapshot_of_the_ledger_is_consistent_and_restores_it(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path / "one"), Ledger(tmp_path / "other")
    await ledger.start()
    await other.start()
    ledger.apply([json.dumps(["deposit", f"{number}", number]).encode() for number in range(1200)], 0)
    ledger.commit("1", b"", ())
    before = ledger.digest()
    steps = ledger.snapshot()
    ledger.apply([b'["deposit", "7", 1]'], 0)
    ledger.commit("2", b"", ["1"])
    other.restore(steps)
    other.commit("1", b"", ())
    assert other.digest() == before != ledger.digest()
    await ledger.stop()
    await other.stop()
