"""When to look into a late instance: patience, turns, backoff; all within stated bounds."""

import pytest

from pydsm.core.protocol.distances import Distances
from pydsm.core.protocol.suspicion import Suspicions
from pydsm.core.types.config import Config
from pydsm.core.types.ids import Tick
from tests.unit.core.helpers import P0, P1, P2, at, ballot

ID = at(1, 7)


def suspicions(me: int = 0, seed: int = 0, distances: Distances | None = None) -> Suspicions:
    config = Config(
        (P0, P1, P2)[me],
        3,
        seed=seed,
        recovery_timeout_ticks=500,
        recovery_jitter_ticks=250,
        backoff_ticks_max=4000,
    )
    return Suspicions(config, distances or Distances((P0, P1, P2)), 2)


def test_the_first_query_is_timed_from_when_the_instance_became_known() -> None:
    once = suspicions(1).of(ID, Tick(1000))
    assert 1500 <= once.next_look < 1750
    assert (once.highest, once.inquiries, once.attempts) == (ballot(0, 1), 0, 0)


def test_a_suspicion_keeps_its_state_between_queries() -> None:
    late = suspicions()
    assert late.of(ID, Tick(1000)) is late.of(ID, Tick(9000))


@pytest.mark.parametrize("seed", range(20))
def test_replicas_take_turns_and_the_leader_of_the_instance_is_first(seed: int) -> None:
    looks = [suspicions(me, seed).of(ID, Tick(0)).next_look for me in (1, 2, 0)]
    assert 500 <= looks[0] < 750 <= looks[1] < 1000 <= looks[2] < 1250


def test_the_jitter_differs_from_instance_to_instance_and_from_seed_to_seed() -> None:
    looks = {suspicions(1, seed).of(at(1, index), Tick(0)).next_look for seed in range(5) for index in range(5)}
    assert len(looks) > 15


def test_the_same_seed_gives_the_same_patience() -> None:
    assert suspicions(2, 9).of(ID, Tick(3)) == suspicions(2, 9).of(ID, Tick(3))


def test_an_instance_that_another_replica_recovers_gets_the_whole_timeout_again() -> None:
    late = suspicions(1)
    late.of(ID, Tick(0)).inquiries = 2
    late.postpone(ID, Tick(10_000))
    assert 10_500 <= late.of(ID, Tick(0)).next_look < 10_750
    assert late.of(ID, Tick(0)).inquiries == 2


def test_patience_outgrows_a_recovery_whatever_the_longest_backoff_is() -> None:
    config = Config(P1, 3, recovery_timeout_ticks=100, recovery_jitter_ticks=1, backoff_ticks_max=50)
    late = Suspicions(config, Distances((P0, P1, P2)), 2)
    late.of(ID, Tick(0)).attempts = 9
    late.postpone(ID, Tick(0))
    assert late.of(ID, Tick(0)).next_look == 800


def test_the_suspicion_of_a_decided_instance_is_removed() -> None:
    late = suspicions(1)
    late.of(ID, Tick(0))
    late.forget(ID)
    late.forget(ID)
    assert late.of(ID, Tick(9000)).next_look >= 9500


@pytest.mark.parametrize(("attempts", "wait"), [(0, 500), (1, 1000), (2, 2000), (3, 4000), (4, 4000), (1000, 4000)])
def test_a_failed_attempt_is_followed_by_a_rest_that_doubles_up_to_a_bound(attempts: int, wait: int) -> None:
    for seed in range(20):
        late = suspicions(1, seed)
        late.of(ID, Tick(0)).attempts = attempts
        late.back_off(ID, Tick(10_000), ballot(1, 1))
        assert wait // 2 <= late.of(ID, Tick(0)).next_look - 10_000 < wait // 2 + wait


def test_the_highest_ballot_seen_is_stored() -> None:
    late = suspicions(1)
    for seen in (ballot(3, 2), ballot(5, 0), ballot(4, 2)):
        late.back_off(ID, Tick(0), seen)
    assert late.of(ID, Tick(0)).highest == ballot(5, 0)


# Waits grow with the distance


def far(ticks: int) -> Distances:
    distances = Distances((P0, P1, P2))
    for member in (P0, P1, P2):
        distances.measured(member, ticks)
    return distances


def test_a_recovery_begins_later_than_a_commit_takes_in_this_network() -> None:
    assert suspicions(1, distances=far(900)).of(ID, Tick(0)).next_look >= 2700


def test_an_instance_of_a_far_leader_is_not_looked_into_sooner_than_the_leader_can_commit_it() -> None:
    distances = Distances((P0, P1, P2))
    distances.measured(P2, 4)
    distances.measured(P1, 3000)
    assert suspicions(0, distances=distances).of(ID, Tick(0)).next_look >= 9000


def test_silence_is_borne_for_longer_with_each_attempt_and_with_distance() -> None:
    near, slow = suspicions(1), suspicions(1, distances=far(2000))
    assert near.silence_ticks(ID, (P0, P2), Tick(0)) == 800
    assert slow.silence_ticks(ID, (P0, P2), Tick(0)) == 6000
    for attempt in range(1, 5):
        near.begin(ID, ballot(attempt, 1), Tick(attempt))
    assert near.silence_ticks(ID, (P0, P2), Tick(0)) == 4000


def test_an_answer_that_came_too_late_increases_the_longest_wait() -> None:
    late = suspicions(1)
    for attempt in range(1, 10):
        late.begin(ID, ballot(attempt, 1), Tick(10_000 * attempt))
    assert late.silence_ticks(ID, (P0, P2), Tick(0)) == 4000
    late.answered(ID, ballot(3, 1), Tick(36_000))
    assert late.silence_ticks(ID, (P0, P2), Tick(0)) == 48_000
    late.answered(ID, ballot(77, 1), Tick(900_000))
    assert late.silence_ticks(ID, (P0, P2), Tick(0)) == 48_000


def test_turns_of_replicas_are_at_least_one_message_delay_apart_at_any_distance() -> None:
    looks = [suspicions(me, 3, far(2000)).of(ID, Tick(0)).next_look for me in (1, 2, 0)]
    assert looks[0] < looks[1] < looks[2]
    assert looks[2] >= 8000
