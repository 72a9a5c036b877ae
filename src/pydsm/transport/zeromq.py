"""Messages over ZeroMQ: a ROUTER that peers dial, and a DEALER for each peer that is dialled.

The same handshake and frames as over TCP: the first message on a connection is a Hello. Connections
are re-established by `reconnect` and not by ZeroMQ, because each has to begin with a handshake; a connection is
identified by the routing id that the ROUTER assigns. Guarantees that input of an
unauthenticated peer costs one line in the log, and that queues are bounded: those of this module in bytes, those of
ZeroMQ in frames of limited size.

ZeroMQ itself accepts any number of connections, and messages of any number of parts: unlike `tcp`, this is for networks
in which no host tries to exhaust the memory. Needs the extra `zmq`.
"""

import asyncio
import itertools
import logging
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.core.types.messages import Message
from pydsm.core.wire.codec import decode_message, encode_message
from pydsm.core.wire.raw_messages import BatchCache
from pydsm.logs import LogLimiter, printable
from pydsm.transport.address import Address, cannot_listen, system_error_text
from pydsm.transport.backlog import Backlog
from pydsm.transport.base import Admit, LocalIdentity, Receive, StartExchange, Traffic
from pydsm.transport.coalescing import FlushTimer, can_wait
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    HANDSHAKE_BYTES_MAX,
    PREAMBLE,
    decode_messages,
    decode_stamp,
    open_frame,
    open_handshake,
)
from pydsm.transport.handshake import (
    REASON_CHARACTERS_MAX,
    HandshakeValidator,
    IncomingHandshake,
    OutgoingHandshake,
    RefusedByPeer,
    refusal,
)
from pydsm.transport.limits import TransportLimits
from pydsm.transport.reconnect import Reconnector
from pydsm.transport.secret import warn_if_unauthenticated

log = logging.getLogger("pydsm.transport")

_FRAMES_IN_FLIGHT_MAX = 8
_FRAMES_PER_TURN_MAX = 16  # receiving frames that have arrived already does not yield to the event loop
_OVERHEAD_BYTES = 64
_REFUSED_ROUTES_MAX = 1024
_REFUSAL_LINGER_MS = 500
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_ENDED = _HANDSHAKE_FAILED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED


