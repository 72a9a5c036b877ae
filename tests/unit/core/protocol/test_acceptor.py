"""How a replica answers each message, and which state is on disk when the answer leaves."""

import pytest

from pydsm.core.log.conflicts import EverythingConflicts
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import Deps
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Commit,
    CommitQuery,
    Invalidator,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    Validate,
    ValidateOk,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P0, P1, P2, Driven, at, ballot, pre_accepted, reading, writing

ID = at(0, 1)
A, B = writing("key", name="a"), writing("key", name="b")
NONE: Deps = (0, 0, 0)
FIRST = ballot(0, 0)


def acceptor() -> Driven:
    return Driven(1, 3)


def that_pre_accepted(initial: Deps = NONE) -> Driven:
    driven = acceptor()
    driven.receive(0, PreAccept(ID, A, initial))
    driven.take()
    return driven


def that_committed() -> Driven:
    driven = acceptor()
    driven.receive(0, Commit(ID, A, NONE))
    driven.take()
    return driven


def that_promised(round: int = 3) -> Driven:
    driven = acceptor()
    driven.receive(2, Prepare(ID, ballot(round, 2)))
    driven.take()
    return driven


def answer(driven: Driven, sender: int, message: Message) -> Message | None:
    """The message sent, if any; it must be sent only to the sender."""
    driven.take()
    driven.receive(sender, message)
    sent = driven.take()
    assert [to for to, _ in sent] in ([sender], [])
    return sent[0][1] if sent else None


def record(driven: Driven) -> InstanceRecord:
    found = driven.disk.record(ID)
    assert found is not None
    return found


# PreAccept


def test_an_instance_without_further_conflicts_is_pre_accepted_unchanged() -> None:
    driven = acceptor()
    assert answer(driven, 0, PreAccept(ID, A, (0, 0, 4))) == PreAcceptOk(ID, (0, 0, 4))
    assert record(driven) == InstanceRecord(ID, Status.PRE_ACCEPTED, FIRST, None, A, (0, 0, 4), A, (0, 0, 4))


def test_conflicts_known_to_the_acceptor_are_added() -> None:
    driven = acceptor()
    driven.receive(2, PreAccept(at(2, 3), B, NONE), PreAccept(at(2, 5), reading("elsewhere"), NONE))
    assert answer(driven, 0, PreAccept(ID, A, (7, 0, 0))) == PreAcceptOk(ID, (7, 0, 3))
    assert (record(driven).deps, record(driven).initial_deps) == ((7, 0, 3), (7, 0, 0))


def test_the_same_pre_accept_gets_the_same_answer_and_is_not_stored_again() -> None:
    driven = that_pre_accepted()
    driven.receive(2, Commit(at(2, 3), B, NONE))
    writes = driven.disk.writes
    assert answer(driven, 0, PreAccept(ID, A, NONE)) == PreAcceptOk(ID, NONE)
    assert driven.disk.writes == writes


def test_a_pre_accept_not_sent_by_the_leader_is_a_protocol_error() -> None:
    with pytest.raises(PeerProtocolError, match=r"replica 2 sent a PreAccept for 0\.1, which only its leader may send"):
        acceptor().receive(2, PreAccept(ID, A, NONE))


def test_a_pre_accept_after_a_promise_is_refused_with_the_promise() -> None:
    assert answer(that_promised(), 0, PreAccept(ID, A, NONE)) == Refuse(ID, FIRST, ballot(3, 2))


def test_a_pre_accept_of_a_committed_instance_is_answered_with_the_commit() -> None:
    assert answer(that_committed(), 0, PreAccept(ID, A, (0, 0, 4))) == Commit(ID, A, NONE)


def test_a_pre_accept_after_the_accept_of_round_0_is_answered_with_the_vote() -> None:
    driven = acceptor()
    driven.receive(0, Accept(ID, FIRST, A, (0, 0, 4)))
    assert answer(driven, 0, PreAccept(ID, A, NONE)) == AcceptOk(ID, FIRST)


