"""How a replica recovers the instance of another: which messages it sends when, and how it handles the answers.

The decisions are tested in test_recovery_rules. These tests drive one replica by hand and read its messages.
"""

from itertools import pairwise
from typing import Any

import pytest

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Batch,
    Commit,
    CommitQuery,
    Frontier,
    Invalidator,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    Validate,
    ValidateOk,
    Waiting,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import (
    P0,
    P1,
    P2,
    P3,
    P4,
    Driven,
    accepted,
    at,
    ballot,
    pre_accepted,
    prepare_ok,
    to_all,
    writing,
)

ID = at(0, 1)
A, B = writing("key", name="a"), writing("key", name="b")
SOON: dict[str, Any] = {"recovery_timeout_ticks": 100, "recovery_jitter_ticks": 1, "retry_ticks": 50, "scan_ticks": 10}


def nothing(n: int) -> Deps:
    return (0,) * n


def witness(me: int = 1, n: int = 5, *, unchanged: bool = True, **config: Any) -> Driven:
    """A replica that pre-accepted 0.1, and whose leader sends nothing more."""
    driven = Driven(me, n, **{**SOON, **config})
    if not unchanged:
        driven.receive(2, Commit(at(2, 1), writing("key", name="earlier"), nothing(n)))
    driven.receive(0, PreAccept(ID, A, nothing(n)))
    driven.take()
    return driven


def preparing(me: int = 1, n: int = 5, *, unchanged: bool = True, **config: Any) -> Driven:
    """The same, when its Prepare has just been sent."""
    driven = witness(me, n, unchanged=unchanged, **config)
    driven.run(200)
    assert driven.take_only(Prepare) == to_all(Prepare(ID, ballot(1, me)), [one for one in range(n) if one != me])
    return driven


def same(b: Ballot, n: int = 5) -> PrepareOk:
    return pre_accepted(ID, b, A, nothing(n))


def validating(n: int = 5, **config: Any) -> Driven:
    """A replica whose Validate has just been sent to itself, 2 and 3, all of whom pre-accepted without a change."""
    driven = preparing(1, n, **config)
    driven.receive(2, same(ballot(1, 1), n))
    driven.receive(3, same(ballot(1, 1), n))
    assert driven.take_only(Validate) == to_all(Validate(ID, ballot(1, 1), A, nothing(n)), [2, 3])
    return driven


def found(*ids: InstanceId, committed: bool = False) -> ValidateOk:
    return ValidateOk(ID, ballot(1, 1), tuple(Invalidator(id, committed) for id in ids))


def awaiting(*invalidators: InstanceId, **config: Any) -> Driven:
    """A replica of five that waits for these invalidators with three unchanged answers. Its messages are not taken."""
    driven = validating(**config)
    driven.receive(2, found(*invalidators))
    driven.receive(3, found())
    return driven


def branches(driven: Driven) -> dict[str, int]:
    return driven.replica.counters.branches


def accept_of(driven: Driven) -> Accept:
    """The one Accept that all peers have just been sent."""
    sent = driven.take_only(Accept)
    assert [to for to, _ in sent] == list(driven.replica._state.peers)
    return sent[0][1]


def nop_accepted(driven: Driven) -> bool:
    return accept_of(driven) == Accept(ID, ballot(1, 1), NOP, nothing(driven.n))


# Asking, then preparing


def test_a_late_instance_is_queried_first_and_recovered_when_no_peer_has_its_commit() -> None:
    driven = witness(1, 3)
    driven.run(100)
    assert driven.take() == []
    driven.run(110)
    assert driven.take() == to_all(CommitQuery((ID,)), [0, 2])
    driven.run(159)
    assert driven.take() == []
    driven.run(170)
    assert driven.take() == to_all(Prepare(ID, ballot(1, 1)), [0, 2])
    assert (driven.replica.counters.inquired, driven.replica.counters.prepared) == (1, 1)


def test_a_commit_in_answer_to_the_question_spares_the_recovery() -> None:
    driven = witness(1, 3)
    driven.run(110)
    driven.receive(2, Commit(ID, A, nothing(3)))
    driven.take()
    driven.run(2000)
    assert driven.take() == []
    assert driven.executed_ids == [ID]


