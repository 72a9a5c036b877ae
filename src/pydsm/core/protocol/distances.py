"""How far the other members are: measured round trips, from gossip that comes back.

Every wait for others is at least as long as this says, or replicas that are farther from each other than a fixed
timeout would interrupt each other for ever. What is measured is what a request meets: the way, the queue in front of a
link, the write before the answer, and a loop that gets no processor.

A Frontier carries the tick at which it was made, and for each member the tick of that member's last Frontier, moved on
by as long as it lay here. So clocks need not agree, and a message that was lost, or a link that was cut, gives no
measurement at all, not a wrong one.
"""

from pydsm.core.types.ids import ReplicaId, Tick

DISTANCE_TICKS_MAX = 600_000
"""Longer round trips are taken for this: ten minutes, farther than any network is."""

_SLOWLY = 16
"""A longer round trip counts at once, a shorter one by this part: what was slow is expected to be slow again."""


class Distances:
    """Round trips from one replica, in ticks; 0 as long as nothing is known."""

    def __init__(self, members: tuple[ReplicaId, ...]) -> None:
        self._members = members
        self._round_trips: dict[ReplicaId, float] = {}
        self._heard: dict[ReplicaId, tuple[Tick, Tick]] = {}
        """Of Frontiers that were not echoed yet: made when, by their sender's clock, and heard when, by ours."""

    def heard(self, sender: ReplicaId, sent_at: Tick, now: Tick) -> None:
        """A Frontier has come, to be echoed in the next own one."""
        self._heard[sender] = (sent_at, now)

    def take_echoes(self, now: Tick) -> tuple[int, ...]:
        """For each member the tick of its last Frontier plus how long it lay here; 0 for none since the last call.

        Empty when there is nothing to echo.
        """
        heard, self._heard = self._heard, {}
        if not heard:
            return ()
        sums = {sender: sent_at + now - heard_at for sender, (sent_at, heard_at) in heard.items()}
        return tuple(sums.get(member, 0) for member in self._members)

    def echoed(self, sender: ReplicaId, echo: int, now: Tick) -> None:
        """An own Frontier came back. One of an earlier start of this replica may be ahead of its clock: no measure."""
        if 0 < echo <= now:
            self.measured(sender, now - echo)

    def measured(self, member: ReplicaId, ticks: int) -> None:
        """A question was answered after so long."""
        ticks = min(ticks, DISTANCE_TICKS_MAX)
        before = self._round_trips.get(member, 0.0)
        self._round_trips[member] = ticks if ticks >= before else before - (before - ticks) / _SLOWLY

    def to(self, member: ReplicaId) -> int:
        """The round trip to one member."""
        return int(self._round_trips.get(member, 0))

    def to_nearest(self, count: int) -> int:
        """The round trip to the farthest of the `count` nearest members of which one is known."""
        return int(max(sorted(self._round_trips.values())[:count], default=0))
