"""Sentences of docs/reference/protocol.md, section 6, about the core: durable before visible, and restarts.

The disks of these tests complete a write only on `finish`, so that a message that leaves too early is detected.
"""

import pytest

from pydsm.core.types.effects import ReservationRecord
from pydsm.core.types.ids import InstanceId
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Commit,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Validate,
    ValidateOk,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import Driven, at, ballot, pre_accepted, writing
from tests.worlds import World

A, B = writing("key", name="a"), writing("key", name="b")
ID = at(0, 1)
NONE = (0, 0, 0)


def reserved_up_to(driven: Driven) -> int:
    return max((one.up_to for one in driven.disk.load() if isinstance(one, ReservationRecord)), default=0)


# State on disk before messages leave


@pytest.mark.parametrize(
    ("earlier", "question", "answer"),
    [
        ([], PreAccept(ID, A, NONE), PreAcceptOk),
        ([], Accept(ID, ballot(0, 0), A, NONE), AcceptOk),
        ([], Prepare(ID, ballot(1, 0)), PrepareOk),
        ([Prepare(ID, ballot(1, 0))], Validate(ID, ballot(1, 0), A, NONE), ValidateOk),
    ],
    ids=["PreAcceptOk", "AcceptOk", "PrepareOk", "ValidateOk"],
)
def test_an_answer_leaves_when_the_state_that_it_reports_is_on_disk(
    earlier: list[Message], question: Message, answer: type[Message]
) -> None:
    """ "PreAcceptOk, AcceptOk, PrepareOk, ValidateOk | the instance state that it reports" """
    replica = Driven(1, 3)
    replica.receive(0, *earlier)
    replica.take()
    replica.disk.holding = True
    replica.receive(0, question, question)
    assert replica.take() == []
    replica.disk.finish()
    assert [type(message) for _, message in replica.take()] == [answer, answer]
    assert replica.disk.record(ID) == replica.replica.instances[ID].record()


def test_an_answer_that_was_held_back_when_power_failed_was_never_given() -> None:
    """A replica that lost a PreAccept has not answered it before, so it may answer it now."""
    replica = Driven(1, 3)
    replica.disk.holding = True
    replica.receive(0, PreAccept(ID, A, NONE))
    replica.restart()
    assert (replica.take(), replica.replica.known) == ([], NONE)


def test_a_leaders_own_vote_in_accept_counts_when_its_accepted_state_is_on_disk() -> None:
    """ "a leader's own vote in Accept | its accepted state" """
    leader = Driven(0, 3)
    leader.propose(A)
    leader.receive(1, PreAcceptOk(ID, (0, 4, 0)))
    leader.disk.holding = True
    leader.receive(2, PreAcceptOk(ID, (0, 0, 7)))
    leader.receive(1, AcceptOk(ID, ballot(0, 0)))
    assert not leader.replica.instances[ID].decided
    leader.disk.finish()
    record = leader.disk.record(ID)
    assert record is not None
    assert record.status >= Status.ACCEPTED
    assert leader.replica.instances[ID].decided


def test_a_fast_commit_its_execution_and_its_reply_wait_for_the_committed_value() -> None:
    """ "a fast-path Commit, its execution and its reply | the committed value at the leader" """
    leader = Driven(0, 3)
    leader.propose(A)
    leader.take()
    leader.disk.holding = True
    leader.receive(1, PreAcceptOk(ID, NONE))
    leader.receive(2, Prepare(ID, ballot(1, 2)))
    assert (leader.take(), leader.executed) == ([], [])
    leader.disk.finish()
    record = leader.disk.record(ID)
    assert record is not None
    assert record.status is Status.COMMITTED
    assert {type(message) for _, message in leader.take()} == {Commit}
    assert leader.executed_ids == [ID]


@pytest.mark.parametrize("written", [False, True])
def test_a_command_that_a_client_saw_succeed_survives_its_leaders_crash(written: bool) -> None:
    """ "otherwise a restarted leader would answer Prepare as "pre-accepted", rule 3 would pick nop" """
    world = World(3)
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.is_a(PreAccept))
    world.hosts[0].disk.holding = True
    world.deliver_all(lambda packet: packet.is_a(PreAcceptOk))
    seen = bool(world.hosts[0].executed)
    world.crash(0, after_write=written)
    world.restart(0)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(0, 1))
    world.heal()
    assert not seen
    assert world.hosts[1].executed_ids == ([ID] if written else [])


