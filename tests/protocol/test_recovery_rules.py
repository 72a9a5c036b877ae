"""Sentences of docs/reference/protocol.md, section 4, shown in groups whose leaders have failed.

In a group of five (f=2, e=2): slow quorum 3, fast quorum 3, and a recovery quorum of 3 must validate from one unchanged
answer on. In a group of three (f=1, e=1): slow 2, fast 2, one unchanged answer of two.
"""

import pytest

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.core.types.ids import InstanceId, ReplicaId, covers
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Batch,
    Commit,
    CommitQuery,
    Invalidator,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Validate,
    ValidateOk,
    Waiting,
)
from pydsm.core.types.status import Status
from tests.unit.core.helpers import Driven, at, ballot, writing
from tests.worlds import Packet, World

A, B = writing("key", name="a"), writing("key", name="b")
ID, OTHER = at(0, 1), at(4, 1)


def world_of(n: int) -> World:
    return World(n, config={"recovery_timeout_ticks": 500, "recovery_jitter_ticks": 50})


def pre_accepted_at(world: World, leader: int, batch: Batch, *replicas: int) -> InstanceId:
    """The leader proposes; its PreAccept reaches these replicas only, and no answer gets back."""
    id = world.propose(leader, batch)
    assert id is not None
    world.deliver_all(lambda packet: packet.is_a(PreAccept) and packet.about(id) and packet.to in replicas)
    world.lose(lambda packet: packet.about(id))
    return id


def rules(world: World) -> set[str]:
    return {rule for host in world.hosts for rule in host.replica.counters.branches}


def decided(world: World, replica: int, id: InstanceId) -> Batch | None:
    """The decided batch at a replica; None for a nop."""
    core = world.hosts[replica].replica
    if covers(core.dropped, id):
        value = world.decided[id][0]
        return value if isinstance(value, Batch) else None
    instance = core.instances[id]
    assert instance.decided, instance
    return instance.value if isinstance(instance.value, Batch) else None


# Asking first


def test_peers_are_asked_for_the_decision_before_a_prepare_is_sent() -> None:
    """ "first asks its peers whether it is committed, then runs" """
    world = world_of(3)
    world.propose(0, A)
    world.deliver_all(lambda packet: not (packet.is_a(Commit) and packet.to == 2))
    world.lose()
    world.run(2000)
    assert decided(world, 2, ID) == A
    counters = world.hosts[2].replica.counters
    assert (counters.inquired, counters.prepared) == (1, 0)


# Prepare


def test_the_ballot_is_above_every_one_seen_and_the_promise_is_stored() -> None:
    """ "Prepare(b) with b above every ballot seen. At q, if promised < b: store promised = b, answer PrepareOk" """
    world = world_of(3)
    pre_accepted_at(world, 0, A, 1, 2)
    for replica, expected in ((1, ballot(1, 1)), (2, ballot(2, 2)), (1, ballot(3, 1))):
        world.recover(replica, ID)
        world.deliver_all(lambda packet: packet.is_a(Prepare))
        world.lose()
        for host in world.hosts:
            record = host.disk.record(ID)
            assert record is not None
            assert record.promised == expected


# The five rules


def test_rule_1_a_replica_committed() -> None:
    """ "a member of Q committed → commit that value" """
    world = world_of(3)
    world.propose(0, A)
    world.deliver_all(lambda packet: not (packet.is_a(Commit) and packet.to == 2))
    world.lose()
    world.recover(2, ID)
    world.deliver_all()
    assert decided(world, 2, ID) == A
    assert rules(world) == {Rule.ALREADY_COMMITTED.value}


