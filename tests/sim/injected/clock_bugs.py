"""Bugs with which a single wrong clock changes the agreed time. `finds` lists the run that finds each."""

import pytest

from pydsm.core.clocks.agreed_time import AgreedTime
from pydsm.core.sessions import sessions
from pydsm.core.sessions.sessions import Sessions
from pydsm.runtime.clock import GroupClock
from tests.sim.injected.registry import bug


@bug("7, agreed time: the timestamp of a checkpoint does not come from one clock (how it was: the proposer's)")
def sessions_expire_by_the_clock_of_one_replica(patch: pytest.MonkeyPatch) -> None:
    original = GroupClock.for_checkpoint

    def for_checkpoint(self: GroupClock) -> tuple[int, tuple[int, ...]]:
        own_ms = self.wall_ms()
        return own_ms, (own_ms,) * len(self._clocks.readings(own_ms, self._now()))

    patch.setattr(GroupClock, "for_checkpoint", for_checkpoint)
    patch.setattr(GroupClock, "batch_ms", lambda self: (self._sessions.time.ms and original(self)[0]) or None)
    _without_bounds(patch)


@bug("7, agreed time: batches are not stamped with one clock alone (how it was: the proposer's)")
def batches_stamped_with_the_own_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupClock, "batch_ms", lambda self: self.wall_ms() if self._sessions.time.ms else None)
    _without_bounds(patch)


@bug("7, agreed time: only checkpoints are proposed before it is set (how it was: batches too)")
def batches_proposed_before_any_agreed_time(patch: pytest.MonkeyPatch) -> None:
    original = AgreedTime.admits
    patch.setattr(AgreedTime, "admits", lambda self, timestamp_ms: not self.ms or original(self, timestamp_ms))
    patch.setattr(AgreedTime, "is_due", lambda self, clocks: False)


@bug("7, agreed time: the latest reading is not taken")
def the_clock_that_is_most_ahead_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AgreedTime, "reading", lambda self, clocks: max(clocks) or None)


@bug("7, agreed time: where a clock is not known, one that is behind does not set time back")
def a_clock_that_is_behind_sets_time_back(patch: pytest.MonkeyPatch) -> None:
    def advance(self: AgreedTime, clocks: tuple[int, ...]) -> None:
        self.ms = self.reading(clocks) or self.ms

    patch.setattr(AgreedTime, "reading", lambda self, clocks: min((one for one in clocks if one), default=None))
    patch.setattr(AgreedTime, "advance", advance)


@bug("7: an expired session is refused at any time, or a late retry is executed twice")
def time_alone_tells_what_was_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Sessions._expire_idle

    def forget_idle(self: Sessions) -> None:
        original(self)
        self._expired_ms = min(self._expired_ms, self.time.ms - 10 * self._limits.idle_ms_max)

    patch.setattr(sessions.Sessions, "_expire_idle", forget_idle)


def _without_bounds(patch: pytest.MonkeyPatch) -> None:
    """Timestamps are accepted without bounds."""

    def advance(self: AgreedTime, clocks: tuple[int, ...]) -> None:
        self.ms = max(self.ms, *clocks) if clocks else self.ms

    patch.setattr(AgreedTime, "advance", advance)
    patch.setattr(AgreedTime, "of_batch", lambda self, timestamp_ms: timestamp_ms)
    patch.setattr(AgreedTime, "admits", lambda self, timestamp_ms: True)
