"""The five verbs: what they take, what they refuse, and what a new life makes of the records of the old one."""

import pytest

from pydsm.core.config import Config
from pydsm.core.conflicts import DeclaredKeys
from pydsm.core.effects import Effects, Execute, InstanceRecord, Record, ReservationRecord, Send
from pydsm.core.faults import BrokenInvariant, CallerFault, PeerFault
from pydsm.core.ids import Deps, InstanceId, ReplicaId, Tick
from pydsm.core.messages import (
    NOP,
    Accept,
    AcceptOk,
    Batch,
    Commit,
    Frontier,
    Inquire,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    Validate,
    ValidateOk,
    Waiting,
)
from pydsm.core.replica import Replica
from pydsm.core.status import Status
from tests.unit.core.helpers import P0, P1, P2, CountingKeys, Driven, at, ballot, barrier, to_all, writing

A, B = writing("key", name="a"), writing("key", name="b")
NONE: Deps = (0, 0, 0)


def committed(id: InstanceId, batch: Batch, deps: Deps) -> InstanceRecord:
    return InstanceRecord(id, Status.COMMITTED, ballot(0, id.leader), None, batch, deps, batch, deps)


def restored(*records: Record, me: int = 0, n: int = 3) -> Replica:
    replica = Replica(Config(ReplicaId(me), n))
    replica.restore(records)
    return replica


# take_effects


def test_effects_are_taken_once() -> None:
    replica = Replica(Config(P0, 3))
    replica.propose(A)
    assert replica.take_effects().records
    assert not replica.take_effects()


def test_nothing_happens_without_an_event() -> None:
    effects = Replica(Config(P0, 3)).take_effects()
    assert effects == Effects()
    assert not effects


# receive

NAMES_ITS_VECTOR: list[Message] = [
    PreAccept(at(1, 1), A, (0, 0, 5)),
    PreAcceptOk(at(1, 1), (0, 0, 5)),
    Accept(at(1, 1), ballot(0, 1), A, (0, 0, 5)),
    Commit(at(1, 1), A, (0, 0, 5)),
    Validate(at(1, 1), ballot(0, 1), A, (0, 0, 5)),
    PrepareOk(at(1, 1), ballot(1, 1), Status.ACCEPTED, ballot(0, 1), NOP, (0, 0, 5), None, NONE),
    PrepareOk(at(1, 1), ballot(1, 1), Status.UNKNOWN, None, None, NONE, None, (0, 0, 5)),
]
NAMES_ONLY_ITSELF: list[Message] = [
    AcceptOk(at(1, 1), ballot(0, 1)),
    Prepare(at(1, 1), ballot(1, 1)),
    ValidateOk(at(1, 1), ballot(1, 1), ()),
    Waiting(at(1, 1), 2),
    Refuse(at(1, 1), ballot(1, 1), ballot(2, 1)),
]


@pytest.mark.parametrize("message", NAMES_ITS_VECTOR, ids=lambda message: type(message).__name__)
def test_every_instance_that_a_vector_covers_is_known_to_exist(message: Message) -> None:
    replica = Driven(0, 3)
    replica.receive(1, message)
    assert replica.replica.known == (0, 1, 5)


@pytest.mark.parametrize("message", NAMES_ONLY_ITSELF, ids=lambda message: type(message).__name__)
def test_every_instance_that_a_message_is_about_is_known_to_exist(message: Message) -> None:
    replica = Driven(0, 3)
    replica.receive(1, message)
    assert replica.replica.known == (0, 1, 0)


def test_gossip_tells_what_exists() -> None:
    replica = Driven(0, 3)
    replica.receive(2, Frontier((1, 2, 3), (4, 5, 6)))
    assert (replica.replica.known, replica.replica.frontier) == ((4, 5, 6), NONE)


def test_a_question_about_what_was_never_heard_of_makes_nothing_known() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Inquire((at(1, 9), at(2, 9))))
    assert (replica.replica.known, replica.take()) == (NONE, [])


@pytest.mark.parametrize("sender", [-1, 3, 12])
def test_a_sender_from_outside_the_group_is_a_fault_of_the_peer(sender: int) -> None:
    replica = Replica(Config(P0, 3))
    with pytest.raises(PeerFault, match=f"replica {sender}, which is not in this group of 3"):
        replica.receive(ReplicaId(sender), Prepare(at(1, 1), ballot(1, 1)))
    assert not replica.take_effects()


def test_an_absurdly_distant_instance_is_a_fault_of_the_peer() -> None:
    replica = Driven(0, 3, gap_instances_max=100)
    replica.receive(1, Frontier(NONE, (0, 100, 0)))
    with pytest.raises(PeerFault, match=r"instance 1\.201 is 101 beyond what is known, more than 100"):
        replica.receive(1, Frontier(NONE, (0, 201, 0)))
    assert replica.replica.known == (0, 100, 0)


def test_a_second_decision_that_differs_stops_the_replica() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 1), A, NONE))
    with pytest.raises(BrokenInvariant, match=r"instance 1\.1 was decided twice"):
        replica.receive(2, Commit(at(1, 1), NOP, NONE))


# tick


def test_time_must_not_go_back() -> None:
    replica = Replica(Config(P0, 3))
    replica.tick(Tick(10))
    replica.tick(Tick(10))
    with pytest.raises(CallerFault, match="time went back from tick 10 to 9"):
        replica.tick(Tick(9))


def test_gossip_is_told_at_its_interval() -> None:
    replica = Driven(0, 3, gossip_ticks=100)
    told_at = []
    for now in range(0, 301, 10):
        replica.tick(now)
        if replica.take_only(Frontier):
            told_at.append(now)
    assert told_at == [0, 100, 200, 300]


def test_gossip_says_what_is_executed_and_what_is_known() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 1), A, NONE), Commit(at(1, 3), writing("other"), NONE))
    replica.tick(0)
    assert replica.take_only(Frontier) == to_all(Frontier((0, 1, 0), (0, 3, 0)), [1, 2])


def test_a_group_of_one_gossips_with_nobody_but_itself() -> None:
    replica = Replica(Config(P0, 1))
    replica.tick(Tick(0))
    assert replica.take_effects().sends == [Send((P0,), Frontier((0,), (0,)))]


# restore


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


# For people


def test_instances_can_be_looked_at_and_not_changed() -> None:
    replica = Driven(0, 3)
    id = replica.propose(A)
    assert replica.replica.instances[id].status is Status.PRE_ACCEPTED
    with pytest.raises(TypeError):
        replica.replica.instances[id] = None  # type: ignore[index]


def test_own_unexecuted_instances_are_counted() -> None:
    replica = Driven(0, 3)
    id = replica.propose(A)
    replica.propose(writing("other"))
    assert replica.replica.in_flight == 2
    replica.receive(1, PreAcceptOk(id, NONE))
    assert replica.replica.in_flight == 1
