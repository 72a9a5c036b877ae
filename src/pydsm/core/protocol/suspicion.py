"""When to look into an instance that stays undecided: patience, jitter, backoff (PROTOCOL 4).

One entry per suspected instance, none for the others: late ones are found by looking through what is unexecuted,
oldest first, so a healthy instance never costs a timer. Looking into it is left to `recoverer`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydsm.core.protocol.distances import DISTANCE_TICKS_MAX, Distances
from pydsm.core.protocol.timers import jitter
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.config import Config
from pydsm.core.types.ids import InstanceId, ReplicaId, Tick


@dataclass(slots=True)
class Suspicion:
    """What is remembered about a late instance."""

    next_look: Tick
    highest: Ballot
    """The highest ballot that a refusal told of."""
    inquiries: int = 0
    attempts: int = 0
    slowest_ticks: int = 0
    """How long the answers to our own recoveries of it have taken, those that came too late included."""
    begun: dict[Ballot, Tick] = field(default_factory=dict)
    """When each of our own ballots began, the last few."""


_FAR = 3
"""Round trips after which an answer is late."""
_LONGEST = 8
"""Round trips: a recovery takes four."""
_SILENT_RETRIES = 8
"""Retry waits for which a member of a quorum may be silent in the first attempt."""
_BALLOTS_KEPT = 32

INQUIRIES_BEFORE_RECOVERY = 2
"""Asking one peer counts once, asking all of them counts twice."""


class Suspicions:
    """The late instances of one replica."""

    def __init__(self, config: Config, distances: Distances, quorum: int) -> None:
        self._config = config
        self._distances = distances
        self._quorum = quorum
        self._by_id: dict[InstanceId, Suspicion] = {}

    def of(self, id: InstanceId, since: Tick) -> Suspicion:
        """The suspicion of an instance that was first heard of at `since`, made if there is none."""
        suspicion = self._by_id.get(id)
        if suspicion is None:
            first_look = Tick(since + self._base(id) + self._jitter(id, 0))
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
        suspicion.next_look = Tick(now + self._patience(id, suspicion) + self._jitter(id, now))

    def begin(self, id: InstanceId, ballot: Ballot, now: Tick) -> None:
        """A recovery of our own begins."""
        suspicion = self.of(id, now)
        suspicion.attempts += 1
        suspicion.begun[ballot] = now
        if len(suspicion.begun) > _BALLOTS_KEPT:
            del suspicion.begun[next(iter(suspicion.begun))]

    def answered(self, id: InstanceId, ballot: Ballot, now: Tick) -> None:
        """Somebody answers a question of ours, perhaps one that we have given up: that tells how long we must wait."""
        suspicion = self._by_id.get(id)
        if suspicion is not None and ballot in suspicion.begun:
            taken = min(now - suspicion.begun[ballot], DISTANCE_TICKS_MAX)
            suspicion.slowest_ticks = max(suspicion.slowest_ticks, taken)

    def silence_ticks(self, id: InstanceId, members: Iterable[ReplicaId], since: Tick) -> int:
        """How long members that must all answer may be silent before they are taken for dead.

        Twice as long with each attempt: what is too short for this network does not stay too short.
        """
        suspicion = self.of(id, since)
        far = max((self._distances.to(member) for member in members), default=0)
        wait = max(_SILENT_RETRIES * self._config.retry_ticks, _FAR * far) << min(max(0, suspicion.attempts - 1), 16)
        return min(wait, self._longest(id, suspicion))

    def back_off(self, id: InstanceId, now: Tick, seen: Ballot) -> None:
        """Our attempt failed, and `seen` is the highest ballot that it met: the next one comes later each time."""
        suspicion = self.of(id, now)
        suspicion.highest = max(suspicion.highest, seen)
        wait = self._patience(id, suspicion)
        spread = jitter(self._config.seed, self._config.replica, *id, suspicion.attempts, now, below=wait)
        suspicion.next_look = Tick(now + wait // 2 + spread)

    def _far(self, id: InstanceId) -> int:
        """A recovery needs a quorum, and its instance's own leader has to do without one as long as it is alive."""
        return max(self._distances.to(id.leader), self._distances.to_nearest(self._quorum - 1))

    def _base(self, id: InstanceId) -> int:
        """How long an instance may stay undecided: the slow path takes its leader two round trips."""
        return max(self._config.recovery_timeout_ticks, _FAR * self._far(id))

    def _patience(self, id: InstanceId, suspicion: Suspicion) -> int:
        """Doubles with each attempt made here."""
        return min(self._base(id) << min(suspicion.attempts, 16), self._longest(id, suspicion))

    def _longest(self, id: InstanceId, suspicion: Suspicion) -> int:
        """The longest wait: the configuration's, or several times what a recovery takes here, if that is more."""
        taken = max(self._far(id), suspicion.slowest_ticks)
        return max(self._config.recovery_backoff_ticks_max, _LONGEST * taken)

    def _jitter(self, id: InstanceId, salt: int) -> int:
        """Replicas take turns, the instance's own leader first, so that two of them seldom recover one instance."""
        config = self._config
        turn = (config.replica - id.leader) % config.replicas
        step = max(config.recovery_jitter_ticks, self._far(id) // 2)
        spread = jitter(config.seed, config.replica, *id, salt, below=step)
        return turn * step + spread
