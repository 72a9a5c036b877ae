"""An instance at one replica: the table of legal changes, promises that never go back, and its durable form."""

import itertools

import pytest
from hypothesis import given

from pydsm.core.log.instance import Instance
from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.errors import InvariantViolation
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.messages import NOP, Batch, Footprint
from pydsm.core.types.status import LEGAL_CHANGES, Status
from tests.unit.core.strategies import instance_records

ID = InstanceId(ReplicaId(1), 4)
NO_DEPS = (0, 0, 0)
BATCH = Batch((), (), Footprint())

LEGAL = {
    (Status.UNKNOWN, Status.PRE_ACCEPTED),
    (Status.UNKNOWN, Status.ACCEPTED),
    (Status.UNKNOWN, Status.COMMITTED),
    (Status.PRE_ACCEPTED, Status.ACCEPTED),
    (Status.PRE_ACCEPTED, Status.COMMITTED),
    (Status.ACCEPTED, Status.ACCEPTED),
    (Status.ACCEPTED, Status.COMMITTED),
    (Status.COMMITTED, Status.EXECUTED),
}


def instance_in(status: Status) -> Instance:
    instance = Instance(ID, NO_DEPS)
    instance.status = status
    return instance


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Status, Status)))
def test_a_change_of_status_is_taken_exactly_when_the_table_has_it(before: Status, after: Status) -> None:
    instance = instance_in(before)
    if (before, after) in LEGAL:
        instance.advance(after)
        assert instance.status is after
    else:
        with pytest.raises(InvariantViolation, match=rf"1\.4 cannot go from {before.name} to {after.name}"):
            instance.advance(after)
        assert instance.status is before


def test_every_status_has_its_line_in_the_table_and_none_leads_back() -> None:
    assert set(LEGAL_CHANGES) == set(Status)
    assert all(after >= before for before, reachable in LEGAL_CHANGES.items() for after in reachable)


def test_the_numbers_of_statuses_are_the_durable_format() -> None:
    assert [(status.name, status.value) for status in Status] == [
        ("UNKNOWN", 0),
        ("PRE_ACCEPTED", 1),
        ("ACCEPTED", 2),
        ("COMMITTED", 3),
        ("EXECUTED", 4),
    ]


def test_a_new_instance_has_promised_its_leader_and_voted_for_nothing() -> None:
    instance = Instance(ID, NO_DEPS)
    assert instance.promised == initial_ballot(ID)
    assert instance.voted is None
    assert instance.known_batch is None
    assert not instance.decided


def test_a_promise_never_goes_back() -> None:
    instance = Instance(ID, NO_DEPS)
    instance.promise(Ballot(2, ReplicaId(1)))
    with pytest.raises(InvariantViolation, match=r"cannot promise b2\.0 after b2\.1"):
        instance.promise(Ballot(2, ReplicaId(0)))
    assert instance.promised == Ballot(2, ReplicaId(1))


def test_a_promise_may_be_repeated() -> None:
    instance = Instance(ID, NO_DEPS)
    instance.promise(Ballot(2, ReplicaId(1)))
    instance.promise(Ballot(2, ReplicaId(1)))
    assert instance.promised == Ballot(2, ReplicaId(1))


def test_a_promise_does_not_touch_the_vote() -> None:
    instance = Instance(ID, NO_DEPS)
    instance.voted = Ballot(1, ReplicaId(0))
    instance.promise(Ballot(5, ReplicaId(2)))
    assert instance.voted == Ballot(1, ReplicaId(0))


@pytest.mark.parametrize("status", Status)
def test_committed_and_executed_are_decided_and_nothing_else(status: Status) -> None:
    assert instance_in(status).decided == (status in {Status.COMMITTED, Status.EXECUTED})


def test_the_batch_of_an_accepted_nop_is_the_one_first_proposed() -> None:
    instance = Instance(ID, NO_DEPS)
    instance.value = NOP
    assert instance.known_batch is None
    instance.initial_batch = BATCH
    assert instance.known_batch is BATCH


def test_an_accepted_batch_is_known_without_the_first_proposal() -> None:
    instance = Instance(ID, NO_DEPS)
    instance.value = BATCH
    assert instance.known_batch is BATCH


@given(instance_records())
def test_an_instance_restored_from_its_record_makes_the_same_record(record: InstanceRecord) -> None:
    assert Instance.from_record(record).record() == record


def test_execution_is_not_stored_because_a_restart_executes_again() -> None:
    instance = instance_in(Status.EXECUTED)
    instance.value = BATCH
    assert instance.record().status is Status.COMMITTED


@pytest.mark.parametrize(("value", "shown"), [(None, "unknown"), (NOP, "nop"), (BATCH, "batch")])
def test_the_repr_of_an_instance_shows_its_state(value: Batch | None, shown: str) -> None:
    instance = Instance(ID, NO_DEPS)
    instance.value = value
    assert repr(instance) == (f"<1.4 UNKNOWN promised=b0.1 voted=None deps=(0, 0, 0) initial=(0, 0, 0) value={shown}>")
