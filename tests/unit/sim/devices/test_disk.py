from collections.abc import Sequence

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import InstanceRecord, Record, ReservationRecord
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.status import Status
from pydsm.sim.devices.disk import SimulatedDisk
from tests.unit.sim.worlds import batch, context, i, run


def record(index: int, round: int = 0) -> InstanceRecord:
    value = batch(writes=[b"x"])
    promised = Ballot(round, ReplicaId(0))
    return InstanceRecord(i(0, index), Status.PRE_ACCEPTED, promised, None, value, (0, 0, 0), value, (0, 0, 0))


def no_one(records: Sequence[Record]) -> None:
    """Ignores the records."""


def test_records_are_durable_after_the_sync_and_not_before() -> None:
    world = context(sync_us=1000)
    disk, done = SimulatedDisk(world, 0, no_one), []
    disk.write([record(1)], lambda: done.append(world.schedule.now))
    assert (disk.load(), done) == ([], [])
    run(world)
    assert disk.load() == [record(1)]
    assert 500 <= done[0] <= 2100


def test_a_disk_without_sync_time_calls_back_immediately() -> None:
    disk, done = SimulatedDisk(context(sync_us=0), 0, no_one), []
    disk.write([record(1)], lambda: done.append(1))
    assert done == [1]


def test_a_later_record_replaces_an_earlier_one_and_the_reservation_comes_first() -> None:
    world = context(sync_us=0)
    disk = SimulatedDisk(world, 0, no_one)
    disk.write([record(2), record(1)], lambda: None)
    disk.write([record(1, round=3), ReservationRecord(8)], lambda: None)
    assert disk.load() == [ReservationRecord(8), record(1, round=3), record(2)]


def test_a_group_that_is_written_during_a_crash_is_kept_as_a_whole_or_lost() -> None:
    kept = lost = 0
    for seed in range(40):
        world = context(sync_us=1000, seed=seed)
        disk = SimulatedDisk(world, 0, no_one)
        done: list[int] = []
        disk.write([record(1), record(2)], lambda done=done: done.append(1))  # type: ignore[misc]
        disk.crash()
        run(world)
        assert done == []
        assert disk.load() in ([], [record(1), record(2)])
        kept += bool(disk.load())
        lost += not disk.load()
    assert min(kept, lost) > 5


def test_synced_records_survive_every_crash() -> None:
    world = context(sync_us=1000)
    disk = SimulatedDisk(world, 0, no_one)
    disk.write([record(1)], lambda: None)
    run(world)
    disk.crash()
    assert disk.load() == [record(1)]