def test_rule_2_a_replica_accepted() -> None:
    """ "a member of Q accepted → run Accept(b) with the value of the highest voted" """
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1, 2, 3, 4)
    leader = world.hosts[0]
    for peer in (1, 2, 3, 4):
        leader.receive(peer, PreAcceptOk(ID, (0, 0, 0, 0, peer)))
    world.deliver_all(lambda packet: packet.is_a(Accept) and packet.to == 1)
    world.lose()
    world.crash(0)
    world.recover(2, ID)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert decided(world, 3, ID) == A
    assert world.hosts[3].replica.instances[ID].deps == (0, 0, 0, 0, 3)
    assert rules(world) == {Rule.VOTED_VALUE.value}


def test_rule_2_prefers_the_vote_in_the_highest_ballot() -> None:
    """A first recovery got its nop accepted at one replica; the vote of round 0 at another is older."""
    world = world_of(5)
    world.crash(0)
    world.hosts[1].receive(0, Accept(ID, ballot(0, 0), A, (0, 0, 0, 0, 0)))
    world.hosts[3].receive(2, Accept(ID, ballot(1, 2), NOP, (0, 0, 0, 0, 0)))
    world.lose()
    world.recover(4, ID)
    world.deliver_all(lambda packet: packet.among(1, 3, 4))
    world.recover(4, ID)
    world.deliver_all(lambda packet: packet.among(1, 3, 4))
    assert decided(world, 4, ID) is None


def test_rule_3_the_leader_answers_without_having_committed() -> None:
    """ "the instance's own leader is in Q → Accept(b, nop). It answered without having committed [...]" """
    world = world_of(3)
    pre_accepted_at(world, 0, A, 1, 2)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(0, 1))
    assert decided(world, 0, ID) is None
    assert [abort.id for abort in world.hosts[0].aborted] == [ID]
    world.hosts[0].receive(2, PreAcceptOk(ID, (0, 0, 0)))
    assert decided(world, 0, ID) is None
    assert rules(world) == {Rule.LEADER_UNDECIDED.value}


@pytest.mark.parametrize("n", [3, 5, 7])
def test_rule_4_a_fast_commit_that_no_peer_has_learned_is_recovered(n: int) -> None:
    """ "If |R| >= |Q| - e, the fast path may have been taken: validate [...] the value (batch, initial_deps) held by
    R" """
    world = world_of(n)
    id = world.propose(0, A)
    assert id is not None
    fast = range(world.hosts[0].replica._state.quorums.fast)
    world.deliver_all(lambda packet: packet.among(*fast) and not packet.is_a(Commit))
    assert world.hosts[0].executed_ids == [id]
    world.lose()
    world.crash(0)
    world.recover(n - 1, id)
    world.deliver_all()
    assert all(decided(world, replica, id) == A for replica in range(1, n))
    assert rules(world) == {Rule.MUST_VALIDATE.value, Rule.NO_INVALIDATORS.value}


def test_rule_5_too_few_are_unchanged() -> None:
    """ "else → Accept(b, nop)" """
    world = world_of(3)
    world.crash(0)
    world.hosts[1].receive(0, Prepare(at(0, 2), ballot(1, 0)))
    world.lose()
    world.recover(1, ID)
    world.deliver_all()
    assert decided(world, 2, ID) is None
    assert rules(world) == {Rule.TOO_FEW_UNCHANGED.value}


# Validate


def test_a_validate_goes_to_exactly_the_members_of_the_quorum() -> None:
    """ "Validate(b, id, batch, deps) to every member of Q." """
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1, 2)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.is_a(Prepare, PrepareOk) and packet.among(1, 2, 3))
    assert {packet.to for packet in world.packets if packet.is_a(Validate)} == {2, 3}


def test_validate_teaches_the_batch_and_leaves_vector_and_status() -> None:
    """ "if promised == b: store batch as batch and initial_batch, deps as initial_deps (deps and status stay)" """
    replica = Driven(3, 5)
    replica.receive(1, Prepare(ID, ballot(1, 1)), Validate(ID, ballot(1, 1), A, (0, 2, 0, 0, 0)))
    record = replica.disk.record(ID)
    assert record is not None
    assert (record.value, record.initial_batch, record.initial_deps) == (A, A, (0, 2, 0, 0, 0))
    assert (record.deps, record.status) == ((0, 0, 0, 0, 0), Status.UNKNOWN)


