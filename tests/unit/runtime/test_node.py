"""Whole nodes in one process, over the memory transport: answers, agreement, restart, and stopping when it must."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pydsm.client_protocol.answers import Answer, Overloaded
from pydsm.core.log.conflicts import Relation
from pydsm.core.protocol.starts import PeerReport
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Record
from pydsm.core.types.errors import InvariantViolation, OperationalError, PeerProtocolError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import InstanceId, ReplicaId, request_at, session_of
from pydsm.core.types.messages import NOP, Batch, Commit, Footprint, Frontier, PreAccept, Run
from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.runtime import admission, file_checks
from pydsm.runtime import node as node_module
from pydsm.runtime.clock import unix_ms
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, not_ready_reason
from pydsm.runtime.starts import StartLimits
from pydsm.storage.identity import Identity, ReplicaStore
from pydsm.storage.memory import MemoryStore
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.unit.runtime.machines import Lists
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio


class FragileStore(MemoryStore):
    """A machine that a test can make fail."""

    broken = False

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        if self.broken:
            raise OperationalError("disk is full")
        super().write(records)


QUICK = StartLimits(grace_seconds_min=0.02, save_seconds=0.02)


class Group:
    """Nodes that share a hub; each can be replaced."""

    def __init__(
        self, replicas: int, make_machine: Callable[[], Lists] = Lists, relation: Relation | None = None
    ) -> None:
        self.make_machine = make_machine
        self.relation = relation
        self.hub = MemoryHub()
        self.replicas = replicas
        self.nodes: dict[int, Node] = {}
        self.machines: dict[int, Lists] = {}

    async def start(self, replica: int, store: ReplicaStore | None = None) -> Node:
        """A new node in this place."""
        machine = self.make_machine()
        config = Config(ReplicaId(replica), self.replicas, recovery_timeout_ticks=100, gossip_ticks=50)

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> MemoryTransport:
            me = LocalIdentity("test", ReplicaId(replica), self.replicas, incarnation)
            return MemoryTransport(me, self.hub, admit, starts)

        node = Node(config, NodeComponents(machine, store or MemoryStore(), transport, self.relation, starts=QUICK))
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
    replicas: int = 3,
    *stores: ReplicaStore,
    make_machine: Callable[[], Lists] = Lists,
    relation: Relation | None = None,
) -> AsyncIterator[Group]:
    """A running group; stopped at the end."""
    made = Group(replicas, make_machine, relation)
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
        assert nodes.nodes[0].info()["proposed"] == "2", "the checkpoint that sets agreed time, and this"


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
        assert isinstance(failure, OperationalError)
        assert "was removed or replaced while the replica ran" in str(failure)
        assert not any(isinstance(answer, int) for answer in answers)
        assert await nodes.ask(1, "a three") in (2, 3)


async def test_a_node_without_anything_to_write_notices_that_its_directory_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_checks, "FILES_CHECK_SECONDS", 0.05)
    store = SqliteStore(tmp_path / "data", Identity("test", "r1", ReplicaId(0), 1))
    async with group(1, store) as nodes:
        assert await nodes.ask(0, "a one") == 1
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        (tmp_path / "data").rename(tmp_path / "away")
        (tmp_path / "copy").rename(tmp_path / "data")
        async with asyncio.timeout(10):
            failure = await nodes.nodes[0].failure
        assert "another one is in its place" in str(failure)


async def test_a_node_that_returns_without_its_data_is_refused() -> None:
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
        assert isinstance(failure, OperationalError)
        assert answers == []
        assert "replica 0 stops: disk is full" in caplog.text
        assert isinstance(await nodes.ask(0, "a three"), Overloaded)
        assert await nodes.ask(1, "b one") == 1


async def test_a_command_that_raises_is_answered_with_the_error_and_no_replica_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with group() as nodes:
        answers: list[Answer] = []
        for command in (b"a one", b"a crash", b"a two", b"b crash"):
            nodes.nodes[0].submit(command, answers.append)
        await eventually(lambda: len(answers) == 4, "all are answered")
        crashed = CommandRaised("RuntimeError", "")
        assert answers == [1, crashed, 2, crashed]
        assert await nodes.ask(1, "a three") == 3
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")
        assert nodes.nodes[0].observe().commands_raised == 2
    assert caplog.text.count("a command raised RuntimeError") == 3, "once at each replica"


async def test_command_that_raised_is_passed_over_again_after_a_restart(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r1", ReplicaId(0), 1))

    async with group(1, store()) as nodes:
        assert await nodes.ask(0, "a one") == 1
        assert await nodes.ask(0, "a crash") == CommandRaised("RuntimeError", "")
        await nodes.nodes[0].stop()
        await nodes.start(0, store())
        assert await nodes.ask(0, "a two") == 2


async def test_machine_that_lacks_memory_stops_its_node_and_its_restart_executes_again(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r1", ReplicaId(0), 1))

    class Full(Lists):
        full = True

        def _apply(self, key: bytes, word: bytes | None = None) -> Result:
            if self.full and word is not None:
                raise MemoryError
            return super()._apply(key, word)

    answers: list[Answer] = []
    async with group(1, store(), make_machine=Full) as nodes:
        nodes.nodes[0].submit(b"a one", answers.append)
        assert isinstance(await asyncio.wait_for(nodes.nodes[0].failure, 5), MemoryError)
        await nodes.nodes[0].stop()
        nodes.make_machine = Lists
        await nodes.start(0, store())
        assert await nodes.ask(0, "a two") == 2
    assert answers == []


async def test_footprint_that_raises_fails_its_command_and_not_the_node() -> None:
    class Unsure(Lists):
        def footprint(self, commands: Sequence[bytes]) -> Footprint:
            if any(b"?" in command for command in commands):
                raise ZeroDivisionError("of what")
            return super().footprint(commands)

    async with group(make_machine=Unsure) as nodes:
        answers: list[Answer] = []
        for command in (b"a one", b"a ?", b"a two"):
            nodes.nodes[0].submit(command, answers.append)
        await eventually(lambda: len(answers) == 3, "all are answered")
        (failed,) = (answer for answer in answers if isinstance(answer, CommandFailed))
        assert "footprint raised ZeroDivisionError: of what" in str(failed)
        assert await nodes.ask(0, "a") == (b"one", b"two")


async def test_callback_that_raises_leaves_the_others_answered(caplog: pytest.LogCaptureFixture) -> None:
    async with group(1) as nodes:
        answers: list[Answer] = []

        def raises(answer: Answer) -> None:
            raise LookupError("a caller's mistake")

        for reply in (answers.append, raises, answers.append):
            nodes.nodes[0].submit(b"a word", reply)
        await eventually(lambda: answers == [1, 3], "the others are answered")
        assert await nodes.ask(0, "a word") == 4
    assert caplog.text.count("a callback raised") == 1


async def test_broken_invariant_stops_the_node(caplog: pytest.LogCaptureFixture) -> None:
    async with group() as nodes:
        assert await nodes.ask(0, "a one") == 1
        nodes.nodes[0]._receive(ReplicaId(1), Commit(InstanceId(ReplicaId(0), 1), NOP, (0, 0, 0)))
        assert isinstance(await asyncio.wait_for(nodes.nodes[0].failure, 5), InvariantViolation)
        assert "the message that caused the failure, from replica 1: Commit" in caplog.text


async def test_fault_of_a_peer_is_left_to_the_transport() -> None:
    async with group() as nodes:
        not_its_own = PreAccept(InstanceId(ReplicaId(0), 1), Batch((), (), Footprint()), (0, 0, 0))
        with pytest.raises(PeerProtocolError):
            nodes.nodes[0]._receive(ReplicaId(1), not_its_own)
        assert await nodes.ask(0, "a one") == 1


async def test_events_between_ticks_have_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the loop gets no processor between two ticks: the core must not take the pause for silence of others."""
    async with group() as nodes:
        node = nodes.nodes[0]
        before = node._core._state.now
        monkeypatch.setattr(node, "_epoch", node._epoch - 5)
        node._receive(ReplicaId(1), Frontier((0, 0, 0), (0, 0, 0)))
        assert node._core._state.now - before >= 5000
        monkeypatch.setattr(node, "_epoch", node._epoch - 5)
        node._propose(Batch((), (), Footprint()))
        assert node._core._state.now - before >= 10_000
        monkeypatch.setattr(node, "_epoch", node._epoch - 5)
        node._call_core(lambda: None)
        assert node._core._state.now - before >= 15_000