def test_an_instance_that_is_only_covered_is_recovered_too() -> None:
    driven = Driven(1, 3, **SOON)
    driven.receive(2, Commit(at(2, 1), A, (2, 0, 0)))
    driven.run(300)
    assert {prepare.id for _, prepare in driven.take_only(Prepare)} == {at(0, 1), at(0, 2)}


def test_an_instance_known_only_from_gossip_is_recovered_too() -> None:
    driven = Driven(1, 3, **SOON)
    driven.receive(2, Frontier(nothing(3), (1, 0, 0)))
    driven.run(180)
    assert driven.take_only(Prepare) == to_all(Prepare(ID, ballot(1, 1)), [0, 2])


def test_an_instance_led_by_this_replica_is_not_suspected() -> None:
    driven = Driven(0, 3, **SOON)
    driven.propose(A)
    driven.run(2000)
    assert driven.take_only(Prepare) == []


def test_a_committed_instance_that_waits_for_another_is_not_suspected() -> None:
    driven = Driven(1, 3, **SOON)
    driven.receive(2, PreAccept(at(2, 1), A, nothing(3)), Commit(ID, B, (0, 0, 1)))
    driven.run(110)
    assert driven.take_only(CommitQuery) == to_all(CommitQuery((at(2, 1),)), [0, 2])


def test_decisions_of_many_late_instances_are_requested_from_one_peer_at_a_time() -> None:
    driven = Driven(1, 3, **SOON)
    driven.receive(2, Frontier(nothing(3), (17, 0, 0)))
    driven.run(180)
    asked = driven.take_only(CommitQuery)
    ids = tuple(at(0, index) for index in range(1, 18))
    assert sorted(asked) == to_all(CommitQuery(ids), [0, 2])


@pytest.mark.parametrize("retry_ticks", [50, 100, 150])
def test_an_instance_is_asked_about_at_another_peer_the_second_time(retry_ticks: int) -> None:
    """Otherwise, while one of two peers is down, half of what a replica missed must be recovered."""
    driven = Driven(1, 3, **{**SOON, "scan_ticks": 50, "retry_ticks": retry_ticks, "inquiry_instances_max": 20})
    driven.receive(2, Frontier(nothing(3), (80, 0, 0)))
    driven.run(800)
    asked: dict[InstanceId, set[ReplicaId]] = {}
    for to, inquire in driven.take_only(CommitQuery):
        for id in inquire.ids:
            asked.setdefault(id, set()).add(to)
    assert asked == {at(0, index): {P0, P2} for index in range(1, 81)}


def test_one_message_requests_a_limited_number_of_decisions_and_the_next_scan_the_rest() -> None:
    driven = Driven(1, 3, inquiry_instances_max=20, **SOON)
    driven.receive(2, Frontier(nothing(3), (50, 0, 0)))
    driven.run(140)
    sizes = [len(inquire.ids) for _, inquire in driven.take_only(CommitQuery)]
    assert sizes == [20, 20, 10, 10]  # the last ten are few enough to ask both


def test_only_so_many_recoveries_are_led_at_a_time() -> None:
    driven = Driven(1, 3, recoveries_max=2, **SOON)
    driven.receive(2, Frontier(nothing(3), (5, 0, 0)))
    driven.run(1000)
    assert {prepare.id for _, prepare in driven.take_only(Prepare)} == {at(0, 1), at(0, 2)}
    driven.receive(0, Commit(at(0, 1), NOP, nothing(3)))
    driven.run(1100)
    assert {prepare.id for _, prepare in driven.take_only(Prepare)} == {at(0, 3)}


def test_waiting_recoveries_do_not_count_against_the_limit() -> None:
    """The recovery of the invalidator was refused: without another attempt the wait might never end."""
    driven = awaiting(at(4, 1), recoveries_max=1)
    for peer in (2, 3, 4):
        driven.receive(peer, Refuse(at(4, 1), ballot(1, 1), ballot(3, 4)))
    driven.take()
    driven.run(driven.now + 3000)
    again = {prepare.ballot for _, prepare in driven.take_only(Prepare) if prepare.id == at(4, 1)}
    assert again == {ballot(4, 1)}


