"""The sliding window: which instances leave memory, when, and how later messages about them are handled."""

from typing import Any

import pytest

from pydsm.core.log.window import Window
from pydsm.core.types.checkpoint import checkpoint_batch
from pydsm.core.types.effects import FrontierRecord, Send
from pydsm.core.types.errors import InvariantViolation, OperationalError
from pydsm.core.types.ids import Tick
from pydsm.core.types.messages import (
    Accept,
    AcceptOk,
    Commit,
    CommitQuery,
    Frontier,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    Validate,
    ValidateOk,
    Waiting,
)
from tests.unit.core.helpers import P0, P1, P2, Driven, at, ballot, writing
from tests.worlds import World

NONE = (0, 0, 0)
A, B = writing("key", name="a"), writing("key", name="b")
ID = at(1, 1)


def window() -> Window:
    return Window(P0, (P0, P1, P2), NONE)


def report_all(one: Window, executed: tuple[int, ...], known: tuple[int, ...]) -> None:
    for member in (P0, P1, P2):
        one.report(member, executed, known)


def test_an_instance_does_not_leave_before_all_members_have_reported_it() -> None:
    one = window()
    one.report(P0, (5, 5, 5), (5, 5, 5))
    one.report(P1, (5, 5, 5), (5, 5, 5))
    assert [one.advance() for _ in range(3)] == [NONE] * 3


def test_an_instance_executed_by_all_leaves_when_all_that_they_knew_is_durably_executed() -> None:
    one = window()
    report_all(one, (2, 0, 1), (3, 0, 1))
    assert [one.advance(), one.advance()] == [NONE] * 2
    one.report(P1, (3, 0, 1), (3, 0, 1))
    assert one.advance() == NONE
    one.report(P0, (3, 0, 1), (3, 0, 1))
    assert one.advance() == (2, 0, 1)


def test_an_index_known_by_any_member_counts() -> None:
    one = window()
    report_all(one, (1, 0, 0), (1, 0, 0))
    one.report(P2, (1, 0, 0), (1, 7, 0))
    one.advance()
    one.report(P0, (1, 6, 0), (1, 7, 0))
    assert one.advance() == NONE
    one.report(P0, (1, 7, 0), (1, 7, 0))
    assert one.advance() == (1, 0, 0)


def test_an_index_known_after_a_step_has_begun_does_not_delay_it() -> None:
    one = window()
    report_all(one, (1, 0, 0), (1, 0, 0))
    one.advance()
    report_all(one, (1, 0, 0), (9, 9, 9))
    assert one.advance() == (1, 0, 0)


def test_the_slowest_member_decides() -> None:
    one = window()
    for member, executed in ((P0, (9, 9, 9)), (P1, (9, 4, 9)), (P2, (3, 9, 9))):
        one.report(member, executed, (9, 9, 9))
    one.advance()
    assert one.advance() == (3, 4, 9)


def test_a_late_report_takes_nothing_back() -> None:
    one = window()
    report_all(one, (4, 4, 4), (4, 4, 4))
    one.report(P1, (1, 1, 1), (1, 1, 1))
    assert one.stable == (4, 4, 4)


def test_a_member_lacks_instances_that_it_has_not_reported() -> None:
    one = window()
    one.report(P1, (0, 2, 0), (9, 9, 9))
    assert [one.lacks(P1, at(1, index)) for index in (1, 2, 3)] == [False, False, True]
    assert one.lacks(P1, at(2, 1))
    assert [one.lacks_some(P1, up_to) for up_to in (NONE, (0, 2, 0), (0, 3, 0), (1, 2, 0))] == [
        False,
        False,
        True,
        True,
    ]


def test_of_a_member_that_has_reported_nothing_yet_no_single_instance_is_known_to_be_lacking() -> None:
    """It may have everything on its disk; its first report will say."""
    one = window()
    assert not one.lacks(P1, at(1, 1))
    one.report(P1, NONE, (9, 9, 9))
    assert not one.lacks(P1, at(1, 1))
    assert one.lacks_some(P1, (0, 1, 0))


def test_one_that_reported_more_before_lacks_no_more_after_a_late_report() -> None:
    one = window()
    one.report(P1, (0, 2, 0), (0, 2, 0))
    one.report(P1, (0, 1, 0), (0, 1, 0))
    assert not one.lacks(P1, at(1, 2))
    assert not one.lacks_some(P1, (0, 2, 0))


# At a replica