async def test_a_message_about_a_distant_index_is_dropped_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A replica that was down for long must be informed that it needs a snapshot, so the connection stays."""
    async with group() as nodes:
        for index in (1 << 40, 1 << 39):
            nodes.nodes[0]._receive(ReplicaId(1), Commit(InstanceId(ReplicaId(2), index), NOP, (0, 0, 0)))
        assert await nodes.ask(0, "a one") == 1
        assert caplog.text.count("this replica is far behind, and catches up in steps or with a snapshot") == 1


async def test_a_stopping_node_answers_accepted_commands_and_refuses_others() -> None:
    async with group() as nodes:
        answers: list[Answer] = []
        nodes.nodes[0].submit(b"a one", answers.append)
        await nodes.nodes[0].stop()
        assert answers == [1]
        assert isinstance(await nodes.ask(0, "a two"), Overloaded)


def is_ready(node: Node) -> bool:
    """Whether the node is ready, with any lag."""
    return not_ready_reason(node.observe(), ReadyLimits(lag_instances_max=0)) is None


async def test_a_node_is_ready_while_a_quorum_reports_its_frontier() -> None:
    async with group() as nodes:
        node = nodes.nodes[0]
        await eventually(lambda: is_ready(node), "the node is ready")
        assert await nodes.ask(0, "a one") == 1
        await eventually(lambda: is_ready(node), "the node is ready after work")
        await nodes.nodes[1].stop()
        assert is_ready(node)
        await nodes.nodes[2].stop()
        assert not is_ready(node)


async def test_node_of_a_group_of_one_is_ready_when_it_has_executed_the_first_checkpoint() -> None:
    async with group(1) as nodes:
        await eventually(lambda: is_ready(nodes.nodes[0]), "the node is ready")
        assert nodes.nodes[0].info()["proposed"] == "1"


async def test_an_observation_has_the_epoch_of_every_peer_that_connected() -> None:
    async with group(3) as nodes:
        assert nodes.nodes[0].observe().epochs == {1: 0, 2: 0}


async def test_an_observation_contains_the_counters_and_does_not_change_later() -> None:
    async with group(1) as nodes:
        assert await nodes.ask(0, "a one") == 1
        seen = nodes.nodes[0].observe()
        assert await nodes.ask(0, "a two") == 2
        assert (seen.counters.proposed, seen.frontier, seen.known, seen.lag) == (2, (2,), (2,), (0,))
        assert nodes.nodes[0].observe().counters.proposed == 3
        await nodes.nodes[0].stop()
        assert not_ready_reason(nodes.nodes[0].observe(), ReadyLimits()) == "it is stopping"


async def test_the_observation_of_a_failed_node_has_the_reason_in_one_line() -> None:
    store = FragileStore()
    async with group(1, store) as nodes:
        store.broken = True
        nodes.nodes[0].submit(b"a one", lambda answer: None)
        await asyncio.wait_for(nodes.nodes[0].failure, 5)
        assert nodes.nodes[0].observe().failure == "disk is full"


# Upkeep


class Punctual(Lists):
    """Returns `due done` as due until it is executed."""

    def due_commands(self, now_ms: int) -> list[bytes]:
        """See `machines.base.SupportsScheduledCommands`."""
        return [] if b"due" in self.lists else [b"due done"]


async def test_due_commands_is_called_again_after_it_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(Punctual):
        asked = 0

        def due_commands(self, now_ms: int) -> list[bytes]:
            self.asked += 1
            if self.asked < 4:
                raise ArithmeticError("not yet")
            return super().due_commands(now_ms)

    monkeypatch.setattr(node_module, "SCHEDULED_COMMANDS_SECONDS", 0.001)
    async with group(1, make_machine=Late) as nodes:
        await eventually(lambda: b"due" in nodes.machines[0].lists, "it is executed all the same")
    assert caplog.text.count("ArithmeticError: not yet") == 1


async def test_due_commands_are_agreed_and_executed_at_every_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "SCHEDULED_COMMANDS_SECONDS", 0.01)
    async with group(make_machine=Punctual) as nodes:
        await eventually(
            lambda: all(b"due" in one.lists for one in nodes.machines.values()), "it is executed everywhere"
        )
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


async def test_due_commands_are_proposed_once_while_there_is_no_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "SCHEDULED_COMMANDS_SECONDS", 0.001)
    alone = Group(3, Punctual)
    node = await alone.start(0)
    node._clock.record(ReplicaId(1), unix_ms())  # a reading of a peer that was recently connected
    await eventually(lambda: node.observe().commands_waiting > 0, "it is proposed")
    rounds = 0

    def another_round() -> bool:
        nonlocal rounds
        rounds += 1
        return rounds > 50

    await eventually(another_round, "upkeep has had time to repeat itself")
    assert node.observe().commands_waiting == 1
    await node.stop(drain_seconds_max=0)


async def test_an_orderly_stop_stores_all_executed_instances(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r3", ReplicaId(2), 3))

    async with group(3, MemoryStore(), MemoryStore(), store()) as nodes:
        await nodes.ask(0, "a one")
        await eventually(lambda: len(nodes.digests()) == 1, "the third node has executed it")
        await nodes.nodes[2].stop()
    alone = Group(3)
    node = await alone.start(2, store())
    await eventually(lambda: alone.machines[2].lists == {b"a": [b"one"]}, "it has executed that again, without peers")
    await node.stop(drain_seconds_max=0)


async def test_a_request_sent_through_two_replicas_is_executed_once() -> None:
    async with group(3) as nodes:
        run = Run(request_at(nodes.nodes[0].grant().id, 1), 1)

        async def ask(replica: int, *, is_retry: bool) -> Answer:
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            nodes.nodes[replica].submit_requests(
                run, [b"k word"], lambda offset, given: answer.set_result(given[0]), is_retry=is_retry
            )
            async with asyncio.timeout(10):
                return await answer

        together = await asyncio.gather(ask(0, is_retry=False), ask(1, is_retry=True), ask(2, is_retry=True))
        assert list(together) == [1, 1, 1]
        assert await ask(1, is_retry=True) == 1
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
            node.submit_requests(run, [b"k x"] * run.count, lambda _, given: answers.extend(given), is_retry=False)

        submit(Run(request_at(grant.id, 1), 2))
        await eventually(lambda: answers == [1, 2], "the first are executed")
        submit(Run(request_at(grant.id, 3), 1, 1))
        submit(Run(request_at(node.grant().id, 1), 1))
        assert [type(answer) for answer in answers[2:]] == [Overloaded, Overloaded]
        submit(Run(request_at(grant.id, 4), 1, 3))
        await eventually(lambda: answers[4:] == [3], "what acknowledges enough is taken")


class StartsWithoutReports(PlainStarts):
    """Starts of a process that has no records of peers."""

    def report_on(self, peer: ReplicaId) -> PeerReport:
        """See `transport.base.StartExchange`."""
        return PeerReport(self.replica, None, 0, 0, (0,) * self.replicas)


def impostor(nodes: Group, replica: int, incarnation: int) -> MemoryTransport:
    """A process that makes the handshake as this replica, and that every replica accepts."""
    me = LocalIdentity("test", ReplicaId(replica), nodes.replicas, incarnation)
    return MemoryTransport(me, nodes.hub, lambda peer, mark: None, StartsWithoutReports(me.replica, me.replicas))


async def test_a_replica_that_only_made_a_handshake_does_not_lock_out_the_right_one() -> None:
    nodes = Group(3)
    stores = [MemoryStore() for _ in range(3)]
    for replica in (0, 1):
        await nodes.start(replica, stores[replica])
    wrong = impostor(nodes, 2, 666)
    await wrong.start(lambda sender, message: None)
    wrong.send((ReplicaId(0), ReplicaId(1)), Frontier((0, 0, 0), (0, 0, 0)))
    await eventually(
        lambda: all(2 in node.observe().last_report_age_seconds for node in nodes.nodes.values()), "it is heard"
    )
    await wrong.stop()
    await nodes.start(2, stores[2])
    assert await nodes.ask(2, "a one") == 1
    known = fingerprint(stores[2].incarnation)
    await eventually(lambda: stores[0].peers().get(ReplicaId(2)) == known, "the true one is remembered")
    for node in nodes.nodes.values():
        await node.stop(drain_seconds_max=0)


async def test_a_replica_that_took_part_is_recorded_and_another_one_with_its_name_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stores = [MemoryStore() for _ in range(3)]
    async with group(3, *stores) as nodes:
        assert stores[0].peers() == {}
        assert await nodes.ask(2, "a one") == 1
        await eventually(lambda: all(len(store.peers()) == 2 for store in stores), "all are remembered")
        assert stores[0].peers() == {peer: fingerprint(stores[peer].incarnation) for peer in (1, 2)}
        await nodes.nodes[2].stop()
        wrong = impostor(nodes, 2, 666)
        await wrong.start(lambda sender, message: None)
        assert wrong.connected == ()
        assert "replica 2 came back without its data" in caplog.text
        assert f"{stores[2].incarnation:x}" not in caplog.text
        await wrong.stop()
