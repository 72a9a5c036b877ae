"""Deciding an instance: once, finally, durable first where no other replica has the decision, reported for a nop."""

import pytest

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.protocol.phases import Preparing
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Abort, Execute
from pydsm.core.types.errors import InvariantViolation
from pydsm.core.types.ids import Tick
from pydsm.core.types.messages import NOP
from pydsm.core.types.status import Status
from tests.unit.core.helpers import P0, P1, P2, at, ballot, writing

A, B = writing("key", name="a"), writing("key", name="b")
NONE = (0, 0, 0)


def state(me: int = 0, **config: int) -> ReplicaState:
    return ReplicaState(Config((P0, P1, P2)[me], 3, **config), DeclaredKeys())  # type: ignore[arg-type]


def test_peers_are_all_other_replicas() -> None:
    assert (state(1).members, state(1).peers) == ((P0, P1, P2), (P0, P2))


def test_a_decision_is_made_once() -> None:
    replica = state()
    assert replica.decide(at(1, 1), A, NONE)
    assert not replica.decide(at(1, 1), A, NONE)
    effects = replica.outbox.take()
    assert effects.executions == [Execute(at(1, 1), A)]
    assert len(effects.lazy_records) == 1
    assert replica.decided == [at(1, 1)]


def test_two_different_decisions_stop_the_replica() -> None:
    replica = state()
    replica.decide(at(1, 1), A, NONE)
    with pytest.raises(InvariantViolation, match="decided twice"):
        replica.decide(at(1, 1), B, NONE)


def test_a_decision_received_from_others_may_be_stored_lazily() -> None:
    replica = state()
    replica.decide(at(1, 1), A, NONE)
    effects = replica.outbox.take()
    assert (effects.records, [one.status for one in effects.lazy_records if hasattr(one, "status")]) == (
        [],
        [Status.COMMITTED],
    )


def test_a_decision_unknown_to_other_replicas_is_durable_before_it_is_executed() -> None:
    replica = state()
    replica.decide(at(0, 1), A, NONE, durable_first=True)
    effects = replica.outbox.take()
    assert [one.status for one in effects.records if hasattr(one, "status")] == [Status.COMMITTED]
    assert effects.executions == [Execute(at(0, 1), A)]


def test_an_own_instance_that_became_a_nop_is_reported_to_its_clients() -> None:
    replica = state()
    replica.log.pre_accept(replica.log.instance(at(0, 1)), A, NONE, NONE)
    replica.decide(at(0, 1), NOP, NONE)
    assert replica.outbox.take().aborts == [Abort(at(0, 1), A.runs)]


@pytest.mark.parametrize("known", [True, False])
def test_clients_of_other_leaders_and_of_unknown_batches_are_not(known: bool) -> None:
    replica = state()
    if known:
        replica.log.pre_accept(replica.log.instance(at(1, 1)), A, NONE, NONE)
        replica.decide(at(1, 1), NOP, NONE)
    else:
        replica.decide(at(0, 1), NOP, NONE)
    assert replica.outbox.take().aborts == []
    assert (replica.counters.nops, replica.counters.aborted) == (1, 0)


def test_an_executed_instance_of_an_earlier_start_frees_no_place_in_the_pipeline() -> None:
    replica = state()
    replica.first_index, replica.in_flight = 5, 1
    replica.decide(at(0, 4), A, NONE)
    assert replica.in_flight == 1
    replica.decide(at(0, 5), A, NONE)
    assert replica.in_flight == 0


def test_a_decision_ends_the_phase_of_the_instance() -> None:
    replica = state()
    replica.begin_phase(at(1, 1), Preparing(ballot(1, 0), Tick(0)))
    replica.decide(at(1, 1), A, NONE)
    assert replica.leading == {}


def test_only_a_phase_below_the_promise_ends() -> None:
    replica = state()
    instance = replica.log.instance(at(1, 1))
    replica.begin_phase(at(1, 1), Preparing(ballot(2, 0), Tick(0)))
    for promised, stays in ((ballot(1, 2), True), (ballot(2, 0), True), (ballot(2, 1), False)):
        instance.promise(promised)
        replica.yield_to_promise(instance)
        assert (at(1, 1) in replica.leading) is stays
    replica.yield_to_promise(instance)


def test_the_interval_of_repetitions_doubles_up_to_a_bound() -> None:
    replica = state(retry_ticks=100, backoff_ticks_max=700)
    phase, waits = Preparing(ballot(1, 0), Tick(0)), []
    for _ in range(5):
        replica.repeat_later(phase)
        waits.append(phase.deadline - replica.now)
    assert waits == [100, 200, 400, 700, 700]


def test_a_bound_below_the_first_wait_does_not_shorten_it() -> None:
    replica = state(retry_ticks=100, backoff_ticks_max=10)
    phase = Preparing(ballot(1, 0), Tick(0))
    for _ in range(3):
        replica.repeat_later(phase)
        assert phase.deadline == 100


def test_even_after_very_many_repetitions_the_bound_holds() -> None:
    replica = state(retry_ticks=100, backoff_ticks_max=700)
    phase = Preparing(ballot(1, 0), Tick(0), repeats=10_000)
    replica.repeat_later(phase)
    assert phase.deadline == 700
