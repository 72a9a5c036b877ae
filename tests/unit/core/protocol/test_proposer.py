"""How a leader commits: its decisions from the received vectors, and what it sends and stores."""

from collections.abc import Sequence

import pytest

from pydsm.core.protocol.proposer import (
    AcceptSlow,
    CommitFast,
    PipelineFull,
    SendToAllPeers,
    WaitForAnswers,
    decide_pre_accept,
)
from pydsm.core.types.effects import ReservationRecord
from pydsm.core.types.ids import Deps
from pydsm.core.types.messages import NOP, Accept, AcceptOk, Commit, PreAccept, PreAcceptOk, Prepare, PrepareOk, Refuse
from pydsm.core.types.quorums import quorums
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P1, P2, P3, P4, Driven, at, ballot, pre_accepted, to_all, writing

A = writing("key", name="a")
B = writing("key", name="b")

# The decision: vectors of a group of any size, written for three


def same(n: int) -> Deps:
    return (0,) * n


def more(n: int, leader: int = 1) -> Deps:
    return tuple(int(place == leader) for place in range(n))


def decide(
    n: int, answers: Sequence[Deps], *, outstanding: int = 0, not_sent_to: int = 0, late: bool = False
) -> CommitFast | AcceptSlow | SendToAllPeers | WaitForAnswers:
    return decide_pre_accept(
        same(n), answers, outstanding=outstanding, not_sent_to=not_sent_to, late=late, quorums=quorums(n)
    )


every_size = pytest.mark.parametrize(
    ("n", "fast", "slow"), [(1, 1, 1), (2, 2, 2), (3, 2, 2), (4, 3, 3), (5, 3, 3), (6, 4, 4), (7, 5, 4)]
)


@every_size
def test_a_fast_quorum_of_unchanged_vectors_commits(n: int, fast: int, slow: int) -> None:
    assert decide(n, [same(n)] * fast, outstanding=n - fast) == CommitFast()


@every_size
def test_one_unchanged_vector_less_than_a_fast_quorum_does_not_commit(n: int, fast: int, slow: int) -> None:
    assert decide(n, [same(n)] * (fast - 1), outstanding=n - fast + 1) == WaitForAnswers()


@pytest.mark.parametrize(("n", "fast"), [(3, 2), (5, 3), (7, 5)])
def test_a_fast_quorum_of_unchanged_vectors_commits_with_any_other_answers(n: int, fast: int) -> None:
    assert decide(n, [more(n)] * (n - fast) + [same(n)] * fast, late=True) == CommitFast()


def test_while_the_fast_path_is_open_a_changed_vector_is_waited_over() -> None:
    assert decide(3, [same(3), more(3)], outstanding=1) == WaitForAnswers()
    assert decide(5, [same(5), more(5), more(5, 2)], outstanding=2) == WaitForAnswers()


def test_as_soon_as_the_fast_path_is_impossible_the_merged_vector_is_accepted() -> None:
    assert decide(5, [same(5), more(5, 1), more(5, 2)], outstanding=1) == AcceptSlow((0, 1, 1, 0, 0))
    assert decide(3, [same(3), more(3)]) == AcceptSlow((0, 1, 0))


def test_with_the_fast_path_impossible_a_slow_quorum_is_still_needed() -> None:
    assert decide(7, [same(7), more(7), more(7)], outstanding=3) == WaitForAnswers()
    assert decide(7, [same(7), more(7), more(7), more(7)], outstanding=3) == AcceptSlow(more(7))


def test_late_a_slow_quorum_is_enough() -> None:
    assert decide(7, [same(7)] * 4, outstanding=3, late=True) == AcceptSlow(same(7))
    assert decide(7, [same(7)] * 3, outstanding=4, late=True) == WaitForAnswers()


def test_the_merge_contains_the_first_vector_even_if_the_leader_has_not_answered_itself() -> None:
    decision = decide_pre_accept(
        (5, 0, 0, 0, 0),
        [(4, 1, 0, 0, 0), (4, 0, 1, 0, 0), (4, 0, 0, 0, 0)],
        outstanding=2,
        not_sent_to=0,
        late=True,
        quorums=quorums(5),
    )
    assert decision == AcceptSlow((5, 1, 1, 0, 0))


def test_the_other_peers_are_asked_if_the_fast_path_is_impossible_without_them() -> None:
    assert decide(5, [same(5), more(5)], outstanding=1, not_sent_to=2) == SendToAllPeers()


