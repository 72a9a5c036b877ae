"""Pause, resume and snapshot of whole nodes: nothing is lost, refused commands are not executed, others continue."""

import asyncio
from pathlib import Path

import pytest

from pydsm.client_protocol.answers import Answer, Overloaded
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.machines.kv import encode
from pydsm.runtime.apply_gate import ApplyQueueLimits, MachinePhase
from pydsm.runtime.maintenance import PauseReport, ResumeReport
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, not_ready_reason
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles, SnapshotWriter
from tests.unit.runtime.test_node import group as group_in_memory
from tests.unit.runtime.test_snapshots import Counting, Group, group
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio


class Opened(Counting):
    """Must be started before it executes; a test can make its start fail."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = False
        self.broken = False

    async def start(self) -> None:
        if self.broken:
            raise OSError("its file is gone")
        self.runs = True

    async def stop(self) -> None:
        self.runs = False

    def apply(self, commands: object, timestamp_ms: int) -> list[object]:
        assert self.runs, "executed while it was stopped"
        return super().apply(commands, timestamp_ms)  # type: ignore[arg-type]


def submit(node: Node, key: int, value: int) -> "asyncio.Future[Answer]":
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    node.submit(encode([b"SET", b"%d" % key, b"%d" % value]), answer.set_result)
    return answer


async def with_opened(nodes: Group) -> tuple[Node, Opened]:
    """Replica 2 again, with a machine that must be started."""
    await nodes.nodes[2].stop()
    machine = Opened()
    return await nodes.start(2, machine), machine


async def test_a_paused_replica_continues_to_vote_and_catches_up_when_resumed(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        node, machine = await with_opened(nodes)
        await nodes.set_many(0, 20, 0, 1, 2)
        assert await node.maintenance.pause() == PauseReport(already=False, commands_unanswered=0)
        executed = machine.executed
        await nodes.nodes[0].stop()  # so that agreement needs the paused replica
        del nodes.machines[0]
        await nodes.set_many(20, 100, 1)
        assert machine.executed == executed
        assert node.observe().apply_queue_batches >= 100
        assert (await node.maintenance.resume()).batches >= 100
        await nodes.agree()
        await nodes.set_many(120, 20, 1, 2)
        await nodes.agree()


async def test_commands_to_a_paused_replica_are_refused_and_it_is_not_ready(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        node = nodes.nodes[1]
        await node.maintenance.pause()
        answer = await submit(node, 1, 1)
        assert answer == Overloaded("this replica is paused for maintenance; submit elsewhere")
        reason = not_ready_reason(node.observe(), ReadyLimits())
        assert reason == "it is paused: 0 batches wait to be executed"
        await node.maintenance.resume()
        assert await submit(node, 1, 1) == "OK"


async def test_commands_that_cannot_be_answered_before_the_pause_are_answered_after_it(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[0].stop()
        await nodes.nodes[1].stop()
        answer = submit(nodes.nodes[2], 1, 1)
        report = await nodes.nodes[2].maintenance.pause(drain_seconds_max=0.05)
        assert report == PauseReport(already=False, commands_unanswered=1)
        await nodes.start(0)
        await eventually(lambda: nodes.nodes[2].observe().apply_queue_batches > 0, "it is agreed on")
        assert not answer.done()
        await nodes.nodes[2].maintenance.resume()
        assert await asyncio.wait_for(answer, 10) == "OK"


async def test_pausing_twice_and_resuming_a_running_machine_are_reported(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        maintenance = nodes.nodes[0].maintenance
        assert await maintenance.resume() == ResumeReport(already=True, batches=0, seconds=0.0)
        await maintenance.pause()
        assert await maintenance.pause() == PauseReport(already=True, commands_unanswered=0)


async def test_replica_that_holds_too_much_takes_no_part_and_catches_up_afterwards(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        node = nodes.nodes[2]
        node._gate._limits = ApplyQueueLimits(commands_max=10)
        await node.maintenance.pause()
        await nodes.set_many(0, 200, 0, 1)
        seen = node.observe()
        assert seen.apply_queue_batches < 80, "it took what was on its way, and then nothing more"
        await node.maintenance.resume()
        await nodes.agree()
        await nodes.set_many(200, 20, 0, 1, 2)
        await nodes.agree()


async def test_machine_that_does_not_start_again_is_shown_and_nothing_is_lost(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        node, machine = await with_opened(nodes)
        await node.maintenance.pause()
        await nodes.set_many(0, 20, 0, 1)
        machine.broken = True
        with pytest.raises(OperationalError, match="its file is gone"):
            await node.maintenance.resume()
        seen = node.observe()
        assert seen.phase is MachinePhase.PAUSED
        assert "(the machine did not start: OSError: its file is gone)" in str(not_ready_reason(seen, ReadyLimits()))
        machine.broken = False
        await node.maintenance.resume()
        await nodes.agree()


async def test_replica_whose_machine_does_not_start_does_not_start(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[2].stop()
        machine = Opened()
        machine.broken = True
        with pytest.raises(OperationalError, match="the machine did not start: OSError: its file is gone"):
            await nodes.start(2, machine)


async def test_replica_that_is_stopped_while_paused_begins_running_with_everything(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[2].maintenance.pause()
        await nodes.set_many(0, 50, 0, 1)
        await nodes.nodes[2].stop()
        node, machine = await nodes.start(2, Opened()), nodes.machines[2]
        assert node.observe().phase is MachinePhase.RUNNING
        await nodes.agree()
        assert machine.executed >= 50


async def test_a_pause_abandons_a_snapshot_and_after_resume_the_next_one_is_taken(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        node = nodes.nodes[2]
        await node.maintenance.pause()
        await nodes.set_many(0, 60, 0, 1)
        before = node.info()["snapshot"]
        await node.maintenance.resume()
        await eventually(lambda: node.info()["snapshot"] > before, "a checkpoint that was held has a snapshot")


async def test_cancelled_pause_leaves_the_replica_running(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[0].stop()
        await nodes.nodes[1].stop()
        node = nodes.nodes[2]
        answer = submit(node, 1, 1)
        pausing = asyncio.create_task(node.maintenance.pause(drain_seconds_max=60))
        await eventually(lambda: node.observe().phase is MachinePhase.PAUSING, "it waits for answers")
        with pytest.raises(UsageError, match="the machine is pausing"):
            await node.maintenance.resume()
        pausing.cancel()
        await asyncio.wait((pausing,))
        assert node.observe().phase is MachinePhase.RUNNING
        await nodes.start(0)
        assert await asyncio.wait_for(answer, 10) == "OK"
        assert await asyncio.wait_for(submit(node, 2, 2), 10) == "OK"


async def test_a_reported_snapshot_is_durable_and_contains_the_executed_commands(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.set_many(0, 5, 0)
        report = await nodes.nodes[1].maintenance.snapshot()
        file = SnapshotFiles(tmp_path / "1", Identity("test", "r1", ReplicaId(1), 3)).load()[-1]
        assert report.number == file.checkpoint.number
        assert report.position[0] >= 6, "the checkpoint that sets agreed time, and five commands"
        assert (report.path, report.chunks) == (str(file.path), len(file.digests))
        again = await nodes.nodes[1].maintenance.snapshot()
        assert again.number > report.number


async def test_snapshot_where_none_are_taken_is_refused() -> None:
    async with group_in_memory(1) as nodes:
        with pytest.raises(UsageError, match="takes no snapshots: its data are in memory"):
            await nodes.nodes[0].maintenance.snapshot()


async def test_snapshot_of_a_paused_replica_is_refused(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[0].maintenance.pause()
        with pytest.raises(UsageError, match="is paused: resume it first"):
            await nodes.nodes[0].maintenance.snapshot()


async def test_a_snapshot_without_agreement_times_out(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[0].stop()
        await nodes.nodes[1].stop()
        maintenance = nodes.nodes[2].maintenance
        waiting = asyncio.create_task(maintenance.snapshot(60))
        await eventually(lambda: nodes.nodes[2].info()["proposed"] != "0", "it is proposed")
        with pytest.raises(UsageError, match="another snapshot was requested"):
            await maintenance.snapshot()
        waiting.cancel()
        await asyncio.wait((waiting,))
        with pytest.raises(OperationalError, match=r"no snapshot was durable within 0.05 s"):
            await maintenance.snapshot(0.05)


async def test_snapshot_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: SnapshotWriter) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(SnapshotWriter, "commit", full)
    async with group(tmp_path) as nodes:
        with pytest.raises(OperationalError, match="could not be written"):
            await nodes.nodes[0].maintenance.snapshot()


async def test_a_failure_is_reported_to_callers_that_wait_for_a_snapshot(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        await nodes.nodes[0].stop()
        await nodes.nodes[1].stop()
        node = nodes.nodes[2]
        waiting = asyncio.create_task(node.maintenance.snapshot(60))
        await eventually(lambda: node.info()["proposed"] != "0", "it is proposed")
        node._fail(OperationalError("disk is full"))
        with pytest.raises(OperationalError, match="the replica stopped meanwhile: disk is full"):
            await asyncio.wait_for(waiting, 10)
