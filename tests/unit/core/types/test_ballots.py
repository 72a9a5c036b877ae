"""Ballots: one order for all replicas, and a next ballot that never equals one of another replica."""

from hypothesis import given

from pydsm.core.types.ballots import Ballot, initial_ballot, next_ballot
from pydsm.core.types.ids import InstanceId, ReplicaId
from tests.unit.core.strategies import ballots, instance_ids, replica_ids


def test_the_round_counts_before_the_replica() -> None:
    assert Ballot(0, ReplicaId(2)) < Ballot(1, ReplicaId(0)) < Ballot(1, ReplicaId(1))


def test_a_ballot_is_written_with_its_round_and_replica() -> None:
    assert str(Ballot(3, ReplicaId(1))) == "b3.1"


@given(instance_ids)
def test_round_0_belongs_to_the_leader(id: InstanceId) -> None:
    assert initial_ballot(id) == Ballot(0, id.leader)


@given(ballots, replica_ids)
def test_the_next_ballot_is_above_every_ballot_of_the_round_before(above: Ballot, replica: ReplicaId) -> None:
    following = next_ballot(above, replica)
    assert following > above
    assert following.replica == replica
    assert following.round == above.round + 1


@given(ballots, replica_ids, replica_ids)
def test_two_replicas_never_go_on_to_one_ballot(above: Ballot, one: ReplicaId, other: ReplicaId) -> None:
    assert (next_ballot(above, one) == next_ballot(above, other)) == (one == other)


@given(instance_ids, replica_ids)
def test_a_recovery_never_runs_in_round_0(id: InstanceId, replica: ReplicaId) -> None:
    assert next_ballot(initial_ballot(id), replica).round > 0