# Accept


def test_an_accept_is_voted_for_and_the_vote_is_stored() -> None:
    driven = acceptor()
    assert answer(driven, 2, Accept(ID, ballot(2, 2), A, (0, 0, 4))) == AcceptOk(ID, ballot(2, 2))
    assert record(driven) == InstanceRecord(ID, Status.ACCEPTED, ballot(2, 2), ballot(2, 2), A, (0, 0, 4), None, NONE)


def test_a_vote_keeps_the_initial_batch_and_deps() -> None:
    driven = that_pre_accepted((0, 0, 2))
    assert answer(driven, 2, Accept(ID, ballot(2, 2), NOP, NONE)) == AcceptOk(ID, ballot(2, 2))
    assert record(driven) == InstanceRecord(ID, Status.ACCEPTED, ballot(2, 2), ballot(2, 2), NOP, NONE, A, (0, 0, 2))


def test_the_same_accept_gets_the_same_vote_and_is_not_stored_again() -> None:
    driven = acceptor()
    driven.receive(2, Accept(ID, ballot(2, 2), A, NONE))
    writes = driven.disk.writes
    assert answer(driven, 2, Accept(ID, ballot(2, 2), A, NONE)) == AcceptOk(ID, ballot(2, 2))
    assert driven.disk.writes == writes


def test_an_accept_in_the_promised_ballot_is_taken() -> None:
    assert answer(that_promised(3), 2, Accept(ID, ballot(3, 2), A, NONE)) == AcceptOk(ID, ballot(3, 2))


@pytest.mark.parametrize("lower", [FIRST, ballot(2, 2), ballot(3, 0)])
def test_an_accept_below_the_promise_is_refused_with_the_promise(lower: object) -> None:
    assert isinstance(lower, type(FIRST))
    assert answer(that_promised(3), 2, Accept(ID, lower, A, NONE)) == Refuse(ID, lower, ballot(3, 2))


def test_a_higher_accept_replaces_a_vote() -> None:
    driven = acceptor()
    driven.receive(0, Accept(ID, FIRST, A, (0, 0, 4)))
    assert answer(driven, 2, Accept(ID, ballot(1, 2), NOP, NONE)) == AcceptOk(ID, ballot(1, 2))
    assert (record(driven).voted, record(driven).value) == (ballot(1, 2), NOP)


def test_an_accept_of_a_committed_instance_is_answered_with_the_commit() -> None:
    assert answer(that_committed(), 2, Accept(ID, ballot(9, 2), NOP, NONE)) == Commit(ID, A, NONE)


# Commit


def test_a_commit_is_taken_whatever_was_promised_and_answered_by_nothing() -> None:
    driven = that_promised(9)
    assert answer(driven, 2, Commit(ID, A, NONE)) is None
    assert driven.executed_ids == [ID]


def test_a_second_commit_changes_nothing() -> None:
    driven = that_committed()
    assert answer(driven, 2, Commit(ID, A, NONE)) is None
    assert driven.executed_ids == [ID]


def test_a_nop_committed_twice_may_have_different_vectors() -> None:
    driven = acceptor()
    driven.receive(0, Commit(ID, NOP, NONE), Commit(ID, NOP, (0, 0, 4)))
    assert driven.replica.instances[ID].value == NOP


# Prepare


def test_a_prepare_is_promised_and_answered_with_all_that_is_known() -> None:
    driven = that_pre_accepted((0, 0, 2))
    assert answer(driven, 2, Prepare(ID, ballot(1, 2))) == pre_accepted(ID, ballot(1, 2), A, (0, 0, 2))
    assert record(driven).promised == ballot(1, 2)


