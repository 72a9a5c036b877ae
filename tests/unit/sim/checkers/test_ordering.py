"""The check by key finds the same violations as the check of every pair."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, UserRelation
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.core.types.messages import Batch
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers.ordering import Ordering, _ByPair, make_ordering
from tests.unit.sim.worlds import batch, i

NOTHING: Deps = (0, 0)
A, B, C = i(0, 1), i(1, 1), i(0, 2)
WRITE, READ, ADD = batch(writes=[b"x"]), batch(reads=[b"x"]), batch(adds=[b"x"])


def orderings() -> list[Ordering]:
    return [make_ordering(DeclaredKeys()), _ByPair(DeclaredKeys())]


@pytest.mark.parametrize("order", orderings())
def test_two_conflicting_commits_of_which_neither_covers_the_other_are_found(order: Ordering) -> None:
    order.commit(A, WRITE, NOTHING)
    with pytest.raises(Violation, match="visibility"):
        order.commit(B, READ, NOTHING)


@pytest.mark.parametrize("order", orderings())
def test_one_instance_covering_the_other_is_enough(order: Ordering) -> None:
    order.commit(A, WRITE, NOTHING)
    order.commit(B, WRITE, (1, 0))
    order.commit(C, batch(writes=[b"y"]), NOTHING)


@pytest.mark.parametrize("order", orderings())
def test_commuting_commits_need_not_cover_each_other(order: Ordering) -> None:
    order.commit(A, ADD, NOTHING)
    order.commit(B, ADD, NOTHING)


@pytest.mark.parametrize("order", orderings())
def test_a_barrier_conflicts_with_everything(order: Ordering) -> None:
    order.commit(A, WRITE, NOTHING)
    with pytest.raises(Violation, match="visibility"):
        order.commit(B, batch(barrier=True), NOTHING)


@pytest.mark.parametrize("order", orderings())
def test_conflicting_executions_in_another_order_are_found(order: Ordering) -> None:
    order.commit(A, WRITE, (0, 1))
    order.commit(B, WRITE, (1, 0))
    first, second = order.begin_process("r0"), order.begin_process("r1")
    first.execute(A)
    first.execute(B)
    with pytest.raises(Violation, match="order"):
        second.execute(B)


@pytest.mark.parametrize("order", orderings())
def test_commuting_executions_may_come_in_any_order(order: Ordering) -> None:
    order.commit(A, ADD, NOTHING)
    order.commit(B, ADD, NOTHING)
    order.commit(C, WRITE, (1, 1))
    for sequence in ((A, B, C), (B, A, C)):
        process = order.begin_process("r0")
        for id in sequence:
            process.execute(id)


@pytest.mark.parametrize("order", orderings())
def test_an_addition_after_a_write_that_came_before_it_elsewhere_is_found(order: Ordering) -> None:
    order.commit(A, ADD, NOTHING)
    order.commit(B, ADD, NOTHING)
    order.commit(C, WRITE, (1, 1))
    first, second = order.begin_process("r0"), order.begin_process("r1")
    for id in (A, B, C):
        first.execute(id)
    second.execute(A)
    with pytest.raises(Violation, match="order"):
        second.execute(C)


def test_when_everything_conflicts_every_pair_has_one_order() -> None:
    order = make_ordering(EverythingConflicts())
    order.commit(A, READ, (0, 1))
    order.commit(B, batch(reads=[b"y"]), (1, 0))
    order.begin_process("r0").execute(A)
    with pytest.raises(Violation, match="order"):
        order.begin_process("r1").execute(B)


def test_a_user_defined_relation_is_used_directly() -> None:
    order = make_ordering(UserRelation(lambda left, right: False))
    order.commit(A, WRITE, NOTHING)
    order.commit(B, WRITE, NOTHING)


BATCHES = st.builds(
    batch,
    reads=st.lists(st.sampled_from([b"x", b"y"]), unique=True, max_size=2),
    writes=st.lists(st.sampled_from([b"x", b"y"]), unique=True, max_size=1),
    adds=st.lists(st.sampled_from([b"x", b"y"]), unique=True, max_size=2),
    barrier=st.integers(0, 9).map(lambda number: number == 0),
)


def agree(order: Ordering, batches: Sequence[Batch], processes: Sequence[Sequence[InstanceId]]) -> bool:
    """Whether the check accepts these processes, which execute in turns."""
    everything = (len(batches), 0)
    for place, one in enumerate(batches):
        order.commit(i(0, place + 1), one, everything)
    views = [order.begin_process(f"r{number}") for number in range(len(processes))]
    try:
        for step in range(len(batches)):
            for view, process in zip(views, processes, strict=True):
                view.execute(process[step])
    except Violation:
        return False
    return True


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_the_checks_by_key_and_by_pair_agree(data: st.DataObject) -> None:
    batches = data.draw(st.lists(BATCHES, min_size=1, max_size=5))
    ids = [i(0, place + 1) for place in range(len(batches))]
    processes = [data.draw(st.permutations(ids)) for _ in range(2)]
    by_key, by_pair = (agree(order, batches, processes) for order in orderings())
    assert by_key is by_pair
