"""Simulates the wall clocks of the replicas, right and wrong ones, and checks the bounds of agreed time.

Decides the time of each clock: right clocks differ a little; the plan moves wrong ones by any offset, and lets them run
at any speed. Checks, in every step, that a minority of wrong clocks has no effect on these bounds:

- A batch is proposed only if there is agreed time. Its time of execution is never later than the latest right clock,
  and its stamp is never earlier than the beginning of the run. Wrong clocks of the plan are off by more than a run
  lasts, so the effect of each of them would be detected. Therefore nothing expires early by more than the difference of
  the right clocks and the time for which clock readings travelled.
- Agreed time, set at checkpoints, has the same bounds, and never goes back.
- A session does not expire before it was idle for as long as the limits say, apart from these differences.
"""

from collections.abc import Container, Iterable

from pydsm.core.types.ids import InstanceId, SessionId
from pydsm.core.types.messages import Batch
from pydsm.sim.base.schedule import EventSchedule
from pydsm.sim.base.settings import BEGAN_MS, RIGHT_MS_MAX, Settings
from pydsm.sim.base.violation import Violation


class WallClocks:
    """All clocks of one run. `wrong` are the replicas whose clocks the plan moves."""

    def __init__(self, schedule: EventSchedule, settings: Settings) -> None:
        self._schedule = schedule
        self._replicas = range(settings.replicas)
        self._idle_ms = settings.session_idle_ms_max
        offsets_ms = settings.wall_offsets_ms or (0,) * settings.replicas
        self._shown = [(0, BEGAN_MS + offset_ms, 1.0) for offset_ms in offsets_ms]
        """Per replica, when its clock was last moved, its time then, and its speed."""
        self.wrong: frozenset[int] = frozenset()
        self._proposed_at_ms: dict[InstanceId, int] = {}
        self._late_ms_max = 0
        """The maximum difference of a stamp from the earliest right clock, since readings travel."""

    @property
    def now_ms(self) -> int:
        """The true time."""
        return BEGAN_MS + self._schedule.now // 1000

    def show(self, replica: int) -> int:
        """The time of this replica's clock."""
        since_us, shown_ms, rate = self._shown[replica]
        return max(1, shown_ms + int((self._schedule.now - since_us) * rate) // 1000)

    def move(self, replica: int, offset_ms: int, rate: float) -> None:
        """From now on this clock is off by this offset, and runs at this speed."""
        self._shown[replica] = (self._schedule.now, self.now_ms + offset_ms, rate)

    def _of_right_ones(self) -> list[int]:
        return [self.show(replica) for replica in self._replicas if replica not in self.wrong]

    # checks; without wrong clocks nothing is recorded

    def proposed(self, name: str, id: InstanceId, batch: Batch, agreed_ms: int) -> None:
        """Check the stamp of a batch that is proposed; agreed time at its proposer is `agreed_ms`."""
        if not agreed_ms:
            raise Violation("time of a batch", f"{name} proposes {id} before there is agreed time", (id,))
        if not self.wrong:
            return
        self._proposed_at_ms[id] = self.now_ms
        if batch.timestamp_ms >= BEGAN_MS - RIGHT_MS_MAX:
            self._late_ms_max = max(self._late_ms_max, min(self._of_right_ones()) - batch.timestamp_ms)
        else:
            raise Violation("time of a batch", f"{name} stamps {id} with {self._against(batch.timestamp_ms)}", (id,))

    def executed(self, name: str, id: InstanceId, time_ms: int) -> None:
        """Check the time at which a process executes a batch."""
        if self.wrong and time_ms > self._latest_ms():
            raise Violation("time of a batch", f"{name} executes {id} at {self._against(time_ms)}", (id,))

    def advanced(self, name: str, before_ms: int, after_ms: int) -> None:
        """Check agreed time after a checkpoint."""
        if not self.wrong or not after_ms:
            return
        if not self._is_right(after_ms):
            raise Violation("agreed time", f"{name} has agreed time {self._against(after_ms)}")
        if after_ms < before_ms:
            raise Violation("agreed time", f"agreed time goes back at {name}, from {before_ms} to {after_ms}")

    def last_use_ms(self, id: InstanceId) -> int | None:
        """When a batch was proposed, or None."""
        return self._proposed_at_ms.get(id)

    def sessions_expired(
        self, name: str, before: Iterable[SessionId], after: Container[SessionId], used: dict[SessionId, int]
    ) -> None:
        """Check the sessions that a checkpoint has expired at a process; `used` has the times of their last use."""
        for session in before:
            if session not in after and session in used:
                idle_ms = self.now_ms - used[session] + 2 * RIGHT_MS_MAX + self._late_ms_max
                if idle_ms < self._idle_ms:
                    what = (
                        f"{name} expires {session.hex()}, used {self.now_ms - used[session]} ms ago; it may be idle for"
                    )
                    raise Violation("session expired early", f"{what} {self._idle_ms} ms")

    def _is_right(self, time_ms: int) -> bool:
        return BEGAN_MS - RIGHT_MS_MAX <= time_ms <= self._latest_ms()

    def _latest_ms(self) -> int:
        return max(self._of_right_ones()) + 1

    def _against(self, time_ms: int) -> str:
        right = self._of_right_ones()
        return f"{time_ms}, while right clocks show {min(right)} to {max(right)}, and the first showed {BEGAN_MS}"