def test_a_prepare_of_an_unknown_instance_is_promised_as_well() -> None:
    driven = acceptor()
    unknown = PrepareOk(ID, ballot(1, 2), Status.UNKNOWN, None, None, NONE, None, NONE)
    assert answer(driven, 2, Prepare(ID, ballot(1, 2))) == unknown
    assert record(driven) == InstanceRecord(ID, Status.UNKNOWN, ballot(1, 2), None, None, NONE, None, NONE)


def test_a_vote_is_reported_with_the_ballot_in_which_it_was_given() -> None:
    driven = acceptor()
    driven.receive(0, Accept(ID, FIRST, A, (0, 0, 4)))
    answered = PrepareOk(ID, ballot(1, 2), Status.ACCEPTED, FIRST, A, (0, 0, 4), None, NONE)
    assert answer(driven, 2, Prepare(ID, ballot(1, 2))) == answered
    assert (record(driven).promised, record(driven).voted) == (ballot(1, 2), FIRST)


def test_the_same_prepare_gets_the_same_answer_and_is_not_stored_again() -> None:
    driven = that_pre_accepted()
    first = answer(driven, 2, Prepare(ID, ballot(1, 2)))
    writes = driven.disk.writes
    assert answer(driven, 2, Prepare(ID, ballot(1, 2))) == first
    assert driven.disk.writes == writes


@pytest.mark.parametrize("lower", [(3, 0), (3, 1), (2, 2), (1, 0)])
def test_a_prepare_below_the_promise_is_refused_with_the_promise(lower: tuple[int, int]) -> None:
    assert answer(that_promised(3), 2, Prepare(ID, ballot(*lower))) == Refuse(ID, ballot(*lower), ballot(3, 2))


def test_round_0_cannot_be_prepared() -> None:
    assert answer(acceptor(), 2, Prepare(ID, ballot(0, 2))) == Refuse(ID, ballot(0, 2), FIRST)


def test_a_prepare_of_a_committed_instance_is_answered_with_the_commit() -> None:
    driven = that_committed()
    driven.receive(2, Commit(at(2, 1), NOP, NONE))
    assert answer(driven, 2, Prepare(ID, ballot(9, 2))) == Commit(ID, A, NONE)
    assert answer(driven, 2, Prepare(at(2, 1), ballot(9, 2))) == Commit(at(2, 1), NOP, NONE)


# Validate


def test_a_validate_of_an_unknown_instance_stores_its_initial_batch_and_deps() -> None:
    driven = that_promised(3)
    assert answer(driven, 2, Validate(ID, ballot(3, 2), A, (0, 0, 4))) == ValidateOk(ID, ballot(3, 2), ())
    assert record(driven) == InstanceRecord(ID, Status.UNKNOWN, ballot(3, 2), None, A, NONE, A, (0, 0, 4))


def test_a_validate_leaves_the_vector_and_the_status_of_a_pre_accepted_instance() -> None:
    driven = acceptor()
    driven.receive(2, Commit(at(2, 3), B, (1, 0, 0)))
    driven.receive(0, PreAccept(ID, A, NONE))
    driven.receive(2, Prepare(ID, ballot(3, 2)))
    before = record(driven)
    assert answer(driven, 2, Validate(ID, ballot(3, 2), A, NONE)) == ValidateOk(ID, ballot(3, 2), ())
    assert record(driven) == before
    assert (before.deps, before.initial_deps, before.status) == ((0, 0, 3), NONE, Status.PRE_ACCEPTED)


def test_a_validated_batch_is_in_the_index_from_then_on() -> None:
    driven = that_promised(3)
    driven.receive(2, Validate(ID, ballot(3, 2), A, NONE))
    assert answer(driven, 2, PreAccept(at(2, 1), B, NONE)) == PreAcceptOk(at(2, 1), (1, 0, 0))


