"""Simulates the network between replicas: delays, loss, duplication, reordering, cuts and slow links.

Every link draws from a separate random stream, so that a change at one link does not change the others. Messages are
passed as frozen values; one of `Settings.codec_every` is encoded and decoded, and the result must be equal.
"""

from collections.abc import Callable
from random import Random

from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Frontier, Message, batches_of
from pydsm.core.wire.codec import decode_message, encode_message
from pydsm.core.wire.raw_messages import BatchCache
from pydsm.sim.base import describe
from pydsm.sim.base.context import Context
from pydsm.sim.base.violation import Violation
from pydsm.sim.devices.handshakes import SimulatedHandshake, StartStamp

Deliver = Callable[[ReplicaId, ReplicaId, Message, StartStamp], None]
"""Delivers a message: receiver, sender, message, and the sender's stamp when it was sent (see `cluster.starts`)."""

ReceiveHandshake = Callable[[ReplicaId, ReplicaId, SimulatedHandshake], None]
"""Delivers a handshake: receiver, sender, handshake."""

_HEAVY_SHARE, _HEAVY_FACTOR = 0.03, 30
_QUEUED_COMMANDS_MAX = 200
"""Messages that would wait for longer than this many commands occupy a link are dropped, as by a real transport."""


class _Link:
    __slots__ = ("cuts", "extra_us", "free_at_us", "latency_us", "random")

    def __init__(self, random: Random, latency_us: int) -> None:
        self.random = random
        self.latency_us = latency_us
        self.extra_us = 0
        self.cuts = 0
        self.free_at_us = 0
        """When the link has carried all earlier messages: see `Settings.command_us`."""


