"""What a new start makes of the records of an earlier one, and of the snapshot of a peer."""

from typing import Any

import pytest

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.replica import Replica
from pydsm.core.types.checkpoint import Checkpoint, Position, checkpoint_batch
from pydsm.core.types.config import Config
from pydsm.core.types.effects import (
    Effects,
    Execute,
    FrontierRecord,
    InstanceRecord,
    PurgeRecord,
    Record,
    ReservationRecord,
    Send,
)
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import (
    NOP,
    Batch,
    Commit,
    Frontier,
    PreAccept,
    Prepare,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P0, P1, P2, CountingKeys, Driven, MemoryDisk, at, ballot, barrier, to_all, writing

A, B = writing("key", name="a"), writing("key", name="b")
NONE: Deps = (0, 0, 0)
MARK = checkpoint_batch(7)


def committed(id: InstanceId, batch: Batch, deps: Deps) -> InstanceRecord:
    return InstanceRecord(id, Status.COMMITTED, ballot(0, id.leader), None, batch, deps, batch, deps)


def restored(*records: Record, me: int = 0, n: int = 3) -> Replica:
    replica = Replica(Config(ReplicaId(me), n))
    replica.restore(records)
    return replica


def test_what_was_committed_is_executed_again_and_nothing_is_written_or_sent() -> None:
    replica = restored(committed(at(1, 1), A, NONE), committed(at(2, 1), B, (0, 1, 0)))
    effects = replica.take_effects()
    assert effects == Effects(executions=[Execute(at(1, 1), A), Execute(at(2, 1), B)])
    assert (replica.frontier, replica.known, replica.in_flight) == ((0, 1, 1), (0, 1, 1), 0)


def executed_ids(effects: Effects) -> list[InstanceId]:
    return [one.id for one in effects.executions if isinstance(one, Execute)]


def test_the_agreed_order_does_not_depend_on_the_order_of_the_records() -> None:
    records = [committed(at(1, 1), A, (0, 0, 1)), committed(at(2, 1), B, (0, 1, 0)), committed(at(0, 1), A, (0, 1, 1))]
    expected = [at(1, 1), at(2, 1), at(0, 1)]
    for order in (records, records[::-1], records[1:] + records[:1]):
        assert executed_ids(restored(*order).take_effects()) == expected


def test_nothing_is_executed_before_a_conflicting_instance_that_is_still_open() -> None:
    open_record = InstanceRecord(at(1, 1), Status.PRE_ACCEPTED, ballot(0, 1), None, A, NONE, A, NONE)
    replica = restored(open_record, committed(at(2, 1), B, (0, 1, 0)))
    assert not replica.take_effects()
    replica.receive(P1, Commit(at(1, 1), A, NONE))
    assert executed_ids(replica.take_effects()) == [at(1, 1), at(2, 1)]


def test_a_restored_nop_is_done_with() -> None:
    nop = InstanceRecord(at(1, 1), Status.COMMITTED, ballot(2, 2), ballot(2, 2), NOP, NONE, A, NONE)
    replica = restored(nop, committed(at(2, 1), B, (0, 1, 0)))
    assert executed_ids(replica.take_effects()) == [at(2, 1)]
    assert replica.frontier == (0, 1, 1)


def test_what_was_promised_and_voted_is_still_promised_and_voted() -> None:
    record = InstanceRecord(at(1, 1), Status.ACCEPTED, ballot(5, 2), ballot(3, 0), A, (0, 0, 7), B, (0, 0, 6))
    assert restored(record).instances[at(1, 1)].record() == record


def test_a_new_proposal_comes_after_the_reservation_and_after_every_own_instance_known() -> None:
    assert restored(ReservationRecord(32)).propose(A) == at(0, 33)
    assert restored(ReservationRecord(32), committed(at(1, 1), A, (40, 0, 0))).propose(A) == at(0, 41)


def test_own_indexes_that_were_reserved_exist_and_must_be_decided() -> None:
    assert restored(ReservationRecord(32)).known == (32, 0, 0)


def test_a_disk_may_know_what_is_farther_away_than_a_peer_may_say() -> None:
    replica = Driven(0, 3, gap_instances_max=10)
    replica.receive(1, *[Frontier(NONE, (0, index, 0)) for index in (10, 20)], Prepare(at(1, 20), ballot(1, 1)))
    replica.restart()
    assert replica.replica.known == (0, 20, 0)


def test_new_proposals_are_ordered_after_what_was_restored() -> None:
    initial = InstanceRecord(at(1, 1), Status.ACCEPTED, ballot(1, 2), ballot(1, 2), NOP, NONE, A, NONE)
    opaque = InstanceRecord(at(2, 4), Status.ACCEPTED, ballot(1, 1), ballot(1, 1), NOP, NONE, None, NONE)
    replica = Driven(0, 3)
    replica.replica.restore([initial, opaque])
    replica.propose(B)
    assert replica.take_only(PreAccept) == to_all(PreAccept(at(0, 1), B, (0, 1, 4)), [1, 2])


def test_a_restored_barrier_orders_everything_after_it() -> None:
    replica = restored(committed(at(1, 3), barrier(), (0, 2, 9)), *[committed(at(1, i), A, NONE) for i in (1, 2)])
    for index in range(1, 10):
        replica.receive(P2, Commit(at(2, index), NOP, NONE))
    replica.take_effects()
    replica.propose(writing("unrelated"))
    (proposal,) = [one for one in replica.take_effects().sends if isinstance(one.message, PreAccept)]
    assert proposal == Send((P1, P2), PreAccept(at(0, 1), writing("unrelated"), (0, 3, 9)))


def history(instances: int, rates: tuple[int, ...], hot_every: int) -> list[Record]:
    """What leaders of different speed committed; each n-th batch writes a hot key, the others one of their own."""
    index, next_index = DeclaredKeys().index(3), [1, 1, 1]
    records: list[Record] = []
    turns = [leader for leader, rate in enumerate(rates) for _ in range(rate)]
    for place in range(instances):
        leader = turns[place % len(turns)]
        id = at(leader, next_index[leader])
        next_index[leader] += 1
        batch = writing("hot" if place % hot_every == 0 else str(place), name=str(place))
        records.append(committed(id, batch, index.conflicts(batch)))
        index.add(id, batch)
    return sorted(records, key=lambda record: record.id if isinstance(record, InstanceRecord) else at(0, 0))


@pytest.mark.parametrize("rates", [(1, 1, 1), (5, 1, 1), (1, 1, 5)])
@pytest.mark.parametrize("hot_every", [1, 11])
def test_the_work_of_a_restart_grows_with_the_history_and_not_with_its_square(
    rates: tuple[int, ...], hot_every: int
) -> None:
    for instances in (300, 3000):
        relation = CountingKeys()
        replica = Replica(Config(P0, 3), relation)
        replica.restore(history(instances, rates, hot_every))
        assert replica.counters.executed == instances
        assert relation.compared < 10 * instances


# Beginning with the snapshot of a peer: everything up to 1.3, and 2.1 besides, of which no record was ever here

FETCHED = Checkpoint(1, at(2, 1), Position((0, 3, 0), (at(2, 1),)), (0, 3, 1), 7)


def fetched(*records: Record, **config: Any) -> Driven:
    disk = MemoryDisk(3)
    disk.write([PurgeRecord((0, 3, 0), (at(2, 1),)), *records], lambda: None)
    return Driven(0, 3, disk=disk, snapshots=[FETCHED], **config)


def test_what_came_with_a_snapshot_counts_as_executed_and_is_not_missed() -> None:
    driven = fetched(FrontierRecord((0, 3, 1), NONE), committed(at(1, 4), A, (0, 3, 1)))
    assert driven.executed_ids == [at(1, 4)]
    assert (driven.replica.frontier, driven.replica.dropped) == ((0, 4, 1), (0, 3, 0))


def test_what_was_reported_and_is_neither_on_the_disk_nor_in_the_snapshot_is_missed() -> None:
    with pytest.raises(OperationalError, match=r"instance 2\.2 is missing"):
        fetched(FrontierRecord((0, 3, 2), NONE))
    disk = MemoryDisk(3)
    disk.write([PurgeRecord((0, 3, 0)), FrontierRecord((0, 3, 1), NONE)], lambda: None)
    with pytest.raises(OperationalError, match=r"instance 2\.1 is missing"):
        Driven(0, 3, disk=disk, snapshots=[FETCHED])


@pytest.mark.parametrize("id", [at(1, 3), at(2, 1)])
def test_what_came_with_a_snapshot_is_not_executed_again_when_somebody_tells_of_it(id: InstanceId) -> None:
    driven = fetched()
    driven.receive(2, Commit(id, A, NONE))
    assert (driven.executed_ids, driven.take()) == ([], [])


def test_a_new_proposal_is_ordered_behind_what_came_with_a_snapshot() -> None:
    driven = fetched()
    driven.propose(A)
    assert driven.take_only(PreAccept)[0][1].deps == (0, 3, 1)


def test_what_came_with_a_snapshot_stays_named_on_the_disk_until_what_is_purged_covers_it() -> None:
    driven = fetched(gossip_ticks=10)
    driven.receive(1, Commit(at(1, 4), A, (0, 3, 1)), Commit(at(2, 2), MARK, (0, 4, 1)))
    driven.receive(1, Commit(at(1, 5), A, (0, 4, 2)), Commit(at(2, 3), MARK, (0, 5, 2)))
    for checkpoint in driven.checkpoints:
        driven.replica.snapshot_durable(checkpoint)
    driven.snapshots = [FETCHED, *driven.checkpoints]
    purged = []
    for now, executed in ((100, (0, 3, 0)), (200, (0, 4, 0)), (300, (0, 4, 1)), (400, (0, 5, 3))):
        for peer in (1, 2):
            driven.receive(peer, Frontier(executed, (0, 5, 3)))
        driven.run(now)
        driven.performer.finish()
        purged += [one for one in driven.disk.load() if isinstance(one, PurgeRecord)]
    assert purged == [
        PurgeRecord((0, 3, 0), (at(2, 1),)),
        PurgeRecord((0, 4, 0), (at(2, 1),)),
        PurgeRecord((0, 4, 1)),
        PurgeRecord((0, 4, 1)),
    ]
    driven.restart()
    assert driven.replica.frontier[1:] == (5, 3)
