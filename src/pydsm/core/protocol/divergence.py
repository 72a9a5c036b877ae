"""Compares the states of the members at checkpoints, where they must be equal.

Members send each other the digests of their snapshots, part by part. The agreed state is that of a slow quorum, and a
replica with another state must stop. Guarantees that a minority cannot stop a replica. When digests are sent is decided
in `replica`; stopping the replica is left to the runtime.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import DIGEST_PARTS_MAX, StateDigest
from pydsm.core.types.quorums import Quorums

PART_BYTES = 16

_CHECKPOINTS_KEPT = 4


def fold(digests: Sequence[bytes]) -> tuple[bytes, ...]:
    """At most `messages.DIGEST_PARTS_MAX` digests of 16 bytes, each of an equal number of adjacent chunks."""
    together = chunks_in_part(len(digests))
    return tuple(
        hashlib.blake2b(b"".join(digests[place : place + together]), digest_size=PART_BYTES).digest()
        for place in range(0, len(digests), together)
    )


def chunks_in_part(chunks: int) -> int:
    """Number of adjacent chunks per digest, for a snapshot of `chunks` chunks."""
    return max(1, -(-chunks // DIGEST_PARTS_MAX))


@dataclass(frozen=True, slots=True)
class DivergenceReport:
    """This replica's state differs from the agreed one."""

    number: int
    """Number of the checkpoint."""
    agreeing: tuple[ReplicaId, ...]
    """Replicas of the slow quorum with equal states; empty if no slow quorum can have equal states any more."""
    part: int
    """The first part that differs from their state, or from that of some other member if `agreeing` is empty."""

    def __str__(self) -> str:
        whose = f"that of replicas {', '.join(map(str, self.agreeing))}" if self.agreeing else "any that a quorum has"
        return f"the state at checkpoint {self.number} is not {whose}: part {self.part} is the first that differs"


@dataclass(slots=True)
class Divergence:
    """The digests that members have sent of their states at the last few checkpoints."""

    me: ReplicaId
    quorums: Quorums
    _reported: dict[ReplicaId, dict[int, tuple[bytes, ...]]] = field(default_factory=dict)
    """Digests by member and checkpoint. Limited per member, so that wrong numbers of one displace only its own."""

    def record(self, member: ReplicaId, digest: StateDigest) -> DivergenceReport | None:
        """Record a digest of a member or of this replica; returns a report if this replica's state diverged."""
        states = self._reported.setdefault(member, {})
        if digest.number not in states and len(states) >= _CHECKPOINTS_KEPT:
            oldest = min(states)
            if digest.number < oldest:
                return None
            del states[oldest]
        states[digest.number] = digest.parts
        return self._compare_states(digest.number, self._of_members(digest.number))

    def _of_members(self, number: int) -> dict[ReplicaId, tuple[bytes, ...]]:
        """The digests of the state at one checkpoint, by member."""
        return {member: states[number] for member, states in self._reported.items() if number in states}

    def disputes(self, digest: StateDigest) -> bool:
        """Whether some member has sent another state at this checkpoint, and no slow quorum has sent this one."""
        told = self._of_members(digest.number).values()
        same = sum(parts == digest.parts for parts in told)
        return same < len(told) and same < self.quorums.slow

    def _compare_states(self, number: int, of_members: dict[ReplicaId, tuple[bytes, ...]]) -> DivergenceReport | None:
        mine = of_members.get(self.me)
        if mine is None:
            return None
        by_state: dict[tuple[bytes, ...], list[ReplicaId]] = {}
        for member in sorted(of_members):
            by_state.setdefault(of_members[member], []).append(member)
        most = max(by_state.values(), key=len)
        if len(most) >= self.quorums.slow:
            if self.me in most:
                return None
            return DivergenceReport(number, tuple(most), _first_difference(mine, of_members[most[0]]))
        silent = self.quorums.n - len(of_members)
        if len(most) + silent >= self.quorums.slow:
            return None
        other = next(member for member in sorted(of_members) if of_members[member] != mine)
        return DivergenceReport(number, (), _first_difference(mine, of_members[other]))


def _first_difference(mine: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    pairs = enumerate(zip(mine, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(mine), len(other)))
