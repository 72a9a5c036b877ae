"""Each rule of PROTOCOL 4, at its boundaries, for groups of three, five and seven: values in, decisions out.

n=3: f=1 e=1, n=5: f=2 e=2, n=7: f=3 e=2. The instance is 0.1; a quorum without its leader begins at replica 1.
"""

from collections.abc import Mapping

import pytest

from pydsm.core.protocol.recovery_rules import (
    AcceptValue,
    AwaitInvalidatorStates,
    InvalidatorState,
    Rule,
    ValidateValue,
    after_prepare,
    after_validate,
    while_waiting,
)
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import NOP, PrepareOk, Value
from pydsm.core.types.quorums import quorums
from pydsm.core.types.status import Status
from tests.unit.core.helpers import accepted, at, ballot, pre_accepted, prepare_ok, writing

ID = at(0, 1)
OTHER, THIRD = at(1, 4), at(2, 4)
BATCH, ELSE = writing("key"), writing("key", name="else")
B = ballot(3, 1)

every_size = pytest.mark.parametrize("n", [3, 5, 7])


def vector(n: int, *entries: int) -> Deps:
    return (*entries, *[0] * (n - len(entries)))


def initial(n: int) -> Deps:
    return vector(n, 0, 3)


def larger(n: int) -> Deps:
    return vector(n, 0, 4)


def unknown(n: int) -> PrepareOk:
    return prepare_ok(ID, B, n=n)


def unchanged(n: int) -> PrepareOk:
    return pre_accepted(ID, B, BATCH, initial(n))


def changed(n: int) -> PrepareOk:
    return pre_accepted(ID, B, BATCH, initial(n), larger(n))


def vote(n: int, round: int, value: Value, deps: Deps | None = None) -> PrepareOk:
    return accepted(ID, B, ballot(round, 2), value, deps or larger(n))


def from_replicas(first: int, *answers: PrepareOk) -> dict[ReplicaId, PrepareOk]:
    return {ReplicaId(first + place): answer for place, answer in enumerate(answers)}


def quorum_with(n: int, unchanged_answers: int, size: int | None = None) -> dict[ReplicaId, PrepareOk]:
    """A slow quorum, or a larger one, without the leader, in which so many pre-accepted without a change."""
    size = size or quorums(n).slow
    rest = [changed(n), unknown(n)] * n
    return from_replicas(1, *([unchanged(n)] * unchanged_answers + rest)[:size])


def nop(rule: Rule, n: int) -> AcceptValue:
    return AcceptValue(rule, NOP, vector(n))


# After Prepare


@every_size
def test_a_vote_wins_over_everything_else_that_was_answered(n: int) -> None:
    answers = from_replicas(0, unchanged(n), *[unchanged(n)] * (quorums(n).slow - 2), vote(n, 1, BATCH))
    assert after_prepare(ID, answers, quorums(n)) == AcceptValue(Rule.VOTED_VALUE, BATCH, larger(n))


@every_size
def test_an_accepted_nop_is_a_vote_like_any_other(n: int) -> None:
    answers = from_replicas(1, vote(n, 1, NOP, vector(n)), *[unchanged(n)] * (quorums(n).slow - 1))
    assert after_prepare(ID, answers, quorums(n)) == nop(Rule.VOTED_VALUE, n)


@pytest.mark.parametrize("rounds", [(1, 2), (2, 1)])
def test_of_several_votes_the_one_in_the_highest_ballot_wins(rounds: tuple[int, int]) -> None:
    values: dict[int, Value] = {1: NOP, 2: BATCH}
    answers = from_replicas(1, *[vote(5, round, values[round]) for round in rounds], unknown(5))
    assert after_prepare(ID, answers, quorums(5)) == AcceptValue(Rule.VOTED_VALUE, BATCH, larger(5))


def test_of_two_votes_in_one_round_the_higher_replica_counts_as_higher() -> None:
    low, high = accepted(ID, B, ballot(2, 1), NOP, vector(3)), accepted(ID, B, ballot(2, 2), BATCH, larger(3))
    assert after_prepare(ID, from_replicas(1, low, high), quorums(3)) == AcceptValue(Rule.VOTED_VALUE, BATCH, larger(3))
    assert after_prepare(ID, from_replicas(1, high, low), quorums(3)) == AcceptValue(Rule.VOTED_VALUE, BATCH, larger(3))


def test_a_vote_in_round_0_counts() -> None:
    first = accepted(ID, B, ballot(0, 0), BATCH, larger(3))
    assert after_prepare(ID, from_replicas(1, first, unknown(3)), quorums(3)) == AcceptValue(
        Rule.VOTED_VALUE, BATCH, larger(3)
    )


@every_size
def test_the_leader_in_the_quorum_makes_it_a_nop_however_many_are_unchanged(n: int) -> None:
    answers = from_replicas(0, *[unchanged(n)] * quorums(n).slow)
    assert after_prepare(ID, answers, quorums(n)) == nop(Rule.LEADER_UNDECIDED, n)


