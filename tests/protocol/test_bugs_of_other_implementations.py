"""One named test for each row of PROTOCOL section 9 that concerns the core."""

import pytest

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
)
from pydsm.core.types.quorums import quorums
from pydsm.core.types.status import Status
from tests.unit.core.helpers import Driven, at, ballot, prepare_ok, writing
from tests.worlds import World

A, B = writing("key", name="a"), writing("key", name="b")
ID = at(0, 1)
NONE = (0, 0, 0)

# The original: one ballot variable for promise and vote


def test_promise_and_vote_are_two_ballots() -> None:
    """ "recovery loses the accepted value": the vote is reported with ballot 1 after a promise of ballot 5."""
    replica = Driven(1, 3)
    replica.receive(2, Accept(ID, ballot(1, 2), A, NONE), Prepare(ID, ballot(5, 0)))
    answer = replica.take_only(PrepareOk)[0][1]
    assert (answer.ballot, answer.voted, answer.status) == (ballot(5, 0), ballot(1, 2), Status.ACCEPTED)
    record = replica.disk.record(ID)
    assert record is not None
    assert (record.promised, record.voted) == (ballot(5, 0), ballot(1, 2))


def test_a_chosen_value_survives_a_recovery_that_promised_and_then_died() -> None:
    """The value of round 0 was accepted by 0, 1 and 2 of five; one recovery only prepares, another one finishes."""
    world = World(5)
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.is_a(PreAccept))
    world.lose()
    for peer in (1, 2, 3, 4):
        world.hosts[0].receive(peer, PreAcceptOk(ID, (0, 0, 0, 0, peer)))
    world.deliver_all(lambda packet: packet.among(0, 1, 2))
    assert world.hosts[0].replica.instances[ID].decided
    world.lose()
    world.crash(0)
    world.recover(4, ID)
    world.deliver_all(lambda packet: packet.is_a(Prepare))
    world.lose()
    world.crash(4)
    world.hosts[1].restart()
    world.recover(3, ID)
    world.run(5000, until=lambda: world.hosts[3].replica.instances[ID].decided)
    assert world.hosts[3].replica.instances[ID].value == A
    assert world.hosts[3].replica.instances[ID].deps == (0, 0, 0, 0, 3)
    world.check()


# This project's ancestor: promise never stored, a duplicated packet is two votes


def test_a_promise_is_durable_before_it_is_sent() -> None:
    replica = Driven(1, 3)
    replica.disk.holding = True
    replica.receive(2, Prepare(ID, ballot(5, 2)))
    assert replica.take() == []
    replica.disk.finish()
    record = replica.disk.record(ID)
    assert record is not None
    assert record.promised == ballot(5, 2)
    assert len(replica.take_only(PrepareOk)) == 1


def test_a_promise_holds_after_a_restart() -> None:
    replica = Driven(1, 3)
    replica.receive(2, Prepare(ID, ballot(5, 2)))
    replica.restart()
    replica.receive(0, Accept(ID, ballot(0, 0), A, NONE))
    assert replica.replica.instances[ID].status is Status.UNKNOWN


def test_a_duplicated_packet_is_one_vote() -> None:
    """Five replicas: neither three copies of a PreAcceptOk, of an AcceptOk nor of a PrepareOk make a quorum."""
    none = (0, 0, 0, 0, 0)
    leader = Driven(0, 5)
    id = leader.propose(A)
    leader.receive(1, *[PreAcceptOk(id, none)] * 3)
    assert not leader.replica.instances[id].decided
    for peer in (2, 3):
        leader.receive(peer, PreAcceptOk(id, (0, 0, peer, 0, 0)))
    leader.receive(1, *[AcceptOk(id, ballot(0, 0))] * 3)
    assert not leader.replica.instances[id].decided
    world = World(5)
    world.recover(1, at(0, 9))
    for _ in range(3):
        world.hosts[1].receive(2, prepare_ok(at(0, 9), ballot(1, 1), n=5))
    assert not any(packet.is_a(Accept, Validate) for packet in world.packets)


# efficient/epaxos