def test_a_group_of_one_recovers_immediately_because_it_has_no_peer_to_query() -> None:
    alone = Driven(0, 1, **SOON)
    alone.disk.holding = True
    alone.propose(A)
    alone.disk.lose_power(after_write=True)
    alone.disk.holding = False
    alone.begin()
    alone.run(1000)
    assert alone.take() == []
    assert alone.replica.frontier == alone.replica.known == (alone.replica.counters.nops,)
    assert alone.executed == []


# Preparing


def test_the_own_promise_is_durable_before_the_prepare_leaves() -> None:
    driven = witness(1, 3)
    driven.disk.holding = True
    driven.run(200)
    assert driven.take_only(Prepare) == []
    driven.disk.finish()
    assert len(driven.take_only(Prepare)) == 2
    record = driven.disk.record(ID)
    assert record is not None
    assert record.promised == ballot(1, 1)


def test_the_ballot_is_above_every_one_promised_here() -> None:
    driven = Driven(1, 3, **SOON)
    driven.receive(2, Prepare(ID, ballot(7, 2)))
    driven.run(2000)
    assert {prepare.ballot for _, prepare in driven.take_only(Prepare)} == {ballot(8, 1)}


def test_a_restart_never_uses_a_ballot_again() -> None:
    driven = preparing(1, 3)
    driven.restart()
    driven.run(1000)
    assert {prepare.ballot for _, prepare in driven.take_only(Prepare)} == {ballot(2, 1)}


def test_a_prepare_is_repeated_to_silent_peers_at_growing_intervals() -> None:
    driven = preparing(1, 5, retry_ticks=50, backoff_ticks_max=200)
    begun = driven.now - 40  # at 160 the second scan after the question
    driven.receive(3, prepare_ok(ID, ballot(1, 1), n=5))
    asked_at = []
    for now in range(210, 1000, 10):
        driven.tick(now)
        asked = driven.take_only(Prepare)
        if asked:
            assert asked == to_all(Prepare(ID, ballot(1, 1)), [0, 2, 4])
            asked_at.append(now - begun)
    assert [later - earlier for earlier, later in pairwise(asked_at)] == [50, 100, 200, 200, 200]


def test_answers_are_counted_per_replica_and_only_in_the_own_ballot() -> None:
    driven = preparing(1, 5, unchanged=False)
    driven.receive(2, *[prepare_ok(ID, ballot(1, 1), n=5)] * 3)
    driven.receive(3, prepare_ok(ID, ballot(1, 3), n=5), prepare_ok(ID, ballot(2, 1), n=5))
    assert driven.take_only(Accept) == []
    driven.receive(3, prepare_ok(ID, ballot(1, 1), n=5))
    assert nop_accepted(driven)
    assert branches(driven) == {Rule.TOO_FEW_UNCHANGED.value: 1}


def test_an_answer_to_nothing_that_is_going_on_is_ignored() -> None:
    driven = witness(1, 3)
    driven.receive(2, prepare_ok(ID, ballot(1, 1)), prepare_ok(at(2, 9), ballot(1, 1)))
    driven.receive(2, ValidateOk(ID, ballot(1, 1), ()), Refuse(ID, ballot(1, 1), ballot(2, 2)))
    assert driven.take() == []


def test_a_committed_value_ends_the_recovery_and_is_counted() -> None:
    driven = preparing(1, 3)
    driven.receive(2, Commit(ID, A, nothing(3)))
    assert driven.executed_ids == [ID]
    assert branches(driven) == {Rule.ALREADY_COMMITTED.value: 1}
    driven.receive(0, prepare_ok(ID, ballot(1, 1)))
    assert driven.take_only(Accept) == []


def test_a_commit_without_a_recovery_is_not_counted_as_a_rule() -> None:
    driven = witness(1, 3)
    driven.receive(0, Commit(ID, A, nothing(3)))
    assert branches(driven) == {}


def test_an_accepted_value_is_accepted_in_the_new_ballot() -> None:
    driven = preparing(1, 3)
    driven.receive(2, accepted(ID, ballot(1, 1), ballot(0, 0), A, (0, 0, 4)))
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, (0, 0, 4))
    assert branches(driven) == {Rule.VOTED_VALUE.value: 1}


