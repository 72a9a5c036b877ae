"""Execution against a reference that knows everything at once: the same order of conflicting commands, whatever the
order in which decisions, and batches that are not decided yet, become known.

The reference draws the whole graph of what was agreed, with edges only between conflicting commands, and finds its
strongly connected components by recursion.
"""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.protocol.execution import Execution
from pydsm.core.types.ids import Deps, InstanceId, covers
from pydsm.core.types.messages import NOP, Batch, Value
from pydsm.core.types.status import Status
from tests.unit.core.helpers import at, barrier, reading, writing

Agreed = dict[InstanceId, tuple[Value, Deps]]
LEADERS, INDEXES = 3, 4

some_batches: st.SearchStrategy[Batch] = st.one_of(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True).map(lambda keys: writing(*keys)),
    st.sampled_from("abc").map(reading),
    st.just(barrier()),
)


@st.composite
def agreed_histories(draw: st.DrawFn) -> Agreed:
    """Every instance decided, with vectors by which of two conflicting commands one always covers the other."""
    heights = [draw(st.integers(0, INDEXES)) for _ in range(LEADERS)]
    ids = [at(leader, index) for leader, height in enumerate(heights) for index in range(1, height + 1)]
    values: dict[InstanceId, Value] = {
        id: NOP if draw(st.integers(0, 7)) == 0 else draw(some_batches) for id in draw(st.permutations(ids))
    }
    agreed: Agreed = {}
    for id, value in values.items():
        deps = [draw(st.integers(0, height)) for height in heights]
        for other, (other_value, other_deps) in agreed.items():
            if _conflict(value, other_value) and not covers(other_deps, id):
                deps[other.leader] = max(deps[other.leader], other.index)
        agreed[id] = (value, tuple(deps))
    return agreed


def _conflict(left: Value, right: Value) -> bool:
    return isinstance(left, Batch) and isinstance(right, Batch) and DeclaredKeys().conflict(left, right)


def reference_order(agreed: Agreed) -> list[InstanceId]:
    """Components in topological order, inside a component by index and leader. Recursive, over the complete graph."""
    reached = {id: _reachable(agreed, id) for id in agreed}
    order: list[InstanceId] = []
    for id in sorted(agreed):
        _place(id, reached, order)
    return [id for id in order if isinstance(agreed[id][0], Batch)]


def _edges(agreed: Agreed, id: InstanceId) -> Iterator[InstanceId]:
    value, deps = agreed[id]
    for other, (other_value, _) in agreed.items():
        if other != id and covers(deps, other) and _conflict(value, other_value):
            yield other


def _reachable(agreed: Agreed, id: InstanceId) -> set[InstanceId]:
    found: set[InstanceId] = set()

    def visit(one: InstanceId) -> None:
        for other in _edges(agreed, one):
            if other not in found:
                found.add(other)
                visit(other)

    visit(id)
    return found


def _place(id: InstanceId, reached: dict[InstanceId, set[InstanceId]], order: list[InstanceId]) -> None:
    if id in order:
        return
    component = {id} | {other for other in reached[id] if id in reached[other]}
    for other in sorted(reached[id] - component):
        _place(other, reached, order)
    order += sorted(component, key=lambda one: (one.index, one.leader))


def executed_order(
    agreed: Agreed, events: list[tuple[InstanceId, bool]], relation: Relation, backlog_instances_min: int = 256
) -> list[InstanceId]:
    """What one replica executes, when it learns in this order of batches (True) and decisions (False)."""
    order: list[InstanceId] = []

    def emit(instance: Instance) -> None:
        if isinstance(instance.value, Batch):
            order.append(instance.id)

    log = Log(LEADERS, relation, 1000, backlog_instances_min)
    execution = Execution(log, emit)
    for id, batch_only in events:
        value, deps = agreed[id]
        instance = log.instance(id)
        if batch_only:
            batch = value if isinstance(value, Batch) else writing("a")
            if instance.status is Status.UNKNOWN:
                log.pre_accept(instance, batch, deps, deps)
                execution.wake(id)
        elif not instance.decided:
            log.commit(instance, value, deps)
            execution.committed(instance)
    assert log.frontier == log.known
    return order


def pairs_in_order(agreed: Agreed, order: list[InstanceId], relation: Relation) -> set[tuple[InstanceId, InstanceId]]:
    """Which of two conflicting commands came first."""
    pairs = set()
    for place, later in enumerate(order):
        for earlier in order[:place]:
            left, right = agreed[earlier][0], agreed[later][0]
            if isinstance(left, Batch) and isinstance(right, Batch) and relation.conflict(left, right):
                pairs.add((earlier, later))
    return pairs


@given(agreed_histories(), st.data())
def test_conflicting_commands_run_in_the_reference_order_however_they_become_known(
    agreed: Agreed, data: st.DataObject
) -> None:
    events = [(id, False) for id in agreed] + [(id, True) for id in agreed]
    order = executed_order(
        agreed, data.draw(st.permutations(events)), DeclaredKeys(), data.draw(st.sampled_from([1, 5, 256]))
    )
    expected = reference_order(agreed)
    assert sorted(order) == sorted(expected)
    assert pairs_in_order(agreed, order, DeclaredKeys()) == pairs_in_order(agreed, expected, DeclaredKeys())


@given(agreed_histories(), st.data())
def test_two_replicas_that_learn_decisions_in_different_orders_run_conflicting_commands_alike(
    agreed: Agreed, data: st.DataObject
) -> None:
    """What one runs early, while much is missing, the other runs in its place as well."""
    decisions = [(id, False) for id in agreed]
    one = executed_order(agreed, data.draw(st.permutations(decisions)), DeclaredKeys())
    other = executed_order(agreed, data.draw(st.permutations(decisions)), DeclaredKeys())
    assert pairs_in_order(agreed, one, DeclaredKeys()) == pairs_in_order(agreed, other, DeclaredKeys())


@given(agreed_histories(), st.data())
def test_where_everything_conflicts_all_run_in_one_order(agreed: Agreed, data: st.DataObject) -> None:
    """Vectors that cover everything of before: a total order, the same at everyone."""
    ids = sorted(agreed)
    total: Agreed = {}
    for id in ids:
        covered = [max((one.index for one in total if one.leader == leader), default=0) for leader in range(LEADERS)]
        extra = agreed[id][1]
        total[id] = (agreed[id][0], tuple(map(max, covered, extra)))
    orders = [
        executed_order(total, [(id, False) for id in data.draw(st.permutations(ids))], EverythingConflicts())
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