def test_the_invalidators_are_exact() -> None:
    """ "every instance o known to q, conflicting with batch, not covered by deps, and either committed as non-nop with
    o.deps not covering id, or not committed and o.initial_deps not covering id (an o whose initial_batch is not
    stored at q does not count). Each is reported as (o, committed?)." """
    replica = Driven(3, 5)
    none = (0, 0, 0, 0, 0)
    replica.receive(2, Commit(at(2, 1), B, none))  # committed, does not cover 0.1
    replica.receive(2, Commit(at(2, 2), B, (1, 0, 0, 0, 0)))  # covers it
    replica.receive(2, Commit(at(2, 3), NOP, none))
    replica.receive(2, PreAccept(at(2, 4), writing("elsewhere"), none))
    replica.receive(4, PreAccept(at(4, 1), B, none))  # open, its leader did not cover 0.1
    replica.receive(4, PreAccept(at(4, 2), B, (1, 0, 0, 0, 0)))
    replica.receive(4, Accept(at(4, 3), ballot(0, 4), B, none))  # undecided, its initial batch unknown to this replica
    replica.receive(1, Commit(at(1, 1), B, none), PreAccept(at(1, 2), B, none))  # covered by the vector
    replica.receive(1, Prepare(ID, ballot(1, 1)))
    replica.take()
    replica.receive(1, Validate(ID, ballot(1, 1), A, (0, 2, 0, 0, 0)))
    expected = (Invalidator(at(2, 1), True), Invalidator(at(4, 1), False))
    assert [message for _, message in replica.take()] == [ValidateOk(ID, ballot(1, 1), expected)]


def test_a_late_or_doubled_validate_after_a_vote_changes_nothing() -> None:
    """A vote is not overwritten (section 9)."""
    replica = Driven(3, 5)
    validate = Validate(ID, ballot(1, 1), A, (0, 0, 0, 0, 0))
    replica.receive(1, Prepare(ID, ballot(1, 1)), Accept(ID, ballot(1, 1), NOP, (0, 0, 0, 0, 0)))
    before = replica.disk.record(ID)
    replica.take()
    replica.receive(1, validate, validate)
    assert replica.take() == []
    assert replica.disk.record(ID) == before


def test_a_committed_invalidator_makes_it_a_nop() -> None:
    """ "some o in I committed [...] → Accept(b, nop)": the fast path cannot have been taken."""
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1, 2)
    world.propose(4, B)
    world.deliver_all(lambda packet: packet.among(3, 4))
    world.hosts[4].receive(0, PreAcceptOk(OTHER, (0, 0, 0, 0, 0)))
    world.deliver_all(lambda packet: packet.is_a(Commit) and packet.to == 3)
    world.lose()
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert decided(world, 1, ID) is None
    assert Rule.COMMITTED_INVALIDATOR.value in rules(world)


def test_with_just_enough_unchanged_an_invalidator_whose_leader_is_away_makes_it_a_nop() -> None:
    """ "|R| == |Q| - e and some o in I has its leader outside Q" """
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1)
    pre_accepted_at(world, 4, B, 3)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert decided(world, 1, ID) is None
    assert Rule.INVALIDATING_LEADER_AWAY.value in rules(world)


