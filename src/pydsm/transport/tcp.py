"""Messages over TCP: every replica dials every other, and uses the connection that it dialled to send.

Decides who may talk to us (the greeting must name our group and a replica that is not us), when to dial again
(jittered backoff), and what happens to a peer that is slow (a bounded queue; what does not fit is dropped and counted,
because the core repeats what matters). Guards that nothing a stranger sends can crash the replica or fill its memory:
a connection that breaks the wire format is closed and the reason logged.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from pydsm.core.codec import decode_message, encode_message
from pydsm.core.faults import PeerFault, WorldFault
from pydsm.core.ids import ReplicaId
from pydsm.core.messages import Message
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, Receive, Self, Traffic
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    PREAMBLE,
    FrameReader,
    Hello,
    Refusal,
    decode_greeting,
    decode_messages,
    encode_greeting,
    encode_messages,
    message_bytes,
)

log = logging.getLogger("pydsm.transport")

_REASON_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """Times and sizes."""

    peer_queue_bytes_max: int = 64 << 20
    """Bytes waiting for one peer; messages beyond are dropped."""
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


class TcpTransport:
    """See `transport.base.Transport`. `peers` are the others, by their ids; `admit` decides about incarnations."""

    def __init__(
        self,
        me: Self,
        listen: Address,
        peers: Mapping[ReplicaId, Address],
        admit: Admit,
        limits: TcpLimits | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or TcpLimits()
        self._me = me
        self._listen = listen
        self._admit = admit
        self._links = {peer: _Link(self, peer, address) for peer, address in sorted(peers.items())}
        self._strangers: set[_Incoming] = set()
        self._incoming: dict[ReplicaId, _Incoming] = {}
        self._server: asyncio.Server | None = None
        self._receive: Receive | None = None
        self._dialling: list[asyncio.Task[None]] = []
        self._touched: dict[ReplicaId, _Link] = {}

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer, link in self._links.items() if link.is_up)

    async def start(self, receive: Receive) -> None:
        """See `transport.base.Transport`."""
        self._receive = receive
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Incoming(self), self._listen.host, self._listen.port)
        except OSError as error:
            raise WorldFault(
                f"cannot listen for replicas on {self._listen}: {error.strerror or error}; free the port or use another"
            ) from error
        self._dialling = [loop.create_task(link.keep_up()) for link in self._links.values()]

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        if not self._touched:
            asyncio.get_running_loop().call_soon(self._flush)
        for peer in to:
            link = self._links[peer]
            if link.take(data):
                self._touched[peer] = link
            else:
                self.traffic.messages_dropped += 1

    async def stop(self) -> None:
        """See `transport.base.Transport`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        self._dialling = []
        for link in self._links.values():
            link.close()
        for incoming in [*self._strangers, *self._incoming.values()]:
            incoming.close()

    def _flush(self) -> None:
        touched, self._touched = self._touched, {}
        for link in touched.values():
            link.flush()

    def hello(self) -> bytes:
        """What we say first."""
        me = self._me
        return PREAMBLE + encode_greeting(Hello(me.group, me.replica, me.replicas, me.incarnation))

    def judge(self, payload: bytes) -> ReplicaId:
        """The peer that this greeting is from. Raises PeerFault with the reason when it may not talk to us."""
        hello = decode_greeting(payload)
        if isinstance(hello, Refusal):
            raise PeerFault(f"it refuses us: {hello.reason}")
        me = self._me
        if hello.group != me.group:
            raise PeerFault(f"it is of group {hello.group!r}, we are of {me.group!r}")
        if hello.replicas != me.replicas:
            raise PeerFault(f"it is of a group of {hello.replicas}, ours has {me.replicas}: check --peers on both")
        peer = ReplicaId(hello.replica)
        if peer not in self._links:
            raise PeerFault(f"it calls itself replica {peer}, which is none of our peers")
        reason = self._admit(peer, hello.incarnation)
        if reason is not None:
            raise PeerFault(reason)
        return peer

    def arrived(self, incoming: "_Incoming") -> bool:
        """Whether there is room for one more stranger."""
        if len(self._strangers) >= self.limits.strangers_max:
            return False
        self._strangers.add(incoming)
        return True

    def met(self, incoming: "_Incoming", peer: ReplicaId) -> None:
        """A stranger turned out to be a peer; it replaces that peer's earlier connection, which must be dead."""
        self._strangers.discard(incoming)
        self._links[peer].dial_now()
        earlier = self._incoming.get(peer)
        self._incoming[peer] = incoming
        if earlier is not None:
            earlier.close()

    def left(self, incoming: "_Incoming") -> None:
        """An incoming connection is gone."""
        self._strangers.discard(incoming)
        if incoming.peer is not None and self._incoming.get(incoming.peer) is incoming:
            del self._incoming[incoming.peer]

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """Pass on the messages of one frame. Raises PeerFault for one that is nonsense."""
        assert self._receive is not None
        traffic = self.traffic
        traffic.bytes_received += len(payload)
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas))


class _Connection(asyncio.Protocol, ABC):
    """What both directions share: reading frames, and closing with a reason."""

    def __init__(self, owner: TcpTransport) -> None:
        self.owner = owner
        self.peer: ReplicaId | None = None
        self.transport: asyncio.Transport | None = None
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        _prepare(self.transport, self.owner.limits)

    def data_received(self, data: bytes) -> None:
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