def test_the_votes_of_a_quorum_decide_and_the_commit_is_sent_to_all() -> None:
    driven = preparing(1, 3)
    driven.receive(0, same(ballot(1, 1), 3))
    driven.take()
    driven.receive(0, AcceptOk(ID, ballot(1, 1)))
    assert driven.take() == to_all(Commit(ID, NOP, nothing(3)), [0, 2])
    assert (driven.replica.counters.recovered, driven.replica.counters.nops) == (1, 1)
    assert branches(driven) == {Rule.LEADER_UNDECIDED.value: 1}


def test_answers_after_the_value_is_chosen_change_nothing() -> None:
    driven = preparing(1, 3)
    driven.receive(0, same(ballot(1, 1), 3))
    driven.take()
    driven.receive(2, accepted(ID, ballot(1, 1), ballot(0, 0), A, nothing(3)))
    assert driven.take() == []


# Validating


def test_a_replica_in_its_own_quorum_validates_itself() -> None:
    driven = validating()
    record = driven.disk.record(ID)
    assert record is not None
    assert (record.initial_batch, record.initial_deps, record.status) == (A, nothing(5), Status.PRE_ACCEPTED)
    driven.receive(2, found())
    assert driven.take() == []
    driven.receive(3, found())
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, nothing(5))
    assert branches(driven) == {Rule.MUST_VALIDATE.value: 1, Rule.NO_INVALIDATORS.value: 1}
    assert driven.replica.counters.validated == 1


def test_a_replica_that_is_not_in_its_own_quorum_is_not_asked() -> None:
    """Its disk is slow: three others have answered before its own promise counts."""
    driven = witness(1, 5)
    driven.run(200)
    driven.take()
    recoverer = driven.replica._recoverer
    phase = driven.replica._state.leading[ID]
    phase.answers.clear()  # type: ignore[union-attr]
    for replica in (P2, P3, P4):
        recoverer.on_prepare_ok(replica, same(ballot(1, 1)))
    driven.performer.pump()
    assert driven.take_only(Validate) == to_all(Validate(ID, ballot(1, 1), A, nothing(5)), [2, 3, 4])
    for peer in (2, 3, 4):
        driven.receive(peer, found())
    assert accept_of(driven).value == A


def test_every_member_of_the_quorum_must_have_answered_and_counts_once() -> None:
    driven = validating()
    driven.receive(2, found(), found())
    driven.receive(4, found())
    driven.receive(3, ValidateOk(ID, ballot(2, 1), ()))
    assert driven.take_only(Accept) == []
    driven.receive(3, found())
    assert accept_of(driven).value == A


def test_one_committed_invalidator_among_all_answers_is_enough_for_a_nop() -> None:
    driven = validating()
    driven.receive(2, found(at(3, 4)))
    driven.receive(3, found(at(3, 4), committed=True))
    assert nop_accepted(driven)
    assert branches(driven)[Rule.COMMITTED_INVALIDATOR.value] == 1


def test_a_committed_value_is_recovered_for_any_order_of_answers() -> None:
    driven = validating()
    driven.receive(2, found(at(3, 4), committed=True))
    driven.receive(3, found(at(3, 4)))
    assert nop_accepted(driven)


def test_the_own_invalidators_count() -> None:
    driven = preparing(1, 5)
    driven.receive(4, Commit(at(4, 1), B, nothing(5)))
    driven.receive(2, same(ballot(1, 1)))
    driven.receive(3, same(ballot(1, 1)))
    driven.take()
    driven.receive(2, found())
    driven.receive(3, found())
    assert nop_accepted(driven)


def test_a_validate_is_repeated_to_the_silent_members_of_the_quorum() -> None:
    driven = validating()
    driven.receive(3, found())
    driven.run(driven.now + 60)
    assert driven.take_only(Validate) == to_all(Validate(ID, ballot(1, 1), A, nothing(5)), [2])


def test_a_member_that_stays_silent_is_given_up_and_a_higher_ballot_tried() -> None:
    driven = validating(backoff_ticks_max=50)
    driven.run(driven.now + 900)
    sent = driven.take()
    assert len([message for _, message in sent if isinstance(message, Validate)]) == 7 * 2
    assert {message.ballot for _, message in sent if isinstance(message, Prepare)} == {ballot(2, 1)}


