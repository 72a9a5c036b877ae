"""When a replica is ready, and the reason that it reports otherwise."""

from dataclasses import replace

import pytest

from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.runtime.observation import Observation, ReadyLimits, as_info, not_ready_reason
from tests.unit.runtime.observations import AHEAD, READY, but

ONE, TWO = ReplicaId(1), ReplicaId(2)


@pytest.mark.parametrize(
    "seen",
    [
        READY,
        but(connected=(ONE,)),
        but(last_report_age_seconds={TWO: 2.0}),
        but(known=(138, 148, 158)),
        but(replica=0, replicas=1, connected=(), last_report_age_seconds={}, frontier=(5,), known=(5,)),
    ],
    ids=["all is well", "one peer missing", "one peer silent", "lag at its limit", "a group of one"],
)
def test_replica_with_a_quorum_and_little_lag_is_ready(seen: Observation) -> None:
    assert not_ready_reason(seen, ReadyLimits()) is None


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (but(failure="disk is full"), "it has failed: disk is full"),
        (but(stopping=True), "it is stopping"),
        (but(connected=()), "it sees 1 of 3 replicas, itself included, and needs 2: 0 connected"),
        (but(last_report_age_seconds={}), "2 connected, 0 with a report in the last 2 s"),
        (but(last_report_age_seconds={ONE: 2.1, TWO: 60.0}), "2 connected, 0 with a report in the last 2 s"),
        (but(connected=(ONE,), last_report_age_seconds={TWO: 0.1}), "1 connected, 0 with a report"),
        (but(known=(10, 149, 30)), "catching up: 129 instances of r2 are not executed here yet, 128 may be"),
        (but(known=(10, 149, 30), names=("a", "b", "c")), "catching up: 129 instances of b are not executed here yet"),
        (but(replicas=7), "it sees 3 of 7 replicas, itself included, and needs 4"),
    ],
)
def test_a_replica_that_is_not_ready_gives_the_reason_in_one_line(seen: Observation, reason: str) -> None:
    said = not_ready_reason(seen, ReadyLimits())
    assert said is not None
    assert reason in said
    assert "\n" not in said


def test_distance_that_is_allowed_can_be_chosen() -> None:
    assert not_ready_reason(READY, ReadyLimits(lag_instances_max=0)) is not None
    assert not_ready_reason(READY, ReadyLimits(lag_instances_max=1)) is None


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="limits of readiness"):
        ReadyLimits(lag_instances_max=-1)


def test_fast_share_is_of_own_commits_and_none_before_the_first() -> None:
    assert READY.fast_share == 0.75
    assert but(counters=ProtocolCounters()).fast_share is None


def test_a_replica_with_a_wrong_clock_is_not_ready_and_reports_both_times() -> None:
    reason = not_ready_reason(but(clock=AHEAD), ReadyLimits())
    assert reason is not None
    assert "2023-11-14T22:13:31.000+00:00 and is 11.0 s ahead of the group's time, 2023-11-14T22:13:20" in reason
    assert not_ready_reason(but(clock=replace(AHEAD, difference_ms_max=11_000)), ReadyLimits()) is None
    assert not_ready_reason(but(clock=replace(AHEAD, group_ms=None)), ReadyLimits()) is None


def test_info_has_the_clock() -> None:
    info = as_info(but(clock=AHEAD))
    assert (info["clock_difference_ms"], info["agreed_time_ms"]) == ("11000", "1699999990000")