def test_a_leader_that_lost_its_proposals_orders_everything_after_them() -> None:
    """Otherwise the rule above would treat a leader that lost its proposal like one that had not proposed yet.

    4 proposes B; its PreAccept leaves while it is being written, reaches 3, and power fails. After its restart 4
    answers 0, whose command succeeds and whose Commit is lost. Then 0 and 4 fail, and 1, 2 and 3 recover 0.1: 3 knows
    of 4.2, which is unordered against it and whose leader is away.
    """
    world = world_of(5)
    world.propose(4, writing("unrelated"))
    world.deliver_all()
    world.hosts[4].disk.holding = True
    forgotten = world.propose(4, B)
    world.deliver_round(lambda packet: packet.is_a(PreAccept) and packet.to == 3)
    world.lose()
    world.crash(4)
    world.hosts[4].disk.holding = False
    world.restart(4)
    world.lose()
    assert forgotten not in world.hosts[4].replica.instances
    world.propose(0, A)
    world.deliver_round(lambda packet: packet.is_a(PreAccept) and packet.to in {1, 4})
    world.deliver_round(lambda packet: packet.is_a(PreAcceptOk))
    world.lose()
    world.crash(0)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    world.check_agreement()
    world.heal()


# Waiting


def one_that_waits(world: World) -> None:
    """0.1 at 1 and 2 unchanged, 4.1 at 3 only: replica 1 recovers 0.1 with 1, 2 and 3, and waits for 4.1."""
    pre_accepted_at(world, 0, A, 1, 2)
    pre_accepted_at(world, 4, B, 3)
    world.recover(1, ID)
    world.deliver_all(
        lambda packet: (
            packet.among(1, 2, 3) and packet.is_a(Prepare, PrepareOk, Validate, ValidateOk) and packet.about(ID)
        )
    )
    assert Rule.MUST_WAIT.value in rules(world)


def test_waiting_is_sent_to_all_peers_and_repeated() -> None:
    """ "send Waiting(id, |R|) to all (repeated while waiting [...])" """
    world = world_of(5)
    one_that_waits(world)
    assert [packet.to for packet in world.packets if packet.message == Waiting(ID, 2)] == [0, 2, 3, 4]
    world.lose()
    world.tick(100)
    assert [packet.to for packet in world.packets if packet.message == Waiting(ID, 2)] == [0, 2, 3, 4]


def test_a_replica_that_waits_recovers_the_invalidators() -> None:
    """ "While waiting, the replica itself recovers every o in I." """
    world = world_of(5)
    one_that_waits(world)
    assert {packet.to for packet in world.packets if packet.is_a(Prepare) and packet.about(OTHER)} == {0, 2, 3, 4}


def test_the_wait_ends_with_the_batch_when_the_invalidator_becomes_a_nop() -> None:
    """ "every o in I has committed as nop or covering id → Accept(b, batch, deps)" """
    world = world_of(5)
    one_that_waits(world)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert decided(world, 1, OTHER) is None
    assert decided(world, 1, ID) == A
    assert Rule.ALL_ORDERED.value in rules(world)


def test_the_wait_ends_with_a_nop_when_the_invalidator_commits_without_an_order() -> None:
    """ "some o in I commits as non-nop without covering id → Accept(b, nop)" """
    world = world_of(5)
    one_that_waits(world)
    for peer in (0, 3):
        world.hosts[4].receive(peer, PreAcceptOk(OTHER, (0, 0, 0, 0, 0)))
    world.deliver_all(lambda packet: packet.among(1, 4) and packet.about(OTHER))
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert (decided(world, 1, OTHER), decided(world, 1, ID)) == (B, None)
    assert Rule.UNORDERED_COMMITTED.value in rules(world)


def test_the_wait_ends_with_a_nop_when_the_invalidator_waits_with_more() -> None:
    """ "a Waiting(o, k) arrives for some o in I with k > n-f-e → Accept(b, nop)".

    1 waits for 4.1 with two unchanged. 3 recovers 4.1 with 0 and 2, has one unchanged, and waits for 0.1.
    """
    world = world_of(5)
    one_that_waits(world)
    world.lose(lambda packet: not packet.is_a(Waiting))
    world.recover(3, OTHER)
    world.deliver_all(lambda packet: packet.among(0, 2, 3) and packet.about(OTHER))
    assert world.hosts[3].replica.counters.waited == 1
    world.deliver_all(lambda packet: packet.message == Waiting(ID, 2) and packet.to == 3)
    world.deliver_all(lambda packet: packet.among(0, 2, 3) and packet.about(OTHER))
    assert decided(world, 3, OTHER) is None
    assert Rule.INVALIDATOR_WAITS_TOO.value in rules(world)
    world.heal()


