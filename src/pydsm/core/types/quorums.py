"""Quorum arithmetic, for any group size (PROTOCOL 1; EPaxos*, section 2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quorums:
    """Sizes that keep a group of `n` replicas right while at most `f` are down.

    `e` is how many may be down with the fast path still open. `n >= max(2e + f - 1, 2f + 1)` holds for every n.
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
        """Whether `unchanged` of a recovery quorum still leave room for a fast commit (PROTOCOL 4, step 4)."""
        return unchanged >= quorum_size - self.e


def quorums(n: int) -> Quorums:
    """The optimised quorums of a group of `n >= 1`. Raises ValueError for an empty group."""
    if n < 1:
        raise ValueError(f"a group needs at least one replica, got {n}")
    f = (n - 1) // 2
    e = min(f, (f + 2) // 2)
    return Quorums(n, f, e)