class ZeroMqTransport:
    """See `transport.base.Transport`.

    `peers` are the other members, by their ids; `admit` decides about incarnations, `starts` about starts.
    """

    def __init__(
        self,
        me: LocalIdentity,
        listen: Address,
        peers: Mapping[ReplicaId, Address],
        admit: Admit,
        starts: StartExchange,
        limits: TransportLimits | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or TransportLimits()
        self.validator = HandshakeValidator(me, peers, admit, starts)
        self._me = me
        self._listen = listen
        self._links = {peer: _Link(self, peer, address) for peer, address in sorted(peers.items())}
        self._context: zmq.asyncio.Context | None = None
        self._router: zmq.asyncio.Socket | None = None
        self._routes: dict[bytes, ReplicaId] = {}
        self._handshakes: dict[bytes, IncomingHandshake] = {}
        self._log_limiter = LogLimiter(log)
        self._refused: deque[bytes] = deque(maxlen=_REFUSED_ROUTES_MAX)
        self._receive: Receive | None = None
        self._batch_cache = BatchCache()
        self._running: list[asyncio.Task[None]] = []
        self._flush_timer = FlushTimer(self.limits.linger_seconds_max, self._send_all)

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer, link in self._links.items() if link.is_up)

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
        self._receive = receive
        self._context = context = zmq.asyncio.Context()
        self._router = router = self.new_socket(zmq.ROUTER)
        watched = router.get_monitor_socket(_HANDSHAKE_FAILED | zmq.EVENT_DISCONNECTED)
        try:
            endpoint = await _endpoint(router, self._listen)
            router.bind(endpoint)
        except (OSError, zmq.ZMQError) as error:
            watched.close(0)
            context.destroy(linger=0)
            self._context = None
            raise cannot_listen("replicas", self._listen, error) from error
        host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        warn_if_unauthenticated([host], self._me.secret, encrypted=False)
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self._receive_from(router)), loop.create_task(self._watch(watched))]
        self._running += [loop.create_task(link.run()) for link in self._links.values()]

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        may_linger = can_wait(message) and self.limits.linger_seconds_max > 0
        for peer in to:
            link = self._links[peer]
            self.traffic.messages_dropped += link.enqueue(data, can_wait=may_linger)
            if not link.is_due:
                self._flush_timer.begin()

    def _send_all(self) -> None:
        for link in self._links.values():
            link.send_now()

    async def stop(self) -> None:
        """See `transport.base.Transport`. Queued messages are lost, Commits too: peers request these again."""
        self._flush_timer.stop()
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def new_socket(self, kind: int) -> zmq.asyncio.Socket:
        """A socket with the limits of this transport."""
        assert self._context is not None
        made = self._context.socket(kind)
        silence_ms = int(self.limits.silence_seconds_max * 1000)
        options = {
            zmq.LINGER: 0,
            zmq.SNDHWM: _FRAMES_IN_FLIGHT_MAX,
            zmq.RCVHWM: _FRAMES_IN_FLIGHT_MAX,
            zmq.MAXMSGSIZE: FRAME_BYTES_MAX + _OVERHEAD_BYTES,
            zmq.HANDSHAKE_IVL: int(self.limits.handshake_seconds_max * 1000),
            zmq.RECONNECT_IVL: -1,
            zmq.HEARTBEAT_IVL: max(1, silence_ms // 3),
            zmq.HEARTBEAT_TIMEOUT: silence_ms,
        }
        for option, value in options.items():
            made.setsockopt(option, value)
        return made

    async def _receive_from(self, router: zmq.asyncio.Socket) -> None:
        for number in itertools.count(1):
            route, *parts = await router.recv_multipart()
            try:
                self._process(router, route, parts)
            except PeerProtocolError as fault:
                self._refuse(router, route, fault)
            except Exception:
                log.exception("dropped a message of a peer, because handling it failed")
            if number % _FRAMES_PER_TURN_MAX == 0:
                await asyncio.sleep(0)

    def _process(self, router: zmq.asyncio.Socket, route: bytes, parts: list[bytes]) -> None:
        peer = self._routes.get(route)
        if peer is None and route in self._refused:
            return
        if len(parts) != 1:
            raise PeerProtocolError(f"it sent a message of {len(parts)} parts; messages have one")
        if peer is None:
            self._process_handshake(router, route, parts[0])
        else:
            self._deliver(peer, open_frame(parts[0]))

    def _process_handshake(self, router: zmq.asyncio.Socket, route: bytes, data: bytes) -> None:
        """Process a handshake message; accept the peer when the handshake is complete."""
        handshake = self._handshakes.get(route)
        if handshake is None:
            payload = open_handshake(data)
            if len(self._handshakes) >= self.limits.unauthenticated_connections_max:
                del self._handshakes[next(iter(self._handshakes))]  # the oldest; that of a peer ends after a round trip
            handshake = self._handshakes[route] = IncomingHandshake(self.validator)
        else:
            payload = open_frame(data, HANDSHAKE_BYTES_MAX)
        _send_to(router, route, handshake.answer(payload))
        peer = handshake.peer
        if peer is not None:
            del self._handshakes[route]
            self._routes = {known: other for known, other in self._routes.items() if other != peer}
            self._routes[route] = peer
            self._links[peer].dial_now()

    def _deliver(self, peer: ReplicaId, payload: bytes) -> None:
        assert self._receive is not None
        traffic = self.traffic
        traffic.bytes_received += len(payload)
        self.validator.check_stamp(peer, decode_stamp(payload))
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas, self._batch_cache))

    def _refuse(self, router: zmq.asyncio.Socket, route: bytes, fault: PeerProtocolError) -> None:
        """Log the reason, send it to the other end, and ignore all further messages on this connection."""
        peer, handshake = self._routes.pop(route, None), self._handshakes.pop(route, None)
        who = "a connection" if peer is None else self._me.name_of(peer)
        reason = printable(str(fault), REASON_CHARACTERS_MAX)
        self._log_limiter.warning(reason, "refused %s over ZeroMQ: %s", who, reason)
        self.traffic.refused += 1
        self._refused.append(route)
        if isinstance(fault, RefusedByPeer):
            return
        handshake = handshake or IncomingHandshake(self.validator)
        _send_to(router, route, refusal(fault) if peer is not None else handshake.refusal(fault))

    async def _watch(self, watched: zmq.asyncio.Socket) -> None:
        """Log connections that ZeroMQ itself refuses.

        For invalid data that look like its oldest protocol it reports nothing, so every end of a connection is logged.
        """
        try:
            while True:
                happened = await recv_monitor_message(watched)
                if happened["event"] == zmq.EVENT_DISCONNECTED:
                    self._log_limiter.info("ended", "a connection to %s has ended", self._listen)
                    continue
                self.traffic.refused += 1
                self._log_limiter.warning(
                    "garbage", "refused a connection to %s: it does not speak ZeroMQ's protocol", self._listen
                )
        finally:
            watched.close(0)