def test_a_waiting_message_from_before_the_own_wait_is_stored() -> None:
    """ "a replica stores those it receives, also before it waits itself" """
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1, 2)
    pre_accepted_at(world, 4, B, 3)
    world.hosts[3].receive(1, Waiting(ID, 2))
    world.recover(3, OTHER)
    world.deliver_all(lambda packet: packet.among(0, 2, 3) and packet.about(OTHER))
    assert rules(world) >= {Rule.MUST_WAIT.value, Rule.INVALIDATOR_WAITS_TOO.value}
    assert decided(world, 3, OTHER) is None


def rival_that_waits(world: World, *reached: int) -> None:
    """4.1 at 3 only, 0.1 at `reached`: replica 1 recovers 4.1 with 0, 1 and 3, one unchanged, and waits for 0.1.

    The leader of 0.1 is in that quorum, and is cut off when it has answered.
    """
    pre_accepted_at(world, 0, A, *reached)
    pre_accepted_at(world, 4, B, 3)
    world.recover(1, OTHER)
    world.deliver_all(
        lambda packet: (
            packet.among(0, 1, 3) and packet.is_a(Prepare, PrepareOk, Validate, ValidateOk) and packet.about(OTHER)
        )
    )
    assert world.hosts[1].replica.counters.waited == 1
    world.crash(0)


def test_a_wait_of_the_replica_itself_counts_as_one_that_arrives() -> None:
    """ "a Waiting(o, k) arrives for some o in I with k > n-f-e → Accept(b, nop)": from the replica itself as well.

    1 waits for 0.1 with one unchanged. It recovers 0.1 with 2 and 3, has two unchanged, and waits for 4.1. Both leaders
    are down, no time passes, and no other replica recovers either of the two.
    """
    world = world_of(5)
    rival_that_waits(world, 1, 2)
    world.crash(4)
    world.deliver_all(lambda packet: packet.among(1, 2, 3))
    assert world.hosts[1].replica.counters.waited == 2
    assert Rule.INVALIDATOR_WAITS_TOO.value in rules(world)
    assert (decided(world, 1, OTHER), decided(world, 1, ID)) == (None, A)


def test_the_wait_ends_with_a_late_answer_from_outside_the_quorum() -> None:
    """ "a late PrepareOk(b) from outside Q: committed → commit; accepted → Accept(b, that); from the instance's leader
    → Accept(b, nop)" """
    for teach, rule, outcome in (
        (Commit(ID, A, (0, 0, 0, 0, 0)), Rule.ALREADY_COMMITTED, A),
        (Accept(ID, ballot(0, 0), A, (0, 0, 0, 0, 0)), Rule.LATE_VOTE, A),
    ):
        world = world_of(5)
        world.proposed[ID] = A
        world.hosts[4].receive(0, teach)
        one_that_waits_with_4_late(world)
        assert decided(world, 1, ID) == outcome
        assert rule.value in rules(world)
    world = world_of(5)
    one_that_waits(world)
    world.lose()
    world.tick(100)
    world.deliver_all(lambda packet: packet.among(0, 1) and packet.is_a(Prepare, PrepareOk) and packet.about(ID))
    world.deliver_all(lambda packet: packet.among(1, 2, 3) and packet.about(ID))
    assert decided(world, 1, ID) is None
    assert Rule.LATE_LEADER.value in rules(world)