def test_not_sent_to_peers_are_asked_when_an_answer_is_late() -> None:
    assert decide(5, [same(5)], outstanding=2, not_sent_to=2, late=True) == SendToAllPeers()


def test_the_other_peers_are_not_asked_while_answers_are_in_time() -> None:
    assert decide(5, [same(5), same(5)], outstanding=1, not_sent_to=2) == WaitForAnswers()


def test_a_complete_slow_quorum_is_used_before_more_peers_are_asked() -> None:
    assert decide(5, [same(5), more(5), more(5)], not_sent_to=2) == AcceptSlow(more(5))


# Proposing


def test_a_proposal_is_sent_to_all_peers_with_all_its_conflicts() -> None:
    leader = Driven(0, 3)
    first, second = leader.propose(A), leader.propose(B)
    assert (first, second) == (at(0, 1), at(0, 2))
    assert leader.take_only(PreAccept) == [
        *to_all(PreAccept(first, A, (0, 0, 0)), [1, 2]),
        *to_all(PreAccept(second, B, (1, 0, 0)), [1, 2]),
    ]


def test_a_proposal_stores_a_reservation_that_covers_it_and_nothing_else() -> None:
    leader = Driven(0, 3, reservation_block=8)
    leader.propose(A)
    assert leader.disk.load() == [ReservationRecord(8)]


def test_the_first_pre_accept_of_a_start_waits_for_its_reservation_and_later_ones_leave_early() -> None:
    leader = Driven(0, 3)
    leader.disk.holding = True
    leader.propose(A)
    assert leader.take() == []
    leader.disk.finish()
    assert [to for to, _ in leader.take_only(PreAccept)] == [P1, P2]
    leader.propose(B)
    assert not leader.disk.busy
    assert [to for to, _ in leader.take_only(PreAccept)] == [P1, P2]


def test_a_reservation_is_renewed_half_a_block_before_it_is_used_up() -> None:
    leader = Driven(0, 3, reservation_block=4)
    reserved = []
    for place in range(7):
        leader.propose(writing(str(place)))
        reserved.append(leader.disk.load()[0])
    assert reserved == [ReservationRecord(up_to) for up_to in (4, 4, 8, 8, 8, 8, 12)]


def test_a_pre_accept_above_the_durable_reservation_is_not_sent_early() -> None:
    leader = Driven(0, 3, reservation_block=1)
    leader.propose(A)
    leader.take()
    leader.disk.holding = True
    leader.propose(B)
    assert leader.take() == []


def test_a_full_pipeline_refuses_and_changes_nothing_until_something_is_executed() -> None:
    leader = Driven(0, 3, pipeline_instances_max=2)
    first = leader.propose(A)
    leader.propose(B)
    leader.take()
    assert leader.replica.propose(writing("third")) == PipelineFull(in_flight=2)
    leader.performer.pump()
    assert leader.take() == []
    leader.receive(1, PreAcceptOk(first, (0, 0, 0)))
    assert leader.propose(writing("third")) == at(0, 3)


def test_a_group_of_one_commits_as_soon_as_its_disk_has_it() -> None:
    alone = Driven(0, 1)
    alone.disk.holding = True
    id = alone.propose(A)
    assert alone.executed == []
    alone.disk.finish()
    alone.disk.finish()
    assert alone.executed_ids == [id]
    assert alone.take() == []


# Round 0


def test_an_unchanged_answer_of_one_of_two_peers_commits_on_the_fast_path() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, PreAcceptOk(id, (0, 0, 0)))
    assert leader.take() == to_all(Commit(id, A, (0, 0, 0)), [1, 2])
    assert leader.executed_ids == [id]
    assert (leader.replica.counters.fast, leader.replica.counters.slow) == (1, 0)


def test_a_fast_commit_is_sent_and_executed_only_when_it_is_durable() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.disk.holding = True
    leader.receive(1, PreAcceptOk(id, (0, 0, 0)))
    assert (leader.take(), leader.executed) == ([], [])
    leader.disk.finish()
    assert (len(leader.take()), leader.executed_ids) == (2, [id])


def test_a_second_answer_of_one_replica_counts_for_nothing() -> None:
    leader = Driven(0, 5)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, *[PreAcceptOk(id, (0, 0, 0, 0, 0))] * 3)
    assert leader.take() == []
    leader.receive(2, PreAcceptOk(id, (0, 0, 0, 0, 0)))
    assert leader.take() == to_all(Commit(id, A, (0, 0, 0, 0, 0)), [1, 2, 3, 4])


