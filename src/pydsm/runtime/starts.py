"""A replica that has just started: whether its data are the newest, what it remembers of others, when it takes part.

Decides by `core.protocol.starts`, with what the disk, the core and the peers say. Guards that it takes part only after
enough peers have told what they remember of it, and that one that lacks something of that stops, whenever it turns out.
Which words travel when is left to the transport.
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
"""Every so many times, how much was durable at each peer is written down too."""

_ADVICE = (
    "An older copy of the data directory was put back, or the end of it was lost. What this replica has promised and "
    "acknowledged since then is not in it, so it takes no part. Put the newest copy of the directory back and start "
    "again; where there is none, this replica cannot come back (docs/howto/operate.md, 'Backups and copies')"
)


@dataclass(frozen=True, slots=True)
class StartLimits:
    """How long is waited at a start, and how often what peers tell is written down."""

    grace_seconds_min: float = 1.0
    grace_seconds_max: float = 5.0
    """How long a replica that has started waits for the peers that have not told yet what they remember, when enough
    have: as long as those took, within these limits."""
    save_seconds: float = 1.0
    """Between two looks at whether something new is to be written down about the starts of peers."""


@dataclass(frozen=True, slots=True)
class StartContext:
    """What starts need of their node."""

    core: Replica
    store: StartStore
    run_on_disk: Callable[[Callable[[], None]], None]
    """Do something with the store, in order with its writes."""
    fail: Callable[[Exception], None]
    """Stop the replica."""
    seconds: Callable[[], float]
    """A clock that does not go back."""


class Starts:
    """Of one start of one replica; see `transport.base.StartExchange`."""

    def __init__(self, replica: ReplicaId, replicas: int, around: StartContext, limits: StartLimits) -> None:
        self._replica = replica
        self._around = around
        self._found = around.store.position
        self.start = around.store.begin_start()
        """This one."""
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
            log.info(
                "takes part: %d peers remember nothing of this replica that it does not have", self._check.answered
            )
        return self._takes_part

    @property
    def waits_for(self) -> str | None:
        """Why it does not take part yet, in one line, or None."""
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

        Stops the replica if it lacks what a peer remembers, however late that comes.
        """
        around = self._around
        own = Own(self.start, self._found, around.store.position, around.core.reserved, around.core.recorded)
        missing = what_is_missing(own, remembered)
        if missing is None:
            self._check.answer(remembered.by, around.seconds())
        else:
            around.fail(
                RolledBack(f"replica {remembered.by} remembers more of this replica than it has: {missing}. {_ADVICE}")
            )

    def save(self) -> None:
        """Write down what is remembered of peers, if it is time and there is something new."""
        if self._around.seconds() < self._next_save:
            return
        self._next_save = self._around.seconds() + self._save_seconds
        self._saves += 1
        unsaved = self._book.take_unsaved(positions=self._saves % _SAVES_BEFORE_POSITIONS == 0)
        if unsaved:
            self._around.run_on_disk(lambda: self._around.store.remember_starts(unsaved))
