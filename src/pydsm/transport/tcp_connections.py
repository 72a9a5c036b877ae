"""One TCP connection between replicas, seen from either end: greeting first, then frames, closed for what is wrong.

An incoming connection brings messages; an outgoing one carries them away and is only ever answered with a greeting.
With TLS, whoever dials looks at the certificate before saying anything, and whoever is dialled before it believes the
greeting. Which connections there are, and who is let in, is decided by `tcp`.
"""

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import ReplicaId
from pydsm.logs import LogLimiter, printable
from pydsm.transport.address import Address
from pydsm.transport.base import Traffic
from pydsm.transport.frames import FrameReader
from pydsm.transport.handshake import (
    REASON_CHARACTERS_MAX,
    HandshakeValidator,
    IncomingHandshake,
    OutgoingHandshake,
    RefusedByPeer,
    refusal,
)
from pydsm.transport.limits import TransportLimits
from pydsm.transport.tls import Tls, explain

log = logging.getLogger("pydsm.transport")


class ConnectionOwner(Protocol):
    """What connections need of the transport that they belong to."""

    limits: TransportLimits
    traffic: Traffic
    tls: Tls | None
    doorkeeper: HandshakeValidator
    complaints: LogLimiter
    """For lines that a stranger can cause."""

    def arrived(self, incoming: "Incoming", host: str) -> None:
        """A stranger has come from this host; another one may have to go for it."""
        ...

    def met(self, incoming: "Incoming", peer: ReplicaId) -> None:
        """A stranger turned out to be a peer; it replaces that peer's earlier connection, which must be dead."""
        ...

    def left(self, incoming: "Incoming") -> None:
        """An incoming connection is gone."""
        ...

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """Pass on the messages of one frame. Raises PeerProtocolError for one that is nonsense."""
        ...