def test_vectors_too_different_for_the_fast_path_lead_to_an_accept_of_their_merge() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, PreAcceptOk(id, (0, 4, 0)))
    assert leader.take() == []
    leader.receive(2, PreAcceptOk(id, (0, 0, 7)))
    assert leader.take() == to_all(Accept(id, ballot(0, 0), A, (0, 4, 7)), [1, 2])
    assert leader.replica.counters.slow == 1


def test_an_answer_after_the_decision_or_for_another_phase_changes_nothing() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0, 4, 0)))
    leader.receive(2, PreAcceptOk(id, (0, 0, 7)))
    leader.take()
    leader.receive(1, PreAcceptOk(id, (0, 0, 0)))
    leader.receive(1, PreAcceptOk(at(0, 9), (0, 0, 0)))
    assert leader.take() == []


def test_an_instance_named_in_the_vector_of_an_answer_becomes_known() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0, 4, 0)))
    assert leader.replica.known == (1, 4, 0)


def test_the_own_vote_on_the_slow_path_counts_only_when_it_is_durable() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0, 4, 0)))
    leader.disk.holding = True
    leader.receive(2, PreAcceptOk(id, (0, 0, 7)))
    leader.receive(1, AcceptOk(id, ballot(0, 0)))
    assert not leader.replica.instances[id].decided
    leader.disk.finish()
    assert leader.replica.instances[id].decided


def slow_path(n: int = 3) -> Driven:
    """A leader whose instance 0.1 has reached Accept, all its messages taken."""
    leader = Driven(0, n)
    id = leader.propose(A)
    for peer in range(1, n):
        leader.receive(peer, PreAcceptOk(id, (0,) * (n - 1) + (peer,)))
    leader.take()
    return leader


def test_a_slow_quorum_of_votes_commits_the_merge_and_sends_it_to_all() -> None:
    leader = slow_path(3)
    leader.receive(1, AcceptOk(at(0, 1), ballot(0, 0)))
    assert leader.take() == to_all(Commit(at(0, 1), A, (0, 0, 2)), [1, 2])


def test_a_second_vote_of_one_replica_counts_for_nothing() -> None:
    leader = slow_path(5)
    leader.receive(1, *[AcceptOk(at(0, 1), ballot(0, 0))] * 3)
    assert leader.take() == []
    leader.receive(4, AcceptOk(at(0, 1), ballot(0, 0)))
    assert len(leader.take_only(Commit)) == 4


def test_a_vote_in_another_ballot_counts_for_nothing() -> None:
    leader = slow_path(3)
    leader.receive(1, AcceptOk(at(0, 1), ballot(0, 1)), AcceptOk(at(0, 1), ballot(1, 0)))
    assert leader.take() == []


def test_a_vote_for_an_instance_that_this_replica_does_not_lead_is_ignored() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, AcceptOk(id, ballot(0, 0)), AcceptOk(at(0, 7), ballot(0, 0)))
    assert leader.take() == []


def test_a_decision_made_elsewhere_ends_the_own_attempt() -> None:
    leader = slow_path(3)
    leader.receive(1, Commit(at(0, 1), NOP, (0, 0, 0)))
    leader.receive(1, AcceptOk(at(0, 1), ballot(0, 0)))
    assert leader.take() == []
    assert [abort.id for abort in leader.aborted] == [at(0, 1)]


# Refusals


def test_a_refusal_that_closes_the_fast_path_leads_to_the_slow_one() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, PreAcceptOk(id, (0, 4, 0)))
    leader.receive(2, Refuse(id, ballot(0, 0), ballot(2, 2)))
    assert leader.take() == to_all(Accept(id, ballot(0, 0), A, (0, 4, 0)), [1, 2])


def test_more_refusals_than_may_be_down_end_the_attempt() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, Refuse(id, ballot(0, 0), ballot(2, 2)))
    leader.receive(2, Refuse(id, ballot(0, 0), ballot(2, 2)), PreAcceptOk(id, (0, 0, 0)))
    assert leader.take() == []
    assert not leader.replica.instances[id].decided


# Time


def test_before_the_fast_timer_nothing_is_repeated() -> None:
    leader = Driven(0, 3, fast_timer_ticks=20)
    leader.propose(A)
    leader.take()
    leader.tick(19)
    assert leader.take() == []


