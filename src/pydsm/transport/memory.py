"""A transport within one process, for tests of modules that use a transport.

Follows the contract of TCP: messages are encoded and decoded, arrive in a later turn of the loop, are accepted only
after the same handshake, and are lost if the other end is not started.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.core.types.messages import Message
from pydsm.core.wire.codec import decode_message, encode_message
from pydsm.core.wire.raw_messages import BatchCache
from pydsm.logs import printable
from pydsm.transport.base import Admit, LocalIdentity, Receive, StartExchange, Traffic
from pydsm.transport.frames import PREAMBLE, FrameReader, Stamp
from pydsm.transport.handshake import REASON_CHARACTERS_MAX, HandshakeValidator, IncomingHandshake, OutgoingHandshake

log = logging.getLogger("pydsm.transport")


class MemoryHub:
    """The started transports of one process, by replica."""

    def __init__(self) -> None:
        self.present: dict[ReplicaId, MemoryTransport] = {}


class MemoryTransport:
    """See `transport.base.Transport`."""

    def __init__(self, me: LocalIdentity, hub: MemoryHub, admit: Admit, starts: StartExchange) -> None:
        self.traffic = Traffic()
        self.me = me
        self._hub = hub
        others = [ReplicaId(other) for other in range(me.replicas) if other != me.replica]
        self.validator = HandshakeValidator(me, others, admit, starts)
        self._accepted: set[MemoryTransport] = set()
        self._receive: Receive | None = None
        self._batch_cache = BatchCache()

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer in sorted(self._hub.present) if self._is_connected_to(peer))

    @property
    def epochs(self) -> Mapping[ReplicaId, Epoch]:
        """See `transport.base.Transport`."""
        return self.validator.epochs

    @property
    def fingerprints(self) -> Mapping[ReplicaId, int]:
        """See `transport.base.Transport`."""
        return self.validator.fingerprints

    async def start(self, receive: Receive) -> None:
        """See `transport.base.Transport`."""
        if self.me.replica in self._hub.present:
            raise OperationalError(f"{self.me.name} is started already in this process: stop it first")
        self._receive = receive
        for other in self._hub.present.values():
            other.dialled_by(self)
            self.dialled_by(other)
        self._hub.present[self.me.replica] = self

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        for peer in to:
            if self._is_connected_to(peer):
                self.traffic.messages_sent += 1
                self.traffic.bytes_sent += len(data)
                asyncio.get_running_loop().call_soon(self._deliver_to, peer, data, self.validator.stamp())
            else:
                self.traffic.messages_dropped += 1

    async def stop(self) -> None:
        """See `transport.base.Transport`."""
        if self._hub.present.get(self.me.replica) is self:
            del self._hub.present[self.me.replica]
        self._receive = None

    def dialled_by(self, other: "MemoryTransport") -> None:
        """Do the handshake as the side that `other` dials. If one of them refuses, both log the reason."""
        outgoing = OutgoingHandshake(other.validator, self.me.replica, "this hub")
        incoming = IncomingHandshake(self.validator)
        ours, theirs = FrameReader(), FrameReader()
        refuser, refused = self, other
        ours.feed(outgoing.hello())
        try:
            while outgoing.peer is None:
                for payload in ours.payloads():
                    refuser, refused = self, other
                    theirs.feed(incoming.answer(payload))
                for payload in theirs.payloads():
                    refuser, refused = other, self
                    ours.feed(outgoing.answer(payload))
            self._accepted.add(other)
        except PeerProtocolError as fault:
            if refuser is self:
                _hand_over(incoming.refusal(fault), outgoing)
            refuser.traffic.refused += 1
            refused.traffic.refused += 1
            reason = printable(str(fault), REASON_CHARACTERS_MAX)
            log.warning("%s refused a connection of %s: %s", refuser.me.name, refused.me.name, reason)
            log.warning("no connection from %s to %s: it refuses us: %s", refused.me.name, refuser.me.name, reason)
        finally:
            outgoing.end()

    def _is_connected_to(self, peer: ReplicaId) -> bool:
        other = self._hub.present.get(peer)
        return other is not None and self._receive is not None and other in self._accepted and self in other._accepted

    def _deliver_to(self, peer: ReplicaId, data: bytes, stamp: Stamp) -> None:
        other = self._hub.present.get(peer)
        if other is not None:
            other.deliver(self.me.replica, data, stamp)

    def deliver(self, sender: ReplicaId, data: bytes, stamp: Stamp) -> None:
        """Pass on one message. An error of the peer is logged, as TCP does before it closes the connection."""
        if self._receive is None:
            return
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(data)
        try:
            self.validator.check_stamp(sender, stamp)
            self._receive(sender, decode_message(data, self.me.replicas, self._batch_cache))
        except PeerProtocolError as fault:
            self.traffic.refused += 1
            reason = printable(str(fault), REASON_CHARACTERS_MAX)
            log.warning("refused %s: %s", self.me.name_of(sender), reason)


def _hand_over(refusal: bytes, outgoing: OutgoingHandshake) -> None:
    """Pass a refusal to the refused side, because it may contain a report about that replica."""
    reader = FrameReader()
    reader.feed(refusal if refusal.startswith(PREAMBLE) else PREAMBLE + refusal)
    with suppress(PeerProtocolError):
        for payload in reader.payloads():
            outgoing.answer(payload)
