"""Measured round trips to the other members, from gossip that is echoed.

Every wait for other replicas is at least as long as the measured round trip. Otherwise, replicas with a longer round
trip than a fixed timeout would interrupt each other for ever. The measurement includes what delays a request: the
network, queues in front of a link, the write before the answer, and an event loop that gets no processor time.

A Frontier contains the tick at which it was sent, and for each member the tick of that member's last Frontier plus the
time since its arrival. So clocks need not agree, and a lost message gives no measurement, not a wrong one.
"""

from pydsm.core.types.ids import ReplicaId, Tick

DISTANCE_TICKS_MAX = 600_000
"""Limit of a measured round trip: ten minutes at one tick per millisecond, more than any network needs."""

_SLOWLY = 16
"""A longer round trip replaces the value immediately; a shorter one lowers it by this fraction of the difference."""


class Distances:
    """Round trips from one replica to each member, in ticks; 0 while nothing was measured."""

    def __init__(self, members: tuple[ReplicaId, ...]) -> None:
        self._members = members
        self._round_trips: dict[ReplicaId, float] = {}
        self._received: dict[ReplicaId, tuple[Tick, Tick]] = {}
        """Of each Frontier not echoed yet: the tick of its sending (sender's clock) and of its arrival (own clock)."""

    def heard(self, sender: ReplicaId, sent_at: Tick, now: Tick) -> None:
        """Note a received Frontier, to be echoed in the next own one."""
        self._received[sender] = (sent_at, now)

    def take_echoes(self, now: Tick) -> tuple[int, ...]:
        """For each member, the tick of its last Frontier plus the ticks since its arrival; 0 if none arrived.

        Empty if there is nothing to echo since the last call.
        """
        heard, self._received = self._received, {}
        if not heard:
            return ()
        sums = {sender: sent_at + now - heard_at for sender, (sent_at, heard_at) in heard.items()}
        return tuple(sums.get(member, 0) for member in self._members)

    def echoed(self, sender: ReplicaId, echo: int, now: Tick) -> None:
        """Measure with an echo of an own Frontier; one of an earlier start may be ahead of the clock and is ignored."""
        if 0 < echo <= now:
            self.measured(sender, now - echo)

    def measured(self, member: ReplicaId, ticks: int) -> None:
        """Record a round trip of this many ticks."""
        ticks = min(ticks, DISTANCE_TICKS_MAX)
        before = self._round_trips.get(member, 0.0)
        self._round_trips[member] = ticks if ticks >= before else before - (before - ticks) / _SLOWLY

    def to(self, member: ReplicaId) -> int:
        """Ticks of the round trip to one member."""
        return int(self._round_trips.get(member, 0))

    def to_nearest(self, count: int) -> int:
        """Ticks of the longest round trip among the `count` nearest members with a measurement; 0 if there are none."""
        return int(max(sorted(self._round_trips.values())[:count], default=0))