# Waiting


def test_waiting_is_sent_to_all_and_the_invalidators_are_recovered() -> None:
    driven = awaiting(at(4, 1), at(3, 2))
    sent = driven.take()
    assert [one for one in sent if isinstance(one[1], Waiting)] == to_all(Waiting(ID, 3), [0, 2, 3, 4])
    assert {message.id for _, message in sent if isinstance(message, Prepare)} == {at(4, 1), at(3, 2)}
    assert branches(driven) == {Rule.MUST_VALIDATE.value: 1, Rule.MUST_WAIT.value: 1}
    assert driven.replica.counters.waited == 1


def test_an_invalidator_that_this_replica_leads_or_has_decided_is_not_recovered() -> None:
    driven = validating()
    own = driven.propose(writing("elsewhere"))
    driven.receive(4, Commit(at(4, 1), writing("elsewhere"), (1, 0, 0, 0, 0)))
    driven.take()
    driven.receive(2, found(own, at(4, 1)))
    driven.receive(3, found())
    assert driven.take_only(Prepare) == []


def test_waiting_is_repeated_and_so_is_prepare_to_those_outside_the_quorum() -> None:
    driven = awaiting(at(4, 1))
    driven.take()
    driven.run(driven.now + 60)
    sent = driven.take()
    assert [one for one in sent if isinstance(one[1], Waiting)] == to_all(Waiting(ID, 3), [0, 2, 3, 4])
    assert [to for to, message in sent if message == Prepare(ID, ballot(1, 1))] == [P0, P4]


def test_an_invalidator_committed_without_an_order_makes_it_a_nop() -> None:
    driven = awaiting(at(4, 1))
    driven.take()
    driven.receive(4, Commit(at(4, 1), B, nothing(5)))
    assert nop_accepted(driven)
    assert branches(driven)[Rule.UNORDERED_COMMITTED.value] == 1


@pytest.mark.parametrize(("value", "deps"), [(NOP, (0, 0, 0, 0, 0)), (B, (1, 0, 0, 0, 0))])
def test_all_invalidators_harmless_restore_the_batch(value: Batch, deps: Deps) -> None:
    driven = awaiting(at(4, 1), at(3, 2))
    driven.receive(4, Commit(at(4, 1), value, deps))
    assert driven.take_only(Accept) == []
    driven.receive(4, Commit(at(3, 2), NOP, nothing(5)))
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, nothing(5))
    assert branches(driven)[Rule.ALL_ORDERED.value] == 1


def test_an_invalidator_that_was_decided_before_the_wait_began_is_taken_into_account() -> None:
    driven = validating()
    driven.receive(4, Commit(at(4, 1), NOP, nothing(5)))
    driven.receive(2, found(at(4, 1)))
    driven.receive(3, found())
    assert accept_of(driven).value == A
    assert driven.replica._recoverer._awaited == {}


def test_an_invalidator_that_waits_with_many_unchanged_answers_makes_it_a_nop() -> None:
    """n=5: n-f-e is 1, so two are enough."""
    driven = awaiting(at(4, 1))
    driven.receive(2, Waiting(at(4, 1), 1))
    assert driven.take_only(Accept) == []
    driven.receive(2, Waiting(at(4, 1), 2))
    assert nop_accepted(driven)
    assert branches(driven)[Rule.INVALIDATOR_WAITS_TOO.value] == 1


def test_a_waiting_message_from_before_the_own_wait_is_stored() -> None:
    driven = validating()
    driven.receive(4, Waiting(at(4, 1), 2), Waiting(at(4, 1), 1))
    driven.receive(2, found(at(4, 1)))
    driven.receive(3, found())
    assert nop_accepted(driven)


def test_a_waiting_of_a_decided_instance_is_not_kept() -> None:
    driven = Driven(1, 5)
    driven.receive(2, Commit(ID, A, nothing(5)), Waiting(ID, 3))
    assert driven.replica._recoverer._waiting == {}
    assert driven.take() == [(P2, Commit(ID, A, nothing(5)))]


