"""Checks after a start whether a replica's data are the newest, before it takes part in agreement.

Applies the rules of `core.protocol.starts` to what the disk, the core and the peers report. Guarantees that a replica
takes part only after enough peers have reported what they have stored about it, and that it stops if it lacks something
of that, also when the report comes later. The messages of the handshake are left to the transport.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydsm.core.protocol.starts import OwnData, PeerReport, PeerStarts, StartCheck, StartInfo, describe_missing
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

    def __init__(self, replica: ReplicaId, replicas: int, context: StartContext, limits: StartLimits) -> None:
        self._replica = replica
        self._context = context
        self._found = context.store.position
        self.start = context.store.begin_start()
        """The current start."""
        self._peer_starts = PeerStarts(context.store.starts())
        self._needed = quorums(replicas).slow - 1
        self._check = StartCheck(
            replicas - 1,
            self._needed,
            context.seconds(),
            grace_min=limits.grace_seconds_min,
            grace_max=limits.grace_seconds_max,
        )
        self._saves = 0
        self._save_seconds = limits.save_seconds
        self._next_save = context.seconds() + limits.save_seconds
        self._takes_part = replicas == 1

    @property
    def takes_part(self) -> bool:
        """Whether this replica may vote, promise and propose."""
        if not self._takes_part and self._check.passed(self._context.seconds()):
            self._takes_part = True
            log.info("takes part: %d peers confirmed that this replica's data are the newest", self._check.answered)
        return self._takes_part

    @property
    def waits_for(self) -> str | None:
        """Why the replica does not take part yet, in one line, or None."""
        if self.takes_part:
            return None
        return (
            f"it waits until its peers have confirmed that its data are the newest: {self._check.answered} have "
            f"answered, {self._needed} are needed"
        )

    @property
    def stamp(self) -> tuple[int, int]:
        """See `transport.base.StartExchange`."""
        return self.start.number, self._context.store.position

    def start_info(self, to: ReplicaId | None) -> StartInfo:
        """See `transport.base.StartExchange`."""
        return StartInfo(self.start, self._found, None if to is None else self.report_on(to))

    def check_start(self, peer: ReplicaId, incarnation: int, info: StartInfo) -> str | None:
        """See `transport.base.StartExchange`."""
        return self._peer_starts.check_start(peer, incarnation, info)

    def check_stamp(self, peer: ReplicaId, start: int, position: int) -> str | None:
        """See `transport.base.StartExchange`."""
        return self._peer_starts.check_stamp(peer, start, position)

    def report_on(self, peer: ReplicaId) -> PeerReport:
        """See `transport.base.StartExchange`."""
        seen = self._peer_starts.highest(peer)
        index, executed = self._context.core.remembered(peer)
        return PeerReport(
            self._replica, None if seen is None else seen.start, 0 if seen is None else seen.position, index, executed
        )

    def check_report(self, report: PeerReport) -> None:
        """See `transport.base.StartExchange`.

        Stops the replica if it lacks data that a peer has a record of, also when that report comes late.
        """
        context = self._context
        own = OwnData(self.start, self._found, context.store.position, context.core.reserved, context.core.recorded)
        missing = describe_missing(own, report)
        if missing is None:
            self._check.answer(report.by, context.seconds())
        else:
            context.fail(
                RolledBack(f"replica {report.by} has a record of data that is missing here: {missing}. {_ADVICE}")
            )

    def save(self) -> None:
        """Save new starts and positions of peers, if the interval has passed."""
        if self._context.seconds() < self._next_save:
            return
        self._next_save = self._context.seconds() + self._save_seconds
        self._saves += 1
        unsaved = self._peer_starts.take_unsaved(positions=self._saves % _SAVES_BEFORE_POSITIONS == 0)
        if unsaved:
            self._context.run_on_disk(lambda: self._context.store.save_starts(unsaved))