def compacting() -> Driven:
    """A replica that has executed 1.1, and dropped it because the others have executed it too."""
    driven = Driven(0, 3, gossip_ticks=10)
    driven.receive(1, Commit(ID, A, NONE))
    driven.run(10)
    for peer in (1, 2):
        driven.receive(peer, Frontier((0, 1, 0), (0, 1, 0)))
    driven.run(40)
    assert driven.replica.dropped == (0, 1, 0)
    driven.take()
    return driven


def test_an_executed_instance_is_removed_when_all_have_reported_it() -> None:
    driven = compacting()
    assert ID not in driven.replica.instances
    assert driven.replica.frontier == (0, 1, 0)


@pytest.mark.parametrize(
    "message",
    [
        PreAccept(ID, A, NONE),
        PreAcceptOk(ID, NONE),
        Accept(ID, ballot(1, 2), A, NONE),
        AcceptOk(ID, ballot(1, 2)),
        Commit(ID, A, NONE),
        Prepare(ID, ballot(1, 2)),
        Validate(ID, ballot(1, 2), A, NONE),
        Waiting(ID, 1),
        CommitQuery((ID,)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_late_message_about_a_dropped_instance_is_ignored(message: Message) -> None:
    driven = compacting()
    written = driven.disk.writes
    driven.receive(1, message)
    assert (driven.take(), driven.executed_ids, driven.disk.writes) == ([], [ID], written)
    assert ID not in driven.replica.instances


def test_a_dropped_instance_is_still_conflicted_with() -> None:
    driven = compacting()
    driven.receive(2, PreAccept(at(2, 1), B, NONE))
    assert driven.take() == [(P2, PreAcceptOk(at(2, 1), (0, 1, 0)))]


def test_an_instance_behind_dropped_ones_is_executed() -> None:
    driven = compacting()
    driven.receive(2, Commit(at(2, 1), B, (0, 1, 0)))
    assert driven.executed_ids == [ID, at(2, 1)]


def test_creating_a_dropped_instance_again_stops_the_replica() -> None:
    with pytest.raises(InvariantViolation, match=r"1\.1 was executed and dropped"):
        compacting().replica._state.log.instance(ID)


def test_dropping_an_unexecuted_instance_stops_the_replica() -> None:
    driven = Driven(0, 3)
    driven.receive(1, PreAccept(ID, A, NONE))
    with pytest.raises(InvariantViolation, match="before it is executed"):
        driven.replica._state.log.drop((0, 1, 0), 10)


def test_many_instances_leave_a_few_per_tick() -> None:
    driven = Driven(0, 3, gossip_ticks=10, drop_instances_max=2)
    driven.receive(1, *[Commit(at(1, index), writing(str(index)), NONE) for index in range(1, 6)])
    driven.tick(10)
    for peer in (1, 2):
        driven.receive(peer, Frontier((0, 5, 0), (0, 5, 0)))
    gone = []
    for now in range(11, 17):
        driven.tick(now)
        gone.append(driven.replica.dropped[1])
    assert gone == [0, 2, 4, 5, 5, 5]


# Early compaction, while a member is down


MARK = checkpoint_batch(7)


def crowded(*, snapshot: bool = True, **config: Any) -> Driven:
    """A replica that has executed 1.1 and 1.2, a checkpoint, and 1.3; replica 2 has not reported any of them."""
    driven = Driven(0, 3, gossip_ticks=10, **config)
    driven.receive(1, Commit(at(1, 1), A, NONE), Commit(at(1, 2), B, (0, 1, 0)))
    driven.receive(1, Commit(at(2, 1), MARK, (0, 2, 0)), Commit(at(1, 3), A, (0, 2, 1)))
    if snapshot:
        driven.replica.snapshot_durable(driven.checkpoints[0])
    driven.run(100)
    return driven


def test_a_member_that_is_down_holds_the_window_back_only_up_to_a_limit() -> None:
    """PROTOCOL 6: "past that it will need a snapshot"."""
    kept = crowded().replica._state.log.kept_bytes
    assert kept > 4000
    assert crowded(window_bytes_max=kept).replica.dropped == NONE
    assert crowded(window_bytes_max=kept - 1).replica.dropped == (0, 2, 0)


def test_nothing_leaves_early_that_no_durable_snapshot_has() -> None:
    assert crowded(snapshot=False, window_bytes_max=1).replica.dropped == NONE
    driven = crowded(window_bytes_max=1)
    assert driven.replica.dropped == (0, 2, 0)
    assert list(driven.replica.instances) == [at(2, 1), at(1, 3)]
    assert driven.replica._state.log.kept_bytes > 1


def test_no_more_leaves_early_than_must_and_that_bit_by_bit() -> None:
    kept = crowded().replica._state.log.kept_bytes
    assert crowded(window_bytes_max=kept - 1, drop_instances_max=1).replica.dropped == (0, 1, 0)


def test_the_barrier_is_reported_for_instances_removed_early() -> None:
    driven = crowded(window_bytes_max=1)
    driven.take()
    driven.receive(2, Prepare(at(2, 2), ballot(1, 2)), Validate(at(2, 2), ballot(1, 2), B, NONE))
    found = driven.take_only(ValidateOk)[0][1].invalidators
    assert [(one.id, one.committed) for one in found] == [(at(1, 3), True), (at(2, 1), True)]


def test_instances_executed_by_all_leave_at_any_limit() -> None:
    driven = crowded()
    for peer in (1, 2):
        driven.receive(peer, Frontier((0, 3, 1), (0, 3, 1)))
    driven.run(200)
    assert (driven.replica.dropped, driven.replica._state.log.kept_bytes) == ((0, 3, 1), 0)


# Reports


def test_a_frontier_is_reported_only_when_the_disk_could_execute_it_again() -> None:
    driven = Driven(0, 3, gossip_ticks=10)
    driven.receive(1, Commit(ID, A, NONE))
    assert driven.disk.record(ID) is None  # lazily written, and nothing was written since
    driven.disk.holding = True
    driven.tick(10)
    assert driven.take_only(Frontier) == []
    driven.disk.finish()
    assert driven.disk.record(ID) is not None
    assert driven.take_only(Frontier) == [(peer, Frontier((0, 1, 0), (0, 1, 0), sent_at=10)) for peer in (P1, P2)]


def test_an_unchanged_frontier_costs_no_write() -> None:
    driven = Driven(0, 3, gossip_ticks=10)
    driven.receive(1, Commit(ID, A, NONE))
    driven.run(10)
    written = driven.disk.writes
    driven.run(100)
    assert driven.disk.writes == written


def test_the_own_report_counts_when_it_is_durable() -> None:
    driven = Driven(0, 3, gossip_ticks=10)
    driven.replica.receive(P1, Commit(ID, A, NONE))
    driven.replica.tick(Tick(10))
    effects = driven.replica.take_effects()
    assert effects.records == [FrontierRecord((0, 1, 0), NONE)]
    assert effects.sends == [Send((P0, P1, P2), Frontier((0, 1, 0), (0, 1, 0), sent_at=10))]


def test_a_restarted_replica_reports_at_least_what_it_reported_before() -> None:
    driven = Driven(0, 3, gossip_ticks=10)
    driven.receive(1, Commit(ID, A, NONE))
    driven.run(10)
    driven.restart()
    driven.tick(0)
    assert driven.take_only(Frontier)[0][1] == Frontier((0, 1, 0), (0, 1, 0))


def test_a_disk_that_lost_reported_instances_is_refused() -> None:
    driven = Driven(0, 3)
    with pytest.raises(OperationalError, match=r"instance 1\.1 is missing"):
        driven.replica.restore([FrontierRecord((0, 1, 0), NONE)])


# In a group


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_quiet_group_keeps_nothing_in_memory(n: int) -> None:
    world = World(n, config={"gossip_ticks": 10})
    for number in range(10):
        world.propose(number % n, writing("key", name=str(number)))
        world.run(20)
    world.run(200)
    assert [len(host.replica.instances) for host in world.hosts] == [0] * n


def test_a_member_that_is_down_holds_the_window_back_until_it_has_caught_up() -> None:
    world = World(3, config={"gossip_ticks": 10})
    world.crash(2)
    for number in range(10):
        world.propose(0, writing("key", name=str(number)))
        world.run(20)
    world.run(200)
    assert len(world.hosts[0].replica.instances) == 10
    world.restart(2)
    world.run(3000)
    assert [len(host.replica.instances) for host in world.hosts] == [0] * 3
    assert len(world.hosts[2].executed) == 10


def test_a_group_that_compacted_executes_the_same_after_a_power_cut() -> None:
    world = World(3, config={"gossip_ticks": 10})
    for number in range(10):
        world.propose(number % 3, writing("key", name=str(number)))
        world.run(20)
    world.run(200)
    for replica in range(3):
        world.restart(replica)
    world.heal()
    assert [len(life.executed) for life in world.lives] == [10] * 6
