"""Messages within one process, for tests of what stands on a transport.

Keeps the contract of TCP: messages are encoded and decoded on the way, arrive in a later turn of the loop, are
refused by the same rules of greeting, and vanish when the other end is not there.
"""

import asyncio
import logging
from collections.abc import Mapping

from pydsm.core.carriers import KnownBatches
from pydsm.core.codec import decode_message, encode_message
from pydsm.core.faults import PeerFault, WorldFault
from pydsm.core.ids import Epoch, ReplicaId
from pydsm.core.messages import Message
from pydsm.transport.base import Admit, Receive, Self, Starts, Traffic
from pydsm.transport.frames import PREAMBLE, Greeting, Refusal, Stamp, open_greeting
from pydsm.transport.handshake import Doorkeeper, refusal

log = logging.getLogger("pydsm.transport")


class MemoryHub:
    """Where the replicas of one process find each other."""

    def __init__(self) -> None:
        self.present: dict[ReplicaId, MemoryTransport] = {}


class MemoryTransport:
    """See `transport.base.Transport`."""

    def __init__(self, me: Self, hub: MemoryHub, admit: Admit, starts: Starts) -> None:
        self.traffic = Traffic()
        self.me = me
        self._hub = hub
        others = [ReplicaId(other) for other in range(me.replicas) if other != me.replica]
        self._doorkeeper = Doorkeeper(me, others, admit, starts)
        self._greeted: set[MemoryTransport] = set()
        self._receive: Receive | None = None
        self._known = KnownBatches()

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer in sorted(self._hub.present) if self._talks_to(peer))

    @property
    def epochs(self) -> Mapping[ReplicaId, Epoch]:
        """See `transport.base.Transport`."""
        return self._doorkeeper.epochs

    async def start(self, receive: Receive) -> None:
        """See `transport.base.Transport`."""
        if self.me.replica in self._hub.present:
            raise WorldFault(f"replica {self.me.replica} is here already: stop the other one first")
        self._receive = receive
        for other in self._hub.present.values():
            other.greeted_by(self)
            self.greeted_by(other)
        self._hub.present[self.me.replica] = self

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        for peer in to:
            if self._talks_to(peer):
                self.traffic.messages_sent += 1
                self.traffic.bytes_sent += len(data)
                asyncio.get_running_loop().call_soon(self._arrive, peer, data, self._doorkeeper.stamp())
            else:
                self.traffic.messages_dropped += 1

    async def stop(self) -> None:
        """See `transport.base.Transport`."""
        if self._hub.present.get(self.me.replica) is self:
            del self._hub.present[self.me.replica]
        self._receive = None

    def greeted_by(self, other: "MemoryTransport") -> None:
        """Let another one in, or refuse it and log why; and answer."""
        try:
            self._doorkeeper.judge(open_greeting(other._doorkeeper.hello()))
            self._greeted.add(other)
            answer = self._doorkeeper.hello(other.me.replica)
        except PeerFault as fault:
            self.traffic.refused += 1
            log.warning("refused a connection from replica %d: %s", other.me.replica, fault)
            answer = PREAMBLE + refusal(fault)
        other._answered(open_greeting(answer))

    def _answered(self, answer: Greeting) -> None:
        """The other one judges us, and so do we: what it remembers of us may stop this replica."""
        self._doorkeeper.note_remembered(answer.remembered if isinstance(answer, Refusal) else answer.start.remembered)

    def _talks_to(self, peer: ReplicaId) -> bool:
        other = self._hub.present.get(peer)
        return other is not None and self._receive is not None and other in self._greeted and self in other._greeted

    def _arrive(self, peer: ReplicaId, data: bytes, stamp: Stamp) -> None:
        other = self._hub.present.get(peer)
        if other is not None:
            other.deliver(self.me.replica, data, stamp)

    def deliver(self, sender: ReplicaId, data: bytes, stamp: Stamp) -> None:
        """Pass on one message; a fault of the peer is logged, as TCP does before it closes."""
        if self._receive is None:
            return
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(data)
        try:
            self._doorkeeper.heard(sender, stamp)
            self._receive(sender, decode_message(data, self.me.replicas, self._known))
        except PeerFault as fault:
            self.traffic.refused += 1
            log.warning("refused replica %d: %s", sender, fault)
