"""Quorum sizes for any group size (docs/reference/protocol.md, section 1; EPaxos*, section 2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quorums:
    """Quorum sizes with which a group of `n` replicas is correct and available while at most `f` are down.

    With at most `e` down, the fast path is still possible. `n >= max(2e + f - 1, 2f + 1)` holds for every n.
    """

    n: int
    f: int
    e: int

    @property
    def slow(self) -> int:
        """Answers that decide an Accept or a Prepare."""
        return self.n - self.f

    @property
    def fast(self) -> int:
        """Replicas, the leader included, that must report the initial dependencies to commit in one round trip."""
        return self.n - self.e

    def fast_path_possible(self, quorum_size: int, unchanged: int) -> bool:
        """Whether a fast commit is possible if `unchanged` members of a recovery quorum report the initial vector.

        See docs/reference/protocol.md, section 4, step 4.
        """
        return unchanged >= quorum_size - self.e


def quorums(n: int) -> Quorums:
    """The quorums of a group of `n` replicas. Raises ValueError for `n < 1`."""
    if n < 1:
        raise ValueError(f"a group needs at least one replica, got {n}")
    f = (n - 1) // 2
    e = min(f, (f + 2) // 2)
    return Quorums(n, f, e)
