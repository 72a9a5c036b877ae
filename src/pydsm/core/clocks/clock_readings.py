"""Readings of the members' wall clocks at one replica: sent by peers, and advanced by the own monotonic clock.

Decides which readings are used. A reading is late by its time in the network, so it is a lower bound of what the
sender's clock shows. Of the readings of the last seconds the highest is used, which is the one with the shortest delay.
Guarantees that no reading older than a limit is used, so that neither a member that is down nor a slightly fast
monotonic clock moves the time of the group. `agreed_time` computes the time from the readings.
"""

from collections import deque

from pydsm.core.types.ids import ReplicaId, Tick

_BEST_OF_TICKS = 5000
"""The reading with the shortest delay among those of this long is used."""
_AGE_TICKS_MAX = 30_000
"""A member without a newer reading counts as unknown."""
_JUMP_MS_MIN = 1000
"""A step forward of the own wall clock of at least this means that the computer was suspended."""
_DISCARD_TICKS_MIN = 10_000
"""Readings are discarded at most this often: an own clock that jumps must not hide those of the others."""


class Clocks:
    """The readings at one replica. `now` is the monotonic tick (1 ms); `own_ms` the own wall clock at that tick."""

    def __init__(self, me: ReplicaId, replicas: int) -> None:
        self._me = me
        self._replicas = replicas
        self._received: dict[ReplicaId, deque[tuple[Tick, int]]] = {}
        """Per peer: arrival and difference to `now` of readings, the latest last, with falling differences, so the
        first is the best one."""
        self._newest: dict[ReplicaId, Tick] = {}
        self._own_ahead_ms: int | None = None
        self._discarded_at: Tick | None = None

    def record(self, member: ReplicaId, clock_ms: int, now: Tick) -> None:
        """Record a reading that came from a member now; 0 is none."""
        if not clock_ms or member == self._me:
            return
        readings = self._received.setdefault(member, deque())
        ahead_ms = clock_ms - now
        while readings and readings[-1][1] <= ahead_ms:
            readings.pop()
        readings.append((now, ahead_ms))
        self._newest[member] = now
        while len(readings) > 1 and readings[0][0] < now - _BEST_OF_TICKS:
            readings.popleft()

    def update(self, own_ms: int, now: Tick) -> None:
        """Call every few milliseconds. Discards all readings after a suspension of this computer."""
        before, self._own_ahead_ms = self._own_ahead_ms, own_ms - now
        if before is None or self._own_ahead_ms - before < _JUMP_MS_MIN:
            return
        if self._discarded_at is None or now - self._discarded_at >= _DISCARD_TICKS_MIN:
            self._discarded_at = now
            self._received.clear()
            self._newest.clear()

    def readings(self, own_ms: int, now: Tick) -> tuple[int, ...]:
        """The reading of each member's wall clock now, in ms; 0 for an unknown one."""
        return tuple(
            own_ms if member == self._me else self._reading(ReplicaId(member), now) for member in range(self._replicas)
        )

    def _reading(self, member: ReplicaId, now: Tick) -> int:
        newest = self._newest.get(member)
        if newest is None or newest < now - _AGE_TICKS_MAX:
            return 0
        return max(0, now + self._received[member][0][1])