def test_pre_accept_is_answered_only_when_it_is_durable() -> None:
    """ "answers PreAccept before it is durable" """
    replica = Driven(1, 3)
    replica.disk.holding = True
    replica.receive(0, PreAccept(ID, A, NONE))
    assert replica.take() == []
    assert replica.disk.record(ID) is None
    replica.disk.finish()
    assert replica.disk.record(ID) is not None
    assert len(replica.take_only(PreAcceptOk)) == 1


def test_the_log_is_read_back() -> None:
    """ "log written and never read": a group that lost power as a whole executes the same again."""
    world = World(3)
    for replica in range(3):
        world.propose(replica, writing("key", name=str(replica)))
        world.deliver_all()
    before = world.hosts[0].executed_ids
    for replica in range(3):
        world.crash(replica)
    for replica in range(3):
        world.restart(replica)
    world.heal()
    assert world.hosts[0].executed_ids[:3] == before


def test_deps_are_not_lost_in_recovery_under_asymmetric_loss() -> None:
    """ "deps lost in recovery under asymmetric loss".

    0.1 is committed at 0 and 1. 2.1 conflicts; its leader does not have 0.1, and receives no answer. The
    leader fails; the replica that recovers 2.1 must order it after 0.1, or make it a nop.
    """
    world = World(3)
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.to != 2)
    world.lose()
    id = world.propose(2, B)
    world.deliver_all(lambda packet: packet.is_a(PreAccept) and packet.about(at(2, 1)))
    world.lose()
    world.crash(2)
    world.recover(1, at(2, 1))
    world.deliver_all()
    world.check()
    instance = world.hosts[1].replica.instances[at(2, 1)]
    assert id == at(2, 1)
    assert instance.decided
    assert instance.value == NOP or instance.deps[0] >= 1
    world.heal()


@pytest.mark.parametrize("vote_at", [0, 1])
def test_deps_that_were_voted_for_are_those_that_are_recovered(vote_at: int) -> None:
    world = World(3)
    for peer in (0, 1):
        world.reserve(peer, 1)
    world.propose(2, B)
    world.deliver_all(lambda packet: packet.is_a(PreAccept))
    world.lose()
    for peer in (0, 1):
        world.hosts[2].receive(peer, PreAcceptOk(at(2, 1), (peer, 1 - peer, 0)))
    world.deliver_all(lambda packet: packet.is_a(Accept) and packet.to == vote_at)
    world.lose()
    world.crash(2)
    world.recover(1 - vote_at, at(2, 1))
    world.deliver_all()
    assert world.hosts[0].replica.instances[at(2, 1)].deps == (1, 1, 0)
    world.check()


def test_a_dependency_without_a_recovery_is_recovered_by_the_replica_that_needs_it() -> None:
    """ "executor waits for ever for a dependency that no replica recovers": its leader failed early."""
    world = World(3)
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.is_a(PreAccept) and packet.to == 1)
    world.lose()
    world.crash(0)
    id = world.propose(1, B)
    world.deliver_all()
    assert world.hosts[1].executed == []
    world.run(10_000, until=lambda: bool(world.hosts[1].executed and world.hosts[2].executed))
    assert id in world.hosts[1].executed_ids
    assert world.hosts[1].executed_ids == world.hosts[2].executed_ids


def test_a_hot_key_does_not_livelock() -> None:
    """ "execution livelock on a hot key": five replicas write one key without a pause; it is executed meanwhile.

    Each keeps its pipeline full, so there are always new conflicting instances when old ones are decided.
    """
    world = World(5, config={"pipeline_instances_max": 4})
    proposed = 0
    for _ in range(30):
        for replica in range(5):
            while world.propose(replica, writing("hot", name=str(proposed))) is not None:
                proposed += 1
        packets, world.packets = world.packets, []
        for packet in packets:
            world.deliver(packet)
    executed = len(world.hosts[0].executed)
    assert executed >= proposed - 5 * 4 - 5 * 4
    assert proposed > 5 * 4 * 5


