"""The quorum arithmetic, from the table of the paper's authors to every size up to 50."""

import pytest

from pydsm.core.types.quorums import quorums

SIZES = range(1, 51)


@pytest.mark.parametrize(
    ("n", "f", "e", "slow", "fast"),
    [
        (1, 0, 0, 1, 1),
        (2, 0, 0, 2, 2),
        (3, 1, 1, 2, 2),
        (4, 1, 1, 3, 3),
        (5, 2, 2, 3, 3),
        (6, 2, 2, 4, 4),
        (7, 3, 2, 4, 5),
        (8, 3, 2, 5, 6),
        (9, 4, 3, 5, 6),
    ],
)
def test_the_table_of_small_groups(n: int, f: int, e: int, slow: int, fast: int) -> None:
    sizes = quorums(n)
    assert (sizes.n, sizes.f, sizes.e, sizes.slow, sizes.fast) == (n, f, e, slow, fast)


@pytest.mark.parametrize(("n", "fast"), [(3, 2), (5, 3), (7, 5)])
def test_the_fast_quorum_counts_the_leader(n: int, fast: int) -> None:
    assert quorums(n).fast == fast


@pytest.mark.parametrize("n", SIZES)
def test_every_group_is_large_enough_for_its_faults(n: int) -> None:
    sizes = quorums(n)
    assert n >= max(2 * sizes.e + sizes.f - 1, 2 * sizes.f + 1)


@pytest.mark.parametrize("n", SIZES)
def test_a_larger_e_would_be_too_large_or_more_than_f(n: int) -> None:
    sizes = quorums(n)
    one_more = sizes.e + 1
    assert one_more > sizes.f or n < 2 * one_more + sizes.f - 1 or one_more > (sizes.f + 2) // 2


@pytest.mark.parametrize("n", SIZES)
def test_two_slow_quorums_share_a_replica(n: int) -> None:
    assert 2 * quorums(n).slow > n


@pytest.mark.parametrize("n", SIZES)
def test_a_recovery_quorum_without_the_leader_sees_enough_of_every_fast_quorum(n: int) -> None:
    """Of `size` replicas that answer, the leader away, at most e are outside the fast quorum: rule 4 finds it."""
    sizes = quorums(n)
    for size in range(sizes.slow, n):
        seen_of_fast_quorum = max(0, sizes.fast - (n - size))
        assert sizes.fast_path_possible(size, seen_of_fast_quorum)


@pytest.mark.parametrize("n", SIZES)
def test_one_unchanged_answer_fewer_rules_the_fast_path_out(n: int) -> None:
    """Then more than e replicas have not reported the initial vector, so no fast quorum can have."""
    sizes = quorums(n)
    for size in range(sizes.slow, n + 1):
        unchanged = size - sizes.e - 1
        if unchanged >= 0:
            assert not sizes.fast_path_possible(size, unchanged)
            assert unchanged + (n - size) < sizes.fast


@pytest.mark.parametrize("n", SIZES)
def test_a_fast_path_is_never_possible_on_no_evidence_in_a_group_that_tolerates_faults(n: int) -> None:
    sizes = quorums(n)
    if sizes.f > 0 and n > 2:
        assert not sizes.fast_path_possible(sizes.slow, 0) or sizes.slow <= sizes.e


@pytest.mark.parametrize("n", [0, -1])
def test_an_empty_group_has_no_quorums(n: int) -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        quorums(n)
