"""Round trips are measured from echoes of gossip, independent of the clocks."""

import pytest

from pydsm.core.protocol.distances import DISTANCE_TICKS_MAX, Distances
from pydsm.core.types.ids import Tick
from pydsm.core.types.messages import Frontier
from tests.unit.core.helpers import P0, P1, P2, Driven

MEMBERS = (P0, P1, P2)


def test_nothing_is_known_before_the_first_echo() -> None:
    distances = Distances(MEMBERS)
    assert (distances.to(P1), distances.to_nearest(2)) == (0, 0)


def test_an_echo_measures_the_round_trip_of_the_own_gossip() -> None:
    distances = Distances(MEMBERS)
    distances.echoed(P1, 100, Tick(940))
    assert distances.to(P1) == 840


def test_how_long_gossip_lay_at_the_other_member_does_not_count() -> None:
    there = Distances(MEMBERS)
    there.heard(P0, Tick(100), Tick(7000))
    assert there.take_echoes(Tick(7250)) == (350, 0, 0)


def test_gossip_is_echoed_once() -> None:
    there = Distances(MEMBERS)
    there.heard(P0, Tick(100), Tick(7000))
    there.take_echoes(Tick(7250))
    assert there.take_echoes(Tick(7500)) == ()


@pytest.mark.parametrize("echo", [0, 941, 10**9])
def test_no_echo_and_one_of_an_earlier_start_measure_nothing(echo: int) -> None:
    distances = Distances(MEMBERS)
    distances.echoed(P1, echo, Tick(940))
    assert distances.to(P1) == 0


def test_a_longer_round_trip_counts_immediately_and_a_shorter_one_gradually() -> None:
    distances = Distances(MEMBERS)
    distances.measured(P1, 100)
    distances.measured(P1, 1060)
    assert distances.to(P1) == 1060
    distances.measured(P1, 100)
    assert distances.to(P1) == 1000
    for _ in range(200):
        distances.measured(P1, 100)
    assert distances.to(P1) == 100


def test_a_round_trip_has_an_upper_bound() -> None:
    distances = Distances(MEMBERS)
    distances.measured(P1, 10**12)
    assert distances.to(P1) == DISTANCE_TICKS_MAX


def test_the_nearest_members_are_those_that_a_quorum_needs() -> None:
    distances = Distances(MEMBERS)
    distances.measured(P1, 900)
    distances.measured(P2, 30)
    assert (distances.to_nearest(1), distances.to_nearest(2)) == (30, 900)


def test_two_replicas_measure_each_other_by_their_gossip() -> None:
    left, right = Driven(0, 2, gossip_ticks=100), Driven(1, 2, gossip_ticks=100)
    left.tick(1000)
    ((_, sent),) = left.take_only(Frontier)
    right.tick(5)
    right.take_only(Frontier)
    right.receive(0, sent)
    right.tick(105)
    ((_, answer),) = right.take_only(Frontier)
    left.tick(1500)
    left.receive(1, answer)
    assert left.replica._state.distances.to(P1) == 400


def test_a_pause_before_an_answer_is_in_the_round_trip() -> None:
    left, right = Driven(0, 2, gossip_ticks=100), Driven(1, 2, gossip_ticks=100)
    left.tick(1000)
    ((_, sent),) = left.take_only(Frontier)
    right.tick(5)
    right.take_only(Frontier)
    right.replica.advance(Tick(205))  # its loop got no processor, and the message has waited since tick 5
    right.receive(0, sent)
    right.tick(215)
    ((_, answer),) = right.take_only(Frontier)
    left.replica.advance(Tick(1400))  # so has the answer
    left.receive(1, answer)
    assert left.replica._state.distances.to(P1) == 390