def one_that_waits_with_4_late(world: World) -> None:
    """Replica 1 waits for 3.1, which 3 has proposed alone; then the answer of 4 arrives."""
    pre_accepted_at(world, 0, A, 1, 2)
    pre_accepted_at(world, 3, B)
    world.recover(1, ID)
    world.deliver_all(
        lambda packet: (
            packet.among(1, 2, 3) and packet.is_a(Prepare, PrepareOk, Validate, ValidateOk) and packet.about(ID)
        )
    )
    assert Rule.MUST_WAIT.value in rules(world)
    world.lose()
    world.tick(100)
    world.deliver_all(lambda packet: packet.among(1, 4) and packet.about(ID))
    world.deliver_all(lambda packet: packet.among(1, 2, 3) and packet.about(ID))


# Accepted nops


def test_an_accepted_nop_still_conflicts_because_a_later_ballot_may_restore_the_batch() -> None:
    """ "An accepted but not yet committed nop still conflicts: with its initial_batch where that is known, with
    everything where it is not. [...] Once committed as nop it conflicts with nothing." """
    knows, does_not = Driven(1, 3), Driven(1, 3)
    knows.receive(0, PreAccept(ID, A, (0, 0, 0)))
    for replica in (knows, does_not):
        replica.receive(2, Accept(ID, ballot(1, 2), NOP, (0, 0, 0)))
    assert _deps_here(knows, 1, B) == (1, 0, 0)
    assert _deps_here(knows, 2, writing("elsewhere")) == (0, 0, 0)
    assert _deps_here(does_not, 1, writing("elsewhere")) == (1, 0, 0)
    does_not.receive(2, Commit(ID, NOP, (0, 0, 0)))
    assert _deps_here(does_not, 2, writing("anywhere")) == (0, 0, 0)


def _deps_here(replica: Driven, index: int, batch: Batch) -> tuple[int, ...]:
    replica.take()
    replica.receive(2, PreAccept(at(2, index), batch, (0, 0, 0)))
    return replica.take_only(PreAcceptOk)[0][1].deps


def test_a_nop_aborts_the_requests_at_the_client() -> None:
    """ "The leader of an instance decided nop answers its requests Aborted" """
    world = world_of(3)
    pre_accepted_at(world, 0, A)
    world.recover(1, at(0, 1))
    world.deliver_all(lambda packet: packet.among(1, 2))
    world.heal()
    assert [abort.runs for abort in world.hosts[0].aborted] == [A.runs]
    assert world.hosts[0].executed == []


# Liveness


def test_an_instance_known_only_by_being_covered_is_recovered() -> None:
    """ "for an instance that it knows or depends on" """
    world = world_of(3)
    world.reserve(1, 2)
    world.proposed[at(1, 2)] = A
    world.hosts[0].receive(1, Commit(at(1, 2), A, (0, 2, 0)))
    world.run(5000)
    assert decided(world, 2, at(1, 1)) is None
    assert decided(world, 2, at(1, 2)) == A


def test_a_member_that_is_farther_behind_than_one_message_may_name_catches_up() -> None:
    """ "follows the gossip of its peers in steps": nothing was compacted, so nobody offers a snapshot.

    While 0 was down, 1 and 2 agreed on five times as many instances as a message may add.
    """
    world = World(3, config={"gap_instances_max": 10, "pipeline_instances_max": 4})
    world.crash(0)
    for number in range(50):
        world.propose(1 + number % 2, writing("key", name=str(number)))
        world.deliver_all()
    world.restart(0)
    world.run(30_000, step=50, until=world.quiet)
    assert len(world.hosts[0].executed) == 50
    world.heal()


def test_two_replicas_that_recover_the_same_instance_end_their_duel() -> None:
    """Every answer arrives and both recoveries start together repeatedly, until seeded waits separate them."""
    world = world_of(3)
    pre_accepted_at(world, 0, A, 1, 2)
    world.crash(0)
    world.recover(1, ID)
    world.recover(2, ID)
    world.run(20_000, until=lambda: all(world.hosts[replica].replica.instances[ID].decided for replica in (1, 2)))
    assert decided(world, 1, ID) == decided(world, 2, ID) == A


