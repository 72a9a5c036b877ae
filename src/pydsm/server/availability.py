"""Decides whether this replica can serve clients, and with which error commands are refused when it cannot.

Decides when commands are refused immediately: after no majority was seen for a stated time. Until then they wait, since
most interruptions are short. What readiness is, `runtime/observation` says.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.runtime.observation import Observation, ReadyLimits, no_majority_reason, not_ready_reason

log = logging.getLogger("pydsm.serve")

POLL_SECONDS = 0.25
"""How often `Availability.look` is to be called."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How long clients wait."""

    answer_seconds_max: float = 10.0
    """After which a command that has no result is answered with an error; and for which no majority must have been
    seen before commands are refused immediately."""


class Availability:
    """`reason` says why the replica is not ready, None when it is; `refusal` why commands are refused, None if not."""

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

    def look(self, now_seconds: float) -> None:
        """See how things are now, on a clock that never goes back."""
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
