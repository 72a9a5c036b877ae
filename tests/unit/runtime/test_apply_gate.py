"""The gate between agreement and the machine: which batches are executed immediately, which are held, and the order."""

import asyncio

import pytest

from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.effects import Execute, TakeCheckpoint
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.messages import Batch, Footprint
from pydsm.runtime import apply_gate
from pydsm.runtime.apply_gate import Agreed, ApplyGate, ApplyQueueLimits, MachinePhase

pytestmark = pytest.mark.asyncio


def batch(index: int, *commands: bytes) -> Execute:
    return Execute(InstanceId(ReplicaId(0), index), Batch((), commands or (b"12345",), Footprint(), 0))


def checkpoint(number: int) -> TakeCheckpoint:
    return TakeCheckpoint(Checkpoint(number, InstanceId(ReplicaId(0), number), Position((0,)), (0,), 0))


class Machine:
    """Records its calls, and raises the exceptions that a test sets."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trouble: dict[str, Exception] = {}

    async def start(self) -> None:
        self._note("start")

    async def stop(self) -> None:
        self._note("stop")

    def _note(self, verb: str) -> None:
        self.asked.append(verb)
        if verb in self.trouble:
            raise self.trouble[verb]


class Made:
    """An open gate, its machine, and the executed batches."""

    def __init__(self, limits: ApplyQueueLimits | None = None) -> None:
        self.machine = Machine()
        self.done: list[Agreed] = []
        self.gate = ApplyGate(self.machine, self.done.append, limits)

    async def pause(self) -> None:
        self.gate.begin_pause()
        await self.gate.pause()

    async def resume(self) -> int:
        await self.gate.restart()
        return await self.gate.catch_up()


async def opened(limits: ApplyQueueLimits | None = None) -> Made:
    made = Made(limits)
    await made.gate.open()
    return made


async def test_batches_are_executed_immediately_until_the_pause_is_complete() -> None:
    made = await opened()
    made.gate.take(batch(1))
    made.gate.begin_pause()
    made.gate.take(batch(2))
    assert made.done == [batch(1), batch(2)]
    assert made.machine.asked == ["start"]


async def test_held_batches_and_checkpoints_are_executed_in_order() -> None:
    made = await opened()
    await made.pause()
    agreed: list[Agreed] = [batch(1), checkpoint(1), batch(2), batch(3), checkpoint(2)]
    for one in agreed:
        made.gate.take(one)
    assert (made.done, made.gate.held, made.gate.held_bytes) == ([], 5, 15)
    assert await made.resume() == 5
    assert made.done == agreed
    assert made.machine.asked == ["start", "stop", "start"]
    assert (made.gate.held, made.gate.held_bytes, made.gate.phase) == (0, 0, MachinePhase.RUNNING)


async def test_batches_that_arrive_during_catching_up_are_executed_after_held_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apply_gate, "_SLICE_SECONDS", 0.0)
    made = await opened()
    await made.pause()
    for index in range(1, 11):
        made.gate.take(batch(index))
    await made.gate.restart()
    catching_up = asyncio.create_task(made.gate.catch_up())
    await asyncio.sleep(0)
    made.gate.take(batch(11))
    await catching_up
    assert made.done == [batch(index) for index in range(1, 12)]


@pytest.mark.parametrize("limits", [ApplyQueueLimits(commands_max=3), ApplyQueueLimits(bytes_max=15)])
async def test_the_gate_is_full_at_its_limits_until_held_batches_are_executed(limits: ApplyQueueLimits) -> None:
    made = await opened(limits)
    await made.pause()
    made.gate.take(batch(1, b"12345", b"67890"))
    seen = [made.gate.full]
    made.gate.take(batch(2))
    seen.append(made.gate.full)
    await made.resume()
    seen.append(made.gate.full)
    assert seen == [False, True, False]


async def test_machine_that_does_not_stop_is_paused_and_started_again_by_a_resume() -> None:
    made = await opened()
    made.machine.trouble["stop"] = OSError("disk is full")
    with pytest.raises(OperationalError, match="the machine did not stop: OSError: disk is full"):
        await made.pause()
    made.gate.take(batch(1))
    assert (made.gate.phase, made.done) == (MachinePhase.PAUSED, [])
    faults = [made.gate.fault]
    await made.resume()
    faults.append(made.gate.fault)
    assert (faults, made.done) == (["the machine did not stop: OSError: disk is full", None], [batch(1)])


async def test_machine_that_does_not_start_stays_paused_and_loses_nothing() -> None:
    made = await opened()
    await made.pause()
    made.gate.take(batch(1))
    made.machine.trouble["start"] = OSError("no such file")
    with pytest.raises(OperationalError, match="the machine did not start: OSError: no such file"):
        await made.resume()
    assert (made.gate.phase, made.gate.held, made.done) == (MachinePhase.PAUSED, 1, [])
    del made.machine.trouble["start"]
    assert await made.resume() == 1
    assert made.done == [batch(1)]


async def test_machine_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_gate, "_MACHINE_SECONDS_MAX", 0.01)

    class Hangs(Machine):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    gate = ApplyGate(Hangs(), lambda agreed: None)
    await gate.open()
    gate.begin_pause()
    with pytest.raises(OperationalError, match=r"the machine did not stop within 0.01 s"):
        await gate.pause()


async def test_an_exception_while_catching_up_is_passed_on_and_the_rest_is_kept() -> None:
    def fails(agreed: Agreed) -> None:
        raise RuntimeError("a broken machine")

    gate = ApplyGate(Machine(), fails)
    await gate.open()
    gate.begin_pause()
    await gate.pause()
    gate.take(batch(1))
    gate.take(batch(2))
    await gate.restart()
    with pytest.raises(RuntimeError):
        await gate.catch_up()
    assert (gate.held, gate.phase) == (1, MachinePhase.PAUSED)


async def test_verbs_out_of_turn_are_refused_and_change_nothing() -> None:
    made = await opened()
    with pytest.raises(UsageError, match="the machine is running, not paused"):
        await made.gate.restart()
    made.gate.begin_pause()
    with pytest.raises(UsageError, match="the machine is pausing, not running"):
        made.gate.begin_pause()
    made.gate.give_up_pause()
    assert made.gate.runs
    assert made.machine.asked == ["start"]


async def test_machine_is_stopped_once_with_its_replica() -> None:
    running, paused = await opened(), await opened()
    await paused.pause()
    for made in (running, paused):
        await made.gate.close()
        await made.gate.close()
        assert made.machine.asked == ["start", "stop"]


async def test_catching_up_ends_when_the_replica_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_gate, "_SLICE_SECONDS", 0.0)
    made = await opened()
    await made.pause()
    made.gate.take(batch(1))
    await made.gate.restart()
    made.gate.shut()
    assert await made.gate.catch_up() == 0
    assert made.done == []


async def test_machine_without_a_lifecycle_is_only_kept_from_executing() -> None:
    done: list[Agreed] = []
    gate = ApplyGate(object(), done.append)
    await gate.open()
    gate.begin_pause()
    await gate.pause()
    gate.take(batch(1))
    assert done == []
    await gate.restart()
    await gate.catch_up()
    await gate.close()
    assert done == [batch(1)]


@pytest.mark.parametrize("limits", [{"commands_max": 0}, {"bytes_max": 0}])
async def test_limits_that_cannot_work_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ApplyQueueLimits(**limits)