def test_at_the_fast_timer_a_slow_quorum_is_enough() -> None:
    leader = Driven(0, 7, fast_timer_ticks=20)
    id = leader.propose(A)
    for peer in (1, 2, 3):
        leader.receive(peer, PreAcceptOk(id, (0,) * 7))
    leader.take()
    leader.tick(20)
    assert leader.take() == to_all(Accept(id, ballot(0, 0), A, (0,) * 7), range(1, 7))


def test_without_a_slow_quorum_silent_peers_are_asked_again_at_growing_intervals() -> None:
    leader = Driven(0, 5, fast_timer_ticks=20, retry_ticks=100, backoff_ticks_max=300)
    id = leader.propose(A)
    leader.receive(2, PreAcceptOk(id, (0,) * 5))
    leader.take()
    asked_at = []
    for now in range(10, 1200, 10):
        leader.tick(now)
        asked = leader.take_only(PreAccept)
        if asked:
            assert asked == to_all(PreAccept(id, A, (0,) * 5), [1, 3, 4])
            asked_at.append(now)
    assert asked_at == [20, 120, 320, 620, 920]


def patience(n: int, answers_after_ticks: Sequence[int]) -> int:
    """How long a leader waits for its second instance, whose first was answered by some peers after so many ticks."""
    leader = Driven(0, n, fast_timer_ticks=20)
    id = leader.propose(A)
    for peer, ticks in enumerate(answers_after_ticks, start=1):
        leader.tick(ticks)
        leader.receive(peer, PreAcceptOk(id, (0,) * n))
    leader.propose(writing("another"))
    proposed_at = leader.now
    leader.take()
    while not leader.take_only(PreAccept):
        leader.tick(leader.now + 1)
    return leader.now - proposed_at


def test_the_fast_timer_allows_twice_the_measured_distance_of_the_farthest_needed_peer() -> None:
    assert patience(3, []) == 20
    assert patience(3, [80]) == 20 + 2 * 80
    assert patience(5, [30, 80]) == 20 + 2 * 80


def test_peers_that_always_answer_after_the_decision_do_not_pass_for_near_ones() -> None:
    assert patience(3, [80, 90]) == 20 + 2 * 80
    assert patience(5, [30, 80, 90, 90]) == 20 + 2 * 80


def test_an_eighth_of_each_further_measurement_is_learnt() -> None:
    leader = Driven(0, 2, fast_timer_ticks=20)
    for ticks, index in ((80, 1), (160, 2)):
        leader.propose(writing(str(index)))
        leader.tick(leader.now + ticks)
        leader.receive(1, PreAcceptOk(at(0, index), (0, 0)))
    leader.propose(A)
    leader.take()
    leader.tick(leader.now + 20 + 2 * 90 - 1)
    assert leader.take_only(PreAccept) == []
    leader.tick(leader.now + 1)
    assert len(leader.take_only(PreAccept)) == 1


def test_an_accept_is_repeated_to_peers_that_have_not_voted() -> None:
    leader = slow_path(5)
    leader.receive(3, AcceptOk(at(0, 1), ballot(0, 0)))
    leader.tick(99)
    assert leader.take_only(Accept) == []
    leader.tick(100)
    assert leader.take_only(Accept) == to_all(Accept(at(0, 1), ballot(0, 0), A, (0, 0, 0, 0, 3)), [1, 2, 4])


# Thrifty


def test_a_thrifty_leader_sends_to_a_quorum_only() -> None:
    leader = Driven(0, 5, thrifty=True)
    leader.propose(A)
    assert [to for to, _ in leader.take_only(PreAccept)] == [P1, P2]


def test_a_thrifty_leader_of_three_asks_one_and_commits_with_it() -> None:
    leader = Driven(0, 3, thrifty=True)
    id = leader.propose(A)
    assert [to for to, _ in leader.take_only(PreAccept)] == [P1]
    leader.receive(1, PreAcceptOk(id, (0, 0, 0)))
    assert leader.take() == to_all(Commit(id, A, (0, 0, 0)), [1, 2])


def test_a_thrifty_leader_sends_to_all_peers_when_one_is_late() -> None:
    leader = Driven(0, 5, thrifty=True, fast_timer_ticks=20)
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0,) * 5))
    leader.take()
    leader.tick(20)
    assert sorted(to for to, _ in leader.take_only(PreAccept)) == [P2, P3, P4]


def test_a_thrifty_leader_sends_to_all_peers_when_an_answer_differs() -> None:
    leader = Driven(0, 5, thrifty=True)
    id = leader.propose(A)
    leader.take()
    leader.receive(1, PreAcceptOk(id, (0, 4, 0, 0, 0)))
    assert leader.take() == to_all(PreAccept(id, A, (0,) * 5), [3, 4])