def test_a_wait_is_given_up_after_the_longest_wait_and_a_higher_ballot_tried() -> None:
    driven = awaiting(at(4, 1), backoff_ticks_max=200)
    begun = driven.now
    driven.run(begun + 790, step=10)
    driven.take()
    driven.run(begun + 800, step=10)
    assert [message for _, message in driven.take() if getattr(message, "id", None) == ID] == []
    driven.run(begun + 2100, step=10)
    assert {message.ballot for _, message in driven.take_only(Prepare) if message.id == ID} == {ballot(2, 1)}


def test_a_wait_grows_with_the_distance_of_the_leader() -> None:
    driven = validating(backoff_ticks_max=200)
    driven.replica._state.distances.measured(P0, 1000)
    driven.receive(2, found(at(4, 1)))
    driven.receive(3, found())
    begun = driven.now
    driven.run(begun + 7900, step=10)
    assert {message.ballot for _, message in driven.take_only(Prepare) if message.id == ID} == {ballot(1, 1)}
    driven.run(begun + 18_000, step=10)
    assert {message.ballot for _, message in driven.take_only(Prepare) if message.id == ID} == {ballot(2, 1)}


def test_the_state_of_a_recovery_is_removed_when_its_instance_is_decided() -> None:
    driven = awaiting(at(4, 1))
    driven.receive(2, Waiting(at(4, 1), 1))
    driven.receive(4, Commit(at(4, 1), NOP, nothing(5)))
    for peer in (2, 3):
        driven.receive(peer, AcceptOk(ID, ballot(1, 1)))
    recoverer = driven.replica._recoverer
    assert driven.replica.instances[ID].decided
    assert (recoverer._waiting, recoverer._awaited, recoverer._suspicions._by_id) == ({}, {}, {})


def test_the_wait_ends_with_a_late_vote_from_outside_the_quorum() -> None:
    driven = awaiting(at(4, 1))
    driven.receive(4, accepted(ID, ballot(1, 1), ballot(0, 0), A, (0, 0, 0, 0, 1)))
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, (0, 0, 0, 0, 1))
    assert branches(driven)[Rule.LATE_VOTE.value] == 1


def test_the_wait_ends_with_a_late_answer_of_the_leader() -> None:
    driven = awaiting(at(4, 1))
    driven.receive(0, same(ballot(1, 1)))
    assert nop_accepted(driven)
    assert branches(driven)[Rule.LATE_LEADER.value] == 1


def test_a_late_answer_during_validation_counts_when_waiting() -> None:
    driven = validating()
    driven.receive(0, same(ballot(1, 1)))
    driven.receive(2, found(at(4, 1)))
    assert driven.take_only(Accept) == []
    driven.receive(3, found())
    assert nop_accepted(driven)


def test_a_second_answer_from_inside_the_quorum_is_not_a_late_one() -> None:
    driven = awaiting(at(4, 1))
    driven.take()
    driven.receive(2, accepted(ID, ballot(1, 1), ballot(1, 1), NOP, nothing(5)))
    assert driven.take_only(Accept) == []


def test_a_late_commit_ends_the_wait() -> None:
    driven = awaiting(at(4, 1))
    driven.receive(4, Commit(ID, A, nothing(5)))
    assert branches(driven)[Rule.ALREADY_COMMITTED.value] == 1
    driven.take()
    driven.receive(4, Commit(at(4, 1), NOP, nothing(5)))
    assert driven.take_only(Accept) == []


def test_a_wait_that_another_ballot_overtook_is_not_resumed() -> None:
    driven = awaiting(at(4, 1))
    driven.receive(3, Prepare(ID, ballot(4, 3)))
    driven.take()
    driven.receive(4, Commit(at(4, 1), NOP, nothing(5)))
    assert driven.take_only(Accept) == []


