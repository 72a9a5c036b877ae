"""Which executed instances may leave memory (PROTOCOL 6, "sliding window").

Guards that Validate stays exact without them. An executed instance can speak against an undecided one only if some
member had heard of the latter when it executed the former: whoever hears of it later orders it behind. So what all
members have executed goes in two steps: first all of them report it, each with everything that it had heard of by then;
it leaves when this replica has durably executed all of that, because then nothing is undecided that it could speak
against. The proof is docs/explanation/log-compaction.md. When reports are sent is left to `replica`, the dropping to
`log`.
"""

from collections.abc import Iterable
from functools import reduce

from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers, merge


class Window:
    """What members have reported, and how far this replica may forget."""

    def __init__(self, me: ReplicaId, members: Iterable[ReplicaId], no_deps: Deps) -> None:
        self._me = me
        self._executed: dict[ReplicaId, Deps] = dict.fromkeys(members, no_deps)
        self._known: dict[ReplicaId, Deps] = dict.fromkeys(self._executed, no_deps)
        self._leaving = no_deps
        """Executed by all; leaves when this replica has durably executed all of `_settles_at`."""
        self._settles_at = no_deps
        self.settled = no_deps
        """Nobody can ask for what is up to here, and nothing is undecided that it could speak against."""

    def report(self, member: ReplicaId, executed: Deps, known: Deps) -> None:
        """A member has durably executed so much, and had then heard of so much.

        Reports may be late, doubled or reordered; what a member has reported stays on its disk, so the highest
        one holds.
        """
        self._executed[member] = merge(self._executed[member], executed)
        self._known[member] = merge(self._known[member], known)

    def reported(self, member: ReplicaId) -> Deps:
        """What this member has reported as executed."""
        return self._executed[member]

    def lacks(self, member: ReplicaId, id: InstanceId) -> bool:
        """Whether it has reported, and not this instance. One of which nothing was heard yet may have everything."""
        executed = self._executed[member]
        return any(executed) and not covers(executed, id)

    def lacks_some(self, member: ReplicaId, up_to: Deps) -> bool:
        """Whether there is something up to there that it has not reported."""
        return any(map(int.__lt__, self._executed[member], up_to))

    @property
    def stable(self) -> Deps:
        """What every member has executed, as far as is known here."""
        return tuple(map(min, zip(*self._executed.values(), strict=True)))

    def advance(self) -> Deps:
        """Take the next step, if it is due. Gives `settled`.

        Durably executed, so that after a crash nothing is undecided again that was decided when something left.
        """
        if all(map(int.__ge__, self._executed[self._me], self._settles_at)):
            self.settled = self._leaving
            stable = self.stable
            if stable != self.settled:
                self._leaving = stable
                self._settles_at = reduce(merge, self._known.values())
        return self.settled
