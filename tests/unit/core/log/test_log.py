"""The log of one replica: known and executed instances, conflicts, and invalidators of a fast commit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.errors import FarAhead, InvariantViolation
from pydsm.core.types.ids import Deps, InstanceId, Tick, covers
from pydsm.core.types.messages import NOP, Batch, Invalidator, Value
from pydsm.core.types.status import Status
from tests.unit.core.helpers import at, ballot, barrier, reading, writing

NONE: Deps = (0, 0, 0)
A, B, APART = writing("key", name="a"), writing("key", name="b"), writing("apart")


def empty(gap: int = 1000) -> Log:
    return Log(3, DeclaredKeys(), gap)


def pre_accepted(log: Log, id: InstanceId, batch: Batch, initial: Deps = NONE, deps: Deps | None = None) -> Instance:
    instance = log.instance(id)
    log.pre_accept(instance, batch, initial, deps or initial)
    return instance


def voted(log: Log, id: InstanceId, value: Value, deps: Deps = NONE, round: int = 1) -> Instance:
    instance = log.instance(id)
    log.accept(instance, ballot(round, 2), value, deps)
    return instance


def committed(log: Log, id: InstanceId, value: Value, deps: Deps = NONE) -> Instance:
    instance = log.instance(id)
    log.commit(instance, value, deps)
    return instance


# Known instances


def test_all_instances_up_to_a_vector_exist_and_are_not_executed() -> None:
    log = empty()
    log.note_exists((2, 0, 3))
    assert (log.known, log.frontier) == ((2, 0, 3), NONE)
    assert [list(one) for one in log.unexecuted] == [[1, 2], [], [1, 2, 3]]


def test_an_index_keeps_the_tick_at_which_it_first_became_known() -> None:
    log = empty()
    log.note_exists((1, 0, 0))
    log.now = Tick(50)
    log.note_exists((2, 0, 0))
    assert dict(log.unexecuted[0].items()) == {1: 0, 2: 50}


def test_an_instance_is_created_once() -> None:
    log = empty()
    assert log.instance(at(1, 4)) is log.instance(at(1, 4))
    assert log.known == (0, 4, 0)


def test_a_gap_as_long_as_allowed_is_taken_and_a_longer_one_is_the_peers_fault() -> None:
    log = empty(gap=10)
    log.note_exists((10, 0, 0))
    with pytest.raises(FarAhead, match=r"0\.21 is 11 beyond.* or this replica is far behind"):
        log.note_exists((21, 0, 0))
    with pytest.raises(FarAhead, match=r"1\.11 is 11 beyond"):
        log.instance(at(1, 11))
    assert log.known == (10, 0, 0)


def test_the_own_disk_may_have_indexes_at_any_distance() -> None:
    log = empty(gap=10)
    log.note_restored((21, 0, 0))
    assert log.known == (21, 0, 0)


def test_the_frontier_ends_before_the_first_gap() -> None:
    log = empty()
    for index in (1, 2, 4):
        log.executed(committed(log, at(0, index), A))
    assert log.frontier == (2, 0, 0)
    log.executed(committed(log, at(0, 3), A))
    assert log.frontier == (4, 0, 0)


def test_an_instance_is_executed_once() -> None:
    log = empty()
    instance = committed(log, at(0, 1), A)
    log.executed(instance)
    with pytest.raises(InvariantViolation, match="cannot go from EXECUTED to EXECUTED"):
        log.executed(instance)


@pytest.mark.parametrize("deps", [(0, 5, 0)])
def test_every_message_with_a_vector_creates_the_covered_instances(deps: Deps) -> None:
    for learn in (
        lambda log: pre_accepted(log, at(0, 1), A, NONE, deps),
        lambda log: voted(log, at(0, 1), A, deps),
        lambda log: committed(log, at(0, 1), A, deps),
        lambda log: log.validate(log.instance(at(0, 1)), A, deps),
    ):
        log = empty()
        learn(log)
        assert log.known == (1, 5, 0)


# Conflicts


def test_every_message_with_a_batch_adds_it_to_the_index() -> None:
    for learn in (
        lambda log: pre_accepted(log, at(0, 2), A),
        lambda log: voted(log, at(0, 2), A),
        lambda log: committed(log, at(0, 2), A),
        lambda log: log.validate(log.instance(at(0, 2)), A, NONE),
    ):
        log = empty()
        learn(log)
        assert log.conflicts(B) == (2, 0, 0)
        assert log.conflicts(APART) == NONE


def test_an_accepted_nop_conflicts_as_its_first_batch() -> None:
    log = empty()
    pre_accepted(log, at(0, 2), A)
    voted(log, at(0, 2), NOP)
    assert (log.conflicts(B), log.conflicts(APART)) == ((2, 0, 0), NONE)


def test_an_accepted_nop_of_which_no_batch_is_known_conflicts_with_everything() -> None:
    log = empty()
    voted(log, at(0, 2), NOP)
    assert log.conflicts(APART) == (2, 0, 0)
    voted(log, at(0, 2), APART, round=2)
    assert log.conflicts(B) == NONE
    assert log.conflicts(APART) == (2, 0, 0)


def test_a_batch_accepted_and_then_a_nop_without_a_first_batch_conflicts_with_everything_again() -> None:
    log = empty()
    voted(log, at(0, 2), A)
    voted(log, at(0, 2), NOP, round=2)
    assert log.conflicts(APART) == (2, 0, 0)


def test_a_nop_once_committed_conflicts_with_nothing() -> None:
    log = empty()
    voted(log, at(0, 2), NOP)
    committed(log, at(0, 2), NOP)
    assert log.conflicts(APART) == NONE


def test_a_nop_committed_without_a_batch_conflicts_with_nothing() -> None:
    log = empty()
    committed(log, at(0, 2), NOP)
    assert log.conflicts(barrier()) == NONE


def test_several_opaque_nops_are_all_covered() -> None:
    log = empty()
    for id in (at(0, 2), at(0, 5), at(2, 1)):
        voted(log, id, NOP)
    assert log.conflicts(APART) == (5, 0, 1)


def test_an_executed_barrier_and_its_vector_are_under_everything_later() -> None:
    log = empty()
    barrier_instance = committed(log, at(1, 3), barrier(), (4, 2, 0))
    assert log.conflicts(APART) == (0, 3, 0)
    log.executed(barrier_instance)
    assert log.conflicts(APART) == (4, 3, 0)


def test_floors_only_rise() -> None:
    log = empty()
    for id, deps in ((at(1, 3), (4, 2, 0)), (at(0, 5), (4, 1, 1))):
        log.executed(committed(log, id, barrier(id.__str__()), deps))
    assert log.conflicts(APART) == (5, 3, 1)


# Instances from disk


def stored(id: InstanceId, status: Status, value: Value | None, initial: Batch | None, deps: Deps = NONE) -> Instance:
    instance = Instance(id, NONE)
    instance.status, instance.value, instance.initial_batch, instance.deps = status, value, initial, deps
    instance.promised = ballot(1, 2)
    return instance


@pytest.mark.parametrize(
    ("status", "value", "initial", "key", "elsewhere"),
    [
        (Status.UNKNOWN, None, None, 0, 0),
        (Status.UNKNOWN, A, A, 2, 0),
        (Status.PRE_ACCEPTED, A, A, 2, 0),
        (Status.ACCEPTED, A, None, 2, 0),
        (Status.ACCEPTED, NOP, A, 2, 0),
        (Status.ACCEPTED, NOP, None, 2, 2),
        (Status.COMMITTED, A, None, 2, 0),
        (Status.COMMITTED, NOP, None, 0, 0),
    ],
)
def test_a_restored_instance_conflicts_as_it_did_before(
    status: Status, value: Value | None, initial: Batch | None, key: int, elsewhere: int
) -> None:
    log = empty()
    log.restore(stored(at(0, 2), status, value, initial))
    assert log.conflicts(B) == (key, 0, 0)
    assert log.conflicts(APART) == (elsewhere, 0, 0)


def test_a_restored_vector_creates_the_covered_instances() -> None:
    log = empty(gap=3)
    log.restore(stored(at(0, 20), Status.COMMITTED, A, A, (0, 7, 0)))
    assert log.known == (20, 7, 0)


# The snapshot of a peer: everything up to 1.3, and as an exception 2.1, a barrier

FETCHED = Checkpoint(4, at(2, 1), Position((0, 3, 0), (at(2, 1),)), (0, 3, 0), 7)


def fetched(checkpoint: Checkpoint = FETCHED) -> Log:
    log = empty()
    log.begin_at(checkpoint, checkpoint.position.up_to, checkpoint.position.exceptions)
    return log


def test_absent_instances_are_executed_and_were_never_stored() -> None:
    log = fetched()
    assert (log.frontier, log.known, log.dropped, log.instances) == ((0, 3, 1), (0, 3, 1), (0, 3, 0), {})
    assert [log.is_dropped(id) for id in (at(1, 3), at(2, 1), at(1, 4), at(2, 2))] == [True, True, False, False]


@pytest.mark.parametrize("id", [at(1, 3), at(2, 1)])
def test_absent_instances_are_never_created_again(id: InstanceId) -> None:
    with pytest.raises(InvariantViolation, match=f"instance {id} was executed and dropped"):
        fetched().instance(id)


def test_new_instances_are_ordered_after_absent_ones() -> None:
    """This replica may have sent others vectors that name 2.1, and does not have its batch any more."""
    log = fetched()
    assert log.conflicts(APART) == log.floor == (0, 3, 1)


def test_absent_instances_leave_memory_with_the_others_and_are_not_missing() -> None:
    log = fetched()
    log.executed(committed(log, at(2, 2), A))
    log.drop((0, 3, 2), 10)
    assert (log.dropped, log.instances, log.kept_bytes) == ((0, 3, 2), {}, 0)


def test_a_gap_before_absent_instances_is_still_executed() -> None:
    log = fetched(Checkpoint(4, at(2, 3), Position((0, 3, 0), (at(2, 3),)), (0, 3, 0), 7))
    assert (log.frontier, log.known) == ((0, 3, 0), (0, 3, 3))
    assert list(log.unexecuted[2]) == [1, 2]


def test_a_record_of_an_instance_in_the_snapshot_is_executed_and_counts_as_kept() -> None:
    log = empty()
    log.begin_at(FETCHED, (0, 2, 0))
    for id, value in ((at(1, 3), A), (at(2, 1), barrier()), (at(1, 4), B)):
        log.restore(stored(id, Status.COMMITTED, value, None))
    assert [log.instance(id).status.name for id in (at(1, 3), at(2, 1), at(1, 4))] == [
        "EXECUTED", "EXECUTED", "COMMITTED",
    ]  # fmt: skip
    assert log.kept_bytes == 2000 + len(A.encoded) + len(barrier().encoded)


# Memory of executed instances


def test_kept_bytes_count_from_execution_until_removal() -> None:
    log = empty()
    log.executed(committed(log, at(1, 1), A))
    log.executed(committed(log, at(1, 2), NOP))
    committed(log, at(1, 3), B)
    assert log.kept_bytes == 2000 + len(A.encoded)
    log.drop((0, 1, 0), 10)
    assert log.kept_bytes == 1000
    log.drop((0, 2, 0), 10)
    assert log.kept_bytes == 0


# Invalidators of a fast commit of 0.3, whose batch writes `key`

ID = at(0, 3)


def invalidators(log: Log, deps: Deps = NONE) -> tuple[Invalidator, ...]:
    return log.invalidators(ID, A, deps)


def test_a_committed_command_that_does_not_cover_it_invalidates() -> None:
    log = empty()
    committed(log, at(1, 2), B, (2, 0, 0))
    assert invalidators(log) == (Invalidator(at(1, 2), True),)


def test_an_executed_one_does_as_well() -> None:
    log = empty()
    log.executed(committed(log, at(1, 2), B))
    assert invalidators(log) == (Invalidator(at(1, 2), True),)


def test_a_committed_command_that_covers_it_does_not() -> None:
    log = empty()
    committed(log, at(1, 2), B, (3, 0, 0))
    assert invalidators(log) == ()


def test_one_that_the_vector_covers_does_not() -> None:
    log = empty()
    committed(log, at(1, 2), B)
    committed(log, at(1, 3), B)
    assert invalidators(log, (0, 2, 0)) == (Invalidator(at(1, 3), True),)
    assert invalidators(log, (0, 3, 0)) == ()


def test_a_committed_nop_does_not_whatever_it_was_first() -> None:
    log = empty()
    pre_accepted(log, at(1, 2), B)
    committed(log, at(1, 2), NOP)
    assert invalidators(log) == ()


def test_one_that_does_not_conflict_does_not() -> None:
    log = empty()
    pre_accepted(log, at(1, 1), APART)
    pre_accepted(log, at(1, 2), B)
    committed(log, at(2, 1), APART)
    assert invalidators(log) == (Invalidator(at(1, 2), False),)


def test_an_undecided_instance_counts_with_its_initial_deps_and_not_with_its_deps_here() -> None:
    log = empty()
    pre_accepted(log, at(1, 2), B, initial=(2, 0, 0), deps=(3, 0, 0))
    pre_accepted(log, at(2, 2), B, initial=(3, 0, 0), deps=(3, 0, 0))
    assert invalidators(log) == (Invalidator(at(1, 2), False),)


def test_an_open_one_whose_first_batch_was_never_seen_does_not_count() -> None:
    log = empty()
    voted(log, at(1, 2), B)
    voted(log, at(2, 2), NOP)
    assert invalidators(log) == ()


def test_an_accepted_nop_counts_as_its_first_batch() -> None:
    log = empty()
    pre_accepted(log, at(1, 2), B)
    voted(log, at(1, 2), NOP)
    assert invalidators(log) == (Invalidator(at(1, 2), False),)


def test_one_known_only_from_a_validate_counts() -> None:
    log = empty()
    log.validate(log.instance(at(1, 2)), B, (2, 0, 0))
    assert invalidators(log) == (Invalidator(at(1, 2), False),)


def test_an_instance_does_not_invalidate_itself_but_others_of_its_leader_may() -> None:
    log = empty()
    for index in (2, 3, 4):
        pre_accepted(log, at(0, index), B)
    assert invalidators(log) == (Invalidator(at(0, 2), False), Invalidator(at(0, 4), False))


def test_one_of_which_only_the_index_is_known_does_not() -> None:
    log = empty()
    log.note_exists((0, 4, 0))
    pre_accepted(log, at(1, 4), B)
    assert invalidators(log) == (Invalidator(at(1, 4), False),)


def test_a_barrier_is_invalidated_by_everything() -> None:
    log = empty()
    pre_accepted(log, at(1, 1), APART)
    pre_accepted(log, at(2, 1), reading("x"))
    assert log.invalidators(ID, barrier(), NONE) == (Invalidator(at(1, 1), False), Invalidator(at(2, 1), False))


def test_the_barrier_of_the_compaction_checkpoint_stands_in_for_all_that_was_dropped_before_it() -> None:
    """`0.3` is undecided, so it is not before the barrier; behind it, it is behind all of that."""
    log = fetched()
    assert invalidators(log) == (Invalidator(at(2, 1), True),)
    assert invalidators(log, (0, 3, 0)) == (Invalidator(at(2, 1), True),)
    assert invalidators(log, (0, 0, 1)) == ()


def test_the_compaction_barrier_is_named_also_without_another_conflict() -> None:
    assert fetched().invalidators(at(0, 3), APART, NONE) == (Invalidator(at(2, 1), True),)


def test_a_barrier_that_is_still_in_memory_is_named_once() -> None:
    log = empty()
    pre_accepted(log, at(1, 1), B)
    log.executed(committed(log, at(2, 1), barrier(), (0, 1, 0)))
    log.compaction_checkpoint = FETCHED
    assert invalidators(log) == (Invalidator(at(1, 1), False), Invalidator(at(2, 1), True))


def test_an_instance_after_the_compaction_barrier_is_named_itself() -> None:
    log = fetched()
    committed(log, at(1, 4), B, (0, 3, 1))
    assert invalidators(log, (0, 0, 1)) == (Invalidator(at(1, 4), True),)


some_batches = st.sampled_from([writing("k"), writing("l"), reading("k"), writing("k", "l"), barrier(), NOP])
vectors: st.SearchStrategy[Deps] = st.tuples(*[st.integers(0, 5)] * 3)


@given(
    st.dictionaries(
        st.builds(at, st.integers(0, 2), st.integers(1, 5)),
        st.tuples(
            st.sampled_from(["pre-accepted", "voted", "validated", "committed", "index known"]), some_batches, vectors
        ),
    ),
    st.sampled_from([writing("k"), reading("k"), barrier()]),
    vectors,
)
def test_invalidators_are_exactly_those_that_a_look_at_everything_finds(
    known: dict[InstanceId, tuple[str, Value, Deps]], batch: Batch, deps: Deps
) -> None:
    log, expected = empty(), list[Invalidator]()
    for id, (how, value, vector) in known.items():
        _learn(log, id, how, value, vector)
        first_batch_known = how in {"pre-accepted", "validated", "committed"}
        unordered = first_batch_known and id != ID and not covers(deps, id) and not covers(vector, ID)
        if unordered and isinstance(value, Batch) and DeclaredKeys().conflict(value, batch):
            expected.append(Invalidator(id, how == "committed"))
    assert list(log.invalidators(ID, batch, deps)) == sorted(expected, key=lambda one: one.id)


def _learn(log: Log, id: InstanceId, how: str, value: Value, vector: Deps) -> None:
    if how == "pre-accepted" and isinstance(value, Batch):
        pre_accepted(log, id, value, vector, (5, 5, 5))
    elif how == "validated" and isinstance(value, Batch):
        log.validate(log.instance(id), value, vector)
    elif how == "committed":
        committed(log, id, value, vector)
    elif how == "voted":
        voted(log, id, value, vector)
    else:
        log.instance(id)


# Agreement, as checked by one replica


def test_the_same_decision_again_is_accepted() -> None:
    log = empty()
    instance = committed(log, at(0, 1), A, (0, 2, 0))
    log.check_same(instance, A, (0, 2, 0))
    nop = committed(log, at(0, 2), NOP)
    log.check_same(nop, NOP, (0, 2, 0))


@pytest.mark.parametrize(("value", "deps"), [(NOP, (0, 2, 0)), (B, (0, 2, 0)), (A, (0, 1, 0))])
def test_another_decision_breaks_the_invariant(value: Value, deps: Deps) -> None:
    log = empty()
    instance = committed(log, at(0, 1), A, (0, 2, 0))
    with pytest.raises(InvariantViolation, match=r"instance 0\.1 was decided twice"):
        log.check_same(instance, value, deps)


def test_a_command_after_a_nop_breaks_the_invariant() -> None:
    log = empty()
    with pytest.raises(InvariantViolation, match="decided twice"):
        log.check_same(committed(log, at(0, 1), NOP), A, NONE)


def test_a_vote_below_the_promise_breaks_the_invariant() -> None:
    log = empty()
    voted(log, at(0, 1), A, round=2)
    with pytest.raises(InvariantViolation, match=r"cannot promise b1\.2 after b2\.2"):
        voted(log, at(0, 1), B, round=1)