def test_a_validate_is_answered_with_the_invalidators_in_order_of_their_ids() -> None:
    driven = that_promised(3)
    driven.receive(2, PreAccept(at(2, 2), B, NONE), Commit(at(2, 1), B, NONE))
    driven.receive(0, Commit(at(0, 3), B, NONE))
    expected = (Invalidator(at(0, 3), True), Invalidator(at(2, 1), True), Invalidator(at(2, 2), False))
    assert answer(driven, 2, Validate(ID, ballot(3, 2), A, (1, 0, 0))) == ValidateOk(ID, ballot(3, 2), expected)


def test_a_repeated_validate_is_answered_with_the_current_invalidators() -> None:
    driven = that_promised(3)
    driven.receive(2, Validate(ID, ballot(3, 2), A, NONE), PreAccept(at(2, 1), B, NONE))
    assert answer(driven, 2, Validate(ID, ballot(3, 2), A, NONE)) == ValidateOk(
        ID, ballot(3, 2), (Invalidator(at(2, 1), False),)
    )


def test_a_validate_below_the_promise_is_refused() -> None:
    assert answer(that_promised(3), 0, Validate(ID, ballot(2, 0), A, NONE)) == Refuse(ID, ballot(2, 0), ballot(3, 2))


def test_a_validate_above_the_promise_is_not_answered() -> None:
    driven = that_promised(3)
    before = record(driven)
    assert answer(driven, 0, Validate(ID, ballot(4, 0), A, NONE)) is None
    assert record(driven) == before


def test_a_validate_after_a_vote_is_late_and_changes_nothing() -> None:
    driven = that_promised(3)
    driven.receive(2, Accept(ID, ballot(3, 2), NOP, NONE))
    before = record(driven)
    assert answer(driven, 2, Validate(ID, ballot(3, 2), A, NONE)) is None
    assert record(driven) == before


def test_a_validate_of_a_committed_instance_is_answered_with_the_commit() -> None:
    assert answer(that_committed(), 2, Validate(ID, ballot(3, 2), A, NONE)) == Commit(ID, A, NONE)


# CommitQuery


def test_an_inquiry_is_answered_by_a_commit_for_each_decided_instance_and_nothing_else() -> None:
    driven = that_committed()
    driven.receive(2, PreAccept(at(2, 1), B, NONE), Commit(at(2, 2), NOP, NONE))
    driven.take()
    driven.receive(2, CommitQuery((at(2, 9), at(2, 2), ID, at(2, 1))))
    assert driven.take() == [(P2, Commit(at(2, 2), NOP, NONE)), (P2, Commit(ID, A, NONE))]


# Waiting instances are woken


def test_every_message_with_a_batch_wakes_the_instances_that_wait_for_it() -> None:
    """2.1 covers 0.1 and does not conflict with it."""
    apart = writing("apart")
    for teach in (
        [PreAccept(ID, apart, NONE)],
        [Accept(ID, FIRST, apart, NONE)],
        [Prepare(ID, ballot(1, 0)), Validate(ID, ballot(1, 0), apart, NONE)],
        [Commit(ID, apart, (0, 0, 9))],
    ):
        driven = acceptor()
        driven.receive(2, Commit(at(2, 1), A, (1, 0, 0)))
        assert driven.executed == []
        driven.receive(0, *teach)
        assert at(2, 1) in driven.executed_ids


def test_a_users_relation_determines_the_conflicts() -> None:
    driven = Driven(1, 3, relation=EverythingConflicts())
    driven.receive(2, PreAccept(at(2, 4), reading("x"), NONE))
    assert answer(driven, 0, PreAccept(ID, reading("y"), NONE)) == PreAcceptOk(ID, (0, 0, 4))


def test_a_replica_answers_itself_by_the_same_rules() -> None:
    leader = Driven(0, 3)
    leader.propose(A)
    leader.receive(2, Prepare(ID, ballot(1, 2)))
    leader.take()
    leader.replica.receive(P0, PreAcceptOk(ID, NONE))
    leader.replica.receive(P1, PreAcceptOk(ID, NONE))
    leader.performer.pump()
    assert leader.take() == []
