"""Ids and vectors: coverage, merging, and the order of request ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.types.ids import (
    Deps,
    InstanceId,
    ReplicaId,
    covers,
    merge,
    request_at,
    request_id,
    sequence_of,
    with_instance,
)
from tests.unit.core.strategies import instance_ids, vectors


def test_an_instance_is_written_as_leader_and_index() -> None:
    assert str(InstanceId(ReplicaId(2), 17)) == "2.17"


@given(vectors, instance_ids)
def test_a_vector_covers_an_instance_up_to_and_including_its_entry(deps: Deps, id: InstanceId) -> None:
    assert covers(deps, id) == (id.index <= deps[id.leader])


@given(vectors, vectors, instance_ids)
def test_a_merged_vector_covers_exactly_the_instances_that_either_vector_covers(
    left: Deps, right: Deps, id: InstanceId
) -> None:
    assert covers(merge(left, right), id) == (covers(left, id) or covers(right, id))


@given(vectors, vectors, vectors)
def test_merging_has_no_order_and_repeats_nothing(one: Deps, two: Deps, three: Deps) -> None:
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one


@given(vectors, instance_ids, instance_ids)
def test_adding_an_instance_covers_it_and_its_predecessors_and_nothing_else(
    deps: Deps, id: InstanceId, other: InstanceId
) -> None:
    grown = with_instance(deps, id)
    assert covers(grown, id)
    assert covers(grown, other) == (covers(deps, other) or (other.leader == id.leader and other.index <= id.index))


@given(vectors, instance_ids)
def test_adding_a_covered_instance_changes_nothing(deps: Deps, id: InstanceId) -> None:
    grown = with_instance(deps, id)
    assert with_instance(grown, id) is grown


MILLISECONDS = st.integers(0, (1 << 48) - 1)
REPLICAS = st.integers(0, (1 << 12) - 1).map(ReplicaId)
SESSIONS = st.integers(0, (1 << 30) - 1)
SEQUENCES_MAX = 1 << 32
SEQUENCES = st.integers(0, SEQUENCES_MAX - 1)


@given(MILLISECONDS, REPLICAS, SESSIONS, SEQUENCES)
def test_a_request_id_is_a_uuid_of_version_7(ms: int, replica: ReplicaId, session: int, sequence: int) -> None:
    id = uuid.UUID(bytes=request_id(ms, replica, session, sequence))
    assert id.version == 7
    assert id.variant == uuid.RFC_4122
    assert id.int >> 80 == ms


@given(MILLISECONDS, MILLISECONDS, REPLICAS, REPLICAS, SESSIONS, SEQUENCES)
def test_request_ids_are_ordered_by_time(
    earlier: int, later: int, one: ReplicaId, other: ReplicaId, session: int, sequence: int
) -> None:
    if earlier < later:
        assert request_id(earlier, one, session, sequence) < request_id(later, other, 0, 0)


Parts = tuple[int, ReplicaId, int, int]


@given(st.tuples(MILLISECONDS, REPLICAS, SESSIONS, SEQUENCES), st.tuples(MILLISECONDS, REPLICAS, SESSIONS, SEQUENCES))
def test_request_ids_differ_when_any_part_differs(one: Parts, other: Parts) -> None:
    assert (request_id(*one) == request_id(*other)) == (one == other)


def test_parts_wider_than_their_place_wrap_and_leave_the_other_parts_alone() -> None:
    wrapped = request_id((1 << 48) + 5, ReplicaId((1 << 12) + 1), (1 << 30) + 2, (1 << 32) + 3)
    assert wrapped == request_id(5, ReplicaId(1), 2, 3)


@given(st.tuples(MILLISECONDS, REPLICAS, SESSIONS), SEQUENCES, st.integers(0, 100))
def test_names_that_follow_one_another_are_those_made_one_by_one(
    session: tuple[int, ReplicaId, int], sequence: int, place: int
) -> None:
    if sequence + place < SEQUENCES_MAX:
        assert request_at(request_id(*session, sequence), place) == request_id(*session, sequence + place)
        assert sequence_of(request_id(*session, sequence)) == sequence


def test_no_name_follows_the_last_one_of_a_session() -> None:
    with pytest.raises(OverflowError):
        request_at(request_id(5, ReplicaId(1), 7, SEQUENCES_MAX - 1), 1)
