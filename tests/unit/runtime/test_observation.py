"""When a replica is ready, and what it says when it is not."""

import pytest

from pydsm.core.counters import Counters
from pydsm.core.faults import CallerFault
from pydsm.core.ids import ReplicaId
from pydsm.runtime.observation import Observation, ReadyLimits, why_not_ready
from tests.unit.runtime.observations import READY, but

ONE, TWO = ReplicaId(1), ReplicaId(2)


@pytest.mark.parametrize(
    "seen",
    [
        READY,
        but(connected=(ONE,)),
        but(told_seconds_ago={TWO: 2.0}),
        but(known=(138, 148, 158)),
        but(replica=0, replicas=1, connected=(), told_seconds_ago={}, frontier=(5,), known=(5,)),
    ],
    ids=["all is well", "one peer missing", "one peer silent", "lag at its limit", "a group of one"],
)
def test_replica_with_a_quorum_and_little_lag_is_ready(seen: Observation) -> None:
    assert why_not_ready(seen, ReadyLimits()) is None


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (but(failure="disk is full"), "it has failed: disk is full"),
        (but(stopping=True), "it is stopping"),
        (but(connected=()), "it sees 1 of 3 replicas, itself included, and needs 2: 0 connected"),
        (but(told_seconds_ago={}), "2 connected, 0 heard from in the last 2 s"),
        (but(told_seconds_ago={ONE: 2.1, TWO: 60.0}), "2 connected, 0 heard from in the last 2 s"),
        (but(connected=(ONE,), told_seconds_ago={TWO: 0.1}), "1 connected, 0 heard from"),
        (but(known=(10, 149, 30)), "catching up: 129 instances of replica 1 are not executed here yet, 128 may be"),
        (but(known=(10, 149, 30), names=("a", "b", "c")), "catching up: 129 instances of b are not executed here yet"),
        (but(replicas=7), "it sees 3 of 7 replicas, itself included, and needs 4"),
    ],
)
def test_replica_that_is_not_ready_says_why_in_one_line(seen: Observation, reason: str) -> None:
    said = why_not_ready(seen, ReadyLimits())
    assert said is not None
    assert reason in said
    assert "\n" not in said


def test_distance_that_is_allowed_can_be_chosen() -> None:
    assert why_not_ready(READY, ReadyLimits(lag_instances_max=0)) is not None
    assert why_not_ready(READY, ReadyLimits(lag_instances_max=1)) is None


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(CallerFault, match="limits of readiness"):
        ReadyLimits(lag_instances_max=-1)


def test_fast_share_is_of_own_commits_and_none_before_the_first() -> None:
    assert READY.fast_share == 0.75
    assert but(counters=Counters()).fast_share is None
