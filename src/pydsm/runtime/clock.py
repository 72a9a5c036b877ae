"""The group's time at one replica, from the clocks of all members, so that one wrong clock is detected without effect.

Decides the timestamps of batches and grants: they come from the readings of several clocks, never from the replica's
own clock alone. Guarantees that a replica whose clock differs from the group's time by more than a stated amount logs
this and is not ready (`observation`). How agreement uses the readings is in `core/clocks/agreed_time`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydsm.core.clocks.clock_readings import Clocks
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId, Tick

log = logging.getLogger("pydsm.clock")

DIFFERENCE_MS_MAX = 10_000
"""See `GroupClock`. Readings are late by their network delay, which counts as a difference too."""
_LOG_AGAIN_TICKS = 60_000
_CHECK_TICKS = 500


def unix_ms() -> int:
    """The wall clock: Unix time in ms."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class ClockReport:
    """The clocks of all members as read by one replica at one time, in milliseconds; times are Unix times."""

    own_ms: int = 0
    group_ms: int | None = None
    """The group's time (`core.clocks.agreed_time`); None while too few clocks are known."""
    agreed_ms: int = 0
    """Agreed time, set by the last checkpoint executed here; 0 before the first."""
    differences_ms: Mapping[ReplicaId, int] = field(default_factory=dict)
    """By how much each peer's clock is ahead of the own one; peers whose clock is unknown are missing."""
    difference_ms_max: int = DIFFERENCE_MS_MAX
    contradictory: bool = False
    """Whether the clocks contradict each other, and there is no agreed time yet to decide between them."""

    name_of: Callable[[ReplicaId], str] = "replica {}".format
    """The name of a member, for logs and messages."""

    @property
    def difference_ms(self) -> int | None:
        """By how much the own clock is ahead of the group's time."""
        return None if self.group_ms is None else self.own_ms - self.group_ms

    @property
    def fault(self) -> str | None:
        """One line that states why the own clock is wrong or uncertain; None if it is right."""
        difference = self.difference_ms
        differences = sorted(self.differences_ms.items())
        peers = ", ".join(f"{ms / 1000:+.1f} s at {self.name_of(peer)}" for peer, ms in differences)
        if self.contradictory:
            return (
                "this group is new, so there is no agreed time yet, and the clocks that are known contradict each "
                f"other: {_show(self.own_ms)} here (compared with it, the clocks of the others: {peers}); commands "
                "wait until they agree: set the clock that is wrong, or start the other members"
            )
        if difference is None or abs(difference) <= self.difference_ms_max:
            return None
        direction = "ahead of" if difference > 0 else "behind"
        return (
            f"its clock shows {_show(self.own_ms)} and is {abs(difference) / 1000:.1f} s {direction} the group's time, "
            f"{_show(self.own_ms - difference)} (compared with it, the clocks of the others: {peers}); up to "
            f"{self.difference_ms_max / 1000:g} s are allowed: set the clock, and synchronise it with NTP"
        )


class GroupClock:
    """The group's time at one replica.

    `wall_ms` reads its wall clock, `now` its monotonic one; `sessions` have agreed time. A clock that differs from the
    group's time by more than `difference_ms_max` is wrong. Raises UsageError for a `difference_ms_max` of 0 or less.
    """

    def __init__(
        self,
        me: ReplicaId,
        replicas: int,
        sessions: Sessions,
        now: Callable[[], Tick],
        wall_ms: Callable[[], int] = unix_ms,
        difference_ms_max: int = DIFFERENCE_MS_MAX,
        name_of: Callable[[ReplicaId], str] = "replica {}".format,
    ) -> None:
        if difference_ms_max <= 0:
            raise UsageError(f"the allowed clock difference must be above 0, not {difference_ms_max} ms")
        self._me = me
        self._name_of = name_of
        self._clocks = Clocks(me, replicas)
        self._sessions = sessions
        self._now = now
        self.wall_ms = wall_ms
        self._difference_ms_max = difference_ms_max
        self._logged_at: Tick | None = None
        self._next_check = Tick(0)

    def record(self, member: ReplicaId, clock_ms: int) -> None:
        """Record the clock reading that a peer has sent; 0 means no reading."""
        self._clocks.record(member, clock_ms, self._now())

    def group_ms(self) -> int | None:
        """The group's time. None while too few clocks are known."""
        return self.for_checkpoint()[0] or None

    def batch_ms(self) -> int | None:
        """The timestamp for a batch proposed now, if the batch would be executed at this time; None means wait.

        It is None shortly after a start, when the group's time is unknown; before the first checkpoint, when there is
        no agreed time; and after the whole group was down, when agreed time is far behind.
        """
        group_ms = self.group_ms()
        return group_ms if group_ms and self._sessions.time.admits(group_ms) else None

    def session_ms(self) -> int:
        """The start time of a session that begins now: by the group's time, and later than all expired sessions."""
        return self._sessions.grant_ms(self.group_ms() or self.wall_ms())

    def for_checkpoint(self) -> tuple[int, tuple[int, ...]]:
        """The timestamp of a checkpoint and the readings of all clocks, for a proposal."""
        readings = self._clocks.readings(self.wall_ms(), self._now())
        return self._sessions.time.reading(readings) or 0, readings

    def checkpoint_is_due(self) -> bool:
        """Whether agreed time needs a checkpoint."""
        return self._sessions.time.is_due(self.for_checkpoint()[1])

    def report(self) -> ClockReport:
        """The clocks at this time."""
        group_ms, readings = self.for_checkpoint()
        own_ms = readings[self._me]
        known = {ReplicaId(peer): reading for peer, reading in enumerate(readings) if reading and peer != self._me}
        differences = {peer: reading - own_ms for peer, reading in known.items()}
        time = self._sessions.time
        return ClockReport(
            own_ms,
            group_ms or None,
            time.ms,
            differences,
            self._difference_ms_max,
            time.is_uncertain(readings),
            self._name_of,
        )

    def update(self) -> None:
        """Update the readings. Call every few milliseconds."""
        self._clocks.update(self.wall_ms(), self._now())

    def check(self) -> None:
        """Call periodically. Logs a wrong clock when it is detected, then once a minute, and when it is right again."""
        now = self._now()
        if now < self._next_check:
            return
        self._next_check = Tick(now + _CHECK_TICKS)
        report = self.report()
        fault = report.fault
        if fault is not None and (self._logged_at is None or now - self._logged_at >= _LOG_AGAIN_TICKS):
            self._logged_at = now
            log.error("%s is not ready: %s", self._name_of(self._me), fault)
        elif fault is None and report.group_ms is not None and self._logged_at is not None:
            self._logged_at = None
            log.info("the clock of %s agrees with the group's time again", self._name_of(self._me))


def _show(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