@pytest.mark.parametrize("accepted_at", [(), (2,), (2, 3, 4)])
@pytest.mark.parametrize("recovered_with", [(1, 2, 3), (2, 3, 4)])
def test_a_nop_that_follows_from_a_fast_commit_stays_right_when_a_crash_undoes_the_commit(
    accepted_at: tuple[int, ...], recovered_with: tuple[int, ...]
) -> None:
    """ "its Accept may leave before the commit is durable [...] The nop for id stays right"

    0.1 is unchanged at 2, and 1.1 at 3 and 4. 1 recovers 0.1 with 2 and 3, and waits for its own 1.1. It commits 1.1 on
    the fast path, sends the Accept of 0.1 and loses power. Then 1.1 is recovered, with or without 1.
    """
    world, own = World(5), at(1, 1)
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.is_a(PreAccept) and packet.to == 2)
    world.propose(1, B)
    world.deliver_all(lambda packet: packet.is_a(PreAccept) and packet.about(own) and packet.to in (3, 4))
    votes = [packet for packet in world.packets if packet.is_a(PreAcceptOk) and packet.about(own)]
    world.lose()
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert world.hosts[1].replica.counters.waited == 1
    world.lose()
    world.hosts[1].disk.holding = True
    for vote in votes:
        world.deliver(vote)
    assert world.hosts[1].replica.instances[own].decided
    assert [packet.message for packet in world.packets] == [Accept(ID, ballot(1, 1), NOP, (0,) * 5)] * 4
    world.deliver_round(lambda packet: packet.to in accepted_at)
    world.crash(1)
    world.restart(1)
    assert own not in world.hosts[1].replica.instances
    world.lose()
    world.recover(recovered_with[0], own)
    world.deliver_all(lambda packet: packet.among(*recovered_with))
    world.lose()
    world.recover(2, ID)
    world.deliver_all(lambda packet: packet.among(2, 3, 4))
    world.heal()


def test_the_first_pre_accept_of_an_index_waits_for_a_reservation_that_covers_it() -> None:
    """ "the first PreAccept of an index | a reservation that covers the index" """
    leader = Driven(0, 3, reservation_block=4)
    leader.disk.holding = True
    for place in range(40):
        leader.propose(writing(str(place)))
        for _, request in leader.take_only(PreAccept):
            assert request.id.index <= reserved_up_to(leader)
        if place % 3 == 0:
            leader.disk.finish()
            for _, request in leader.take_only(PreAccept):
                assert request.id.index <= reserved_up_to(leader)


def test_a_pre_accept_leaves_immediately_and_the_leaders_vote_is_not_visible_before_it_is_durable() -> None:
    """The fast path's record of the decision carries the leader's vote."""
    leader = Driven(0, 3)
    leader.propose(writing("first"))
    leader.take()
    leader.disk.holding = True
    id = leader.propose(A)
    assert len(leader.take_only(PreAccept)) == 2
    leader.receive(1, PreAcceptOk(id, NONE))
    assert leader.take() == []
    assert leader.executed_ids == []
    leader.disk.finish()
    assert leader.executed_ids == [id]


def test_accept_leaves_on_the_slow_path_only_when_the_leaders_acceptance_is_durable() -> None:
    """It contains the leader's vote on the batch: replicas that accept rely on the leader to have the instance."""
    leader = Driven(0, 5)
    id = leader.propose(A)
    leader.take()
    leader.disk.holding = True
    for peer in (1, 2, 3):
        leader.receive(peer, PreAcceptOk(id, (0, peer, 0, 0, 0)))
    assert leader.take() == []
    leader.disk.finish()
    assert [to for to, _ in leader.take_only(Accept)] == [1, 2, 3, 4]


def test_commits_learnt_from_others_cost_no_write_of_their_own() -> None:
    """ "Commits received from others may be written lazily." """
    replica = Driven(1, 3)
    replica.receive(0, Commit(ID, A, NONE))
    assert (replica.disk.writes, replica.executed_ids) == (0, [ID])
    replica.receive(2, PreAccept(at(2, 1), B, (1, 0, 0)))
    record = replica.disk.record(ID)
    assert record is not None
    assert (replica.disk.writes, record.status) == (1, Status.COMMITTED)


# Restarts


@pytest.mark.parametrize("crash_after", range(12))
def test_a_restarted_leader_never_uses_an_index_twice(crash_after: int) -> None:
    """ "a restarted leader never uses one twice", after a crash between any two writes."""
    leader = Driven(0, 3, reservation_block=4)
    leader.disk.holding = True
    told: list[InstanceId] = []
    for place in range(crash_after):
        leader.propose(writing(f"first life {place}"))
        told += [request.id for _, request in leader.take_only(PreAccept)]
        if place % 2:
            leader.disk.finish()
    told += [request.id for _, request in leader.take_only(PreAccept)]
    leader.restart()
    leader.disk.holding = False
    assert leader.propose(writing("second life")) not in told


