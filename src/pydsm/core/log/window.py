"""Which executed instances may leave memory (docs/reference/protocol.md, section 6, "Sliding window").

Guarantees that answers to Validate stay exact without the instances that left. An executed instance O can invalidate an
undecided instance X only if some member knew X before it executed O: a leader that proposes X later orders X after O.
So instances leave in two steps:

1. All members report O as executed, each together with the highest indexes that it knew by then.
2. O leaves when this replica has durably executed all of those indexes: then no X is undecided that O could invalidate.

The proof is in docs/explanation/log-compaction.md. `replica` sends the reports; `log` removes the instances.
"""

from collections.abc import Iterable
from functools import reduce

from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers, merge


class Window:
    """The reports of all members, and up to where this replica may remove instances from memory."""

    def __init__(self, me: ReplicaId, members: Iterable[ReplicaId], no_deps: Deps) -> None:
        self._me = me
        self._executed: dict[ReplicaId, Deps] = dict.fromkeys(members, no_deps)
        self._known: dict[ReplicaId, Deps] = dict.fromkeys(self._executed, no_deps)
        self._leaving = no_deps
        """Executed by all members; becomes `settled` when this replica has durably executed all of `_settles_at`."""
        self._settles_at = no_deps
        self.settled = no_deps
        """Per leader, the prefix that no member will request and that cannot invalidate anything undecided."""

    def report(self, member: ReplicaId, executed: Deps, known: Deps) -> None:
        """Record a report: the member has durably executed `executed`, and knew indexes up to `known` by then.

        Reports may be late, duplicated or reordered. What a member has reported stays on its disk, so the element-wise
        maximum of all its reports holds.
        """
        self._executed[member] = merge(self._executed[member], executed)
        self._known[member] = merge(self._known[member], known)

    def reported(self, member: ReplicaId) -> Deps:
        """Per leader, the prefix that this member has reported as executed."""
        return self._executed[member]

    def lacks(self, member: ReplicaId, id: InstanceId) -> bool:
        """Whether the member has sent reports and none includes this instance. False before its first report."""
        executed = self._executed[member]
        return any(executed) and not covers(executed, id)

    def lacks_some(self, member: ReplicaId, up_to: Deps) -> bool:
        """Whether the member has not reported everything up to `up_to`."""
        return any(map(int.__lt__, self._executed[member], up_to))

    @property
    def stable(self) -> Deps:
        """Per leader, the prefix that every member has reported as executed (the stable frontier)."""
        return tuple(map(min, zip(*self._executed.values(), strict=True)))

    def advance(self) -> Deps:
        """Take the next step if its condition holds. Returns `settled`."""
        # The own report counts here, not the own frontier: it arrives when its record is durable. After a crash nothing
        # is then undecided again that was decided when an instance left. `_settles_at` must be read at the time at
        # which `stable` is: it has to include every X that any member knew when it executed the instances in
        # `_leaving`. With one step instead of two an X that is still undecided could be validated when its only
        # invalidator was removed.
        if all(map(int.__ge__, self._executed[self._me], self._settles_at)):
            self.settled = self._leaving
            stable = self.stable
            if stable != self.settled:
                self._leaving = stable
                self._settles_at = reduce(merge, self._known.values())
        return self.settled