@every_size
def test_exactly_as_many_unchanged_as_the_fast_path_needs_must_be_validated(n: int) -> None:
    needed = quorums(n).slow - quorums(n).e
    assert after_prepare(ID, quorum_with(n, needed), quorums(n)) == ValidateValue(
        Rule.MUST_VALIDATE, BATCH, initial(n), needed
    )


@every_size
def test_all_unchanged_must_be_validated(n: int) -> None:
    size = quorums(n).slow
    assert after_prepare(ID, quorum_with(n, size), quorums(n)) == ValidateValue(
        Rule.MUST_VALIDATE, BATCH, initial(n), size
    )


@every_size
def test_one_unchanged_too_few_is_a_nop(n: int) -> None:
    too_few = quorums(n).slow - quorums(n).e - 1
    assert after_prepare(ID, quorum_with(n, too_few), quorums(n)) == nop(Rule.TOO_FEW_UNCHANGED, n)


@pytest.mark.parametrize("n", [5, 7])
def test_a_larger_quorum_needs_more_unchanged_answers(n: int) -> None:
    size = quorums(n).slow + 1
    needed = size - quorums(n).e
    assert after_prepare(ID, quorum_with(n, needed, size), quorums(n)) == ValidateValue(
        Rule.MUST_VALIDATE, BATCH, initial(n), needed
    )
    assert after_prepare(ID, quorum_with(n, needed - 1, size), quorums(n)) == nop(Rule.TOO_FEW_UNCHANGED, n)


def test_an_instance_unknown_to_the_quorum_becomes_a_nop() -> None:
    assert after_prepare(ID, from_replicas(1, unknown(3), unknown(3)), quorums(3)) == nop(Rule.TOO_FEW_UNCHANGED, 3)


def test_a_validated_batch_is_not_a_pre_accepted_one() -> None:
    """A Validate of an earlier ballot leaves the batch and the first vector, and the status as it was."""
    validated = PrepareOk(ID, B, Status.UNKNOWN, None, BATCH, vector(3), BATCH, initial(3))
    empty = PrepareOk(ID, B, Status.UNKNOWN, None, BATCH, vector(3), BATCH, vector(3))
    assert after_prepare(ID, from_replicas(1, validated, validated), quorums(3)) == nop(Rule.TOO_FEW_UNCHANGED, 3)
    assert after_prepare(ID, from_replicas(1, empty, empty), quorums(3)) == nop(Rule.TOO_FEW_UNCHANGED, 3)


def test_the_value_to_validate_is_that_of_the_unchanged_and_not_of_the_first_answer() -> None:
    decision = after_prepare(ID, from_replicas(1, changed(3), unchanged(3)), quorums(3))
    assert decision == ValidateValue(Rule.MUST_VALIDATE, BATCH, initial(3), 1)


def test_a_group_of_four_counts_with_its_own_quorums() -> None:
    """n=4: f=1, e=1, slow 3: two unchanged of three are needed."""
    assert after_prepare(ID, quorum_with(4, 2), quorums(4)) == ValidateValue(Rule.MUST_VALIDATE, BATCH, initial(4), 2)
    assert after_prepare(ID, quorum_with(4, 1), quorums(4)) == nop(Rule.TOO_FEW_UNCHANGED, 4)


# After Validate


def validated(
    n: int, unchanged_answers: int, invalidators: Mapping[InstanceId, bool]
) -> AcceptValue | AwaitInvalidatorStates:
    quorum = quorum_with(n, unchanged_answers)
    return after_validate(BATCH, initial(n), unchanged_answers, quorum, invalidators, quorums(n))


@every_size
def test_without_invalidators_the_batch_is_accepted_with_the_first_vector(n: int) -> None:
    enough = quorums(n).slow - quorums(n).e
    assert validated(n, enough, {}) == AcceptValue(Rule.NO_INVALIDATORS, BATCH, initial(n))


@every_size
def test_a_committed_invalidator_makes_it_a_nop_even_among_open_ones(n: int) -> None:
    found = {OTHER: False, THIRD: True}
    assert validated(n, quorums(n).slow, found) == nop(Rule.COMMITTED_INVALIDATOR, n)


@every_size
def test_with_just_enough_unchanged_an_invalidator_whose_leader_is_away_makes_it_a_nop(n: int) -> None:
    just_enough = quorums(n).slow - quorums(n).e
    away = at(0, 9)
    assert validated(n, just_enough, {OTHER: False, away: False}) == nop(Rule.INVALIDATING_LEADER_AWAY, n)


@every_size
def test_with_one_unchanged_more_an_invalidator_whose_leader_is_away_is_waited_for(n: int) -> None:
    away = at(0, 9)
    one_more = quorums(n).slow - quorums(n).e + 1
    assert validated(n, one_more, {away: False}) == AwaitInvalidatorStates(Rule.MUST_WAIT, (away,))


