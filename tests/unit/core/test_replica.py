"""What the methods of a replica take, and what they refuse. What a restart makes of its disk: test_restoration."""

import sys
import tracemalloc
from types import FrameType

import pytest

from pydsm.core.replica import Replica
from pydsm.core.types.checkpoint import checkpoint_batch
from pydsm.core.types.config import Config
from pydsm.core.types.effects import (
    BeginFetch,
    Effects,
    InstallSnapshot,
    KeepPiece,
    Send,
    ServePiece,
)
from pydsm.core.types.errors import FarAhead, InvariantViolation, PeerProtocolError, UsageError
from pydsm.core.types.ids import Deps, ReplicaId, Tick
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Commit,
    CommitQuery,
    Compacted,
    FetchSnapshot,
    Frontier,
    Invalidator,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    SnapshotPiece,
    Validate,
    ValidateOk,
    Waiting,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P0, P1, P2, Driven, at, ballot, to_all, writing

A, B = writing("key", name="a"), writing("key", name="b")
NONE: Deps = (0, 0, 0)


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


def test_gossip_contains_the_highest_indexes_known() -> None:
    replica = Driven(0, 3)
    replica.receive(2, Frontier((0, 2, 3), (0, 5, 6)))
    assert (replica.replica.known, replica.replica.frontier) == ((0, 5, 6), NONE)


def test_a_query_about_an_unknown_instance_does_not_make_it_known() -> None:
    replica = Driven(0, 3)
    replica.receive(1, CommitQuery((at(1, 9), at(2, 9))))
    assert (replica.replica.known, replica.take()) == (NONE, [])


@pytest.mark.parametrize("sender", [-1, 3, 12])
def test_a_sender_from_outside_the_group_is_a_fault_of_the_peer(sender: int) -> None:
    replica = Replica(Config(P0, 3))
    with pytest.raises(PeerProtocolError, match=f"replica {sender}, which is not in this group of 3"):
        replica.receive(ReplicaId(sender), Prepare(at(1, 1), ballot(1, 1)))
    assert not replica.take_effects()


def test_an_absurdly_distant_instance_is_a_fault_of_the_peer() -> None:
    replica = Driven(0, 3, gap_instances_max=100)
    replica.receive(1, Frontier(NONE, (0, 100, 0)))
    with pytest.raises(
        PeerProtocolError, match=r"instance 1\.201 is 101 beyond the highest known index, more than 100"
    ):
        replica.receive(1, Prepare(at(1, 201), ballot(1, 1)))
    assert replica.replica.known == (0, 100, 0)


def test_gossip_that_names_distant_instances_is_followed_in_steps_as_instances_are_executed() -> None:
    replica = Driven(0, 3, gap_instances_max=100)
    for _ in range(3):
        replica.receive(1, Frontier(NONE, (0, 1_000_000, 7)))
        assert replica.replica.known == (0, 100, 7)
    replica.receive(1, *[Commit(at(1, index), NOP, NONE) for index in range(1, 41)])
    replica.receive(1, Frontier(NONE, (0, 1_000_000, 7)))
    assert replica.replica.known == (0, 140, 7)


def test_an_own_index_beyond_the_reservation_is_a_fault_of_the_peer() -> None:
    """No replica can have it: it is forged, or this replica's disk was replaced by an older copy."""
    replica = Driven(0, 3, reservation_block=8)
    assert replica.propose(A) == at(0, 1)
    for message in (
        Frontier(NONE, (9, 0, 0)),
        PreAccept(at(1, 1), B, (9, 0, 0)),
        Commit(at(0, 9), NOP, NONE),
        Prepare(at(0, 9), ballot(1, 1)),
        ValidateOk(at(1, 1), ballot(1, 1), (Invalidator(at(0, 9), True),)),
    ):
        with pytest.raises(PeerProtocolError, match=r"instance 0\.9 of this replica, which has used at most 8 indexes"):
            replica.receive(1, message)
    assert replica.propose(B) == at(0, 2)


def test_a_replica_proposes_above_an_own_index_that_a_peer_named() -> None:
    """An index within the reservation may have been used by an earlier start."""
    replica = Driven(0, 3, reservation_block=8, pipeline_instances_max=64)
    replica.propose(A)
    replica.receive(1, Prepare(at(0, 6), ballot(1, 1)))
    assert replica.propose(B) == at(0, 7)
    assert replica.replica.in_flight == 7
    replica.receive(1, *(Commit(at(0, index), NOP, NONE) for index in range(1, 7)))
    assert replica.replica.in_flight == 1


def test_a_restarted_replica_learns_its_own_indexes_up_to_its_reservation() -> None:
    replica = Driven(0, 3, reservation_block=8)
    replica.propose(A)
    replica.restart()
    replica.receive(1, Frontier(NONE, (8, 0, 0)))
    assert replica.propose(B) == at(0, 9)
    with pytest.raises(PeerProtocolError, match=r"instance 0\.17 of this replica"):
        replica.receive(1, Frontier(NONE, (17, 0, 0)))


