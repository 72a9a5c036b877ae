"""Whole nodes in one process, over the memory transport: answers, agreement, restart, and stopping when it must."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pydsm.core.config import Config
from pydsm.core.effects import Record
from pydsm.core.faults import BrokenInvariant, PeerFault, WorldFault
from pydsm.core.ids import InstanceId, ReplicaId, request_at, session_of
from pydsm.core.messages import NOP, Batch, Commit, Footprint, PreAccept, Run
from pydsm.machines.base import CommandFailed
from pydsm.runtime import admission
from pydsm.runtime import node as node_module
from pydsm.runtime.batching import Answer, Overloaded
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, why_not_ready
from pydsm.runtime.parts import Parts
from pydsm.storage.identity import Identity, ReplicaStore
from pydsm.storage.memory import MemoryStore
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Self
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.unit.runtime.machines import Lists
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio


class FragileStore(MemoryStore):
    """Fails when told to."""

    broken = False

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        if self.broken:
            raise WorldFault("disk is full")
        super().write(records)


class Group:
    """Nodes that share a hub; each can be replaced."""

    def __init__(self, replicas: int, make_machine: Callable[[], Lists] = Lists) -> None:
        self.make_machine = make_machine
        self.hub = MemoryHub()
        self.replicas = replicas
        self.nodes: dict[int, Node] = {}
        self.machines: dict[int, Lists] = {}

    async def start(self, replica: int, store: ReplicaStore | None = None) -> Node:
        """A new node in this place."""
        machine = self.make_machine()
        config = Config(ReplicaId(replica), self.replicas, recovery_timeout_ticks=100, gossip_ticks=50)

        def transport(incarnation: int, admit: object) -> MemoryTransport:
            me = Self("test", ReplicaId(replica), self.replicas, incarnation)
            return MemoryTransport(me, self.hub, admit)  # type: ignore[arg-type]

        node = Node(config, Parts(machine, store or MemoryStore(), transport))
        await node.start()
        self.nodes[replica], self.machines[replica] = node, machine
        return node

    async def ask(self, replica: int, command: str) -> Answer:
        """Submit and wait for the answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.nodes[replica].submit(command.encode(), answer.set_result)
        async with asyncio.timeout(10):
            return await answer

    def digests(self) -> set[bytes]:
        """One when all machines are in the same state."""
        return {machine.digest() for machine in self.machines.values()}


@asynccontextmanager
async def group(
    replicas: int = 3, *stores: ReplicaStore, make_machine: Callable[[], Lists] = Lists
) -> AsyncIterator[Group]:
    """A running group; stopped at the end."""
    made = Group(replicas, make_machine)
    for replica in range(replicas):
        await made.start(replica, stores[replica] if replica < len(stores) else None)
    try:
        yield made
    finally:
        for node in made.nodes.values():
            await node.stop(drain_seconds_max=0)


@pytest.mark.parametrize("replicas", [1, 3, 5])
async def test_command_is_answered_and_reaches_every_replica(replicas: int) -> None:
    async with group(replicas) as nodes:
        assert await nodes.ask(0, "a one") == 1
        assert await nodes.ask(replicas - 1, "a two") == 2
        assert await nodes.ask(0, "a") == (b"one", b"two")
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


async def test_failed_command_is_an_answer() -> None:
    async with group() as nodes:
        assert await nodes.ask(0, "a fail") == CommandFailed("as asked")
        assert await nodes.ask(0, "a one") == 1


async def test_commands_of_one_turn_share_an_instance_and_keep_their_order() -> None:
    async with group() as nodes:
        answers: list[Answer] = []
        for word in range(500):
            nodes.nodes[0].submit(b"a %d" % word, answers.append)
        await eventually(lambda: len(answers) == 500, "all are answered")
        assert answers == list(range(1, 501))
        assert nodes.nodes[0].info()["proposed"] == "1"


async def test_concurrent_writers_of_one_key_see_one_order() -> None:
    async with group() as nodes:
        lengths = await asyncio.gather(*(nodes.ask(turn % 3, f"a {turn}") for turn in range(60)))
        assert sorted(map(str, lengths)) == sorted(map(str, range(1, 61)))
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


async def test_minority_may_be_missing() -> None:
    async with group() as nodes:
        await nodes.nodes.pop(2).stop()
        del nodes.machines[2]
        assert await nodes.ask(0, "a one") == 1
        assert await nodes.ask(1, "a two") == 2


