"""One TCP connection between replicas, seen from either end: greeting first, then frames, closed for what is wrong.

An incoming connection brings messages; an outgoing one carries them away and is only ever answered with a greeting.
Which connections there are, and who is let in, is decided by `tcp`.
"""

import asyncio
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from pydsm.core.faults import PeerFault
from pydsm.core.ids import ReplicaId
from pydsm.transport.base import Traffic
from pydsm.transport.frames import PREAMBLE, FrameReader, Refusal, decode_greeting, encode_greeting

log = logging.getLogger("pydsm.transport")

_REASON_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """Times and sizes."""

    peer_queue_bytes_max: int = 64 << 20
    """Bytes waiting for one peer; messages beyond are dropped."""
    absent_queue_bytes_max: int = 1 << 20
    """Bytes kept for a peer to which there is no connection, the newest; older messages are dropped."""
    frame_bytes_wanted: int = 1 << 20
    """A frame is closed when it holds so much, so that a receiver is never busy with one for long."""
    greeting_seconds_max: float = 5.0
    """How long dialling and greeting may take together."""
    silence_seconds_max: float = 10.0
    """How long sent bytes may stay unacknowledged before the connection is given up (where the system allows it)."""
    backoff_seconds_min: float = 0.05
    """Wait before the first redial, times a random factor between 0.5 and 1.5."""
    backoff_seconds_max: float = 2.0
    """The wait doubles up to this."""
    strangers_max: int = 64
    """Incoming connections that have not greeted yet; a further one is closed at once."""


class Owner(Protocol):
    """What connections need of the transport that they belong to."""

    limits: TcpLimits
    traffic: Traffic

    def hello(self) -> bytes:
        """What we say first."""
        ...

    def judge(self, payload: bytes) -> ReplicaId:
        """The peer that this greeting is from. Raises PeerFault with the reason when it may not talk to us."""
        ...

    def arrived(self, incoming: "Incoming") -> bool:
        """Whether there is room for one more stranger."""
        ...

    def met(self, incoming: "Incoming", peer: ReplicaId) -> None:
        """A stranger turned out to be a peer; it replaces that peer's earlier connection, which must be dead."""
        ...

    def left(self, incoming: "Incoming") -> None:
        """An incoming connection is gone."""
        ...

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """Pass on the messages of one frame. Raises PeerFault for one that is nonsense."""
        ...


class Connection(asyncio.Protocol, ABC):
    """What both directions share: reading frames, and closing with a reason."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.peer: ReplicaId | None = None
        self.transport: asyncio.Transport | None = None
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; nobody has said anything."""
        self.transport = cast(asyncio.Transport, transport)
        _prepare(self.transport, self.owner.limits)

    def data_received(self, data: bytes) -> None:
        """Hand on every payload that is complete; close at the first fault."""
        self._reader.feed(data)
        try:
            for payload in self._reader.payloads():
                if self.peer is None:
                    self.greeted(payload)
                    self._reader.allow_messages()
                else:
                    self.received(self.peer, payload)
                if self.transport is None or self.transport.is_closing():
                    return
        except PeerFault as fault:
            self.refuse(fault)

    @abstractmethod
    def greeted(self, payload: bytes) -> None:
        """The first payload."""

    @abstractmethod
    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Any later payload."""

    @abstractmethod
    def refuse(self, fault: PeerFault) -> None:
        """Close, and say why where an operator looks for it."""

    def close(self) -> None:
        """Close without waiting for what is still to be written."""
        if self.transport is not None:
            self.transport.abort()


class Incoming(Connection):
    """A connection that a peer, or a stranger, has dialled."""

    _name = "an unknown address"
    _greeted = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a greeting, but not for long."""
        super().connection_made(transport)
        self._name = str(transport.get_extra_info("peername"))
        if not self.owner.arrived(self):
            log.warning("refused a connection from %s: too many connections have not said who they are", self._name)
            self.owner.traffic.refused += 1
            self.close()
            return
        seconds = self.owner.limits.greeting_seconds_max
        self._patience = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self.refuse(PeerFault("it did not say who it is in time"))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def greeted(self, payload: bytes) -> None:
        """Let the peer in and greet it, or refuse it."""
        self.peer = self.owner.judge(payload)
        self._stop_waiting()
        self.owner.met(self, self.peer)
        assert self.transport is not None
        self.transport.write(self.owner.hello())
        self._greeted = True

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """Messages."""
        self.owner.deliver(peer, payload)

    def refuse(self, fault: PeerFault) -> None:
        """Say why, in the log and to the other end, and close."""
        who = f"replica {self.peer}" if self.peer is not None else "a connection"
        log.warning("refused %s from %s: %s", who, self._name, fault)
        self.owner.traffic.refused += 1
        if self.transport is not None:
            refusal = encode_greeting(Refusal(str(fault)[:_REASON_CHARACTERS_MAX]))
            self.transport.write(refusal if self._greeted else PREAMBLE + refusal)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Make room for another."""
        self._stop_waiting()
        self.transport = None
        self.owner.left(self)


class Outgoing(Connection):
    """The connection that we dialled to one peer. It only ever answers with a greeting."""

    def __init__(self, owner: Owner, expected: ReplicaId) -> None:
        super().__init__(owner)
        self._expected = expected
        self.fault: PeerFault | None = None
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet first."""
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(self.owner.hello())

    def greeted(self, payload: bytes) -> None:
        """Ready to send, if it is the peer that was dialled."""
        peer = self.owner.judge(payload)
        if peer != self._expected:
            raise PeerFault(f"replica {peer} answers there: check --peers")
        self.peer = peer
        self.ready.set()

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        """After its greeting a peer has nothing to say but why it refuses us."""
        greeting = decode_greeting(payload)
        reason = greeting.reason if isinstance(greeting, Refusal) else "it greets twice"
        raise PeerFault(f"it refuses us: {reason}")

    def refuse(self, fault: PeerFault) -> None:
        """Keep the reason for whoever dialled, and close."""
        self.fault = fault
        self.owner.traffic.refused += 1
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever dialled."""
        self.transport = None
        self.ready.set()
        self.ended.set()


def _prepare(transport: asyncio.Transport, limits: TcpLimits) -> None:
    """Send small frames at once, and notice a machine that went away without a word."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None:
        return
    set_option: Callable[[int, int, int], None] = connection.setsockopt
    set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.silence_seconds_max * 1000))