def test_a_validate_whose_member_fell_silent_is_given_up_and_another_quorum_found() -> None:
    """The member that prepared and died must not hold up the recovery for ever."""
    world = world_of(5)
    pre_accepted_at(world, 0, A, 1, 2)
    world.crash(0)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.is_a(Prepare, PrepareOk) and packet.among(1, 2, 3))
    world.crash(3)
    world.run(20_000, until=lambda: world.hosts[1].replica.instances[ID].decided)
    assert decided(world, 1, ID) == A


@pytest.mark.parametrize(("timeout_ticks", "distance_ticks"), [(5000, 0), (500, 3000)])
def test_two_waits_for_each_other_whose_leaders_fell_silent_are_given_up_and_other_quorums_found(
    timeout_ticks: int, distance_ticks: int
) -> None:
    """ "A wait that no rule ends is given up": one unchanged answer each, the leader of the other in each quorum.

    While replica 1 repeats its Waiting, the others leave the two to it, where their patience is longer than the time
    between two repetitions. So replica 1 itself must find quorums without the leaders, in which
    INVALIDATING_LEADER_AWAY decides.
    """
    world = World(5, config={"recovery_timeout_ticks": timeout_ticks, "recovery_jitter_ticks": 50})
    for host in world.hosts:
        for leader in (0, 4):
            host.replica._state.distances.measured(ReplicaId(leader), distance_ticks)
    rival_that_waits(world, 1)
    world.deliver_all(
        lambda packet: (
            packet.among(1, 3, 4) and packet.is_a(Prepare, PrepareOk, Validate, ValidateOk) and packet.about(ID)
        )
    )
    assert world.hosts[1].replica.counters.waited == 2
    world.crash(4)
    alive = [world.hosts[replica].replica for replica in (1, 2, 3)]
    world.run(100_000, step=50, until=lambda: all(one.instances[id].decided for one in alive for id in (ID, OTHER)))
    assert Rule.INVALIDATING_LEADER_AWAY.value in rules(world)
    assert decided(world, 1, ID) is None or decided(world, 1, OTHER) is None
    world.heal()


def test_requests_about_a_decided_instance_are_answered_with_the_decision() -> None:
    """Prepare, Validate, PreAccept, Accept and CommitQuery of a decided instance are all answered by its Commit."""
    replica = Driven(1, 3)
    replica.receive(0, Commit(ID, A, (0, 0, 0)))
    for question in (
        PreAccept(ID, A, (0, 0, 0)),
        Accept(ID, ballot(5, 0), NOP, (0, 0, 0)),
        Prepare(ID, ballot(5, 0)),
        Validate(ID, ballot(5, 0), A, (0, 0, 0)),
        Waiting(ID, 2),
        CommitQuery((ID,)),
    ):
        replica.take()
        replica.receive(0, question)
        assert [message for _, message in replica.take()] == [Commit(ID, A, (0, 0, 0))]


def test_votes_for_a_recovery_that_was_overtaken_do_not_count() -> None:
    """Replica 1's nop got one vote before replica 2 prepared above it: the late AcceptOk must not decide."""
    world = world_of(5)
    world.crash(0)
    world.recover(1, ID)
    world.deliver_all(lambda packet: packet.is_a(Prepare, PrepareOk) and packet.among(1, 2, 3))
    world.deliver_all(lambda packet: packet.is_a(Accept) and packet.to == 2)
    held: list[Packet] = [packet for packet in world.packets if packet.is_a(AcceptOk)]
    world.lose()
    world.recover(2, ID)
    world.deliver_all(lambda packet: packet.is_a(Prepare))
    for packet in held * 2:
        world.deliver(packet)
    assert not world.hosts[1].replica.instances[ID].decided