def test_a_message_that_names_a_distant_index_costs_memory_for_itself_and_not_for_the_gap() -> None:
    """One of 60 bytes took 370 MB."""
    replica = Driven(0, 3)
    tracemalloc.start()
    try:
        for turn in range(1, 6):
            replica.receive(1, PreAccept(at(1, turn * 1_000_000), writing("key", name=str(turn)), NONE))
            replica.tick(1000 * turn)
        for turn in range(100):
            replica.tick(6000 + 100 * turn)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert replica.replica.known == (0, 5_000_000, 0)
    assert most_bytes < 40_000_000


def test_an_index_named_by_a_peer_does_not_determine_the_length_of_a_loop() -> None:
    """Validate, a checkpoint and the scan iterate over existing instances, with gaps of any size."""
    replica = Driven(0, 3, backlog_instances_min=8)
    replica.receive(1, PreAccept(at(1, 1_000_000), A, NONE))
    replica.receive(2, PreAccept(at(2, 1), A, NONE), Prepare(at(2, 1), ballot(1, 1)))
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        replica.receive(1, Validate(at(2, 1), ballot(1, 1), A, NONE))
        replica.receive(2, Commit(at(2, 2), MARK, NONE))
    finally:
        sys.setprofile(None)
    assert replica.checkpoints
    assert steps < 20_000


def test_a_second_decision_that_differs_stops_the_replica() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 1), A, NONE))
    with pytest.raises(InvariantViolation, match=r"instance 1\.1 was decided twice"):
        replica.receive(2, Commit(at(1, 1), NOP, NONE))


# tick


def test_time_must_not_go_back() -> None:
    replica = Replica(Config(P0, 3))
    replica.tick(Tick(10))
    replica.tick(Tick(10))
    with pytest.raises(UsageError, match="time went back from tick 10 to 9"):
        replica.tick(Tick(9))


def test_time_must_not_go_back_between_ticks_either() -> None:
    replica = Replica(Config(P0, 3))
    replica.advance(Tick(10))
    with pytest.raises(UsageError, match="time went back from tick 10 to 9"):
        replica.advance(Tick(9))


def test_nothing_is_done_about_the_time_before_a_tick() -> None:
    replica = Driven(0, 3)
    replica.propose(A)
    replica.tick(0)
    replica.take()
    replica.replica.advance(Tick(100_000))
    replica.performer.pump()
    assert replica.take() == []


def test_an_instance_received_after_a_pause_is_not_late_because_of_the_pause() -> None:
    replica = Driven(0, 3, recovery_timeout_ticks=100, recovery_jitter_ticks=1, scan_ticks=10)
    replica.tick(0)
    replica.replica.advance(Tick(5000))
    replica.receive(1, PreAccept(at(1, 1), A, NONE))
    replica.tick(5010)
    assert replica.take_only(CommitQuery) == []
    replica.run(5300)
    assert replica.take_only(CommitQuery) == to_all(CommitQuery((at(1, 1),)), [1, 2])


def test_a_proposal_after_a_pause_is_not_repeated_because_of_the_pause() -> None:
    replica = Driven(0, 3, fast_timer_ticks=20)
    replica.tick(0)
    replica.replica.advance(Tick(5000))
    replica.propose(A)
    assert len(replica.take_only(PreAccept)) == 2
    replica.tick(5010)
    assert replica.take_only(PreAccept) == []


def test_gossip_is_sent_at_its_interval() -> None:
    replica = Driven(0, 3, gossip_ticks=100)
    told_at = []
    for now in range(0, 301, 10):
        replica.tick(now)
        if replica.take_only(Frontier):
            told_at.append(now)
    assert told_at == [0, 100, 200, 300]


def test_gossip_contains_executed_and_known_indexes() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 1), A, NONE), Commit(at(1, 3), writing("other"), NONE))
    replica.tick(0)
    assert replica.take_only(Frontier) == to_all(Frontier((0, 1, 0), (0, 3, 0)), [1, 2])


def test_a_group_of_one_sends_gossip_only_to_itself() -> None:
    replica = Replica(Config(P0, 1))
    replica.tick(Tick(0))
    assert replica.take_effects().sends == [Send((P0,), Frontier((0,), (0,)))]


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


# Instances compacted at this replica and missing at a peer

MARK = checkpoint_batch(7)
FORGOTTEN = at(1, 2)


def forgetful(me: int = 0) -> Driven:
    """A replica that has compacted 1.1 and 1.2 before all have executed them: its snapshot of checkpoint 1 has them."""
    driven = Driven(me, 3, gossip_ticks=10, window_bytes_max=1)
    driven.receive(1, Commit(at(1, 1), A, NONE), Commit(at(1, 2), B, (0, 1, 0)), Commit(at(2, 1), MARK, (0, 2, 0)))
    driven.replica.snapshot_durable(driven.checkpoints[0])
    driven.run(20)
    assert driven.replica.dropped == (0, 2, 0)
    driven.take()
    return driven