def with_forgotten_invalidator(deps: Deps, compaction_checkpoint: Checkpoint | None) -> Driven:
    """A replica that gets 3.1 as an invalidator of `deps`, after it has executed and compacted 3.1."""
    driven = Driven(1, 5, **SOON)
    driven.receive(3, Commit(at(3, 1), writing("apart"), nothing(5)))
    driven.receive(0, PreAccept(ID, A, deps))
    driven.run(200)
    for peer in (2, 3):
        driven.receive(peer, pre_accepted(ID, ballot(1, 1), A, deps))
    log = driven.replica._state.log
    log.drop((0, 0, 0, 1, 0), 1)
    driven.receive(2, found(at(3, 1)))
    log.compaction_checkpoint = compaction_checkpoint  # since; it would have spoken for itself
    driven.take()
    driven.receive(3, found())
    return driven


HORIZON = Checkpoint(1, at(2, 1), Position((0, 0, 0, 1, 0), (at(2, 1),)), (0, 0, 1, 1, 0), 7)


def test_an_invalidator_compacted_early_is_unordered_unless_the_barrier_behind_it_is_covered() -> None:
    driven = with_forgotten_invalidator(nothing(5), HORIZON)
    assert nop_accepted(driven)
    assert branches(driven)[Rule.UNORDERED_COMMITTED.value] == 1


def test_an_invalidator_compacted_early_is_harmless_to_an_instance_behind_the_barrier() -> None:
    deps = (0, 0, 1, 0, 0)
    driven = with_forgotten_invalidator(deps, HORIZON)
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, deps)
    assert branches(driven)[Rule.ALL_ORDERED.value] == 1


def test_an_invalidator_that_all_have_executed_does_no_harm() -> None:
    driven = with_forgotten_invalidator(nothing(5), None)
    assert accept_of(driven) == Accept(ID, ballot(1, 1), A, nothing(5))


def test_a_compacted_invalidator_is_not_recovered() -> None:
    driven = with_forgotten_invalidator(nothing(5), HORIZON)
    driven.run(driven.now + 1000)
    assert at(3, 1) not in {prepare.id for _, prepare in driven.take_only(Prepare)}
    assert at(3, 1) not in driven.replica.instances


# Giving way


def test_more_refusals_than_may_be_down_end_the_attempt_and_the_next_ballot_is_above_them() -> None:
    driven = preparing(1, 3, backoff_ticks_max=100)
    driven.receive(0, Refuse(ID, ballot(1, 1), ballot(6, 0)))
    assert ID in driven.replica._state.leading
    driven.receive(2, Refuse(ID, ballot(1, 1), ballot(5, 2)))
    assert ID not in driven.replica._state.leading
    driven.run(driven.now + 300)
    assert {prepare.ballot for _, prepare in driven.take_only(Prepare)} == {ballot(7, 1)}


def test_a_second_refusal_of_one_replica_counts_once_and_one_of_another_ballot_not_at_all() -> None:
    driven = preparing(1, 3)
    driven.receive(0, *[Refuse(ID, ballot(1, 1), ballot(6, 0))] * 2)
    driven.receive(2, Refuse(ID, ballot(0, 0), ballot(6, 0)))
    assert ID in driven.replica._state.leading


@pytest.mark.parametrize("phase", ["Preparing", "Validating", "AwaitingInvalidators", "Accepting"])
def test_a_single_refusal_ends_the_attempt_at_its_next_deadline(phase: str) -> None:
    driven = _in_phase(phase)
    assert type(driven.replica._state.leading[ID]).__name__ == phase
    driven.receive(4, Refuse(ID, ballot(1, 1), ballot(6, 4)))
    driven.tick(driven.now + 60)
    assert ID not in driven.replica._state.leading


def _in_phase(phase: str) -> Driven:
    if phase == "Preparing":
        return preparing()
    if phase == "Validating":
        return validating()
    driven = awaiting(at(4, 1))
    if phase == "Accepting":
        driven.receive(4, Commit(at(4, 1), NOP, nothing(5)))
    return driven


def test_a_leader_in_round_0_that_was_refused_stops_when_it_is_late() -> None:
    leader = Driven(0, 5, **SOON)
    id = leader.propose(A)
    leader.receive(1, Refuse(id, ballot(0, 0), ballot(1, 1)))
    leader.take()
    leader.tick(20)
    assert leader.take_only(PreAccept) == to_all(PreAccept(id, A, nothing(5)), [1, 2, 3, 4])
    assert id not in leader.replica._state.leading


