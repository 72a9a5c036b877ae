"""Which batches are ordered by sessions, for any relation of the machine, in the relation, index and backlog."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, NothingConflicts, Relation, UserRelation
from pydsm.core.log.session_conflicts import WithSessions, with_sessions
from pydsm.core.types.ids import UNTRACKED_SESSIONS_START, InstanceId, ReplicaId, covers, request_id, session_of
from pydsm.core.types.messages import Batch, Footprint, Run

REPLICAS = 3
RELATIONS: list[Relation] = [DeclaredKeys(), NothingConflicts(), UserRelation(lambda left, right: left == right)]


def batch(*sessions: int, again: tuple[int, ...] = (), writes: tuple[bytes, ...] = ()) -> Batch:
    """One request of each of these sessions, some of which are retried."""
    names = {number: request_id(1000, ReplicaId(0), number, 1) for number in sessions}
    runs = tuple(Run(name, 1) for name in names.values())
    retried = tuple(session_of(names[number]) for number in again)
    commands = tuple(b"%d" % place for place in range(len(runs)))
    return Batch(runs, commands, Footprint(writes=writes), retried=retried)


@pytest.mark.parametrize("machine", RELATIONS, ids=lambda one: type(one).__name__)
def test_a_retry_conflicts_with_whatever_has_requests_of_its_session(machine: Relation) -> None:
    relation = with_sessions(machine)
    retry = batch(1, again=(1,))
    assert relation.conflict(retry, Batch((), (), Footprint())) is False
    for other in (batch(1), batch(2, 1), retry):
        if not machine.conflict(retry, other):
            assert relation.conflict(retry, other)
            assert relation.conflict(other, retry)


def test_first_attempts_commute_and_so_do_other_sessions() -> None:
    relation = with_sessions(NothingConflicts())
    assert not relation.conflict(batch(1), batch(1))
    assert not relation.conflict(batch(1, again=(1,)), batch(2, again=(2,)))


def test_untracked_requests_belong_to_no_session() -> None:
    assert not batch(UNTRACKED_SESSIONS_START, UNTRACKED_SESSIONS_START + 5).sessions


def test_conflicts_of_the_machine_stay_conflicts() -> None:
    relation = with_sessions(DeclaredKeys())
    assert relation.conflict(batch(1, writes=(b"k",)), batch(2, writes=(b"k",)))


def test_a_relation_is_extended_once_and_only_if_that_adds_something() -> None:
    extended = with_sessions(DeclaredKeys())
    assert isinstance(extended, WithSessions)
    assert with_sessions(extended) is extended
    assert isinstance(with_sessions(EverythingConflicts()), EverythingConflicts)


def test_index_keeps_one_entry_for_each_session_and_leader() -> None:
    index = with_sessions(NothingConflicts()).index(REPLICAS)
    for number in range(1, 6):
        index.add(InstanceId(ReplicaId(1), number), batch(1, again=(1,) if number == 3 else ()))
    assert index.conflicts(batch(1)) == (0, 3, 0)
    assert index.conflicts(batch(1, again=(1,))) == (0, 5, 0)
    assert index.conflicts(batch(2)) == (0, 0, 0)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    sessions = draw(st.lists(st.integers(1, 3), unique=True, max_size=3))
    again = tuple(number for number in sessions if draw(st.integers(0, 2)) == 0)
    writes = draw(st.sampled_from([(), (b"a",), (b"b",)]))
    return batch(*sessions, again=again, writes=writes)


instances = st.dictionaries(
    st.builds(InstanceId, st.integers(0, REPLICAS - 1).map(ReplicaId), st.integers(1, 4)), batches(), max_size=8
)


@given(instances, batches(), st.sampled_from(RELATIONS))
def test_the_index_covers_every_conflict(known: dict[InstanceId, Batch], new: Batch, machine: Relation) -> None:
    relation = with_sessions(machine)
    index = relation.index(REPLICAS)
    for id, one in known.items():
        index.add(id, one)
    deps = index.conflicts(new)
    assert all(covers(deps, id) for id, one in known.items() if relation.conflict(one, new))


@given(instances, batches(), st.tuples(*[st.integers(0, 4)] * REPLICAS), st.sampled_from(RELATIONS), st.data())
def test_the_backlog_returns_exactly_the_covered_conflicts(
    known: dict[InstanceId, Batch], new: Batch, deps: tuple[int, ...], machine: Relation, data: st.DataObject
) -> None:
    relation = with_sessions(machine)
    backlog = relation.backlog(REPLICAS)
    for id, one in known.items():
        backlog.add(id, one)
    for id in list(known):
        if data.draw(st.booleans()):
            backlog.remove(id, known.pop(id))
    found = list(backlog.conflicting(new, deps))
    assert len(found) == len(set(found))
    assert set(found) == {id for id, one in known.items() if covers(deps, id) and relation.conflict(one, new)}
