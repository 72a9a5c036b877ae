"""Jitter without a random source: the same everywhere, spread out, and within its bound."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.protocol.timers import jitter

NUMBERS = st.integers(-(1 << 70), 1 << 70)


@given(NUMBERS, st.lists(NUMBERS, max_size=4), st.integers(1, 10_000))
def test_jitter_is_below_its_bound_and_not_negative(seed: int, salt: list[int], below: int) -> None:
    assert 0 <= jitter(seed, *salt, below=below) < below


@given(NUMBERS, st.lists(NUMBERS, max_size=4))
def test_the_same_seed_and_salt_give_the_same_jitter(seed: int, salt: list[int]) -> None:
    assert jitter(seed, *salt, below=1 << 64) == jitter(seed, *salt, below=1 << 64)


def test_jitter_is_the_same_on_every_machine_and_version() -> None:
    assert [jitter(7, replica, 1, below=250) for replica in range(5)] == [13, 92, 124, 115, 6]


def test_neighbouring_replicas_and_instances_get_different_jitter() -> None:
    drawn = Counter(jitter(0, replica, index, below=1 << 32) for replica in range(7) for index in range(500))
    assert max(drawn.values()) == 1


def test_the_order_of_the_salt_counts() -> None:
    assert jitter(0, 1, 2, below=1 << 64) != jitter(0, 2, 1, below=1 << 64)


def test_jitter_uses_its_whole_range_evenly() -> None:
    tenths = Counter(jitter(3, index, below=250) * 10 // 250 for index in range(5_000))
    assert set(tenths) == set(range(10))
    assert all(400 < count < 600 for count in tenths.values())
