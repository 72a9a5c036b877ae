"""Patience with late instances: turns at first, and more of it the more often nobody got through."""

import dataclasses

import pytest

from pydsm.core.ballots import Ballot
from pydsm.core.config import Config
from pydsm.core.ids import InstanceId, ReplicaId, Tick
from pydsm.core.suspicion import Suspicions

ID = InstanceId(ReplicaId(1), 5)
CONFIG = Config(ReplicaId(0), 3, recovery_timeout_ticks=100, recovery_jitter_ticks=10, backoff_ticks_max=2000)
NOW = Tick(10_000)


def patience_after(attempts: int, config: Config = CONFIG) -> int:
    """How long another replica is left alone when it is seen to recover what we have tried to recover before."""
    suspicions = Suspicions(config)
    suspicion = suspicions.of(ID, NOW)
    suspicion.attempts = attempts
    suspicions.postpone(ID, NOW)
    return suspicion.next_look - NOW


def test_the_leader_of_an_instance_looks_first_and_the_others_in_turn() -> None:
    looks = [
        Suspicions(dataclasses.replace(CONFIG, replica=ReplicaId(replica))).of(ID, NOW).next_look
        for replica in (1, 2, 0)
    ]
    assert looks == sorted(looks)
    assert all(NOW + 100 <= look < NOW + 100 + 3 * 10 for look in looks)


def test_a_suspicion_is_one_until_it_is_forgotten() -> None:
    suspicions = Suspicions(CONFIG)
    first = suspicions.of(ID, NOW)
    assert suspicions.of(ID, Tick(NOW + 5)) is first
    suspicions.forget(ID)
    suspicions.forget(ID)
    assert suspicions.of(ID, NOW) is not first


def test_patience_with_another_recovery_doubles_with_each_attempt_of_our_own() -> None:
    """Two replicas with a fixed patience shorter than a recovery would stop each other for ever."""
    waits = [patience_after(attempts) for attempts in range(8)]
    doubled = [100, 200, 400, 800, 1600, 2000, 2000, 2000]
    assert all(0 <= wait - expected < 3 * 10 for wait, expected in zip(waits, doubled, strict=True))


def test_patience_is_never_below_the_timeout_even_where_the_longest_backoff_is() -> None:
    assert patience_after(3, dataclasses.replace(CONFIG, backoff_ticks_max=1)) >= 100


@pytest.mark.parametrize("attempts", [1, 2, 3, 10, 1000])
def test_a_failed_attempt_waits_between_half_and_one_and_a_half_of_its_patience(attempts: int) -> None:
    suspicions = Suspicions(CONFIG)
    suspicion = suspicions.of(ID, NOW)
    suspicion.attempts = attempts
    suspicions.back_off(ID, NOW, Ballot(4, ReplicaId(2)))
    patience = min(100 * 2**attempts, 2000)
    assert patience // 2 <= suspicion.next_look - NOW < patience // 2 + patience


def test_the_highest_ballot_that_refused_is_remembered() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.back_off(ID, NOW, Ballot(4, ReplicaId(2)))
    suspicions.back_off(ID, NOW, Ballot(3, ReplicaId(2)))
    assert suspicions.of(ID, NOW).highest == Ballot(4, ReplicaId(2))
