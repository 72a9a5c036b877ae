"""Relations are symmetric, and their indexes cover every conflict of the relation.

Naming too much in a vector is safe; naming too little breaks agreement. So an index is tried against the relation
itself, with instances added in any order and more than once.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import (
    DeclaredKeys,
    EverythingConflicts,
    NothingConflicts,
    Relation,
    UserRelation,
    footprints_conflict,
)
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId, covers
from pydsm.core.types.messages import Batch, Footprint, Run
from tests.unit.core.strategies import REPLICAS, batches, footprints

NOTHING: Deps = (0, 0, 0)


def commands_start_alike(left: bytes, right: bytes) -> bool:
    return left[:1] == right[:1]


def raises_for_some(left: bytes, right: bytes) -> bool:
    """A user's mistake, which depends on the order as well."""
    if left.startswith(b"a"):
        raise ZeroDivisionError
    return left[:1] == right[:1]


RELATIONS: dict[str, Relation] = {
    "declared keys": DeclaredKeys(),
    "everything conflicts": EverythingConflicts(),
    "nothing conflicts": NothingConflicts(),
    "a user's own": UserRelation(commands_start_alike),
    "a user's own that raises": UserRelation(raises_for_some),
}

every_relation = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)

histories = st.lists(
    st.tuples(st.builds(InstanceId, st.integers(0, REPLICAS - 1).map(ReplicaId), st.integers(1, 8)), batches()),
    max_size=12,
    unique_by=lambda entry: entry[0],
)


def touching(reads: str = "", writes: str = "", incr: str = "", sadd: str = "", barrier: bool = False) -> Batch:
    """A batch by the one-letter keys that it touches."""
    updates = tuple((kind, column(names)) for kind, names in ((b"incr", incr), (b"sadd", sadd)) if names)
    return Batch((), (), Footprint(column(reads), column(writes), updates, barrier))


def column(names: str) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names)


def instance(leader: int, index: int) -> InstanceId:
    return InstanceId(ReplicaId(leader), index)


def commands(*texts: bytes, barrier: bool = False) -> Batch:
    runs = (Run(RequestId(bytes(16)), len(texts)),) if texts else ()
    return Batch(runs, texts, Footprint(barrier=barrier))


@pytest.mark.parametrize(
    ("left", "right", "conflict"),
    [
        (touching(writes="a"), touching(writes="a"), True),
        (touching(writes="a"), touching(writes="b"), False),
        (touching(writes="a"), touching(reads="a"), True),
        (touching(reads="a"), touching(reads="a"), False),
        (touching(incr="a"), touching(incr="a"), False),
        (touching(incr="a"), touching(sadd="a"), True),
        (touching(incr="a"), touching(reads="a"), True),
        (touching(incr="a"), touching(writes="a"), True),
        (touching(incr="a"), touching(incr="b", sadd="c"), False),
        (touching(reads="ab", writes="c"), touching(reads="abd", writes="e"), False),
        (touching(reads="ab", writes="c"), touching(reads="c"), True),
        (touching(), touching(writes="abc"), False),
        (touching(barrier=True), touching(), True),
        (touching(barrier=True), touching(barrier=True), True),
    ],
)
def test_commands_commute_by_their_declared_keys(left: Batch, right: Batch, conflict: bool) -> None:
    assert footprints_conflict(left.footprint, right.footprint) is conflict
    assert footprints_conflict(right.footprint, left.footprint) is conflict


@every_relation
@given(left=batches(), right=batches())
def test_a_relation_is_symmetric(relation: Relation, left: Batch, right: Batch) -> None:
    assert relation.conflict(left, right) == relation.conflict(right, left)


@every_relation
@given(one=batches())
def test_a_barrier_conflicts_with_every_batch(relation: Relation, one: Batch) -> None:
    barrier = touching(barrier=True)
    assert relation.conflict(barrier, one)
    assert relation.conflict(one, barrier)


@every_relation
@given(history=histories, repeated=st.lists(st.integers(0, 11), max_size=4), batch=batches())
def test_an_index_names_at_least_every_conflict_in_whatever_order_it_learnt_them(
    relation: Relation, history: list[tuple[InstanceId, Batch]], repeated: list[int], batch: Batch
) -> None:
    index = relation.index(REPLICAS)
    for position in [*range(len(history)), *(again for again in repeated if again < len(history))]:
        index.add(*history[position])
    bound = index.conflicts(batch)
    assert len(bound) == REPLICAS
    for id, known in history:
        if relation.conflict(known, batch):
            assert id.index <= bound[id.leader]


@every_relation
@given(history=histories, batch=batches())
def test_two_indexes_with_the_same_instances_name_the_same(
    relation: Relation, history: list[tuple[InstanceId, Batch]], batch: Batch
) -> None:
    forwards, backwards = relation.index(REPLICAS), relation.index(REPLICAS)
    for entry in history:
        forwards.add(*entry)
    for entry in reversed(history):
        backwards.add(*entry)
    assert forwards.conflicts(batch) == backwards.conflicts(batch)


@given(histories, st.lists(batches(footprints.filter(lambda footprint: not footprint.barrier)), min_size=1, max_size=3))
def test_the_index_by_keys_returns_the_exact_bound_after_any_queries(
    history: list[tuple[InstanceId, Batch]], asked: list[Batch]
) -> None:
    relation = DeclaredKeys()
    index = relation.index(REPLICAS)
    for known in range(len(history)):
        index.add(*history[known])
        for batch in asked:
            exact = [0] * REPLICAS
            for id, other in history[: known + 1]:
                if relation.conflict(other, batch):
                    exact[id.leader] = max(exact[id.leader], id.index)
            assert index.conflicts(batch) == tuple(exact)


