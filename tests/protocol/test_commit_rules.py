"""Sentences of PROTOCOL section 3, and those of section 2 that bind every handler, in groups of real replicas."""

import pytest

from pydsm.core.types.messages import NOP, Accept, AcceptOk, Commit, PreAccept, PreAcceptOk, Prepare, Refuse
from pydsm.core.types.quorums import quorums
from pydsm.core.types.status import Status
from tests.unit.core.helpers import Driven, at, ballot, barrier, to_all, writing
from tests.worlds import Packet, World

every_size = pytest.mark.parametrize("n", [3, 5, 7])
A, B = writing("key", name="a"), writing("key", name="b")


def not_commits(packet: Packet) -> bool:
    return not packet.is_a(Commit)


# Section 2


def test_every_handler_is_idempotent() -> None:
    """ "every handler is idempotent": each packet twice leads where each packet once does."""
    outcomes = []
    for copies in (1, 2):
        world = World(3)
        for replica in range(3):
            world.propose(replica, writing("key", name=str(replica)))
        while world.packets:
            packet = world.packets.pop(0)
            for _ in range(copies):
                world.deliver(packet)
        world.check()
        outcomes.append([host.executed_ids for host in world.hosts])
    assert outcomes[0] == outcomes[1]
    assert all(len(ids) == 3 for ids in outcomes[0])


@pytest.mark.parametrize("lost", [PreAccept, PreAcceptOk, Accept, AcceptOk, Commit], ids=lambda kind: kind.__name__)
def test_every_request_is_repeated_until_it_is_answered(lost: type) -> None:
    """ "Every request message is repeated until it is answered or superseded": all of one kind are lost once."""
    world = World(3)
    for replica in range(3):
        world.propose(replica, writing("key", name=str(replica)))
    world.deliver_all(lambda packet: not packet.is_a(lost))
    world.lose()
    world.heal()
    assert len(world.hosts[0].executed) == 3


# Section 3


def test_the_floor_is_equal_at_replicas_with_different_indexes() -> None:
    """ "The floor is agreed, so replicas that dropped entries at different times still report the same vector." """
    world = World(3)
    for name in "abc":
        world.propose(0, writing(name))
        world.deliver_all()
    world.propose(1, barrier())
    world.deliver_all()
    id = world.propose(2, writing("never written before"))
    world.deliver_all()
    assert id is not None
    assert all(host.replica.instances[id].deps == (3, 1, 0) for host in world.hosts)
    assert world.hosts[2].replica.counters.fast == 1


@every_size
def test_a_leader_takes_the_next_index_and_sends_pre_accept_to_the_others(n: int) -> None:
    """ "take the next index; [...] send PreAccept(id, batch, initial) to the others" """
    leader = Driven(0, n)
    for index in (1, 2):
        initial = (index - 1,) + (0,) * (n - 1)
        assert leader.propose(A) == at(0, index)
        assert leader.take() == to_all(PreAccept(at(0, index), A, initial), range(1, n))


def test_deps_are_the_maximum_of_the_vectors_of_leader_and_replica() -> None:
    """ "deps = max(initial, conflicts(batch)); store batch, initial, deps; answer PreAcceptOk(id, deps)" """
    replica = Driven(1, 3)
    replica.receive(2, PreAccept(at(2, 5), B, (0, 0, 0)))
    replica.take()
    replica.receive(0, PreAccept(at(0, 1), A, (3, 0, 2)))
    assert [message for _, message in replica.take()] == [PreAcceptOk(at(0, 1), (3, 0, 5))]
    instance = replica.replica.instances[at(0, 1)]
    assert (instance.initial_batch, instance.initial_deps, instance.deps) == (A, (3, 0, 2), (3, 0, 5))


def test_a_pre_accept_is_taken_only_in_round_0_and_of_an_unknown_instance() -> None:
    """ "only if promised is round 0 and status is unknown [...] a refusal carries the promise; a committed instance
    answers Commit" """
    promised, committed = Driven(1, 3), Driven(1, 3)
    promised.receive(2, Prepare(at(0, 1), ballot(4, 2)))
    committed.receive(2, Commit(at(0, 1), NOP, (0, 0, 0)))
    for replica, answer in (
        (promised, Refuse(at(0, 1), ballot(0, 0), ballot(4, 2))),
        (committed, Commit(at(0, 1), NOP, (0, 0, 0))),
    ):
        replica.take()
        replica.receive(0, PreAccept(at(0, 1), A, (0, 0, 0)))
        assert [message for _, message in replica.take()] == [answer]
        assert replica.replica.instances[at(0, 1)].status is not Status.PRE_ACCEPTED


@every_size
def test_a_fast_quorum_that_reports_the_initial_vector_commits_in_one_round_trip(n: int) -> None:
    """ "as soon as n-e replicas (itself included) report exactly initial: commit (batch, initial), the fast path" """
    leader, fast = Driven(0, n), quorums(n).fast
    id = leader.propose(A)
    for peer in range(1, fast - 1):
        leader.receive(peer, PreAcceptOk(id, (0,) * n))
    leader.take()
    assert not leader.replica.instances[id].decided
    leader.receive(fast - 1, PreAcceptOk(id, (0,) * n))
    assert leader.take() == to_all(Commit(id, A, (0,) * n), range(1, n))


