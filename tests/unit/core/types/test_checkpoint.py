"""Checkpoints: when one is due, its contents, what is removed before it, and restarts from one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.types.checkpoint import (
    Checkpoint,
    CheckpointSchedule,
    Position,
    checkpoint_batch,
    checkpoint_behind,
    is_checkpoint,
)
from pydsm.core.types.config import Config
from pydsm.core.types.effects import PurgeRecord
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, Tick, merge
from pydsm.core.types.messages import NOP, Batch, Commit, Frontier, PreAccept, PreAcceptOk
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P0, P1, P2, Driven, at, barrier, reading, writing
from tests.worlds import World

NONE = (0, 0, 0)
A, B = writing("key", name="a"), writing("key", name="b")
MARK = checkpoint_batch(7)


# When


def schedule(me: int = 0, **config: Any) -> CheckpointSchedule:
    limits = {"checkpoint_instances_max": 3, "checkpoint_bytes_max": 100, "checkpoint_ticks": 1000, **config}
    return CheckpointSchedule(Config(P0 if me == 0 else P1 if me == 1 else P2, 3, checkpoint_turn_ticks=10, **limits))


def test_a_checkpoint_is_due_after_so_many_instances() -> None:
    one = schedule()
    due = []
    for index in range(1, 5):
        one.executed(at(1, index), A)
        due.append(one.is_due(Tick(0)))
    assert due == [False, False, True, True]


def test_nops_do_not_count() -> None:
    one = schedule()
    for index in range(1, 10):
        one.executed(at(1, index), NOP)
    assert not one.is_due(Tick(5000))


def test_a_checkpoint_is_due_after_so_many_bytes() -> None:
    one = schedule()
    one.executed(at(1, 1), writing("key", name="x" * 101))
    assert one.is_due(Tick(0))


def test_a_checkpoint_is_due_after_so_long_if_anything_was_executed() -> None:
    one = schedule()
    assert not one.is_due(Tick(1000))
    one.executed(at(1, 1), A)
    assert (one.is_due(Tick(999)), one.is_due(Tick(1000))) == (False, True)


def test_a_checkpoint_for_the_sake_of_time_is_due_in_turn_whether_anything_was_executed_or_not() -> None:
    first_due = []
    for me in range(3):
        one = schedule(me)
        first_due.append(next(now for now in range(100) if one.is_due(Tick(now), time_is_due=True)))
        one.proposed(at(0, 1))
        assert not one.is_due(Tick(5000), time_is_due=True)
    assert first_due == [0, 10, 20]


def test_a_turn_begins_again_if_time_was_not_due_in_between() -> None:
    one = schedule(1)
    assert [one.is_due(Tick(now), time_is_due=now != 5) for now in (0, 5, 10, 19, 20)] == [False] * 4 + [True]


def test_replicas_take_turns_and_step_in_for_a_late_one() -> None:
    first_due = []
    for me in range(3):
        one = schedule(me)
        for index in range(1, 4):
            one.executed(at(1, index), A)
        first_due.append(next(now for now in range(100) if one.is_due(Tick(now))))
    assert first_due == [0, 10, 20]


def test_the_turn_moves_on_with_each_checkpoint() -> None:
    first_due = []
    for me in range(3):
        one = schedule(me)
        one.begin(Checkpoint(1, at(0, 1), Position(NONE), NONE, 0), Tick(0))
        for index in range(1, 4):
            one.executed(at(1, index), A)
        first_due.append(next(now for now in range(100) if one.is_due(Tick(now))))
    assert first_due == [20, 0, 10]


def test_a_checkpoint_is_not_proposed_again_until_it_is_executed_or_nop() -> None:
    one = schedule()
    for index in range(1, 4):
        one.executed(at(1, index), A)
    one.proposed(at(0, 1))
    assert not one.is_due(Tick(0))
    one.executed(at(0, 1), NOP)
    assert one.is_due(Tick(0))


def test_a_command_over_everything_is_no_checkpoint() -> None:
    assert is_checkpoint(MARK)
    assert not any(map(is_checkpoint, [barrier(), A, NOP, None]))


# Contents of a checkpoint


def decided(leader: int, index: int, batch: Batch, deps: tuple[int, ...]) -> Instance:
    instance = Instance(at(leader, index), NONE)
    instance.value, instance.deps = batch, deps
    return instance


def test_a_checkpoint_contains_the_barriers_covered_instances_and_its_component() -> None:
    component = [decided(1, 1, A, (2, 0, 5)), decided(0, 2, MARK, (1, 1, 4)), decided(2, 6, B, (2, 0, 5))]
    found = checkpoint_behind(component, 3, Position(NONE), (9, 9, 9))
    assert found == Checkpoint(3, at(0, 2), Position((1, 1, 4), (at(0, 2), at(2, 6))), (9, 9, 9), 7)
    inside = [at(0, 1), at(0, 2), at(1, 1), at(2, 4), at(2, 6)]
    outside = [at(0, 3), at(1, 2), at(2, 5), at(2, 7)]
    assert [found.position.has(id) for id in inside + outside] == [True] * 5 + [False] * 4


def test_several_barriers_of_one_component_make_one_checkpoint() -> None:
    component = [decided(0, 2, MARK, (1, 3, 0)), decided(1, 3, checkpoint_batch(8), (2, 2, 1))]
    found = checkpoint_behind(component, 1, Position(NONE), NONE)
    assert (found.barrier, found.position, found.timestamp_ms) == (at(1, 3), Position((2, 3, 1)), 8)


def test_a_nop_that_only_an_earlier_checkpoint_covers_stays_in() -> None:
    found = checkpoint_behind([decided(0, 2, MARK, (1, 0, 0))], 2, Position((0, 4, 0), (at(0, 1), at(2, 2))), NONE)
    assert found.position == Position((1, 4, 0), (at(2, 2), at(0, 2)))


def executing(*commits: Commit, **config: Any) -> Driven:
    driven = Driven(0, 3, **config)
    driven.receive(1, *commits)
    return driven


def test_the_checkpoint_is_taken_between_earlier_and_later_instances() -> None:
    driven = executing(Commit(at(1, 1), A, NONE), Commit(at(2, 1), MARK, (0, 1, 0)), Commit(at(1, 2), B, (0, 1, 1)))
    assert driven.executed_ids == [at(1, 1), at(1, 2)]
    assert driven.checkpoints == [Checkpoint(1, at(2, 1), Position((0, 1, 0), (at(2, 1),)), (0, 1, 1), 7)]


def test_everything_in_a_checkpoint_is_on_the_disk_when_it_is_taken() -> None:
    on_disk: list[bool] = []

    class Looking(Driven):
        def checkpoint(self, taken: Any) -> None:
            on_disk.extend(record is not None for record in map(self.disk.record, [at(1, 1), at(2, 1)]))

    driven = Looking(0, 3)
    driven.receive(1, Commit(at(1, 1), A, NONE), Commit(at(2, 1), MARK, (0, 1, 0)))
    assert on_disk == [True, True]


# The conflict index behind one


keys = st.sampled_from(["a", "b", "c", "d"])
batches = st.one_of(st.builds(writing, keys), st.builds(reading, keys), st.builds(writing, keys, keys))


@given(st.lists(batches, min_size=1, max_size=12), st.lists(batches, max_size=6), st.lists(batches, min_size=1))
def test_a_vector_is_the_same_with_and_without_entries_up_to_the_floor(
    before: list[Batch], above: list[Batch], asked: list[Batch]
) -> None:
    for relation in (DeclaredKeys(), EverythingConflicts()):
        driven = _with_history(relation, before, above)
        log = driven.replica._state.log
        kept = relation.index(3)
        for place, batch in enumerate(before):
            kept.add(at(1, place + 1), batch)
        kept.add(at(2, 1), MARK)
        for place, batch in enumerate(above):
            kept.add(at(2, place + 2), batch)
        for batch in asked:
            assert log.conflicts(batch) == merge(kept.conflicts(batch), log.floor)


def _with_history(relation: Relation, before: list[Batch], above: list[Batch]) -> Driven:
    driven = Driven(0, 3, relation=relation)
    driven.receive(2, *[PreAccept(at(2, place + 2), batch, NONE) for place, batch in enumerate(above)])
    driven.receive(1, *[Commit(at(1, place + 1), batch, (0, place, 0)) for place, batch in enumerate(before)])
    driven.receive(2, Commit(at(2, 1), MARK, (0, len(before), 0)))
    assert len(driven.checkpoints) == 1
    return driven


def test_instances_below_the_floor_are_not_in_the_index() -> None:
    driven = executing(Commit(at(1, 1), A, NONE), Commit(at(2, 1), MARK, (0, 1, 0)))
    assert driven.replica._state.log._index.conflicts(B) == NONE
    driven.receive(1, PreAccept(at(1, 2), B, NONE))
    assert driven.take() == [(P1, PreAcceptOk(at(1, 2), (0, 1, 1)))]


def test_validate_names_instances_below_the_floor_that_are_in_memory() -> None:
    driven = executing(Commit(at(1, 1), A, NONE), Commit(at(2, 1), MARK, (0, 1, 0)))
    found = driven.replica._state.log.invalidators(at(0, 9), B, NONE)
    assert [(one.id, one.committed) for one in found] == [(at(1, 1), True), (at(2, 1), True)]


def entries(indexes: list[Any]) -> int:
    return sum(len(keys) for index in indexes for leaders in index._machine._latest.values() for keys in leaders)


def test_an_old_index_is_freed_bit_by_bit() -> None:
    driven = executing(
        *[Commit(at(1, index), writing(f"key {index}"), NONE) for index in range(1, 31)],
        Commit(at(2, 1), MARK, (0, 30, 0)),
        discard_entries_max=10,
    )
    log = driven.replica._state.log
    left = []
    for now in range(1, 6):
        left.append(entries(log._replaced_indexes))
        driven.tick(now)
    assert left == [30, 20, 10, 0, 0]
    assert log._replaced_indexes == []


# Beginning with one


def checkpoint(number: int, index: int, up_to: tuple[int, ...], exceptions: tuple[InstanceId, ...]) -> Checkpoint:
    floor = up_to
    for id in exceptions:
        floor = merge(floor, tuple(id.index if leader == id.leader else 0 for leader in range(3)))
    return Checkpoint(number, at(2, index), Position(up_to, exceptions), floor, 7)


def record(commit: Commit) -> Any:
    instance = Instance(commit.id, NONE)
    instance.status, instance.value, instance.deps = Status.COMMITTED, commit.value, commit.deps
    return instance.record()


def begun(records: list[Any], *snapshots: Checkpoint) -> Driven:
    driven = Driven(0, 3)
    driven.replica.restore(records, snapshots)
    driven.performer.pump()
    return driven


FIRST = checkpoint(1, 1, (0, 3, 0), (at(2, 1),))


def test_only_instances_outside_the_snapshot_are_executed_again() -> None:
    commits = [Commit(at(1, index), writing("key", name=str(index)), (0, index - 1, 0)) for index in (1, 2, 3)]
    commits += [Commit(at(2, 1), MARK, (0, 3, 0)), Commit(at(1, 4), A, (0, 3, 1)), Commit(at(2, 2), B, (0, 4, 1))]
    driven = begun([record(commit) for commit in commits], FIRST)
    assert driven.executed_ids == [at(1, 4), at(2, 2)]
    assert driven.replica.frontier == driven.replica.known == (0, 4, 2)
    assert driven.replica.checkpoint == 1


def test_a_purged_record_is_not_missed() -> None:
    records = [record(Commit(at(1, 3), A, (0, 2, 0))), record(Commit(at(2, 1), MARK, (0, 3, 0)))]
    driven = begun([PurgeRecord((0, 2, 0)), *records], FIRST)
    assert (driven.replica.frontier, driven.replica.dropped) == ((0, 3, 1), (0, 2, 0))
    driven.receive(1, PreAccept(at(1, 4), B, NONE))
    assert driven.take() == [(P1, PreAcceptOk(at(1, 4), (0, 3, 1)))]


def test_the_next_checkpoint_has_the_next_number_wherever_the_replica_began() -> None:
    records = [record(Commit(at(1, index), A, (0, index - 1, 0))) for index in (1, 2, 3)]
    records.append(record(Commit(at(2, 1), MARK, (0, 3, 0))))
    driven = begun(records, FIRST)
    driven.receive(1, Commit(at(2, 2), MARK, (0, 3, 1)))
    assert [one.number for one in driven.checkpoints] == [2]


def test_a_disk_without_the_snapshot_that_its_records_need_is_refused() -> None:
    with pytest.raises(OperationalError, match="were purged, and the newest good snapshot reaches to"):
        begun([PurgeRecord((0, 2, 0))])
    with pytest.raises(OperationalError, match="were purged"):
        begun([PurgeRecord((0, 4, 0))], FIRST)


def test_an_undecided_record_that_is_in_the_snapshot_is_refused() -> None:
    instance = Instance(at(1, 2), NONE)
    instance.status, instance.value, instance.initial_batch = Status.PRE_ACCEPTED, A, A
    records = [record(Commit(at(1, 3), A, (0, 2, 0))), record(Commit(at(2, 1), MARK, (0, 3, 0)))]
    with pytest.raises(OperationalError, match=r"instance 1\.2 is in the snapshot of checkpoint 1"):
        begun([PurgeRecord((0, 1, 0)), instance.record(), *records], FIRST)


def test_records_that_are_older_than_the_snapshot_are_refused() -> None:
    commits = [Commit(at(1, index), writing("key", name=str(index)), (0, index - 1, 0)) for index in (1, 2, 3)]
    commits.append(Commit(at(2, 1), MARK, (0, 3, 0)))
    for missing in commits:
        records = [record(commit) for commit in commits if commit is not missing]
        with pytest.raises(
            OperationalError, match=rf"instance {missing.id} is missing, and the snapshot of checkpoint 1"
        ):
            begun(records, FIRST)
    with pytest.raises(OperationalError, match=r"instance 1\.1 is missing"):
        begun([], FIRST)


# Records that are purged


def purging() -> Driven:
    """A replica with the snapshots of two checkpoints; all members have executed everything."""
    driven = Driven(0, 3, gossip_ticks=10, drop_instances_max=2)
    commits = [Commit(at(1, index), writing(str(index)), NONE) for index in range(1, 6)]
    driven.receive(1, *commits, Commit(at(2, 1), MARK, (0, 5, 0)))
    driven.receive(1, Commit(at(1, 6), A, (0, 5, 1)), Commit(at(2, 2), MARK, (0, 6, 1)))
    return driven


def everyone_executed(driven: Driven) -> None:
    for peer in (1, 2):
        driven.receive(peer, Frontier((0, 6, 2), (0, 6, 2)))
    driven.run(driven.now + 200)


def test_records_stay_until_two_snapshots_are_durable() -> None:
    driven = purging()
    everyone_executed(driven)
    driven.replica.snapshot_durable(driven.checkpoints[0])
    driven.run(driven.now + 200)
    driven.replica.tick(Tick(driven.now))
    assert driven.replica.purged == NONE
    assert driven.disk.record(at(1, 1)) is not None


def test_records_before_the_older_of_two_snapshots_are_purged() -> None:
    driven = purging()
    everyone_executed(driven)
    for one in driven.checkpoints:
        driven.replica.snapshot_durable(one)
    driven.run(driven.now + 200)
    assert driven.replica.purged == (0, 5, 0)
    driven.receive(1, PreAccept(at(1, 7), A, NONE))  # lazy records go with the next write
    kept = [id for id in (at(1, 5), at(1, 6), at(2, 1), at(2, 2)) if driven.disk.record(id)]
    assert kept == [at(1, 6), at(2, 1), at(2, 2)]


def test_records_stay_while_a_member_may_request_them() -> None:
    driven = purging()
    driven.receive(1, Frontier((0, 6, 2), (0, 6, 2)))
    driven.receive(2, Frontier((0, 3, 0), (0, 6, 2)))
    for one in driven.checkpoints:
        driven.replica.snapshot_durable(one)
    driven.run(driven.now + 200)
    assert driven.replica.purged == (0, 3, 0)


# In a group


def test_a_group_takes_the_same_checkpoints_everywhere() -> None:
    world = World(3, config={"gossip_ticks": 10, "checkpoint_instances_max": 4})
    for number in range(30):
        world.propose(number % 3, writing("key", name=str(number)))
        world.run(20)
        for host in world.hosts:
            if host.replica.checkpoint_due():
                id = host.replica.propose_checkpoint(number)
                assert isinstance(id, InstanceId)
                world.proposed[id] = checkpoint_batch(number)
                host.performer.pump()
    world.run(200)
    taken = [host.checkpoints for host in world.hosts]
    assert taken[0] == taken[1] == taken[2]
    assert len(taken[0]) >= 5
    assert {one.barrier.leader for one in taken[0]} == {0, 1, 2}
