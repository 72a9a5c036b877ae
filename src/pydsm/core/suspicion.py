"""When to look into an instance that stays undecided: patience, jitter, backoff (PROTOCOL 4).

One entry per suspected instance, none for the others: late ones are found by looking through what is unexecuted,
oldest first, so a healthy instance never costs a timer. Looking into it is left to `recoverer`.
"""

from dataclasses import dataclass

from pydsm.core.ballots import Ballot
from pydsm.core.config import Config
from pydsm.core.ids import InstanceId, Tick
from pydsm.core.timers import jitter


@dataclass(slots=True)
class Suspicion:
    """What is remembered about a late instance."""

    next_look: Tick
    highest: Ballot
    """The highest ballot that a refusal told of."""
    inquiries: int = 0
    attempts: int = 0


INQUIRIES_BEFORE_RECOVERY = 2
"""Asking one peer counts once, asking all of them counts twice."""


class Suspicions:
    """The late instances of one replica."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._by_id: dict[InstanceId, Suspicion] = {}

    def of(self, id: InstanceId, since: Tick) -> Suspicion:
        """The suspicion of an instance that was first heard of at `since`, made if there is none."""
        suspicion = self._by_id.get(id)
        if suspicion is None:
            first_look = Tick(since + self._config.recovery_timeout_ticks + self._jitter(id, 0))
            suspicion = self._by_id[id] = Suspicion(first_look, Ballot(0, id.leader))
        return suspicion

    def forget(self, id: InstanceId) -> None:
        """The instance is decided."""
        self._by_id.pop(id, None)

    def postpone(self, id: InstanceId, now: Tick) -> None:
        """Another replica is looking into it: give it time, and more after each attempt of our own.

        A patience that never grew could be shorter than a recovery takes: two replicas would stop each other for ever.
        """
        suspicion = self.of(id, now)
        suspicion.next_look = Tick(now + self._patience(suspicion) + self._jitter(id, now))

    def back_off(self, id: InstanceId, now: Tick, seen: Ballot) -> None:
        """Our attempt failed, and `seen` is the highest ballot that it met: the next one comes later each time."""
        suspicion = self.of(id, now)
        suspicion.highest = max(suspicion.highest, seen)
        wait = self._patience(suspicion)
        spread = jitter(self._config.seed, self._config.replica, *id, suspicion.attempts, now, below=wait)
        suspicion.next_look = Tick(now + wait // 2 + spread)

    def _patience(self, suspicion: Suspicion) -> int:
        """Doubles with each attempt made here, up to the configuration's longest."""
        config = self._config
        return min(config.recovery_timeout_ticks << min(suspicion.attempts, 16), config.recovery_patience_ticks_max)

    def _jitter(self, id: InstanceId, salt: int) -> int:
        """Replicas take turns, the instance's own leader first, so that two of them seldom recover one instance."""
        config = self._config
        turn = (config.replica - id.leader) % config.replicas
        spread = jitter(config.seed, config.replica, *id, salt, below=config.recovery_jitter_ticks)
        return turn * config.recovery_jitter_ticks + spread