def test_a_thrifty_leader_sends_to_the_nearest_peers() -> None:
    leader = Driven(0, 3, thrifty=True, fast_timer_ticks=1000)
    leader.propose(A)
    leader.tick(16)
    leader.receive(1, PreAcceptOk(at(0, 1), (0, 0, 0)))
    leader.take()
    leader.propose(B)
    assert [to for to, _ in leader.take_only(PreAccept)] == [P2]


def test_a_thrifty_leader_passes_over_one_that_is_late_until_it_answers() -> None:
    leader = Driven(0, 3, thrifty=True, fast_timer_ticks=20)
    first = leader.propose(A)
    leader.tick(20)
    leader.receive(2, PreAcceptOk(first, (0, 0, 0)))
    leader.take()
    leader.propose(writing("second"))
    assert [to for to, _ in leader.take_only(PreAccept)] == [P2]
    leader.receive(1, PreAcceptOk(first, (0, 0, 0)))
    leader.propose(writing("third"))
    assert [to for to, _ in leader.take_only(PreAccept)] == [P1]


def test_a_thrifty_leader_sends_accept_to_a_slow_quorum_and_to_all_peers_when_it_is_late() -> None:
    leader = Driven(0, 7, thrifty=True, fast_timer_ticks=20)
    id = leader.propose(A)
    for peer in (1, 2, 3, 4):
        leader.receive(peer, PreAcceptOk(id, (0,) * 6 + (peer,)))
    accept = Accept(id, ballot(0, 0), A, (0, 0, 0, 0, 0, 0, 3))
    assert leader.take_only(Accept) == to_all(accept, [1, 2, 3])
    leader.receive(2, AcceptOk(id, ballot(0, 0)))
    leader.tick(20)
    assert leader.take_only(Accept) == to_all(accept, [1, 3, 4, 5, 6])


# After a restart, and above round 0


def test_a_restarted_leader_begins_above_everything_that_it_may_have_used() -> None:
    leader = Driven(0, 3, reservation_block=8)
    leader.propose(A)
    leader.restart()
    assert leader.propose(B) == at(0, 9)


def test_the_votes_of_a_recovery_decide_like_those_of_round_0() -> None:
    recoverer = Driven(1, 3, recovery_timeout_ticks=100, recovery_jitter_ticks=1)
    recoverer.receive(0, PreAccept(at(0, 1), A, (0, 0, 0)))
    recoverer.run(400)
    (prepare,) = {message for _, message in recoverer.take_only(Prepare)}
    recoverer.receive(0, PrepareOk(at(0, 1), prepare.ballot, Status.UNKNOWN, None, None, (0, 0, 0), None, (0, 0, 0)))
    assert recoverer.take() == to_all(Accept(at(0, 1), prepare.ballot, NOP, (0, 0, 0)), [0, 2])
    recoverer.receive(2, AcceptOk(at(0, 1), ballot(0, 0)))
    assert recoverer.take() == []
    recoverer.receive(2, AcceptOk(at(0, 1), prepare.ballot))
    assert recoverer.take() == to_all(Commit(at(0, 1), NOP, (0, 0, 0)), [0, 2])
    assert recoverer.replica.counters.recovered == 1


def test_a_recovery_sends_accept_to_all_peers_even_if_leaders_are_thrifty() -> None:
    recoverer = Driven(1, 5, thrifty=True, recovery_timeout_ticks=100, recovery_jitter_ticks=1)
    recoverer.receive(0, PreAccept(at(0, 1), A, (0, 0, 0, 0, 0)))
    recoverer.run(600)
    (prepare,) = {message for _, message in recoverer.take_only(Prepare)}
    for peer in (0, 2):
        nothing = PrepareOk(at(0, 1), prepare.ballot, Status.UNKNOWN, None, None, (0,) * 5, None, (0,) * 5)
        recoverer.receive(peer, nothing)
    assert [to for to, message in recoverer.take() if isinstance(message, Accept)] == [0, 2, 3, 4]


def test_a_recovery_begun_elsewhere_ends_the_own_attempt() -> None:
    leader = Driven(0, 3)
    id = leader.propose(A)
    leader.take()
    leader.receive(2, Prepare(id, ballot(1, 2)))
    assert leader.take() == [(P2, pre_accepted(id, ballot(1, 2), A, (0, 0, 0)))]
    leader.receive(1, PreAcceptOk(id, (0, 0, 0)))
    assert not leader.replica.instances[id].decided
