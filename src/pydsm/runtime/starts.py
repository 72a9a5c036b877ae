"""Checks after a start whether a replica's data are the newest, before it takes part in agreement.

Applies the rules of `core.protocol.starts` to what the disk, the core and the peers report. Guarantees that a replica
takes part only after enough peers have reported what they have stored about it, and that it stops if it lacks something
of that, also when the report comes later. The messages of the handshake are left to the transport.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.core.protocol.starts import Own, Remembered, StartBook, StartCheck, StartGreeting, what_is_missing
from pydsm.core.replica import Replica
from pydsm.core.types.errors import RolledBack
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.quorums import quorums
from pydsm.storage.identity import StartStore

log = logging.getLogger("pydsm.starts")

_SAVES_BEFORE_POSITIONS = 10
"""Positions of peers are saved with every tenth save."""

_ADVICE = (
    "An older copy of the data directory was restored, or the end of the data was lost. Promises and acknowledgements "
    "that this replica has made since then are missing, so it does not take part. Restore the newest copy of the "
    "directory and start again; without one, this replica cannot rejoin (docs/howto/operate.md, 'Backups and copies')"
)


@dataclass(frozen=True, slots=True)
class StartLimits:
    """How long a start waits for peers, and how often the positions of peers are saved."""

    grace_seconds_min: float = 1.0
    grace_seconds_max: float = 5.0
    """How long a started replica waits for the other peers after enough have reported: as long as those needed, within
    these limits."""
    save_seconds: float = 1.0
    """Interval between two checks whether new starts of peers must be saved."""


@dataclass(frozen=True, slots=True)
class StartContext:
    """The parts of a node that `Starts` uses."""

    core: Replica
    store: StartStore
    run_on_disk: Callable[[Callable[[], None]], None]
    """Runs a job with the store, in order with its writes."""
    fail: Callable[[Exception], None]
    """Stops the replica."""
    seconds: Callable[[], float]
    """A monotonic clock."""


class Starts:
    """One start of one replica; see `transport.base.StartExchange`."""

    def __init__(self, replica: ReplicaId, replicas: int, around: StartContext, limits: StartLimits) -> None:
        self._replica = replica
        self._around = around
        self._found = around.store.position
        self.start = around.store.begin_start()
        """The current start."""
        self._book = StartBook(around.store.starts())
        self._needed = quorums(replicas).slow - 1
        self._check = StartCheck(
            replicas - 1,
            self._needed,
            around.seconds(),
            grace_min=limits.grace_seconds_min,
            grace_max=limits.grace_seconds_max,
        )
        self._saves = 0
        self._save_seconds = limits.save_seconds
        self._next_save = around.seconds() + limits.save_seconds
        self._takes_part = replicas == 1

    @property
    def takes_part(self) -> bool:
        """Whether this replica may vote, promise and propose."""
        if not self._takes_part and self._check.passed(self._around.seconds()):
            self._takes_part = True
            log.info("takes part: %d peers confirmed that this replica's data are the newest", self._check.answered)
        return self._takes_part

    @property
    def waits_for(self) -> str | None:
        """Why the replica does not take part yet, in one line, or None."""
        if self.takes_part:
            return None
        return (
            f"it asks its peers whether its data are the newest: {self._check.answered} have answered, "
            f"{self._needed} are needed"
        )

    @property
    def stamp(self) -> tuple[int, int]:
        """See `transport.base.StartExchange`."""
        return self.start.number, self._around.store.position

    def greeting(self, to: ReplicaId | None) -> StartGreeting:
        """See `transport.base.StartExchange`."""
        return StartGreeting(self.start, self._found, None if to is None else self.remembered(to))

    def why_not(self, peer: ReplicaId, incarnation: int, greeting: StartGreeting) -> str | None:
        """See `transport.base.StartExchange`."""
        return self._book.why_not(peer, incarnation, greeting)

    def hear(self, peer: ReplicaId, start: int, position: int) -> str | None:
        """See `transport.base.StartExchange`."""
        return self._book.hear(peer, start, position)

    def remembered(self, peer: ReplicaId) -> Remembered:
        """See `transport.base.StartExchange`."""
        met = self._book.met(peer)
        index, executed = self._around.core.remembered(peer)
        return Remembered(
            self._replica, None if met is None else met.start, 0 if met is None else met.position, index, executed
        )

    def told(self, remembered: Remembered) -> None:
        """See `transport.base.StartExchange`.

        Stops the replica if it lacks data that a peer has a record of, also when that report comes late.
        """
        around = self._around
        own = Own(self.start, self._found, around.store.position, around.core.reserved, around.core.recorded)
        missing = what_is_missing(own, remembered)
        if missing is None:
            self._check.answer(remembered.by, around.seconds())
        else:
            around.fail(
                RolledBack(f"replica {remembered.by} has a record of data that is missing here: {missing}. {_ADVICE}")
            )

    def save(self) -> None:
        """Save new starts and positions of peers, if the interval has passed."""
        if self._around.seconds() < self._next_save:
            return
        self._next_save = self._around.seconds() + self._save_seconds
        self._saves += 1
        unsaved = self._book.take_unsaved(positions=self._saves % _SAVES_BEFORE_POSITIONS == 0)
        if unsaved:
            self._around.run_on_disk(lambda: self._around.store.save_starts(unsaved))