class _Incoming(_Connection):
    """A connection that a peer, or a stranger, has dialled."""

    _name = "an unknown address"
    _greeted = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
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

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def greeted(self, payload: bytes) -> None:
        self.peer = self.owner.judge(payload)
        self._be_patient()
        self.owner.met(self, self.peer)
        assert self.transport is not None
        self.transport.write(self.owner.hello())
        self._greeted = True

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        self.owner.deliver(peer, payload)

    def refuse(self, fault: PeerFault) -> None:
        who = f"replica {self.peer}" if self.peer is not None else "a connection"
        log.warning("refused %s from %s: %s", who, self._name, fault)
        self.owner.traffic.refused += 1
        if self.transport is not None:
            refusal = encode_greeting(Refusal(str(fault)[:_REASON_CHARACTERS_MAX]))
            self.transport.write(refusal if self._greeted else PREAMBLE + refusal)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._be_patient()
        self.transport = None
        self.owner.left(self)


class _Outgoing(_Connection):
    """The connection that we dialled to one peer. It only ever answers with a greeting."""

    def __init__(self, owner: TcpTransport, expected: ReplicaId) -> None:
        super().__init__(owner)
        self._expected = expected
        self.fault: PeerFault | None = None
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(self.owner.hello())

    def greeted(self, payload: bytes) -> None:
        peer = self.owner.judge(payload)
        if peer != self._expected:
            raise PeerFault(f"replica {peer} answers there: check --peers")
        self.peer = peer
        self.ready.set()

    def received(self, peer: ReplicaId, payload: bytes) -> None:
        greeting = decode_greeting(payload)
        reason = greeting.reason if isinstance(greeting, Refusal) else "it greets twice"
        raise PeerFault(f"it refuses us: {reason}")

    def refuse(self, fault: PeerFault) -> None:
        self.fault = fault
        self.owner.traffic.refused += 1
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.ready.set()
        self.ended.set()


class _Link:
    """What we send to one peer: the queue of this turn, and the connection that is kept up for it."""

    def __init__(self, owner: TcpTransport, peer: ReplicaId, address: Address) -> None:
        self._owner = owner
        self._peer = peer
        self._address = address
        self._connection: _Outgoing | None = None
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._overflowing = False
        self._last_complaint = ""
        self._peer_is_back = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether the peer has greeted us and the connection still stands."""
        return self._connection is not None and self._connection.transport is not None

    def take(self, data: bytes) -> bool:
        """Queue an encoded message for the end of this turn; False when it is dropped."""
        connection = self._connection
        if connection is None or connection.transport is None:
            return False
        size = message_bytes(data)
        waiting = self._queued_bytes + size + connection.transport.get_write_buffer_size()
        fits = size <= FRAME_BYTES_MAX and waiting <= self._owner.limits.peer_queue_bytes_max
        if fits:
            self._queue.append(data)
            self._queued_bytes += size
        elif not self._overflowing:
            log.warning("replica %d at %s is too slow: %d bytes wait for it", self._peer, self._address, waiting)
        self._overflowing = not fits
        return fits

    def flush(self) -> None:
        """Write everything queued in one go."""
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        connection = self._connection
        if not queue or connection is None or connection.transport is None:
            return
        data = b"".join(map(encode_messages, _divide(queue, self._owner.limits.frame_bytes_wanted)))
        connection.transport.write(data)
        self._owner.traffic.messages_sent += len(queue)
        self._owner.traffic.bytes_sent += len(data)

    def close(self) -> None:
        """Drop the connection; `keep_up` makes another one unless it was cancelled."""
        if self._connection is not None:
            self._connection.close()

    def dial_now(self) -> None:
        """The peer has just dialled us, so it is there: wait no longer before dialling it."""
        self._peer_is_back.set()

    async def keep_up(self) -> None:
        """Dial, greet, wait for the end, and again."""
        backoff = self._owner.limits.backoff_seconds_min
        while True:
            self._peer_is_back.clear()
            complaint = await self._one_connection()
            if complaint is None:
                backoff = self._owner.limits.backoff_seconds_min
            elif complaint != self._last_complaint:
                log.warning("no connection to replica %d at %s: %s; trying again", self._peer, self._address, complaint)
            self._last_complaint = complaint or ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff * random.uniform(0.5, 1.5)):
                    await self._peer_is_back.wait()
            backoff = min(2 * backoff, self._owner.limits.backoff_seconds_max)

    async def _one_connection(self) -> str | None:
        """From dialling to the end of the connection; None when it was good until then, else what was wrong."""
        connection = _Outgoing(self._owner, self._peer)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._owner.limits.greeting_seconds_max):
                await loop.create_connection(lambda: connection, self._address.host, self._address.port)
                await connection.ready.wait()
            if connection.transport is None:
                return str(connection.fault or "it closed the connection before it said who it is")
            self._connection = connection
            log.info("connected to replica %d at %s", self._peer, self._address)
            await connection.ended.wait()
            log.info("lost the connection to replica %d at %s", self._peer, self._address)
            return str(connection.fault) if connection.fault else None
        except TimeoutError:
            return "it does not answer"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
        finally:
            self._connection = None
            connection.close()


def _divide(messages: list[bytes], wanted: int) -> list[list[bytes]]:
    """Runs of messages that hold about `wanted` bytes each."""
    runs: list[list[bytes]] = [[]]
    size = 0
    for message in messages:
        if runs[-1] and size + len(message) > wanted:
            runs.append([])
            size = 0
        runs[-1].append(message)
        size += message_bytes(message)
    return runs


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