@every_size
def test_as_soon_as_the_fast_path_is_impossible_the_maximum_is_accepted(n: int) -> None:
    """ "as soon as that is impossible [...]: deps = max over all answers; Accept(ballot 0, id, batch, deps) to all" """
    leader = Driven(0, n)
    id = leader.propose(A)
    leader.take()
    needed = max(n - quorums(n).fast + 1, quorums(n).slow - 1)
    for peer in range(1, needed + 1):
        assert leader.take_only(Accept) == []
        leader.receive(peer, PreAcceptOk(id, (0,) * (n - 1) + (peer,)))
    assert leader.take_only(Accept) == to_all(Accept(id, ballot(0, 0), A, (0,) * (n - 1) + (needed,)), range(1, n))


def test_when_the_fast_timer_fires_a_slow_quorum_is_enough() -> None:
    """ "or when the fast timer fires with at least n-f answers" """
    world = World(7, config={"fast_timer_ticks": 20})
    for replica in (4, 5, 6):
        world.crash(replica)
    world.propose(0, A)
    world.deliver_all()
    assert world.hosts[0].executed == []
    world.tick(20)
    world.deliver_all()
    assert world.hosts[0].executed_ids == [at(0, 1)]
    assert world.hosts[0].replica.counters.slow == 1


@pytest.mark.parametrize(("promised", "taken"), [(1, True), (2, True), (3, False)])
def test_an_accept_is_taken_unless_a_higher_ballot_was_promised(promised: int, taken: bool) -> None:
    """ "if promised <= b and not committed: promised = voted = b, store the value, status accepted, answer AcceptOk.
    Else refuse with the promise." """
    replica = Driven(1, 3)
    replica.receive(2, Prepare(at(0, 1), ballot(promised, 2)))
    replica.take()
    replica.receive(2, Accept(at(0, 1), ballot(2, 2), A, (0, 0, 4)))
    instance = replica.replica.instances[at(0, 1)]
    if taken:
        assert (instance.promised, instance.voted, instance.value) == (ballot(2, 2), ballot(2, 2), A)
        assert [message for _, message in replica.take()] == [AcceptOk(at(0, 1), ballot(2, 2))]
    else:
        assert (instance.promised, instance.voted, instance.value) == (ballot(3, 2), None, None)
        assert [message for _, message in replica.take()] == [Refuse(at(0, 1), ballot(2, 2), ballot(3, 2))]


@every_size
def test_a_slow_quorum_of_votes_commits_and_all_peers_get_the_commit(n: int) -> None:
    """ "Leader of the ballot, on n-f AcceptOk (itself included): commit, and send Commit to all." """
    leader = Driven(0, n)
    id = leader.propose(A)
    for peer in range(1, n):
        leader.receive(peer, PreAcceptOk(id, (0,) * (n - 1) + (peer,)))
    for peer in range(1, quorums(n).slow):
        assert leader.take_only(Commit) == []
        leader.receive(peer, AcceptOk(id, ballot(0, 0)))
    assert [to for to, _ in leader.take_only(Commit)] == list(range(1, n))


def test_a_commit_is_taken_whatever_was_promised() -> None:
    """ "Commit is final: any replica accepts it, independent of its promise." """
    replica = Driven(1, 3)
    replica.receive(2, Prepare(at(0, 1), ballot(9, 2)), Accept(at(0, 1), ballot(9, 2), NOP, (0, 0, 0)))
    replica.receive(0, Commit(at(0, 1), A, (0, 0, 0)))
    assert replica.executed_ids == [at(0, 1)]


@every_size
def test_a_thrifty_leader_sends_to_a_quorum_only(n: int) -> None:
    """ "Thrifty: send PreAccept to n-e-1 peers only [...] Accept likewise to n-f-1." """
    leader = Driven(0, n, thrifty=True)
    id = leader.propose(A)
    asked = [to for to, _ in leader.take_only(PreAccept)]
    assert len(asked) == quorums(n).fast - 1
    for peer in range(1, n):
        leader.receive(peer, PreAcceptOk(id, (0,) * (n - 1) + (peer,)))
    assert len(leader.take_only(Accept)) == quorums(n).slow - 1


@every_size
def test_a_thrifty_leader_sends_to_all_peers_when_one_is_late(n: int) -> None:
    """ "and to all peers when one of them has not answered within the fast timer" """
    world = World(n, config={"thrifty": True, "fast_timer_ticks": 20})
    for replica in range(1, quorums(n).f + 1):
        world.crash(replica)
    world.propose(0, A)
    world.run(300)
    assert world.hosts[0].executed_ids == [at(0, 1)]


@every_size
def test_thrifty_is_only_message_loss_that_we_chose(n: int) -> None:
    """Under conflicts from every side a thrifty group agrees like any other."""
    world = World(n, config={"thrifty": True})
    for place in range(3):
        for replica in range(n):
            world.propose(replica, writing("key", name=f"{place}.{replica}"))
    world.heal()
    assert len(world.hosts[0].executed) == 3 * n
