"""Agreed time: a minority of wrong clocks cannot change it; how it catches up, and how it is corrected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.clocks.agreed_time import AgreedTime, TimeLimits, bounds
from pydsm.core.types.quorums import quorums

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
LIMITS = TimeLimits()


def at(now_ms: int, limits: TimeLimits = LIMITS) -> AgreedTime:
    time = AgreedTime(limits)
    time.advance([now_ms])
    assert time.ms == now_ms
    return time


@pytest.mark.parametrize(
    ("clocks", "possible"),
    [
        ([], None),
        ([0], None),
        ([5], (5,)),
        ([5, 0], None),
        ([5, 9], (5, 9)),
        ([9, 5, 7], (7,)),
        ([9, 5, 0], (5, 9)),
        ([9, 0, 0], None),
        ([4, 3, 2, 1], (2, 3)),
        ([4, 3, 2, 0], (2, 3, 4)),
        ([5, 4, 3, 2, 1], (3,)),
        ([5, 4, 3, 2, 0], (3, 4)),
        ([5, 4, 3, 0, 0], (3, 4, 5)),
    ],
)
def test_the_bounds_are_readings_that_a_majority_has_reached_and_not_passed(
    clocks: list[int], possible: tuple[int, ...] | None
) -> None:
    found = bounds(clocks)
    assert (None if found is None else found.readings) == possible


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Readings of a group in which at most f clocks are wrong; those of the right ones; and how many are known."""
    replicas = draw(st.integers(1, 7))
    spare = quorums(replicas).f
    wrong = draw(st.integers(0, spare))
    unknown = draw(st.integers(0, spare - wrong))
    right = [NOW_MS + draw(st.integers(-1000, 1000)) for _ in range(replicas - wrong)]
    far = st.integers(HOUR_MS, 10**10).flatmap(lambda ms: st.sampled_from([ms, -ms]))
    readings = [*right, *(NOW_MS + draw(st.integers(-1000, 1000) | far) for _ in range(wrong))]
    for place in draw(st.permutations(range(replicas)))[:unknown]:
        readings[place] = 0
    return draw(st.permutations(readings)), right, unknown


@given(groups(), st.integers(1, 4 * 86_400_000))
def test_with_at_most_f_clocks_wrong_or_unknown_time_stays_within_the_right_ones(
    group: tuple[list[int], list[int], int], before_ms: int
) -> None:
    clocks, right, _ = group
    time = at(NOW_MS - before_ms)
    reading = time.reading(clocks)
    assert reading is not None
    if len(clocks) % 2:
        assert min(right) <= reading <= max(right)
    earlier_ms = time.ms
    time.advance(clocks)
    assert earlier_ms <= time.ms <= max(earlier_ms, *right)


@given(groups())
def test_with_agreed_time_one_wrong_clock_is_recognised_also_while_others_are_away(
    group: tuple[list[int], list[int], int],
) -> None:
    """Also where two clocks are left of three, one of which is wrong: agreed time shows which."""
    clocks, right, _ = group
    time = at(NOW_MS - 60_000)
    reading = time.reading(clocks)
    assert reading is not None
    assert min(right) <= reading <= max(right)


@pytest.mark.parametrize("wrong_ms", [NOW_MS + 5 * HOUR_MS, NOW_MS - 5 * HOUR_MS])
@pytest.mark.parametrize("replicas", [2, 3])
def test_of_two_clocks_that_are_left_the_wrong_one_is_recognised_by_agreed_time(wrong_ms: int, replicas: int) -> None:
    time = at(NOW_MS - 60_000)
    clocks = [NOW_MS, wrong_ms, 0][:replicas]
    assert time.reading(clocks) == NOW_MS
    time.advance(clocks)
    assert time.ms == NOW_MS


def test_first_readings_that_contradict_each_other_set_no_time() -> None:
    time = AgreedTime()
    clocks = [NOW_MS, NOW_MS - 5 * HOUR_MS, 0]
    assert time.is_uncertain(clocks)
    time.advance(clocks)
    assert time.ms == 0
    time.advance([NOW_MS, NOW_MS - 5 * HOUR_MS, NOW_MS + 7])
    assert time.ms == NOW_MS
    assert not time.is_uncertain(clocks)


def test_readings_of_less_than_a_majority_change_nothing() -> None:
    time = at(NOW_MS)
    for clocks in ([], [0, 0, 0], [NOW_MS + 9, 0, 0]):
        time.advance(clocks)
        assert time.ms == NOW_MS
        assert not time.is_due(clocks)


def test_one_checkpoint_moves_it_by_a_bounded_amount_and_several_in_a_row_catch_up() -> None:
    time, weekend = at(NOW_MS), [NOW_MS + 60 * HOUR_MS] * 3
    time.advance(weekend)
    assert time.ms == NOW_MS + LIMITS.advance_ms_max
    rounds = 1
    while time.is_due(weekend):
        time.advance(weekend)
        rounds += 1
    assert time.ms == weekend[0]
    assert rounds == 7
    time.advance([weekend[0] + 10 * HOUR_MS] * 3)
    assert time.ms == weekend[0] + LIMITS.advance_ms_max, "the step is small again"


def test_a_checkpoint_is_due_when_agreed_time_is_behind_or_not_set() -> None:
    assert AgreedTime().is_due([NOW_MS])
    assert AgreedTime().is_due([NOW_MS, 0, NOW_MS - LIMITS.distance_ms_max])
    assert not AgreedTime().is_due([NOW_MS, 0, 0]), "too few are known"
    assert not AgreedTime().is_due([NOW_MS, 0, NOW_MS - LIMITS.distance_ms_max - 1]), "they contradict each other"
    time = at(NOW_MS)
    assert not time.is_due([NOW_MS + LIMITS.lag_ms_max])
    assert time.is_due([NOW_MS + LIMITS.lag_ms_max + 1])
    assert not time.is_due([NOW_MS - LIMITS.distance_ms_max])


def test_only_a_time_set_by_a_majority_of_wrong_clocks_is_set_back() -> None:
    time = at(NOW_MS)
    for clocks in ([NOW_MS, NOW_MS, NOW_MS - 99 * HOUR_MS], [NOW_MS, NOW_MS - 99 * HOUR_MS, 0]):
        time.advance(clocks)
        assert time.ms == NOW_MS
    back = [NOW_MS + 9, NOW_MS - 99 * HOUR_MS, NOW_MS - 99 * HOUR_MS + 1]
    assert time.is_due(back)
    time.advance(back)
    assert time.ms == NOW_MS - 99 * HOUR_MS + 1


def test_batches_are_proposed_only_where_they_would_be_executed_at_their_own_time() -> None:
    assert not AgreedTime().admits(NOW_MS), "an old checkpoint may be executed first"
    time = at(NOW_MS)
    assert time.admits(NOW_MS + LIMITS.distance_ms_max)
    assert not time.admits(NOW_MS + LIMITS.distance_ms_max + 1)
    assert not time.admits(NOW_MS - LIMITS.distance_ms_max - 1)


@given(groups(), st.integers(-3 * HOUR_MS, 400 * 86_400_000))
def test_a_replica_never_waits_for_ever(group: tuple[list[int], list[int], int], ahead_ms: int) -> None:
    """Where agreed time keeps batches from being proposed, checkpoints are due, and after a few of them it does not."""
    clocks, _, _ = group
    time = at(NOW_MS - ahead_ms)
    for _ in range(40):
        reading = time.reading(clocks)
        assert reading is not None
        if time.admits(reading):
            return
        assert time.is_due(clocks)
        time.advance(clocks)
    raise AssertionError(f"it never comes to {clocks} from {time.ms}")