class SimulatedNetwork:
    """All links. `loss` and `duplication` are shares of the messages of the whole network."""

    def __init__(
        self,
        context: Context,
        deliver: Deliver,
        report_lost: Callable[[], None],
        receive_handshake: ReceiveHandshake = lambda to, sender, greeting: None,
        stamp_of: Callable[[ReplicaId], StartStamp] = lambda sender: None,
    ) -> None:
        settings = context.settings
        self._context = context
        self._schedule = context.schedule
        self._counts = context.counts
        self._deliver = deliver
        self._receive_handshake = receive_handshake
        self.stamp_of = stamp_of
        """Returns the current stamp of a replica."""
        self._report_lost = report_lost
        """Called when a Frontier message is lost: see `cluster.memory_checker`."""
        self._replicas = settings.replicas
        self._links = [
            [_Link(Random(f"link {settings.seed} {one} {other}"), latency_us) for other, latency_us in enumerate(row)]
            for one, row in enumerate(settings.latencies_us)
        ]
        self._spread = _SPREADS[settings.spread]
        self._until_bytes = settings.codec_every
        self._batch_cache = BatchCache()
        self._command_us = settings.command_us
        self.loss = settings.loss
        self.duplication = settings.duplication

    def send(self, sender: ReplicaId, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send a message now to several replicas; faults may lose it."""
        self.carry(sender, to, message, self.stamp_of(sender))

    def carry(self, sender: ReplicaId, to: tuple[ReplicaId, ...], message: Message, stamp: StartStamp) -> None:
        """Like `send`, for a message with an earlier stamp of its sender."""
        counts = self._counts
        self._until_bytes -= 1
        if not self._until_bytes:
            message = self._through_bytes(message)
        if self._context.tracing:
            names = ", ".join(f"r{peer}" for peer in to)
            self._context.log(f"r{sender}", f"to {names}: {describe.message(message)}")
        links = self._links[sender]
        carried_us = _commands(message) * self._command_us if self._command_us else 0
        for peer in to:
            link = links[peer]
            counts.messages += 1
            if link.cuts:
                counts.cut += 1
                self._record_loss(sender, peer, message, "cut")
                continue
            luck = link.random.random()
            if luck < self.loss:
                counts.lost += 1
                self._record_loss(sender, peer, message, "lost")
                continue
            busy_us = 0
            if self._command_us:
                now = self._schedule.now
                busy_us = max(now, link.free_at_us) + carried_us - now
                if busy_us > _QUEUED_COMMANDS_MAX * self._command_us:
                    counts.lost += 1
                    self._record_loss(sender, peer, message, "dropped by a full queue")
                    continue
                link.free_at_us = now + busy_us
            self._schedule.after(busy_us + self._delay(link), self._deliver, peer, sender, message, stamp)
            if luck >= 1.0 - self.duplication:
                counts.doubled += 1
                self._schedule.after(self._delay(link), self._deliver, peer, sender, message, stamp)

    def send_handshake(self, sender: ReplicaId, to: tuple[ReplicaId, ...], greeting: SimulatedHandshake) -> None:
        """Send a handshake to several replicas; faults may lose it."""
        for peer in to:
            link = self._links[sender][peer]
            if not link.cuts and link.random.random() >= self.loss:
                self._schedule.after(self._delay(link), self._receive_handshake, peer, sender, greeting)

    def _record_loss(self, sender: ReplicaId, peer: ReplicaId, message: Message, cause: str) -> None:
        if isinstance(message, Frontier):
            self._report_lost()
        if self._context.tracing:
            self._context.log("network", f"{cause} from r{sender} to r{peer}: {describe.message(message)}")

    def _delay(self, link: _Link) -> int:
        return int(self._spread(link.random) * link.latency_us) + link.extra_us

    def _through_bytes(self, message: Message) -> Message:
        self._until_bytes = self._context.settings.codec_every
        self._counts.through_bytes += 1
        decoded = decode_message(encode_message(message), self._replicas, self._batch_cache)
        if decoded != message:
            raise Violation("codec", f"encoding and decoding changed {message!r} to {decoded!r}")
        return decoded

    def cut(self, links: tuple[tuple[int, int], ...]) -> None:
        """Lose everything on these links. Cuts are counted: each one must be restored."""
        for one, other in links:
            self._links[one][other].cuts += 1

    def restore(self, links: tuple[tuple[int, int], ...]) -> None:
        """Remove one cut from each of these links."""
        for one, other in links:
            link = self._links[one][other]
            link.cuts = max(0, link.cuts - 1)

    def slow(self, links: tuple[tuple[int, int], ...], extra_us: int) -> None:
        """Add this to the delay of these links; a negative number makes them faster again."""
        for one, other in links:
            link = self._links[one][other]
            link.extra_us = max(0, link.extra_us + extra_us)

    def heal(self) -> None:
        """From now on no loss, duplication, cut or extra delay; messages that were sent before still arrive, late."""
        self.loss = self.duplication = 0.0
        for row in self._links:
            for link in row:
                link.cuts = link.extra_us = 0


def _commands(message: Message) -> int:
    """The number of commands in a message."""
    return sum(len(batch.commands) for batch in batches_of(message))


def _steady(random: Random) -> float:
    return 0.95 + 0.1 * random.random()


def _uniform(random: Random) -> float:
    return 0.5 + 2.5 * random.random()


def _exponential(random: Random) -> float:
    return 0.5 + random.expovariate(1.0)


def _heavy(random: Random) -> float:
    """Short delays mostly, and rarely a very long one."""
    late = random.random() < _HEAVY_SHARE
    return (_HEAVY_FACTOR if late else 1) * (0.8 + 0.4 * random.random())


LATEST = {"steady": 1.05, "uniform": 3.0, "exponential": 0.5 + 30.0, "heavy": 1.2 * _HEAVY_FACTOR}
"""By kind of spread, the longest delay as a multiple of the link's latency; exceeded by 1 in 10^13 if exponential."""

_SPREADS: dict[str, Callable[[Random], float]] = {
    "steady": _steady,
    "uniform": _uniform,
    "exponential": _exponential,
    "heavy": _heavy,
}