def test_the_committed_branch_of_recovery_gives_the_committed_value() -> None:
    """ "committed branch of recovery broadcasts a stale batch": the recoverer has an older vector."""
    world = World(3)
    world.hosts[1].receive(2, PreAccept(at(2, 5), B, NONE))
    world.propose(0, A)
    world.deliver_all(lambda packet: packet.is_a(PreAccept))
    world.lose()
    world.hosts[0].receive(2, PreAcceptOk(ID, NONE))
    assert world.hosts[1].replica.instances[ID].deps == (0, 0, 5)
    world.lose()
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(0, 1))
    for replica in (0, 1):
        instance = world.hosts[replica].replica.instances[ID]
        assert (instance.decided, instance.value, instance.deps) == (True, A, NONE)


# swiftpaxos's EPaxos


def test_votes_of_an_old_ballot_are_not_counted() -> None:
    """ "acks of an old ballot counted" """
    world = World(3)
    world.recover(1, ID)
    world.hosts[1].receive(0, prepare_ok(ID, ballot(1, 1)))
    world.recover(1, ID)
    world.hosts[1].receive(0, prepare_ok(ID, ballot(2, 1)))
    world.hosts[1].receive(2, AcceptOk(ID, ballot(1, 1)), AcceptOk(ID, ballot(0, 0)))
    assert not world.hosts[1].replica.instances[ID].decided
    world.hosts[1].receive(2, AcceptOk(ID, ballot(2, 1)))
    assert world.hosts[1].replica.instances[ID].decided


def test_a_ballot_on_disk_never_goes_back() -> None:
    """ "ballot overwritten on disk": older and doubled messages in any order leave the highest promise and vote."""
    replica = Driven(1, 3)
    messages: list[Message] = [
        Prepare(ID, ballot(3, 2)),
        Accept(ID, ballot(1, 0), A, NONE),
        Accept(ID, ballot(3, 2), NOP, NONE),
        Prepare(ID, ballot(2, 0)),
        Prepare(ID, ballot(4, 0)),
        Accept(ID, ballot(3, 2), NOP, NONE),
        PreAccept(ID, A, NONE),
    ]
    promised, voted = ballot(0, 0), ballot(0, 0)
    for message in messages:
        replica.receive(0, message)
        record = replica.disk.record(ID)
        assert record is not None
        assert record.promised >= promised
        promised = record.promised
        if record.voted is not None:
            assert record.voted >= voted
            voted = record.voted
    assert (promised, voted) == (ballot(4, 0), ballot(3, 2))


# fantoch, nvanbenschoten/epaxos


def test_recovery_is_implemented() -> None:
    """Each replica in turn leads an instance and fails immediately; the remaining replicas decide it."""
    for leader in range(3):
        world = World(3)
        world.propose(leader, A)
        world.deliver_all(lambda packet: packet.is_a(PreAccept))
        world.crash(leader)
        world.run(5000)
        assert [host.executed_ids for host in world.hosts if host.up] == [[at(leader, 1)]] * 2


# summerset


def test_the_quorums_are_those_of_the_table() -> None:
    """ "optimised quorum computed wrong" """
    table = {n: (quorums(n).f, quorums(n).e, quorums(n).slow, quorums(n).fast) for n in (3, 5, 7)}
    assert table == {3: (1, 1, 2, 2), 5: (2, 2, 3, 3), 7: (3, 2, 4, 5)}


# Section 4, late messages


def test_a_late_or_duplicated_validate_after_a_vote_changes_nothing() -> None:
    replica = Driven(1, 3)
    replica.receive(2, PreAccept(at(2, 1), B, NONE), Prepare(ID, ballot(1, 2)))
    replica.receive(2, Validate(ID, ballot(1, 2), A, NONE), Accept(ID, ballot(1, 2), NOP, NONE))
    before = replica.disk.record(ID)
    replica.take()
    replica.receive(2, *[Validate(ID, ballot(1, 2), A, NONE)] * 2)
    assert (replica.take(), replica.disk.record(ID)) == ([], before)
    replica.receive(2, Commit(ID, NOP, NONE))
    assert replica.replica.instances[ID].value == NOP