PURGED = Compacted(1, (0, 2, 0))


@pytest.mark.parametrize("executed", [NONE, (0, 1, 0), (0, 1, 9)])
def test_a_member_whose_frontier_lacks_compacted_instances_receives_compacted(executed: Deps) -> None:
    driven = forgetful()
    driven.receive(2, Frontier(executed, (0, 9, 9)))
    assert driven.take() == [(P2, PURGED)]


def test_a_member_that_has_executed_all_compacted_instances_receives_nothing() -> None:
    driven = forgetful()
    driven.receive(2, Frontier((0, 2, 0), (0, 2, 0)))
    assert driven.take() == []


ABOUT_THE_FORGOTTEN: list[Message] = [
    PreAcceptOk(FORGOTTEN, NONE),
    Accept(FORGOTTEN, ballot(1, 2), NOP, NONE),
    AcceptOk(FORGOTTEN, ballot(1, 2)),
    Commit(FORGOTTEN, NOP, NONE),
    Prepare(FORGOTTEN, ballot(1, 2)),
    PrepareOk(FORGOTTEN, ballot(1, 2), Status.UNKNOWN, None, None, NONE, None, NONE),
    Validate(FORGOTTEN, ballot(1, 2), A, NONE),
    ValidateOk(FORGOTTEN, ballot(1, 2), ()),
    Waiting(FORGOTTEN, 2),
    Refuse(FORGOTTEN, ballot(1, 2), ballot(2, 2)),
]


@pytest.mark.parametrize("message", ABOUT_THE_FORGOTTEN, ids=lambda message: type(message).__name__)
def test_a_message_about_a_purged_instance_is_answered_purged(message: Message) -> None:
    """PROTOCOL 6, "Divergence errors". Only where the sender lacks it: who executed it sent this before."""
    driven = forgetful()
    driven.receive(2, message)
    assert driven.take() == []  # it has reported nothing yet, and may have everything
    driven.receive(2, Frontier((0, 1, 0), (0, 2, 0)))
    driven.take()
    driven.receive(2, message)
    assert driven.take() == [(P2, PURGED)]
    driven.receive(2, Frontier((0, 2, 0), (0, 2, 0)))
    driven.receive(2, message)
    assert driven.take() == []
    assert FORGOTTEN not in driven.replica.instances


def test_the_last_snapshot_is_the_one_that_is_named() -> None:
    driven = forgetful()
    driven.receive(1, Commit(at(1, 3), A, (0, 2, 1)), Commit(at(2, 2), MARK, (0, 3, 1)))
    driven.replica.snapshot_durable(driven.checkpoints[1])
    driven.take()
    driven.receive(2, Frontier(NONE, NONE))
    assert driven.take_only(Compacted) == [(P2, Compacted(2, (0, 3, 1)))]


def test_a_request_for_a_removed_snapshot_is_answered_with_the_last_checkpoint() -> None:
    driven = forgetful()
    driven.receive(2, FetchSnapshot(9, 40))
    assert driven.transfers == [ServePiece(P2, 9, 40)]
    driven.replica.cannot_serve(P2)
    driven.performer.pump()
    assert driven.take() == [(P2, PURGED)]


def test_a_replica_without_a_snapshot_sends_no_compacted() -> None:
    driven = Driven(0, 3)
    driven.replica.cannot_serve(P2)
    driven.performer.pump()
    assert driven.take() == []


# Instances missing at this replica and compacted at a peer


def test_a_snapshot_is_fetched_piece_by_piece_and_installed() -> None:
    driven = Driven(0, 3)
    driven.receive(1, Compacted(4, (0, 9, 0)))
    driven.replica.fetched(4, 0)
    driven.performer.pump()
    assert driven.take_only(FetchSnapshot) == [(P1, FetchSnapshot(4, 0))]
    driven.receive(1, SnapshotPiece(4, 0, 5, b"piece"))
    assert driven.replica.fetching == (4, 0, 5)
    driven.replica.fetched(4, 5)
    driven.performer.pump()
    assert driven.transfers == [BeginFetch(4), KeepPiece(4, 0, b"piece"), InstallSnapshot(4)]


def test_a_fetch_ends_if_the_disk_cannot_store_the_snapshot() -> None:
    driven = Driven(0, 3)
    driven.receive(1, Compacted(4, (0, 9, 0)))
    driven.replica.cannot_keep(4)
    assert driven.replica.fetching is None


def test_one_that_is_too_far_behind_to_take_a_message_learns_that_it_needs_a_snapshot() -> None:
    driven = Driven(0, 3, gap_instances_max=100)
    with pytest.raises(FarAhead, match="or this replica is far behind, and catches up in steps or with a snapshot"):
        driven.receive(1, Commit(at(1, 101), A, NONE))
    driven.receive(1, Compacted(4, (0, 9_000, 0)))
    assert (driven.replica.known, driven.transfers) == (NONE, [BeginFetch(4)])
