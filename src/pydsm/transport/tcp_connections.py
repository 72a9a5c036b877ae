"""One TCP connection between replicas, incoming or outgoing: a handshake, then frames; closed on a protocol error.

Messages are received on incoming and sent on outgoing connections; on an outgoing one the peer sends only handshake
messages. With TLS, the dialling side checks the certificate before it sends anything, and the dialled side before it
validates the handshake. `tcp` decides which connections exist and which are accepted.
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
from pydsm.transport.sockets import enable_keepalive, peer_address
from pydsm.transport.tls import Tls, explain

log = logging.getLogger("pydsm.transport")


class ConnectionOwner(Protocol):
    """What connections need of the transport that they belong to."""

    limits: TransportLimits
    traffic: Traffic
    tls: Tls | None
    validator: HandshakeValidator
    log_limiter: LogLimiter
    """For log lines that an unauthenticated peer can cause."""

    def connection_accepted(self, incoming: "Incoming", host: str) -> None:
        """Register an unauthenticated connection from this host; an older one may be closed for it."""
        ...

    def peer_authenticated(self, incoming: "Incoming", peer: ReplicaId) -> None:
        """The handshake is complete; the connection replaces an earlier one of this peer, which must be dead."""
        ...

    def connection_closed(self, incoming: "Incoming") -> None:
        """An incoming connection is closed."""
        ...

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """Pass on the messages of one frame. Raises PeerProtocolError for a malformed one."""
        ...


class PeerConnection(asyncio.Protocol, ABC):
    """What both directions share: reading frames, and closing with a reason."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.owner = owner
        self.peer: ReplicaId | None = None
        self.transport: asyncio.Transport | None = None
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the new connection."""
        self.transport = cast(asyncio.Transport, transport)
        _prepare(self.transport, self.owner.limits)

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The verified certificate of the other end; None without TLS."""
        return None if self.transport is None else self.transport.get_extra_info("peercert")

    def data_received(self, data: bytes) -> None:
        """Process every complete payload; close on the first protocol error."""
        self._reader.feed(data)
        try:
            for payload in self._reader.payloads():
                if self.peer is None:
                    self.handshake_received(payload)
                else:
                    self.received(self.peer, payload)
                if self.transport is None or self.transport.is_closing():
                    return
        except PeerProtocolError as fault:
            self.refuse(fault)

    @abstractmethod
    def handshake_received(self, payload: bytes) -> None:
        """Process a handshake message; sets `peer` when the handshake is complete."""

    @abstractmethod
    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Process a payload after the handshake."""

    @abstractmethod
    def refuse(self, fault: PeerProtocolError) -> None:
        """Close, and log or report the reason."""

    def close(self) -> None:
        """Close immediately; bytes that are not written yet are lost."""
        if self.transport is not None:
            self.transport.abort()


class Incoming(PeerConnection):
    """A connection that was dialled from the other end, by a peer or an unauthenticated host."""

    _name = "an unknown address"
    host = ""
    """The remote host."""
    _handshake_timer: asyncio.TimerHandle | None = None
    _securing: asyncio.Task[None] | None = None

    def __init__(self, owner: ConnectionOwner) -> None:
        super().__init__(owner)
        self._handshake = IncomingHandshake(owner.validator, self._check_certificate)

    def _check_certificate(self, peer: ReplicaId) -> str | None:
        tls = self.owner.tls
        return None if tls is None else tls.rejection_reason(peer, self.certificate)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake timer. With TLS, called a second time once the encrypted connection is established."""
        if self._securing is not None:
            self._securing = None
            super().connection_made(transport)
            return
        super().connection_made(transport)
        assert self.transport is not None
        self.host, self._name = _remote_address(transport)
        self.owner.connection_accepted(self, self.host)
        loop = asyncio.get_running_loop()
        self._handshake_timer = loop.call_later(self.owner.limits.handshake_seconds_max, self._time_out)
        if self.owner.tls is not None:
            taken = _take_socket(self.transport)
            self.transport = None
            self._securing = loop.create_task(self._secure(taken, self.owner.tls))
            self._securing.add_done_callback(lambda task: taken.close() if task.cancelled() else None)

    async def _secure(self, connection: socket.socket, tls: Tls) -> None:
        """Do the TLS handshake. The asyncio server does not do it, because it would neither count nor log failures."""
        seconds = self.owner.limits.handshake_seconds_max
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                connection,
                ssl=tls.server,
                ssl_handshake_timeout=2 * seconds,  # the handshake timer expires before
                ssl_shutdown_timeout=seconds,
            )
        except OSError as error:
            connection.close()
            self._log_refusal(PeerProtocolError(explain(error)))
            self._unregister()

    def _time_out(self) -> None:
        if self.transport is not None and self.transport.is_closing():
            self.close()  # it was refused, and the reason cannot be written
            return
        self.refuse(PeerProtocolError("handshake timed out"))

    def _stop_waiting(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()

    def handshake_received(self, payload: bytes) -> None:
        """Answer a handshake message; accept the peer when the handshake is complete."""
        answer = self._handshake.answer(payload)
        assert self.transport is not None
        self.transport.write(answer)
        self.peer = self._handshake.peer
        if self.peer is not None:
            self._stop_waiting()
            self._reader.allow_messages()
            self.owner.peer_authenticated(self, self.peer)

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Pass on a frame of messages."""
        self.owner.deliver(peer, payload)

    def refuse(self, fault: PeerProtocolError) -> None:
        """Log the reason, send it to the peer, and close."""
        self._log_refusal(fault)
        if self._securing is not None:
            self.close()
        elif self.transport is not None:
            if not isinstance(fault, RefusedByPeer):
                self.transport.write(self._handshake.refusal(fault))
            self.transport.close()

    def close_as_oldest(self) -> None:
        """Close because too many connections have not completed the handshake."""
        self._log_refusal(
            PeerProtocolError("too many connections have not completed the handshake, this one is the oldest")
        )
        self.close()

    def _log_refusal(self, fault: PeerProtocolError) -> None:
        who = "a connection" if self.peer is None else self.owner.validator.me.name_of(self.peer)
        reason = printable(str(fault), REASON_CHARACTERS_MAX)
        self.owner.log_limiter.warning((self.host, reason), "refused %s from %s: %s", who, self._name, reason)
        self.owner.traffic.refused += 1

    def close(self) -> None:
        """See `PeerConnection`; a TLS handshake in progress is cancelled."""
        if self._securing is not None:
            self._securing.cancel()
            self._unregister()
        super().close()

    def connection_lost(self, error: Exception | None) -> None:
        """Unregister the connection."""
        self._unregister()

    def _unregister(self) -> None:
        self._stop_waiting()
        self._securing = None
        self.transport = None
        self.owner.connection_closed(self)


class Outgoing(PeerConnection):
    """The connection that this replica dialled to one peer; the peer sends only handshake messages on it."""

    def __init__(self, owner: ConnectionOwner, expected: ReplicaId, address: Address) -> None:
        super().__init__(owner)
        self._expected = expected
        self._handshake = OutgoingHandshake(owner.validator, expected, address)
        self.fault: PeerProtocolError | None = None
        self.error: Exception | None = None
        """Why the connection was lost, if the system reports it."""
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self._hello_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send Hello, unless the certificate belongs to another replica."""
        super().connection_made(transport)
        assert self.transport is not None
        if self.owner.tls is not None:
            reason = self.owner.tls.rejection_reason(self._expected, self.certificate)
            if reason is not None:
                self.refuse(PeerProtocolError(reason))
                return
        self.transport.write(self._handshake.hello())
        self._hello_sent = True

    def handshake_received(self, payload: bytes) -> None:
        """Answer a handshake message; set `ready` when the handshake is complete."""
        answer = self._handshake.answer(payload)
        self.peer = self._handshake.peer
        if self.peer is not None:
            self.ready.set()
        elif self.transport is not None:
            self.transport.write(answer)

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """After the handshake only a Refusal is valid."""
        self._handshake.answer(payload)

    def refuse(self, fault: PeerProtocolError) -> None:
        """Store the reason for the caller, send it to the peer, and close."""
        self.fault = fault
        self.owner.traffic.refused += 1
        if self.transport is not None:
            if self._hello_sent and not self._handshake.claim_sent and not isinstance(fault, RefusedByPeer):
                self.transport.write(refusal(fault))
            self.transport.close()
        self.ready.set()
        self.ended.set()

    def close(self) -> None:
        """See `PeerConnection`. A refused connection closes automatically after the reason was sent."""
        self._handshake.end()
        if self.fault is None:
            super().close()

    def connection_lost(self, error: Exception | None) -> None:
        """Set `ready` and `ended` for the caller."""
        self.transport = None
        self.error = error
        self.ready.set()
        self.ended.set()


def _remote_address(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """The host at the other end, and its address as HOST:PORT."""
    address = peer_address(transport)
    return ("", "an unknown address") if address is None else (address.host, str(address))


def _take_socket(transport: asyncio.Transport) -> socket.socket:
    """The socket of a transport, before anything is read from it. Aborts the transport; its protocol is not called."""
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    taken.setblocking(False)
    transport.set_protocol(asyncio.Protocol())
    transport.abort()
    return taken


def _prepare(transport: asyncio.Transport, limits: TransportLimits) -> None:
    """Disable Nagle's algorithm, and detect peers that disappear without closing the connection."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None:
        return
    set_option: Callable[[int, int, int], None] = connection.setsockopt
    set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    enable_keepalive(transport)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.silence_seconds_max * 1000))