@every_size
def test_with_just_enough_unchanged_invalidators_whose_leaders_are_in_the_quorum_are_waited_for(n: int) -> None:
    just_enough = quorums(n).slow - quorums(n).e
    found = {OTHER: False, at(quorums(n).slow, 9): False}
    assert validated(n, just_enough, found) == AwaitInvalidatorStates(Rule.MUST_WAIT, tuple(found))


@pytest.mark.parametrize(("unchanged_answers", "rule"), [(2, Rule.INVALIDATING_LEADER_AWAY), (3, Rule.MUST_WAIT)])
def test_just_enough_depends_on_how_many_answered(unchanged_answers: int, rule: Rule) -> None:
    """Four of five answered: two unchanged are just enough, three are not."""
    quorum = from_replicas(1, *[unchanged(5)] * unchanged_answers, *[changed(5)] * (4 - unchanged_answers))
    found = {at(0, 2): False}
    assert after_validate(BATCH, initial(5), unchanged_answers, quorum, found, quorums(5)).rule is rule


# While waiting


def waited(
    n: int,
    fates: Mapping[InstanceId, InvalidatorState],
    waiting: Mapping[InstanceId, int] | None = None,
    late: Mapping[ReplicaId, PrepareOk] | None = None,
) -> AcceptValue | None:
    return while_waiting(ID, BATCH, initial(n), fates, waiting or {}, late or {}, quorums(n))


@every_size
def test_with_every_fate_open_it_waits_on(n: int) -> None:
    assert waited(n, {OTHER: InvalidatorState.OPEN, THIRD: InvalidatorState.OPEN}) is None


@every_size
def test_one_invalidator_committed_without_an_order_ends_the_wait_with_a_nop(n: int) -> None:
    assert waited(n, {OTHER: InvalidatorState.OPEN, THIRD: InvalidatorState.UNORDERED}) == nop(
        Rule.UNORDERED_COMMITTED, n
    )


@every_size
def test_harmless_ones_end_the_wait_only_when_all_of_them_are(n: int) -> None:
    assert waited(n, {OTHER: InvalidatorState.HARMLESS, THIRD: InvalidatorState.OPEN}) is None
    assert waited(n, {OTHER: InvalidatorState.HARMLESS, THIRD: InvalidatorState.HARMLESS}) == AcceptValue(
        Rule.ALL_ORDERED, BATCH, initial(n)
    )


@pytest.mark.parametrize(("n", "bound"), [(3, 1), (5, 1), (7, 2)])
def test_an_invalidator_that_waits_with_more_than_n_f_e_unchanged_ends_the_wait(n: int, bound: int) -> None:
    """`k > n-f-e`: at the bound itself it waits on."""
    assert waited(n, {OTHER: InvalidatorState.OPEN}, waiting={OTHER: bound}) is None
    assert waited(n, {OTHER: InvalidatorState.OPEN}, waiting={OTHER: bound + 1}) == nop(Rule.INVALIDATOR_WAITS_TOO, n)


def test_waiting_of_an_instance_that_is_no_invalidator_means_nothing() -> None:
    assert waited(5, {OTHER: InvalidatorState.OPEN}, waiting={THIRD: 5, ID: 5}) is None


@every_size
def test_a_late_vote_is_taken(n: int) -> None:
    late = {ReplicaId(n - 1): vote(n, 2, BATCH)}
    assert waited(n, {OTHER: InvalidatorState.OPEN}, late=late) == AcceptValue(Rule.LATE_VOTE, BATCH, larger(n))


def test_of_two_late_votes_the_higher_is_taken() -> None:
    late = {ReplicaId(3): vote(5, 2, BATCH), ReplicaId(4): vote(5, 1, NOP)}
    assert waited(5, {OTHER: InvalidatorState.OPEN}, late=late) == AcceptValue(Rule.LATE_VOTE, BATCH, larger(5))


def test_a_late_vote_counts_more_than_that_the_leader_was_late() -> None:
    late = {ReplicaId(0): vote(5, 2, BATCH)}
    assert waited(5, {OTHER: InvalidatorState.OPEN}, late=late) == AcceptValue(Rule.LATE_VOTE, BATCH, larger(5))


@every_size
def test_a_late_answer_of_the_leader_without_a_vote_is_a_nop(n: int) -> None:
    assert waited(n, {OTHER: InvalidatorState.OPEN}, late={ReplicaId(0): unchanged(n)}) == nop(Rule.LATE_LEADER, n)


@every_size
def test_a_late_answer_without_a_vote_of_another_replica_changes_nothing(n: int) -> None:
    assert waited(n, {OTHER: InvalidatorState.OPEN}, late={ReplicaId(n - 1): unchanged(n)}) is None


def test_every_rule_has_a_different_text() -> None:
    assert len({rule.value for rule in Rule}) == len(Rule) == 14
