"""What one replica knows of its members' wall clocks: readings that peers have sent, aged by its own monotonic clock.

Decides which readings count. A reading is late by as long as it travelled, so it tells the least that the sender's
clock shows; of the readings of the last seconds the one that says most is used, which is the one that travelled least.
Guards that no reading older than a stated time is used, so that neither a member that is gone nor a monotonic clock
that runs a little fast moves the time of the group. What is made of the readings is in `agreed_time`.
"""

from collections import deque

from pydsm.core.types.ids import ReplicaId, Tick

_BEST_OF_TICKS = 5000
"""Of the readings of so long the one that travelled least is used."""
_AGE_TICKS_MAX = 30_000
"""A member of which nothing newer is known is not counted."""
_JUMP_MS_MIN = 1000
"""From here on a step forwards of the own clock is taken for a sleep of the computer, in which no peer was heard."""
_FORGET_TICKS_MIN = 10_000
"""Readings are given up at most so often: an own clock that leaps about must not silence those of the others."""


class Clocks:
    """Of one replica. `now` is monotonic, in ticks of a millisecond; `own_ms` what its wall clock shows then."""

    def __init__(self, me: ReplicaId, replicas: int) -> None:
        self._me = me
        self._replicas = replicas
        self._heard: dict[ReplicaId, deque[tuple[Tick, int]]] = {}
        """Per peer when a reading came and how far it was ahead of `now`: the latest last, each less than that before,
        so that the first is the best one."""
        self._newest: dict[ReplicaId, Tick] = {}
        self._own_ahead_ms: int | None = None
        self._forgot_at: Tick | None = None

    def hear(self, member: ReplicaId, clock_ms: int, now: Tick) -> None:
        """A reading of a peer came; 0 is none."""
        if not clock_ms or member == self._me:
            return
        heard = self._heard.setdefault(member, deque())
        ahead_ms = clock_ms - now
        while heard and heard[-1][1] <= ahead_ms:
            heard.pop()
        heard.append((now, ahead_ms))
        self._newest[member] = now
        while len(heard) > 1 and heard[0][0] < now - _BEST_OF_TICKS:
            heard.popleft()

    def look(self, own_ms: int, now: Tick) -> None:
        """Call every few milliseconds: notices when this computer slept, and gives up what was heard before."""
        before, self._own_ahead_ms = self._own_ahead_ms, own_ms - now
        if before is None or self._own_ahead_ms - before < _JUMP_MS_MIN:
            return
        if self._forgot_at is None or now - self._forgot_at >= _FORGET_TICKS_MIN:
            self._forgot_at = now
            self._heard.clear()
            self._newest.clear()

    def readings(self, own_ms: int, now: Tick) -> tuple[int, ...]:
        """What each member's clock shows now, as far as is known; 0 where it is not."""
        return tuple(
            own_ms if member == self._me else self._reading(ReplicaId(member), now) for member in range(self._replicas)
        )

    def _reading(self, member: ReplicaId, now: Tick) -> int:
        newest = self._newest.get(member)
        if newest is None or newest < now - _AGE_TICKS_MAX:
            return 0
        return max(0, now + self._heard[member][0][1])
