"""Small worlds in which every order of events is tried; injected bugs show that the search finds violations."""

import pickle

import pytest

from pydsm.core.protocol import recoverer
from pydsm.core.protocol.recovery_rules import AcceptValue, Rule, ValidateValue
from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.ids import ReplicaId, Tick, request_id
from pydsm.core.types.messages import NOP, Batch, Footprint, PrepareOk, Run
from pydsm.core.types.quorums import Quorums
from pydsm.sim.tools.exhaustive import SmallWorld, StateOutcome, StateSearch
from pydsm.sim.tools.fingerprint import fingerprint


def _explored(world: SmallWorld) -> StateOutcome:
    outcome = StateSearch(world).run()
    assert outcome.violation is None, "\n".join((outcome.violation, *outcome.story))
    return outcome


def test_two_conflicting_instances_are_safe_in_every_order() -> None:
    outcome = _explored(SmallWorld(recoveries=0))
    assert outcome.complete
    assert outcome.states > 4_000


def test_one_instance_and_a_recovery_are_safe_in_every_order() -> None:
    assert _explored(SmallWorld(proposers=(0,), recoveries=1)).complete


def test_a_proposer_that_restarts_from_its_records_is_safe_in_every_order() -> None:
    assert _explored(SmallWorld(proposers=(0,), recoveries=1, restarts=1)).complete


def test_the_search_stops_at_its_limit_and_reports_that_it_is_incomplete() -> None:
    outcome = _explored(SmallWorld(states_max=500))
    assert not outcome.complete
    assert outcome.states < 1000


def test_a_fast_quorum_that_is_one_too_small_is_found_by_the_shortest_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quorums, "fast", property(lambda self: self.n - self.e - 1))
    outcome = StateSearch(SmallWorld(recoveries=0)).run()
    assert outcome.violation is not None
    assert outcome.violation.startswith("visibility")
    assert outcome.story == ("0: propose", "1: propose")


def test_a_recovery_that_decides_nop_in_spite_of_votes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def nop_always(id: object, answers: dict[ReplicaId, PrepareOk], q: Quorums) -> AcceptValue | ValidateValue:
        return AcceptValue(Rule.TOO_FEW_UNCHANGED, NOP, (0,) * q.n)

    monkeypatch.setattr(recoverer, "after_prepare", nop_always)
    outcome = StateSearch(SmallWorld(proposers=(0,), recoveries=1)).run()
    assert outcome.violation is not None
    assert outcome.violation.startswith("agreement")


def test_equal_states_have_equal_fingerprints_whichever_way_they_were_made() -> None:
    def proposed() -> Replica:
        replica = Replica(Config(ReplicaId(0), 3))
        replica.propose(Batch((Run(request_id(0, ReplicaId(0), 0, 1), 1),), (b"c",), Footprint(writes=(b"k",))))
        replica.take_effects()
        return replica

    replica = proposed()
    assert fingerprint(replica) == fingerprint(proposed()) == fingerprint(pickle.loads(pickle.dumps(replica)))
    replica.tick(Tick(1))
    replica.take_effects()
    assert fingerprint(replica) != fingerprint(proposed())