class _Link(Reconnector):
    """The connection that this replica dials to one peer: the queue of messages, and the DEALER that sends them."""

    def __init__(self, owner: ZeroMqTransport, peer: ReplicaId, address: Address) -> None:
        super().__init__(owner.validator.me.name_of(peer), address, owner.limits)
        self._peer = peer
        self._owner = owner
        self._backlog = Backlog(self.name, address, owner.limits)
        self._frame_bytes = 0
        self._has_messages = asyncio.Event()
        self.is_up = False

    @property
    def is_due(self) -> bool:
        """Whether to send the queued messages now."""
        return self._backlog.is_due

    def enqueue(self, data: bytes, *, can_wait: bool) -> int:
        """Queue an encoded message. Returns how many were dropped."""
        waiting = self._frame_bytes
        dropped = self._backlog.enqueue(data, connected=self.is_up, buffered_bytes=waiting, can_wait=can_wait)
        if self.is_due:
            self.send_now()
        return dropped

    def send_now(self) -> None:
        """Send everything that is queued."""
        self._has_messages.set()

    async def one_connection(self) -> str | None:
        """See `Reconnector`."""
        dealer = self._owner.new_socket(zmq.DEALER)
        watched = dealer.get_monitor_socket(_ENDED)
        ended: asyncio.Future[Any] = asyncio.ensure_future(recv_monitor_message(watched))
        handshake = OutgoingHandshake(self._owner.validator, self._peer, self.address)
        linger_ms = 0
        try:
            async with asyncio.timeout(self._limits.handshake_seconds_max):
                dealer.connect(await _endpoint(dealer, self.address))
                await dealer.send(handshake.hello())
                if not await self._process_handshake(dealer, ended, handshake):
                    return "it closed the connection during the handshake, or no replica listens there"
            await self._send_until_closed(dealer, ended, handshake)
        except TimeoutError:
            return "it does not answer"
        except PeerProtocolError as fault:
            self._owner.traffic.refused += 1
            if not isinstance(fault, RefusedByPeer):
                linger_ms = _REFUSAL_LINGER_MS
                with suppress(zmq.ZMQError):
                    await dealer.send(refusal(fault), zmq.NOBLOCK)
            return printable(str(fault), REASON_CHARACTERS_MAX)
        except (OSError, zmq.ZMQError) as error:
            return system_error_text(error)
        else:
            return None
        finally:
            handshake.end()
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            dealer.disable_monitor()
            watched.close(0)
            dealer.close(linger_ms)

    async def _process_handshake(
        self, dealer: zmq.asyncio.Socket, ended: "asyncio.Future[Any]", handshake: OutgoingHandshake
    ) -> bool:
        """Whether the handshake was completed. Raises PeerProtocolError if one side refuses the other."""
        answer = await _next_message(dealer, ended)
        while answer is not None:
            reply = handshake.answer(_handshake_payload_of(answer))
            if handshake.peer is not None:
                return True
            await dealer.send(reply)
            answer = await _next_message(dealer, ended)
        return False

    async def _send_until_closed(
        self, dealer: zmq.asyncio.Socket, ended: "asyncio.Future[Any]", handshake: OutgoingHandshake
    ) -> None:
        """Send queued messages until the connection ends. Raises RefusedByPeer if the peer refuses this replica."""
        log.info("connected to %s at %s", self.name, self.address)
        self.is_up = True
        sending = asyncio.create_task(self._send_queued(dealer))
        try:
            last_message = await _next_message(dealer, ended)
        finally:
            self.is_up = False
            self._frame_bytes = 0
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        log.info("lost the connection to %s at %s", self.name, self.address)
        if last_message is not None:
            handshake.answer(_handshake_payload_of(last_message))

    async def _send_queued(self, dealer: zmq.asyncio.Socket) -> None:
        while True:
            while self._backlog:
                frame, messages = self._backlog.next_frame(self._owner.validator.stamp())
                self._frame_bytes = len(frame)
                await dealer.send(frame)
                self._frame_bytes = 0
                self._owner.traffic.messages_sent += messages
                self._owner.traffic.bytes_sent += len(frame)
            self._has_messages.clear()
            await self._has_messages.wait()


async def _next_message(dealer: zmq.asyncio.Socket, ended: "asyncio.Future[Any]") -> bytes | None:
    """The next message on this connection; None if the connection ended before one arrived."""
    received: asyncio.Future[Any] = asyncio.ensure_future(dealer.recv())
    try:
        await asyncio.wait((received, ended), return_when=asyncio.FIRST_COMPLETED)
        if not received.done():
            with suppress(zmq.Again):  # a message that arrived before the end is processed
                return bytes(await dealer.recv(zmq.NOBLOCK))
        return bytes(received.result()) if received.done() else None
    finally:
        received.cancel()
        await asyncio.gather(received, return_exceptions=True)


def _handshake_payload_of(data: bytes) -> bytes:
    """The payload of a handshake message, the first on a connection or a later one."""
    return open_frame(data, HANDSHAKE_BYTES_MAX) if not data.startswith(PREAMBLE[:6]) else open_handshake(data)


async def _endpoint(made: zmq.asyncio.Socket, address: Address) -> str:
    """The address in ZeroMQ's form, resolved, because ZeroMQ listens on IP addresses only. Sets the IPv6 option."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, *_, numbers = found[0]
    made.setsockopt(zmq.IPV6, int(family == socket.AF_INET6))
    return f"tcp://{Address(str(numbers[0]), address.port)}"


def _send_to(router: zmq.asyncio.Socket, route: bytes, data: bytes) -> None:
    """Send on one connection without waiting: if it is closed or its queue is full, the data are lost."""
    sending = asyncio.ensure_future(router.send_multipart([route, data], zmq.NOBLOCK))
    sending.add_done_callback(asyncio.Future.exception)
