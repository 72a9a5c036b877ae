"""When to query or recover an instance that stays undecided: timeout, jitter, backoff.

See docs/reference/protocol.md#4-recovery, "Waits". Guarantees that every wait grows with the measured round trips and
with the number of attempts, so that on a slow network replicas do not interrupt each other for ever. There is one entry
per late instance and none for others: late ones are found by a scan of unexecuted instances, so that an instance
decided in time needs no timer. The scan, the queries and the recovery itself are left to `recoverer`.
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
    """State of a late instance. Times and durations are in ticks."""

    next_look: Tick
    highest: Ballot
    """The highest ballot that any refusal reported."""
    inquiries: int = 0
    first_turn: int = 0
    """Whose turn it was when it was first asked about: a place among the peers, modulo their number."""
    attempts: int = 0
    slowest_ticks: int = 0
    """The longest time that an answer to an own recovery of it took, including answers that came too late."""
    begun: dict[Ballot, Tick] = field(default_factory=dict)
    """When each own ballot began, for the last `_BALLOTS_KEPT` ballots."""


_FAR = 3
"""Round trips after which an answer is late."""
_LONGEST = 8
"""Round trips in the longest wait: a recovery takes four."""
_SILENT_RETRIES = 8
"""Retry intervals for which a member of a quorum may be silent in the first attempt."""
_BALLOTS_KEPT = 32

INQUIRIES_BEFORE_RECOVERY = 2
"""A CommitQuery to one peer counts once, one to all peers counts twice."""


class Suspicions:
    """The late instances of one replica."""

    def __init__(self, config: Config, distances: Distances, quorum: int) -> None:
        self._config = config
        self._distances = distances
        self._quorum = quorum
        self._by_id: dict[InstanceId, Suspicion] = {}

    def of(self, id: InstanceId, since: Tick) -> Suspicion:
        """The suspicion of an instance that was first known at tick `since`, created if there is none."""
        suspicion = self._by_id.get(id)
        if suspicion is None:
            first_look = Tick(since + self._base(id) + self._jitter(id, 0))
            suspicion = self._by_id[id] = Suspicion(first_look, Ballot(0, id.leader))
        return suspicion

    def forget(self, id: InstanceId) -> None:
        """Remove the suspicion of a decided instance."""
        self._by_id.pop(id, None)

    def postpone(self, id: InstanceId, now: Tick) -> None:
        """Delay the own recovery, because another replica is recovering the instance."""
        # The delay must grow with the own attempts. A constant one could be shorter than a recovery takes on this
        # network; then two replicas would supersede each other's ballots for ever, and neither would decide.
        suspicion = self.of(id, now)
        suspicion.next_look = Tick(now + self._backoff(id, suspicion) + self._jitter(id, now))

    def begin(self, id: InstanceId, ballot: Ballot, now: Tick) -> None:
        """Record that an own recovery begins in `ballot`."""
        suspicion = self.of(id, now)
        suspicion.attempts += 1
        suspicion.begun[ballot] = now
        if len(suspicion.begun) > _BALLOTS_KEPT:
            del suspicion.begun[next(iter(suspicion.begun))]

    def answered(self, id: InstanceId, ballot: Ballot, now: Tick) -> None:
        """Measure how long an answer to an own recovery took, also if its ballot was given up meanwhile."""
        suspicion = self._by_id.get(id)
        if suspicion is not None and ballot in suspicion.begun:
            taken = min(now - suspicion.begun[ballot], DISTANCE_TICKS_MAX)
            suspicion.slowest_ticks = max(suspicion.slowest_ticks, taken)

    def silence_ticks(self, id: InstanceId, members: Iterable[ReplicaId], since: Tick) -> int:
        """Ticks for which members that must all answer may be silent before they are treated as failed.

        The time doubles with each attempt, so that a limit that is too short for this network does not stay too short.
        """
        suspicion = self.of(id, since)
        far = max((self._distances.to(member) for member in members), default=0)
        wait = max(_SILENT_RETRIES * self._config.retry_ticks, _FAR * far) << min(max(0, suspicion.attempts - 1), 16)
        return min(wait, self._longest(id, suspicion))

    def wait_ticks(self, id: InstanceId, since: Tick) -> int:
        """Ticks for which a recovery waits for invalidators before it is given up and tried with another quorum.

        As long as the longest wait between two recoveries, in which each of the invalidators can be recovered.
        """
        return self._longest(id, self.of(id, since))

    def back_off(self, id: InstanceId, now: Tick, seen: Ballot) -> None:
        """Schedule the next attempt after a failed one; `seen` is the highest ballot that refused it."""
        suspicion = self.of(id, now)
        suspicion.highest = max(suspicion.highest, seen)
        wait = self._backoff(id, suspicion)
        # Between 0.5 and 1.5 times the wait: two replicas that failed together must not try again together. The wait
        # doubles with each attempt, and so does the spread.
        spread = jitter(self._config.seed, self._config.replica, *id, suspicion.attempts, now, below=wait)
        suspicion.next_look = Tick(now + wait // 2 + spread)

    def _distance(self, id: InstanceId) -> int:
        """Round trip in ticks to the farther of the instance's leader and a slow quorum."""
        return max(self._distances.to(id.leader), self._distances.to_nearest(self._quorum - 1))

    def _base(self, id: InstanceId) -> int:
        """Ticks for which an instance may stay undecided: the slow path takes its leader two round trips."""
        return max(self._config.recovery_timeout_ticks, _FAR * self._distance(id))

    def _backoff(self, id: InstanceId, suspicion: Suspicion) -> int:
        """Ticks to wait before the next attempt: doubles with each own attempt, up to `_longest`."""
        return min(self._base(id) << min(suspicion.attempts, 16), self._longest(id, suspicion))

    def _longest(self, id: InstanceId, suspicion: Suspicion) -> int:
        """The longest wait in ticks: the configured one, or `_LONGEST` measured round trips if these are longer."""
        # `slowest_ticks` includes answers to ballots that were given up. Without them, a limit below the real answer
        # time would never be corrected: every attempt would end before the answers that could raise it.
        taken = max(self._distance(id), suspicion.slowest_ticks)
        return max(self._config.recovery_backoff_ticks_max, _LONGEST * taken)

    def _jitter(self, id: InstanceId, salt: int) -> int:
        """Ticks that stagger the replicas, the instance's leader first, so that two seldom recover one instance."""
        config = self._config
        turn = (config.replica - id.leader) % config.replicas
        step = max(config.recovery_jitter_ticks, self._distance(id) // 2)
        spread = jitter(config.seed, config.replica, *id, salt, below=step)
        return turn * step + spread
