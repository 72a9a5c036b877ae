"""For any order in which decisions and batches arrive, all are executed, and conflicting ones in the same order.

The cases include more than real runs contain: vectors may cover their own instance and later ones of the same
leader, as they do when a slow path meets reordered messages.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.protocol.execution import Execution
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers, with_instance
from pydsm.core.types.messages import NOP, Batch, Footprint

REPLICAS = 3
RELATION = DeclaredKeys()


def at(leader: int, index: int) -> InstanceId:
    return InstanceId(ReplicaId(leader), index)


@dataclass(frozen=True)
class Decision:
    """The decision of an instance; `batch` is the initial batch, also for a nop."""

    id: InstanceId
    batch: Batch
    nop: bool
    deps: Deps


@st.composite
def decisions(draw: st.DrawFn) -> list[Decision]:
    """A gapless prefix of every leader's row in which of two conflicting batches one covers the other."""
    rows = [draw(st.integers(0, 5)) for _ in range(REPLICAS)]
    ids = [at(leader, index) for leader, row in enumerate(rows) for index in range(1, row + 1)]
    keys = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)
    footprints = {id: Footprint(writes=tuple(key.encode() for key in draw(keys))) for id in ids}
    batches = {id: Batch((), (), footprint) for id, footprint in footprints.items()}
    deps: dict[InstanceId, Deps] = {id: tuple(draw(st.integers(0, row)) for row in rows) for id in ids}
    for position, left in enumerate(ids):
        for right in ids[:position]:
            seen = covers(deps[left], right) or covers(deps[right], left)
            if not seen and RELATION.conflict(batches[left], batches[right]):
                above, below = draw(st.sampled_from([(left, right), (right, left)]))
                deps[above] = with_instance(deps[above], below)
    return [Decision(id, batches[id], draw(st.sampled_from([False, False, False, True])), deps[id]) for id in ids]


class OneReplica:
    """Log and execution of a replica, and the order of its executed instances."""

    def __init__(self, backlog_instances_min: int = 256) -> None:
        self.log = Log(REPLICAS, RELATION, 1000, backlog_instances_min)
        self.execution = Execution(self.log, self._executed)
        self.done: list[InstanceId] = []

    def _executed(self, instance: Instance) -> None:
        if isinstance(instance.value, Batch):
            self.done.append(instance.id)

    def learn_batch(self, decision: Decision) -> None:
        instance = self.log.instance(decision.id)
        if not instance.decided:
            self.log.pre_accept(instance, decision.batch, self.log.no_deps, self.log.no_deps)
            self.execution.wake(decision.id)

    def learn_decision(self, decision: Decision) -> None:
        instance = self.log.instance(decision.id)
        self.log.commit(instance, NOP if decision.nop else decision.batch, decision.deps)
        self.execution.committed(instance)


def order_of_conflicting(done: list[InstanceId], world: list[Decision]) -> set[tuple[InstanceId, InstanceId]]:
    """Every pair of conflicting instances, in the order in which they were executed."""
    batches = {decision.id: decision.batch for decision in world}
    return {
        (first, second)
        for position, second in enumerate(done)
        for first in done[:position]
        if RELATION.conflict(batches[first], batches[second])
    }


@given(decisions(), st.data())
def test_all_is_executed_once_and_conflicting_batches_in_one_order(world: list[Decision], data: st.DataObject) -> None:
    in_order, shuffled = OneReplica(), OneReplica(data.draw(st.sampled_from([1, 4, 256])))
    for decision in world:
        in_order.learn_decision(decision)
    known_before = data.draw(st.lists(st.sampled_from(world), unique=True) if world else st.just([]))
    events = [(decision, True) for decision in known_before] + [(decision, False) for decision in world]
    for decision, batch_only in data.draw(st.permutations(events)):
        if batch_only:
            shuffled.learn_batch(decision)
        else:
            shuffled.learn_decision(decision)
    commands = [decision.id for decision in world if not decision.nop]
    assert sorted(shuffled.done) == sorted(in_order.done) == commands
    assert order_of_conflicting(shuffled.done, world) == order_of_conflicting(in_order.done, world)
    assert shuffled.log.frontier == shuffled.log.known


@given(decisions(), st.data())
def test_nothing_is_executed_before_a_conflicting_instance_that_only_it_covers(
    world: list[Decision], data: st.DataObject
) -> None:
    replica = OneReplica()
    for decision in data.draw(st.permutations(world)):
        replica.learn_decision(decision)
    before = order_of_conflicting(replica.done, world)
    reaches = reachable(world)
    for one in world:
        for other in world:
            if (one.id, other.id) in before:
                assert (one.id, other.id) not in reaches or (other.id, one.id) in reaches


def reachable(world: list[Decision]) -> set[tuple[InstanceId, InstanceId]]:
    """Every pair of which the first depends on the second, perhaps over others."""
    commands = [decision for decision in world if not decision.nop]
    paths = {
        (one.id, other.id)
        for one in commands
        for other in commands
        if one is not other and covers(one.deps, other.id) and RELATION.conflict(one.batch, other.batch)
    }
    for middle in commands:
        into = [start for start, end in paths if end == middle.id]
        out = [end for start, end in paths if start == middle.id]
        paths |= {(start, end) for start in into for end in out}
    return paths


@pytest.mark.parametrize("last", [at(0, 1), at(0, 2)])
def test_a_vector_that_covers_its_own_successor_still_wakes_waiting_instances(last: InstanceId) -> None:
    """The decision that fills a row's gap may look past itself before it wakes the others."""
    batch = Batch((), (), Footprint(writes=(b"k",)))
    world = [
        Decision(at(1, 1), batch, False, (2, 0, 0)),
        Decision(at(0, 2), batch, False, (1, 0, 0)),
        Decision(at(0, 1), batch, False, (2, 0, 0)),
    ]
    replica = OneReplica()
    for decision in sorted(world, key=lambda one: one.id == last):
        replica.learn_decision(decision)
    assert replica.done == [at(0, 1), at(0, 2), at(1, 1)]
