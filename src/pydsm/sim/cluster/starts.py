"""Checks the starts of simulated processes with the runtime's own code; handshakes may be lost, late, or duplicated.

In most runs starts are not checked, so that the protocol is tested without these checks: messages of earlier processes
arrive, however late. In runs that replace disks by older copies (`settings.starts_checked`), each process asks its
peers before it takes part, and accepts only messages of the start that the last handshake of their sender named.
"""

from collections.abc import Callable

from pydsm.core.protocol.starts import OwnData, PeerReport, describe_missing
from pydsm.core.replica import Replica
from pydsm.core.types.ids import ReplicaId
from pydsm.runtime.starts import StartContext, StartLimits, Starts
from pydsm.sim.base.context import Context
from pydsm.sim.devices.disk import SimulatedDisk
from pydsm.sim.devices.handshakes import HandshakeReply, HandshakeRequest, SimulatedHandshake
from pydsm.sim.devices.network import SimulatedNetwork

_INCARNATION = 1
"""No disk is lost in the simulator: all have the same incarnation for ever."""
_ASKS_PER_GRACE = 4


class Refused(Exception):
    """Raised through the process when it lacks data of which a peer has a record."""


class Undetectable(Exception):
    """A disk is an older copy, and no reachable peer has a record of what it lacks: the run is not checked further."""


class ProcessStarts:
    """The checks of one process at its start: they decide when it takes part."""

    def __init__(
        self,
        replica: ReplicaId,
        core: Replica,
        disk: SimulatedDisk,
        context: Context,
        network: SimulatedNetwork,
        took_part: Callable[["ProcessStarts"], None],
    ) -> None:
        settings = context.settings
        self.replica = replica
        self._core = core
        self._disk = disk
        self._context = context
        self._network = network
        self._took_part = took_part
        self._ask_us = 2 * settings.farthest_us + 2 * settings.tick_period_us
        grace_seconds = _ASKS_PER_GRACE * self._ask_us / 1_000_000
        self._found = disk.position
        around = StartContext(core, disk, _run_immediately, self._refuse, lambda: context.schedule.now / 1_000_000)
        limits = StartLimits(grace_seconds, 10 * grace_seconds, save_seconds=0.05)
        self._starts = Starts(replica, settings.replicas, around, limits)
        self._silent = {ReplicaId(peer): None for peer in range(settings.replicas) if peer != replica}
        self._next_ask_us = context.schedule.now
        self.takes_part = settings.replicas == 1

    @property
    def stamp(self) -> tuple[int, int]:
        """The stamp of each message of this process."""
        return self._starts.stamp

    def remembered(self, peer: ReplicaId) -> PeerReport:
        """The records of this process about a peer."""
        return self._starts.report_on(peer)

    def lacks(self, remembered: PeerReport) -> bool:
        """Whether the process lacks something of this, by a check that is independent of the tested code."""
        own = OwnData(self._starts.start, self._found, self._disk.position, self._core.reserved, self._core.recorded)
        return describe_missing(own, remembered) is not None

    def has_answered(self, peer: int) -> bool:
        """Whether this peer has answered."""
        return peer not in self._silent

    def tick(self) -> bool:
        """Ask the peers that have not answered, periodically. Returns whether the process takes part."""
        now = self._context.schedule.now
        if self._silent and now >= self._next_ask_us:
            self._next_ask_us = now + self._ask_us
            self._network.send_handshake(
                self.replica, tuple(self._silent), HandshakeRequest(self._starts.start_info(None))
            )
        self._starts.save()
        if not self.takes_part and self._starts.takes_part:
            self.takes_part = True
            self._took_part(self)
        return self.takes_part

    def accepts(self, sender: ReplicaId, stamp: tuple[int, int]) -> bool:
        """Whether a message with this stamp is accepted."""
        return self._starts.check_stamp(sender, *stamp) is None and self.takes_part

    def receive_handshake(self, sender: ReplicaId, greeting: SimulatedHandshake) -> None:
        """Handle a handshake."""
        if isinstance(greeting, HandshakeRequest):
            reason = self._starts.check_start(sender, _INCARNATION, greeting.greeting)
            answer = self._starts.start_info(None) if reason is None else None
            reply = HandshakeReply(greeting.greeting.start, answer, self._starts.report_on(sender))
            self._network.send_handshake(self.replica, (sender,), reply)
        elif greeting.to == self._starts.start:
            of_sender = greeting.greeting
            if of_sender is not None and self._starts.check_start(sender, _INCARNATION, of_sender) is not None:
                return
            self._starts.check_report(greeting.remembered)
            self._silent.pop(sender, None)

    @staticmethod
    def _refuse(error: Exception) -> None:
        raise Refused(str(error))


def _run_immediately(job: Callable[[], None]) -> None:
    job()