class PeerConnection(asyncio.Protocol, ABC):
    """What both directions share: reading frames, and closing with a reason."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.owner = owner
        self.peer: ReplicaId | None = None
        self.transport: asyncio.Transport | None = None
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; nobody has said anything."""
        self.transport = cast(asyncio.Transport, transport)
        _prepare(self.transport, self.owner.limits)

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The other end's, verified; None without TLS."""
        return None if self.transport is None else self.transport.get_extra_info("peercert")

    def data_received(self, data: bytes) -> None:
        """Hand on every payload that is complete; close at the first fault."""
        self._reader.feed(data)
        try:
            for payload in self._reader.payloads():
                if self.peer is None:
                    self.greeted(payload)
                else:
                    self.received(self.peer, payload)
                if self.transport is None or self.transport.is_closing():
                    return
        except PeerProtocolError as fault:
            self.refuse(fault)

    @abstractmethod
    def greeted(self, payload: bytes) -> None:
        """A payload of the greeting; sets `peer` at its end."""

    @abstractmethod
    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Any later payload."""

    @abstractmethod
    def refuse(self, fault: PeerProtocolError) -> None:
        """Close, and say why where an operator looks for it."""

    def close(self) -> None:
        """Close without waiting for what is still to be written."""
        if self.transport is not None:
            self.transport.abort()


class Incoming(PeerConnection):
    """A connection that a peer, or a stranger, has dialled."""

    _name = "an unknown address"
    host = ""
    """Where it comes from."""
    _patience: asyncio.TimerHandle | None = None
    _securing: asyncio.Task[None] | None = None

    def __init__(self, owner: ConnectionOwner) -> None:
        super().__init__(owner)
        self._handshake = IncomingHandshake(owner.doorkeeper, self._vouched)

    def _vouched(self, peer: ReplicaId) -> str | None:
        tls = self.owner.tls
        return None if tls is None else tls.why_not(peer, self.certificate)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a greeting, but not for long. With TLS, begin again on a connection that has it."""
        if self._securing is not None:
            self._securing = None
            super().connection_made(transport)
            return
        super().connection_made(transport)
        assert self.transport is not None
        self.host, self._name = _where_from(transport)
        self.owner.arrived(self, self.host)
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self.owner.limits.handshake_seconds_max, self._give_up)
        if self.owner.tls is not None:
            taken = _take_socket(self.transport)
            self.transport = None
            self._securing = loop.create_task(self._secure(taken, self.owner.tls))
            self._securing.add_done_callback(lambda task: taken.close() if task.cancelled() else None)

    async def _secure(self, connection: socket.socket, tls: Tls) -> None:
        """Shake hands here and not in the server, which would neither count nor log what strangers do wrong."""
        seconds = self.owner.limits.handshake_seconds_max
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                connection,
                ssl=tls.server,
                ssl_handshake_timeout=2 * seconds,  # patience ends before
                ssl_shutdown_timeout=seconds,
            )
        except OSError as error:
            connection.close()
            self._say_refused(PeerProtocolError(explain(error)))
            self._gone()

    def _give_up(self) -> None:
        if self.transport is not None and self.transport.is_closing():
            self.close()  # it was refused, and does not take the reason
            return
        self.refuse(PeerProtocolError("it did not say who it is in time"))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def greeted(self, payload: bytes) -> None:
        """Greet; at the end, let the peer in or refuse it."""
        answer = self._handshake.answer(payload)
        assert self.transport is not None
        self.transport.write(answer)
        self.peer = self._handshake.peer
        if self.peer is not None:
            self._stop_waiting()
            self._reader.allow_messages()
            self.owner.met(self, self.peer)

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Messages."""
        self.owner.deliver(peer, payload)

    def refuse(self, fault: PeerProtocolError) -> None:
        """Say why, in the log and to the other end, and close."""
        self._say_refused(fault)
        if self._securing is not None:
            self.close()
        elif self.transport is not None:
            if not isinstance(fault, RefusedByPeer):
                self.transport.write(self._handshake.refusal(fault))
            self.transport.close()

    def make_room(self) -> None:
        """Close, because too many have not said who they are."""
        self._say_refused(PeerProtocolError("too many connections have not said who they are, this one longest"))
        self.close()

    def _say_refused(self, fault: PeerProtocolError) -> None:
        who = "a connection" if self.peer is None else self.owner.doorkeeper.me.name_of(self.peer)
        reason = printable(str(fault), REASON_CHARACTERS_MAX)
        self.owner.complaints.warning((self.host, reason), "refused %s from %s: %s", who, self._name, reason)
        self.owner.traffic.refused += 1

    def close(self) -> None:
        """See `PeerConnection`; a handshake that is going on ends too."""
        if self._securing is not None:
            self._securing.cancel()
            self._gone()
        super().close()

    def connection_lost(self, error: Exception | None) -> None:
        """Make room for another."""
        self._gone()

    def _gone(self) -> None:
        self._stop_waiting()
        self._securing = None
        self.transport = None
        self.owner.left(self)


class Outgoing(PeerConnection):
    """The connection that we dialled to one peer. It only ever answers with a greeting."""

    def __init__(self, owner: ConnectionOwner, expected: ReplicaId, address: Address) -> None:
        super().__init__(owner)
        self._expected = expected
        self._handshake = OutgoingHandshake(owner.doorkeeper, expected, address)
        self.fault: PeerProtocolError | None = None
        self.error: Exception | None = None
        """Why the connection was lost, where the system says."""
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self._greets = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet first, if this may be the peer."""
        super().connection_made(transport)
        assert self.transport is not None
        if self.owner.tls is not None:
            reason = self.owner.tls.why_not(self._expected, self.certificate)
            if reason is not None:
                self.refuse(PeerProtocolError(reason))
                return
        self.transport.write(self._handshake.hello())
        self._greets = True

    def greeted(self, payload: bytes) -> None:
        """Ready to send at the end, if it is the peer that was dialled."""
        answer = self._handshake.answer(payload)
        self.peer = self._handshake.peer
        if self.peer is not None:
            self.ready.set()
        elif self.transport is not None:
            self.transport.write(answer)

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """After its greeting a peer has nothing to say but why it refuses us."""
        self._handshake.answer(payload)

    def refuse(self, fault: PeerProtocolError) -> None:
        """Keep the reason for whoever dialled, tell it to the other end, and close."""
        self.fault = fault
        self.owner.traffic.refused += 1
        if self.transport is not None:
            if self._greets and not self._handshake.has_claimed and not isinstance(fault, RefusedByPeer):
                self.transport.write(refusal(fault))
            self.transport.close()
        self.ready.set()
        self.ended.set()

    def close(self) -> None:
        """See `PeerConnection`. What was refused closes by itself, when the reason has left."""
        self._handshake.end()
        if self.fault is None:
            super().close()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever dialled."""
        self.transport = None
        self.error = error
        self.ready.set()
        self.ended.set()


def _where_from(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """The host at the other end, and its address as people write it."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple) or len(name) < 2:
        return "", "an unknown address"
    return str(name[0]), str(Address(str(name[0]), int(name[1])))


def _take_socket(transport: asyncio.Transport) -> socket.socket:
    """The connection itself, with nothing read of it; its transport is given up without a word to its protocol."""
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    taken.setblocking(False)
    transport.set_protocol(asyncio.Protocol())
    transport.abort()
    return taken


def _prepare(transport: asyncio.Transport, limits: TransportLimits) -> None:
    """Send small frames at once, and notice a machine that went away without a word."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None:
        return
    set_option: Callable[[int, int, int], None] = connection.setsockopt
    set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.silence_seconds_max * 1000))
