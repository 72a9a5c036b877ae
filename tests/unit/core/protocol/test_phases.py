"""Tallies count replicas, not replies."""

from pydsm.core.protocol.phases import Accepting, AwaitingInvalidators, Phase, PreAccepting, Preparing, Validating
from pydsm.core.types.ids import Tick
from pydsm.core.types.messages import NOP
from tests.unit.core.helpers import P0, P1, P2, at, ballot, prepare_ok, writing


def pre_accepting() -> PreAccepting:
    return PreAccepting(ballot(0, 0), writing("key"), (0, 0, 0), (P1, P2), Tick(0), Tick(20))


def test_a_replica_is_counted_once_and_its_first_vector_stays() -> None:
    phase = pre_accepting()
    assert phase.record(P1, (0, 0, 1))
    assert not phase.record(P1, (0, 0, 2))
    assert phase.record(P0, (0, 0, 0))
    assert phase.answers == {P1: (0, 0, 1), P0: (0, 0, 0)}


def test_a_vote_is_counted_once() -> None:
    phase = Accepting(ballot(1, 0), NOP, (0, 0, 0), (P1, P2), Tick(20))
    assert phase.record(P2)
    assert not phase.record(P2)
    assert list(phase.votes) == [P2]


def test_a_peer_that_has_answered_or_refused_is_not_asked_again() -> None:
    answer = prepare_ok(at(1, 1), ballot(1, 0))
    validating = Validating(ballot(1, 0), writing("key"), (0, 0, 0), 1, {P1: answer}, Tick(0), Tick(0))
    awaiting = AwaitingInvalidators(
        ballot(1, 0), writing("key"), (0, 0, 0), 1, (), {P1: answer}, {}, Tick(0), Tick(0), refused={P2: ballot(2, 1)}
    )
    validating.answered[P2] = None
    accepting = Accepting(ballot(1, 0), NOP, (0, 0, 0), (P1, P2), Tick(20), votes={P1: None})
    preparing = Preparing(ballot(1, 0), Tick(0), answers={P1: answer}, refused={P2: ballot(2, 1)})
    expectations: tuple[tuple[Phase, list[bool]], ...] = (
        (pre_accepting(), [False, False, False]),
        (accepting, [False, True, False]),
        (preparing, [False, True, True]),
        (validating, [False, False, True]),
        (awaiting, [False, True, True]),
    )
    for phase, expected in expectations:
        assert [phase.has_answer_of(peer) for peer in (P0, P1, P2)] == expected


def test_phases_do_not_share_their_tallies() -> None:
    pre_accepting().record(P1, (0, 0, 0))
    assert pre_accepting().answers == {}