def test_a_leader_in_round_0_whose_slow_path_is_open_takes_it_although_it_was_refused() -> None:
    leader = Driven(0, 5, **SOON)
    id = leader.propose(A)
    leader.receive(1, Refuse(id, ballot(0, 0), ballot(1, 1)))
    leader.receive(2, PreAcceptOk(id, (0, 0, 0, 0, 3)))
    leader.take()
    leader.receive(3, PreAcceptOk(id, (0, 0, 2, 0, 0)))
    assert accept_of(leader) == Accept(id, ballot(0, 0), A, (0, 0, 2, 0, 3))


def test_each_failed_attempt_is_followed_by_a_longer_rest() -> None:
    driven = preparing(1, 3, backoff_ticks_max=100_000)
    rests = []
    for round in range(1, 60, 10):
        ended = driven.now
        for peer in (0, 2):
            driven.receive(peer, Refuse(ID, _ballot_of(driven), ballot(round + 5, 0)))
        while not driven.take_only(Prepare):
            driven.tick(driven.now + 10)
        rests.append(driven.now - ended)
    assert all(100 << attempt <= 2 * rest <= 3 * (100 << attempt) + 40 for attempt, rest in enumerate(rests, start=1))


def _ballot_of(driven: Driven) -> Ballot:
    return driven.replica._state.leading[ID].ballot


@pytest.mark.parametrize(
    "message",
    [
        Prepare(ID, ballot(1, 2)),
        Accept(ID, ballot(1, 2), NOP, (0, 0, 0)),
        Validate(ID, ballot(1, 2), A, (0, 0, 0)),
        Waiting(ID, 2),
    ],
    ids=lambda message: type(message).__name__,
)
def test_an_instance_that_another_replica_is_recovering_is_left_to_it_for_a_while(
    message: Prepare | Accept | Validate | Waiting,
) -> None:
    driven = witness(1, 3)
    driven.run(90)
    driven.receive(2, message)
    driven.take()
    driven.run(180)
    assert driven.take_only(CommitQuery) == []
    driven.run(300)
    assert len(driven.take_only(CommitQuery)) == 2


def test_an_accept_in_round_0_is_no_recovery() -> None:
    driven = witness(1, 3)
    driven.run(90)
    driven.receive(0, Accept(ID, ballot(0, 0), A, nothing(3)))
    driven.run(120)
    assert len(driven.take_only(CommitQuery)) == 2


def test_a_recovery_begun_by_another_with_a_higher_ballot_ends_the_own() -> None:
    driven = preparing(1, 3)
    driven.receive(2, Prepare(ID, ballot(1, 2)))
    assert driven.take_only(PrepareOk) == [(P2, same(ballot(1, 2), 3))]
    driven.receive(0, same(ballot(1, 1), 3))
    assert driven.take_only(Accept) == []


def test_a_recovery_begun_by_another_with_a_lower_ballot_is_refused() -> None:
    driven = preparing(2, 3)
    driven.receive(1, Prepare(ID, ballot(1, 1)))
    assert driven.take() == [(P1, Refuse(ID, ballot(1, 1), ballot(1, 2)))]
    assert ID in driven.replica._state.leading


def test_the_accept_of_a_recovery_is_repeated_to_peers_that_have_not_voted() -> None:
    driven = preparing(1, 5, unchanged=False)
    for peer in (2, 3):
        driven.receive(peer, prepare_ok(ID, ballot(1, 1), n=5))
    driven.receive(3, AcceptOk(ID, ballot(1, 1)))
    driven.take()
    driven.run(driven.now + 60)
    assert driven.take_only(Accept) == to_all(Accept(ID, ballot(1, 1), NOP, nothing(5)), [0, 2, 4])


def test_an_undecided_instance_is_asked_about_behind_many_that_wait_for_it() -> None:
    """The scan examines a limited number of unexecuted instances, and all of these may be committed already."""
    driven = Driven(1, 3, inquiry_instances_max=1, **SOON)
    waiting = [Commit(at(2, index), A, (0, 0, 40)) for index in range(1, 40)]
    driven.receive(2, *waiting)
    driven.run(400)
    asked = {id for _, query in driven.take_only(CommitQuery) for id in query.ids}
    assert at(2, 40) in asked