def test_a_restarted_leader_never_acts_in_round_0_for_an_instance_of_before() -> None:
    """ "After a restart a replica never acts in round 0 for an earlier instance: it recovers its own unfinished ones
    with ballots of round 1 and above." """
    leader = Driven(0, 3, recovery_timeout_ticks=100, recovery_jitter_ticks=1)
    leader.propose(A)
    leader.restart()
    leader.receive(1, PreAcceptOk(ID, NONE))
    leader.receive(2, PreAcceptOk(ID, NONE), AcceptOk(ID, ballot(0, 0)))
    assert ID not in leader.replica.instances
    leader.run(2000)
    sent = [message for _, message in leader.take() if getattr(message, "id", None) == ID]
    assert {type(message) for message in sent} == {Prepare}
    assert all(message.ballot.round >= 1 for message in sent if isinstance(message, Prepare))


def test_the_unused_part_of_a_reservation_is_recovered_as_nops_in_parallel() -> None:
    """ "unused ones are recovered as nop, and a restart must not cost a round trip for each" """
    world = World(3, config={"reservation_block": 16})
    world.propose(0, A)
    world.deliver_all()
    world.restart(0)
    later = world.propose(0, B)
    world.run(1500)
    assert later == at(0, 17)
    assert [value for id, (value, _) in world.decided.items() if 1 < id.index < 17] == [NOP] * 15
    assert world.hosts[1].executed_ids == [ID, later]


def test_a_replica_restarts_from_its_records_alone() -> None:
    """Every status, both ballots, nops and opaque batches: written, and read back through their bytes."""
    world = World(3)
    for place in range(3):
        for replica in range(3):
            world.propose(replica, writing("key", name=f"{place}.{replica}"))
        world.deliver_all(lambda packet: not packet.is_a(Commit))
    world.hosts[1].receive(2, Prepare(at(2, 9), ballot(1, 2)), Accept(at(2, 9), ballot(1, 2), NOP, NONE))
    world.hosts[1].receive(2, Prepare(at(2, 8), ballot(3, 2)), Validate(at(2, 8), ballot(3, 2), A, NONE))
    world.hosts[1].receive(0, PreAccept(at(0, 9), A, (9, 9, 9)))
    before = {id: instance.record() for id, instance in world.hosts[1].replica.instances.items()}
    executed = world.hosts[1].executed_ids
    world.restart(1)
    assert {id: instance.record() for id, instance in world.hosts[1].replica.instances.items()} == before
    assert world.hosts[1].executed_ids == executed


def test_a_lazily_kept_commit_that_power_took_away_is_learnt_again() -> None:
    world = World(3)
    world.propose(0, A)
    world.deliver_all()
    world.restart(1)
    assert world.hosts[1].executed == []
    world.heal()
    assert world.hosts[1].executed_ids == [ID]


def test_a_group_in_which_all_replicas_lost_power_continues_from_its_disks() -> None:
    world = World(5)
    for place in range(3):
        for replica in range(5):
            world.propose(replica, writing("key", name=f"{place}.{replica}"))
    world.deliver_all(lambda packet: packet.sender != 3)
    for replica in range(5):
        world.crash(replica)
    world.lose()
    for replica in range(5):
        world.restart(replica)
    world.heal()


def test_a_promise_and_a_vote_survive_a_restart() -> None:
    replica = Driven(1, 3)
    replica.receive(0, Accept(ID, ballot(0, 0), A, NONE))
    replica.receive(2, Prepare(ID, ballot(2, 2)))
    replica.restart()
    replica.receive(0, Prepare(ID, ballot(1, 0)), Prepare(ID, ballot(3, 0)))
    refusal, answer = [message for _, message in replica.take()]
    assert getattr(refusal, "promised", None) == ballot(2, 2)
    assert answer == PrepareOk(ID, ballot(3, 0), Status.ACCEPTED, ballot(0, 0), A, NONE, None, NONE)


def test_a_pre_accepted_instance_keeps_its_initial_batch_and_deps_after_a_restart() -> None:
    replica = Driven(1, 3)
    replica.receive(2, PreAccept(at(2, 4), B, NONE))
    replica.receive(0, PreAccept(ID, A, NONE))
    replica.restart()
    replica.receive(2, Prepare(ID, ballot(1, 2)))
    assert [message for _, message in replica.take()] == [pre_accepted(ID, ballot(1, 2), A, NONE, (0, 0, 4))]


def test_a_group_of_one_finishes_open_instances_of_its_former_start_after_a_restart() -> None:
    """ "After a restart a replica [...] recovers its own unfinished ones", also when there is no peer to ask."""
    world = World(1)
    world.propose(0, writing("key"))
    world.hosts[0].disk.holding = True
    unfinished = world.propose(0, writing("key", name="unfinished"))
    world.crash(0, after_write=True)
    world.restart(0)
    world.hosts[0].disk.holding = False
    world.propose(0, writing("key", name="later"))
    world.heal()
    assert unfinished == at(0, 2)
    assert [one.batch.commands for one in world.hosts[0].executed] == [(b"key",), (b"unfinished",), (b"later",)]