async def test_restarted_node_has_its_data_and_catches_up(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r1", ReplicaId(0), 3))

    async with group(3, store()) as nodes:
        assert await nodes.ask(0, "a one") == 1
        await nodes.nodes[0].stop()
        assert await nodes.ask(1, "a two") == 2
        await nodes.start(0, store())
        assert await nodes.ask(0, "a three") == 3
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


async def test_a_node_whose_directory_is_removed_acknowledges_nothing_more(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data", Identity("test", "r1", ReplicaId(0), 3))
    async with group(3, store) as nodes:
        assert await nodes.ask(0, "a one") == 1
        shutil.rmtree(tmp_path / "data")
        answers: list[Answer] = []
        nodes.nodes[0].submit(b"a two", answers.append)
        async with asyncio.timeout(10):
            failure = await nodes.nodes[0].failure
        assert isinstance(failure, WorldFault)
        assert "was removed or replaced while the replica ran" in str(failure)
        assert not any(isinstance(answer, int) for answer in answers)
        assert await nodes.ask(1, "a three") in (2, 3)


async def test_a_node_without_anything_to_write_notices_that_its_directory_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "FILES_CHECK_SECONDS", 0.05)
    store = SqliteStore(tmp_path / "data", Identity("test", "r1", ReplicaId(0), 1))
    async with group(1, store) as nodes:
        assert await nodes.ask(0, "a one") == 1
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        (tmp_path / "data").rename(tmp_path / "away")
        (tmp_path / "copy").rename(tmp_path / "data")
        async with asyncio.timeout(10):
            failure = await nodes.nodes[0].failure
        assert "another one is in its place" in str(failure)


async def test_node_that_comes_back_without_its_data_is_not_let_in() -> None:
    async with group() as nodes:
        assert await nodes.ask(0, "a one") == 1
        await nodes.nodes[0].stop()
        restarted = await nodes.start(0)
        assert restarted.info()["connected"] == ""
        assert await nodes.ask(1, "a two") == 2


async def test_failing_disk_stops_the_node_before_it_acknowledges_anything(caplog: pytest.LogCaptureFixture) -> None:
    store = FragileStore()
    async with group(3, store) as nodes:
        assert await nodes.ask(0, "a one") == 1
        store.broken = True
        answers: list[Answer] = []
        nodes.nodes[0].submit(b"a two", answers.append)
        failure = await asyncio.wait_for(nodes.nodes[0].failure, 5)
        assert isinstance(failure, WorldFault)
        assert answers == []
        assert "replica 0 stops: disk is full" in caplog.text
        assert isinstance(await nodes.ask(0, "a three"), Overloaded)
        assert await nodes.ask(1, "b one") == 1


async def test_broken_machine_stops_the_node_with_evidence(caplog: pytest.LogCaptureFixture) -> None:
    async with group(1) as nodes:
        nodes.nodes[0].submit(b"a crash", lambda answer: None)
        failure = await asyncio.wait_for(nodes.nodes[0].failure, 5)
        assert isinstance(failure, RuntimeError)
        assert "stops to protect the data; frontier (1,)" in caplog.text


async def test_broken_invariant_stops_the_node(caplog: pytest.LogCaptureFixture) -> None:
    async with group() as nodes:
        assert await nodes.ask(0, "a one") == 1
        nodes.nodes[0]._receive(ReplicaId(1), Commit(InstanceId(ReplicaId(0), 1), NOP, (0, 0, 0)))
        assert isinstance(await asyncio.wait_for(nodes.nodes[0].failure, 5), BrokenInvariant)
        assert "the message that did it, from replica 1: Commit" in caplog.text


async def test_fault_of_a_peer_is_left_to_the_transport() -> None:
    async with group() as nodes:
        not_its_own = PreAccept(InstanceId(ReplicaId(0), 1), Batch((), (), Footprint()), (0, 0, 0))
        with pytest.raises(PeerFault):
            nodes.nodes[0]._receive(ReplicaId(1), not_its_own)
        assert await nodes.ask(0, "a one") == 1


async def test_what_is_far_ahead_is_dropped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A replica that was away for long must hear that it needs a snapshot, so the connection stays."""
    async with group() as nodes:
        for index in (1 << 40, 1 << 39):
            nodes.nodes[0]._receive(ReplicaId(1), Commit(InstanceId(ReplicaId(0), index), NOP, (0, 0, 0)))
        assert await nodes.ask(0, "a one") == 1
        assert caplog.text.count("this replica is far behind, and needs a snapshot") == 1


async def test_stopping_node_answers_what_it_took_and_refuses_the_rest() -> None:
    async with group() as nodes:
        answers: list[Answer] = []
        nodes.nodes[0].submit(b"a one", answers.append)
        await nodes.nodes[0].stop()
        assert answers == [1]
        assert isinstance(await nodes.ask(0, "a two"), Overloaded)


def is_ready(node: Node) -> bool:
    """Whether clients may be sent to it, whatever its lag was allowed to be."""
    return why_not_ready(node.observe(), ReadyLimits(lag_instances_max=0)) is None


async def test_node_is_ready_once_a_quorum_has_told_how_far_it_is_and_no_longer_without_it() -> None:
    async with group() as nodes:
        node = nodes.nodes[0]
        await eventually(lambda: is_ready(node), "the node is ready")
        assert await nodes.ask(0, "a one") == 1
        await eventually(lambda: is_ready(node), "the node is ready after work")
        await nodes.nodes[1].stop()
        assert is_ready(node)
        await nodes.nodes[2].stop()
        assert not is_ready(node)


async def test_node_of_a_group_of_one_is_ready_at_once() -> None:
    async with group(1) as nodes:
        assert is_ready(nodes.nodes[0])


async def test_observation_has_the_epoch_of_every_peer_that_was_met() -> None:
    async with group(3) as nodes:
        assert nodes.nodes[0].observe().epochs == {1: 0, 2: 0}


async def test_observation_has_what_the_node_did_and_does_not_change_with_it() -> None:
    async with group(1) as nodes:
        assert await nodes.ask(0, "a one") == 1
        seen = nodes.nodes[0].observe()
        assert await nodes.ask(0, "a two") == 2
        assert (seen.counters.proposed, seen.frontier, seen.known, seen.lag) == (1, (1,), (1,), (0,))
        assert nodes.nodes[0].observe().counters.proposed == 2
        await nodes.nodes[0].stop()
        assert why_not_ready(nodes.nodes[0].observe(), ReadyLimits()) == "it is stopping"


async def test_observation_of_a_failed_node_says_why_in_one_line() -> None:
    store = FragileStore()
    async with group(1, store) as nodes:
        store.broken = True
        nodes.nodes[0].submit(b"a one", lambda answer: None)
        await asyncio.wait_for(nodes.nodes[0].failure, 5)
        assert nodes.nodes[0].observe().failure == "disk is full"


# Upkeep


class Punctual(Lists):
    """Wants `due done` to be executed, for as long as that has not happened."""

    def overdue(self, now_ms: int) -> list[bytes]:
        """See `machines.base.Upkeep`."""
        return [] if b"due" in self.lists else [b"due done"]


async def test_what_a_machine_says_is_due_is_agreed_on_and_executed_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "UPKEEP_SECONDS", 0.01)
    async with group(make_machine=Punctual) as nodes:
        await eventually(
            lambda: all(b"due" in one.lists for one in nodes.machines.values()), "it is executed everywhere"
        )
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


async def test_what_is_due_is_proposed_once_while_nobody_can_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "UPKEEP_SECONDS", 0.001)
    alone = Group(3, Punctual)
    node = await alone.start(0)
    await eventually(lambda: node.observe().commands_waiting > 0, "it is proposed")
    rounds = 0

    def another_round() -> bool:
        nonlocal rounds
        rounds += 1
        return rounds > 50

    await eventually(another_round, "upkeep has had time to repeat itself")
    assert node.observe().commands_waiting == 1
    await node.stop(drain_seconds_max=0)


async def test_a_node_that_stops_in_good_order_knows_afterwards_what_it_had_executed(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r3", ReplicaId(2), 3))

    async with group(3, MemoryStore(), MemoryStore(), store()) as nodes:
        await nodes.ask(0, "a one")
        await eventually(lambda: len(nodes.digests()) == 1, "the third node has executed it")
        await nodes.nodes[2].stop()
    alone = Group(3)
    node = await alone.start(2, store())
    assert alone.machines[2].lists == {b"a": [b"one"]}
    await node.stop(drain_seconds_max=0)


async def test_a_request_that_comes_twice_through_different_replicas_is_executed_once() -> None:
    async with group(3) as nodes:
        run = Run(request_at(nodes.nodes[0].grant().id, 1), 1)

        async def ask(replica: int, *, again: bool) -> Answer:
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            nodes.nodes[replica].submit_requests(
                run, [b"k word"], lambda offset, given: answer.set_result(given[0]), again=again
            )
            async with asyncio.timeout(10):
                return await answer

        together = await asyncio.gather(ask(0, again=False), ask(1, again=True), ask(2, again=True))
        assert list(together) == [1, 1, 1]
        assert await ask(1, again=True) == 1
        assert await nodes.ask(2, "k") == (b"word",)


async def test_no_grant_takes_the_requests_of_another() -> None:
    async with group(1) as nodes:
        one, other = nodes.nodes[0].grant(), nodes.nodes[0].grant()
        assert session_of(one.id) != session_of(other.id)
        assert not other.takes(request_at(one.id, 1), 1)


async def test_a_session_with_too_much_unacknowledged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SESSION_RESULTS_MAX", 2)
    monkeypatch.setattr(admission, "SESSIONS_MAX", 1)
    async with group(1) as nodes:
        node, answers = nodes.nodes[0], list[Answer]()
        grant = node.grant()

        def submit(run: Run) -> None:
            node.submit_requests(run, [b"k x"] * run.count, lambda _, given: answers.extend(given), again=False)

        submit(Run(request_at(grant.id, 1), 2))
        await eventually(lambda: answers == [1, 2], "the first are executed")
        submit(Run(request_at(grant.id, 3), 1, 1))
        submit(Run(request_at(node.grant().id, 1), 1))
        assert [type(answer) for answer in answers[2:]] == [Overloaded, Overloaded]
        submit(Run(request_at(grant.id, 4), 1, 3))
        await eventually(lambda: answers[4:] == [3], "what acknowledges enough is taken")
