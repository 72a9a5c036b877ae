"""Decides whether this replica can serve clients, and with which error commands are refused if it cannot.

Commands are refused immediately after no majority was connected for a time limit. Until then they wait, since most
interruptions are short. Readiness is defined in `runtime/observation`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.runtime.observation import Observation, ReadyLimits, no_majority_reason, not_ready_reason

log = logging.getLogger("pydsm.serve")

POLL_SECONDS = 0.25
"""Seconds between two calls of `Availability.check`."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """The limit on the time that clients wait."""

    answer_seconds_max: float = 10.0
    """Seconds after which a command without a result is answered with an error, and seconds without a majority after
    which commands are refused immediately."""


class Availability:
    """`reason`: why the replica is not ready, None if it is. `refusal`: why commands are refused, None if not."""

    def __init__(
        self,
        observe: Callable[[], Observation],
        ready_limits: ReadyLimits,
        limits: AnswerLimits,
        ready: Callable[[], None],
    ) -> None:
        """`ready` is called once, when the replica can serve clients for the first time."""
        self._observe = observe
        self._ready_limits = ready_limits
        self._limits = limits
        self._ready = ready
        self._was_ready: bool | None = None
        self._alone_since: float | None = None
        self._was_announced = False
        self.reason: str | None = "it is starting"
        self.refusal: str | None = None

    def check(self, now_seconds: float) -> None:
        """Update `reason` and `refusal`. `now_seconds` is the time on a monotonic clock."""
        seen = self._observe()
        self.reason = not_ready_reason(seen, self._ready_limits)
        alone = no_majority_reason(seen, self._ready_limits)
        if alone is None:
            self._alone_since = self.refusal = None
        elif self._alone_since is None:
            self._alone_since = now_seconds
        elif now_seconds - self._alone_since >= self._limits.answer_seconds_max:
            self.refusal = alone
        self._report_change()

    def _report_change(self) -> None:
        is_ready = self.reason is None
        if is_ready and not self._was_announced:
            self._was_announced = True
            self._ready()
        elif is_ready and self._was_ready is False:
            log.info("ready again")
        elif not is_ready and self._was_ready is not False:
            log.warning("not ready: %s", self.reason)
        self._was_ready = is_ready
