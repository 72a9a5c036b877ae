"""Sentences of PROTOCOL section 5, in groups of real replicas."""

import pytest

from pydsm.core.replica import PipelineFull
from pydsm.core.types.messages import NOP, Accept, Commit, PreAccept, PreAcceptOk
from tests.unit.core.helpers import Driven, at, ballot, reading, writing
from tests.worlds import World

A, B, APART = writing("key", name="a"), writing("key", name="b"), writing("apart")
NONE = (0, 0, 0)


def test_components_run_in_topological_order_and_inside_by_index_and_leader() -> None:
    """ "Work through strongly connected components in topological order; inside a component by (index, leader)." """
    replica = Driven(0, 3)
    replica.receive(2, Commit(at(2, 2), B, (0, 2, 2)), Commit(at(1, 2), B, (0, 2, 2)))  # a circle, after the others
    replica.receive(2, Commit(at(2, 1), B, (0, 1, 1)), Commit(at(1, 1), B, (0, 1, 1)))  # another circle
    assert replica.executed_ids == [at(1, 1), at(2, 1), at(1, 2), at(2, 2)]


def test_conflicting_commands_run_in_one_order_at_all_replicas() -> None:
    world = World(5)
    for place in range(4):
        for replica in range(5):
            world.propose(replica, writing("key", name=f"{place}.{replica}"))
        world.deliver_all(lambda packet: (packet.sender + packet.to) % 3 != 0)
    world.deliver_all()
    orders = [host.executed_ids for host in world.hosts]
    assert len(orders[0]) == 20
    assert all(order == orders[0] for order in orders)


def test_a_covered_instance_that_is_known_not_to_conflict_is_not_waited_for() -> None:
    """ "A covered instance whose batch is known (pre-accepted is enough) and does not conflict need not be waited
    for" """
    replica = Driven(0, 3)
    replica.receive(2, Commit(at(2, 1), A, (0, 1, 0)))
    assert replica.executed == []
    replica.receive(1, PreAccept(at(1, 1), APART, NONE))
    assert replica.executed_ids == [at(2, 1)]


def test_an_instance_waits_for_one_undecided_instance_and_is_woken_by_it() -> None:
    """ "a component waits on exactly one uncommitted instance at a time and is woken by it" """
    replica = Driven(0, 3)
    replica.receive(1, PreAccept(at(1, 1), B, NONE), PreAccept(at(1, 2), B, (0, 1, 0)))
    replica.receive(2, Commit(at(2, 1), A, (0, 2, 0)))
    execution = replica.replica._state.execution
    assert execution.blocker(at(2, 1)) == at(1, 1)
    replica.receive(1, Commit(at(1, 1), B, NONE))
    assert execution.blocker(at(2, 1)) == at(1, 2)
    replica.receive(1, Commit(at(1, 2), B, (0, 1, 0)))
    assert execution.blocker(at(2, 1)) is None
    assert replica.executed_ids == [at(1, 1), at(1, 2), at(2, 1)]


def test_an_accepted_nop_is_still_waited_for() -> None:
    """An accepted nop may become its batch again; only a committed one orders nothing."""
    replica = Driven(0, 3)
    replica.receive(2, Accept(at(1, 1), ballot(1, 2), NOP, NONE), Commit(at(2, 1), A, (0, 1, 0)))
    assert replica.executed == []
    replica.receive(2, Commit(at(1, 1), NOP, NONE))
    assert replica.executed_ids == [at(2, 1)]


def test_the_number_of_unexecuted_own_instances_of_a_leader_is_limited() -> None:
    """ "A leader keeps at most pipeline_instances_max of its own instances unexecuted" """
    leader = Driven(0, 3, pipeline_instances_max=3)
    ids = [leader.propose(APART) for _ in range(3)]
    assert isinstance(leader.replica.propose(APART), PipelineFull)
    leader.receive(1, PreAcceptOk(ids[0], NONE))
    leader.propose(APART)
    assert isinstance(leader.replica.propose(APART), PipelineFull)


def test_a_committed_instance_that_waits_for_others_still_fills_the_pipeline() -> None:
    """Unexecuted counts, not undecided: then every chain of dependencies ends."""
    leader = Driven(0, 3, pipeline_instances_max=1)
    leader.receive(1, PreAccept(at(1, 1), B, NONE))
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0, 1, 0)))
    assert leader.replica.instances[id].decided
    assert isinstance(leader.replica.propose(APART), PipelineFull)
    leader.receive(1, Commit(at(1, 1), B, NONE))
    assert leader.propose(APART) == at(0, 2)


def test_the_client_is_answered_after_execution_at_the_leader() -> None:
    """ "The client is answered after execution at the leader." A decision alone is not executed."""
    leader = Driven(0, 3)
    leader.receive(1, PreAccept(at(1, 1), B, NONE))
    id = leader.propose(A)
    leader.receive(1, PreAcceptOk(id, (0, 1, 0)))
    assert (leader.replica.instances[id].decided, leader.executed) == (True, [])


def test_a_nop_is_executed_as_nothing() -> None:
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 1), NOP, NONE))
    assert (replica.executed, replica.replica.frontier) == ([], (0, 1, 0))


@pytest.mark.parametrize("n", [3, 5])
def test_commuting_commands_never_wait_for_each_other(n: int) -> None:
    """Readers of one key from all sides: every one commits on the fast path, with nothing before it."""
    world = World(n)
    for _ in range(3):
        for replica in range(n):
            world.propose(replica, reading("key"))
    world.deliver_all()
    assert [host.replica.counters.fast for host in world.hosts] == [3] * n
    assert all(instance.deps == (0,) * n for instance in world.hosts[0].replica.instances.values())


def test_the_frontier_is_the_executed_prefix() -> None:
    """ "the frontier executed[r] (contiguous prefix per leader) is never visited again" """
    replica = Driven(0, 3)
    replica.receive(1, Commit(at(1, 2), APART, NONE), Commit(at(1, 3), A, NONE))
    assert replica.replica.frontier == (0, 0, 0)
    replica.receive(1, Commit(at(1, 1), APART, NONE))
    assert replica.replica.frontier == (0, 3, 0)