@every_relation
@given(batch=batches())
def test_an_empty_index_names_nothing(relation: Relation, batch: Batch) -> None:
    assert relation.index(REPLICAS).conflicts(batch) == NOTHING


@every_relation
@given(history=histories, gone=st.sets(st.integers(0, 11)), batch=batches(), data=st.data())
def test_a_backlog_returns_exactly_the_covered_conflicts_that_were_not_removed(
    relation: Relation, history: list[tuple[InstanceId, Batch]], gone: set[int], batch: Batch, data: st.DataObject
) -> None:
    deps = tuple(data.draw(st.integers(0, 8)) for _ in range(REPLICAS))
    backlog = relation.backlog(REPLICAS)
    for entry in data.draw(st.permutations(history + history[:3])):
        backlog.add(*entry)
    left = dict(history)
    for place in gone & set(range(len(history))):
        id = history[place][0]
        if id in left:
            backlog.remove(id, left.pop(id))
    expected = [id for id, known in left.items() if covers(deps, id) and relation.conflict(known, batch)]
    assert sorted(backlog.conflicting(batch, deps)) == sorted(expected)


def test_an_instance_learnt_late_does_not_hide_a_newer_one() -> None:
    index = DeclaredKeys().index(REPLICAS)
    index.add(instance(0, 9), touching(writes="a"))
    index.add(instance(0, 3), touching(writes="ab"))
    assert index.conflicts(touching(writes="a")) == (9, 0, 0)
    assert index.conflicts(touching(writes="b")) == (3, 0, 0)


def test_a_barrier_is_named_by_everything_and_names_everything() -> None:
    index = DeclaredKeys().index(REPLICAS)
    index.add(instance(1, 4), touching(barrier=True))
    index.add(instance(2, 6), touching(reads="z"))
    assert index.conflicts(touching()) == (0, 4, 0)
    assert index.conflicts(touching(barrier=True)) == (0, 4, 6)


def test_reads_and_updates_of_one_kind_are_returned_only_for_conflicting_accesses() -> None:
    index = DeclaredKeys().index(REPLICAS)
    index.add(instance(0, 1), touching(reads="a"))
    index.add(instance(1, 2), touching(incr="a"))
    index.add(instance(2, 3), touching(sadd="a"))
    assert index.conflicts(touching(reads="a")) == (0, 2, 3)
    assert index.conflicts(touching(incr="a")) == (1, 0, 3)
    assert index.conflicts(touching(writes="a")) == (1, 2, 3)


def test_a_column_without_keys_touches_nothing() -> None:
    empty = Batch((), (), Footprint(updates=((b"incr", ()),)))
    index = DeclaredKeys().index(REPLICAS)
    index.add(instance(0, 1), touching(writes="a", incr="b"))
    index.add(instance(0, 2), empty)
    assert index.conflicts(empty) == NOTHING
    assert index.conflicts(touching(sadd="b")) == (1, 0, 0)


def test_a_users_relation_is_evaluated_for_every_pair_of_commands() -> None:
    relation = UserRelation(commands_start_alike)
    assert relation.conflict(commands(b"xa", b"ya"), commands(b"za", b"yb"))
    assert not relation.conflict(commands(b"xa", b"ya"), commands(b"za"))
    assert not relation.conflict(commands(), commands(b"xa"))
    index = relation.index(REPLICAS)
    index.add(instance(0, 1), commands(b"x1"))
    index.add(instance(0, 2), commands(b"y1"))
    assert index.conflicts(commands(b"x2")) == (1, 0, 0)


def test_a_total_order_names_the_newest_of_every_leader() -> None:
    index = EverythingConflicts().index(REPLICAS)
    index.add(instance(0, 5), touching())
    index.add(instance(0, 2), touching())
    index.add(instance(2, 1), touching())
    assert index.conflicts(touching()) == (5, 0, 1)


def test_where_nothing_conflicts_only_barriers_are_named() -> None:
    index = NothingConflicts().index(REPLICAS)
    index.add(instance(0, 1), touching(writes="a"))
    index.add(instance(0, 2), touching(barrier=True))
    index.add(instance(0, 3), touching(writes="a"))
    assert index.conflicts(touching(writes="a")) == (2, 0, 0)


def test_commands_for_which_a_users_relation_raises_conflict_in_whatever_order_they_are_given() -> None:
    relation = UserRelation(raises_for_some)
    assert relation.conflict(commands(b"a"), commands(b"b"))
    assert relation.conflict(commands(b"b"), commands(b"a"))
    assert not relation.conflict(commands(b"b"), commands(b"c"))


def test_a_command_that_a_users_relation_cannot_compare_is_refused_before_it_is_proposed() -> None:
    relation = UserRelation(raises_for_some)
    relation.check([b"b", b"c"])
    with pytest.raises(UsageError, match="conflict relation raised ZeroDivisionError"):
        relation.check([b"b", b"a"])


def test_a_memory_error_is_not_a_conflict_of_the_commands() -> None:
    def has_no_memory(left: bytes, right: bytes) -> bool:
        raise MemoryError

    relation = UserRelation(has_no_memory)
    with pytest.raises(MemoryError):
        relation.conflict(commands(b"a"), commands(b"b"))
    with pytest.raises(MemoryError):
        relation.check([b"a"])
