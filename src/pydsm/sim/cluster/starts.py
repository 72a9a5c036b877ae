"""Starts in the simulator: the runtime's own code, with handshakes that may be lost, late, or duplicated.

In most worlds starts are not looked at, so that the protocol is tried without their help: messages of earlier processes
arrive, however late. Where disks are put back to older copies (`settings.starts_checked`), each process asks its peers
before it takes part, and takes no message of another start than the one that receive_handshake last.
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
"""No disk is lost in the simulator: all have one incarnation for ever."""
_ASKS_PER_GRACE = 4


class Refused(Exception):
    """Unwinds out of whatever a process was doing when it turns out to lack what a peer remembers."""


class Undetectable(Exception):
    """A disk was put back, and no reachable peer had seen what it lacks: such a run is not checked further."""


class ProcessStarts:
    """Of one process. Told what comes, it says whether the process takes part."""

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
        """What each message carries."""
        return self._starts.stamp

    def remembered(self, peer: ReplicaId) -> PeerReport:
        """What this process remembers of a peer."""
        return self._starts.report_on(peer)

    def lacks(self, remembered: PeerReport) -> bool:
        """Whether this is more than the process has, judged here and not by what is tried."""
        own = OwnData(self._starts.start, self._found, self._disk.position, self._core.reserved, self._core.recorded)
        return describe_missing(own, remembered) is not None

    def has_answered(self, peer: int) -> bool:
        """Whether this peer has told what it remembers."""
        return peer not in self._silent

    def tick(self) -> bool:
        """Ask those who are silent, again and again. Gives whether the process takes part."""
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

    def hears(self, sender: ReplicaId, stamp: tuple[int, int]) -> bool:
        """Whether a message with this stamp is taken."""
        return self._starts.check_stamp(sender, *stamp) is None and self.takes_part

    def receive_handshake(self, sender: ReplicaId, greeting: SimulatedHandshake) -> None:
        """A greeting has come."""
        if isinstance(greeting, HandshakeRequest):
            reason = self._starts.check_start(sender, _INCARNATION, greeting.greeting)
            answer = self._starts.start_info(None) if reason is None else None
            told = HandshakeReply(greeting.greeting.start, answer, self._starts.report_on(sender))
            self._network.send_handshake(self.replica, (sender,), told)
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
