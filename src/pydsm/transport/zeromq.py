"""Messages over ZeroMQ: a ROUTER that peers dial, and a DEALER for each peer that is dialled.

Says and refuses the same as TCP: the first message on a connection is a greeting, each later one a frame. Connections
are made anew by `redial` and not by ZeroMQ, because every one of them has to begin with a greeting; a connection is
told by the routing id that the ROUTER gives it. Guards that whatever a stranger sends costs one line in the log, and
that queues are bounded: ours by bytes, those of ZeroMQ by frames of a bounded size.

ZeroMQ itself accepts any number of connections, and messages of any number of parts: unlike `tcp`, this is for networks
in which no stranger wants to fill the memory. Needs the extra `zmq`.
"""

import asyncio
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from pydsm.core.carriers import KnownBatches
from pydsm.core.codec import decode_message, encode_message
from pydsm.core.faults import PeerFault, WorldFault
from pydsm.core.ids import Epoch, ReplicaId
from pydsm.core.messages import Message
from pydsm.transport.address import Address
from pydsm.transport.backlog import Backlog
from pydsm.transport.base import Admit, Receive, Self, Starts, Traffic
from pydsm.transport.frames import FRAME_BYTES_MAX, PREAMBLE, decode_messages, decode_stamp, open_frame, open_greeting
from pydsm.transport.handshake import Doorkeeper, refusal
from pydsm.transport.limits import TransportLimits
from pydsm.transport.patience import Patience, can_wait
from pydsm.transport.redial import Redialler

log = logging.getLogger("pydsm.transport")

_FRAMES_IN_FLIGHT_MAX = 8
_FRAMES_IN_A_ROW_MAX = 16  # receiving what is there already does not let anything else run
_OVERHEAD_BYTES = 64
_REFUSED_ROUTES_MAX = 1024
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_ENDED = _HANDSHAKE_FAILED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED


class ZeroMqTransport:
    """See `transport.base.Transport`.

    `peers` are the others, by their ids; `admit` decides about incarnations, `starts` about starts.
    """

    def __init__(
        self,
        me: Self,
        listen: Address,
        peers: Mapping[ReplicaId, Address],
        admit: Admit,
        starts: Starts,
        limits: TransportLimits | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or TransportLimits()
        self.doorkeeper = Doorkeeper(me, peers, admit, starts)
        self._me = me
        self._listen = listen
        self._links = {peer: _Link(self, peer, address) for peer, address in sorted(peers.items())}
        self._context: zmq.asyncio.Context | None = None
        self._router: zmq.asyncio.Socket | None = None
        self._routes: dict[bytes, ReplicaId] = {}
        self._refused: deque[bytes] = deque(maxlen=_REFUSED_ROUTES_MAX)
        self._receive: Receive | None = None
        self._known = KnownBatches()
        self._running: list[asyncio.Task[None]] = []
        self._patience = Patience(self.limits.patient_seconds_max, self._send_all)

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer, link in self._links.items() if link.is_up)

    @property
    def epochs(self) -> Mapping[ReplicaId, Epoch]:
        """See `transport.base.Transport`."""
        return self.doorkeeper.epochs

    async def start(self, receive: Receive) -> None:
        """See `transport.base.Transport`."""
        self._receive = receive
        self._context = context = zmq.asyncio.Context()
        self._router = router = self.new_socket(zmq.ROUTER)
        watched = router.get_monitor_socket(_HANDSHAKE_FAILED | zmq.EVENT_DISCONNECTED)
        try:
            router.bind(await _endpoint(router, self._listen))
        except (OSError, zmq.ZMQError) as error:
            watched.close(0)
            context.destroy(linger=0)
            self._context = None
            raise WorldFault(
                f"cannot listen for replicas on {self._listen}: {_words(error)}; free the port or use another"
            ) from error
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self._listen_to(router)), loop.create_task(self._watch(watched))]
        self._running += [loop.create_task(link.keep_up()) for link in self._links.values()]

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        patient = can_wait(message) and self.limits.patient_seconds_max > 0
        for peer in to:
            link = self._links[peer]
            self.traffic.messages_dropped += link.take(data, can_wait=patient)
            if not link.is_due:
                self._patience.begin()

    def _send_all(self) -> None:
        for link in self._links.values():
            link.send_now()

    async def stop(self) -> None:
        """See `transport.base.Transport`. What waits is lost, Commits too: linger is 0, and others ask for them."""
        self._patience.stop()
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def new_socket(self, kind: int) -> zmq.asyncio.Socket:
        """A socket with our limits."""
        assert self._context is not None
        made = self._context.socket(kind)
        silence_ms = int(self.limits.silence_seconds_max * 1000)
        options = {
            zmq.LINGER: 0,
            zmq.SNDHWM: _FRAMES_IN_FLIGHT_MAX,
            zmq.RCVHWM: _FRAMES_IN_FLIGHT_MAX,
            zmq.MAXMSGSIZE: FRAME_BYTES_MAX + _OVERHEAD_BYTES,
            zmq.HANDSHAKE_IVL: int(self.limits.greeting_seconds_max * 1000),
            zmq.RECONNECT_IVL: -1,
            zmq.HEARTBEAT_IVL: max(1, silence_ms // 3),
            zmq.HEARTBEAT_TIMEOUT: silence_ms,
        }
        for option, value in options.items():
            made.setsockopt(option, value)
        return made

    async def _listen_to(self, router: zmq.asyncio.Socket) -> None:
        for number in itertools.count(1):
            route, *parts = await router.recv_multipart()
            try:
                self._arrived(router, route, parts)
            except PeerFault as fault:
                self._refuse(router, route, fault)
            except Exception:
                log.exception("dropped what a peer sent, because handling it failed")
            if number % _FRAMES_IN_A_ROW_MAX == 0:
                await asyncio.sleep(0)

    def _arrived(self, router: zmq.asyncio.Socket, route: bytes, parts: list[bytes]) -> None:
        peer = self._routes.get(route)
        if peer is None and route in self._refused:
            return
        if len(parts) != 1:
            raise PeerFault(f"it sent a message of {len(parts)} parts, ours have one")
        if peer is None:
            self._meet(router, route, parts[0])
        else:
            self._deliver(peer, open_frame(parts[0]))

    def _meet(self, router: zmq.asyncio.Socket, route: bytes, data: bytes) -> None:
        peer = self.doorkeeper.judge(open_greeting(data))
        self._routes = {known: other for known, other in self._routes.items() if other != peer}
        self._routes[route] = peer
        _say(router, route, self.doorkeeper.hello(peer))
        self._links[peer].dial_now()

    def _deliver(self, peer: ReplicaId, payload: bytes) -> None:
        assert self._receive is not None
        traffic = self.traffic
        traffic.bytes_received += len(payload)
        self.doorkeeper.heard(peer, decode_stamp(payload))
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas, self._known))

    def _refuse(self, router: zmq.asyncio.Socket, route: bytes, fault: PeerFault) -> None:
        """Say why, in the log and to the other end, and hear nothing more of what comes on this connection."""
        peer = self._routes.pop(route, None)
        log.warning("refused %s over ZeroMQ: %s", "a connection" if peer is None else f"replica {peer}", fault)
        self.traffic.refused += 1
        self._refused.append(route)
        _say(router, route, PREAMBLE + refusal(fault))

    async def _watch(self, watched: zmq.asyncio.Socket) -> None:
        """Say what ZeroMQ refuses without showing it to us.

        It gives no reason where it takes garbage for its oldest dialect, so the log has every end of a connection.
        """
        try:
            while True:
                happened = await recv_monitor_message(watched)
                if happened["event"] == zmq.EVENT_DISCONNECTED:
                    log.info("a connection to %s has ended", self._listen)
                    continue
                self.traffic.refused += 1
                log.warning("refused a connection to %s: it does not speak ZeroMQ's protocol", self._listen)
        finally:
            watched.close(0)


class _Link(Redialler):
    """What we send to one peer: what waits for it, and the DEALER that takes it there."""

    def __init__(self, owner: ZeroMqTransport, peer: ReplicaId, address: Address) -> None:
        super().__init__(peer, address, owner.limits)
        self._owner = owner
        self._backlog = Backlog(peer, address, owner.limits)
        self._leaving_bytes = 0
        self._something_waits = asyncio.Event()
        self.is_up = False

    @property
    def is_due(self) -> bool:
        """Whether what is queued should leave now."""
        return self._backlog.is_due

    def take(self, data: bytes, *, can_wait: bool) -> int:
        """Queue an encoded message; how many were dropped."""
        waiting = self._leaving_bytes
        dropped = self._backlog.take(data, connected=self.is_up, elsewhere_bytes=waiting, can_wait=can_wait)
        if self.is_due:
            self.send_now()
        return dropped

    def send_now(self) -> None:
        """Let everything that is queued leave."""
        self._something_waits.set()

    async def one_connection(self) -> str | None:
        """See `Redialler`."""
        dealer = self._owner.new_socket(zmq.DEALER)
        watched = dealer.get_monitor_socket(_ENDED)
        try:
            async with asyncio.timeout(self._limits.greeting_seconds_max):
                dealer.connect(await _endpoint(dealer, self.address))
                await dealer.send(self._owner.doorkeeper.hello())
                answer = await _unless_it_ends(dealer, watched)
            if answer is None:
                return "it closed the connection before it said who it is, or nobody listens there"
            peer = self._owner.doorkeeper.judge(open_greeting(answer))
            if peer != self.peer:
                raise PeerFault(f"replica {peer} answers there: check --peers")
            await self._carry(dealer, watched)
        except TimeoutError:
            return "it does not answer"
        except PeerFault as fault:
            self._owner.traffic.refused += 1
            return str(fault)
        except (OSError, zmq.ZMQError) as error:
            return _words(error)
        else:
            return None
        finally:
            dealer.disable_monitor()
            watched.close(0)
            dealer.close(0)

    async def _carry(self, dealer: zmq.asyncio.Socket, watched: zmq.asyncio.Socket) -> None:
        """Send what waits until the connection ends. Raises PeerFault when the peer refuses us."""
        log.info("connected to replica %d at %s", self.peer, self.address)
        self.is_up = True
        sending = asyncio.create_task(self._send_what_waits(dealer))
        try:
            last_word = await _unless_it_ends(dealer, watched)
        finally:
            self.is_up = False
            self._leaving_bytes = 0
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        log.info("lost the connection to replica %d at %s", self.peer, self.address)
        if last_word is not None:
            self._owner.doorkeeper.judge(open_greeting(last_word))
            raise PeerFault("it greets twice")

    async def _send_what_waits(self, dealer: zmq.asyncio.Socket) -> None:
        while True:
            while self._backlog:
                frame, messages = self._backlog.next_frame(self._owner.doorkeeper.stamp())
                self._leaving_bytes = len(frame)
                await dealer.send(frame)
                self._leaving_bytes = 0
                self._owner.traffic.messages_sent += messages
                self._owner.traffic.bytes_sent += len(frame)
            self._something_waits.clear()
            await self._something_waits.wait()


async def _unless_it_ends(dealer: zmq.asyncio.Socket, watched: zmq.asyncio.Socket) -> bytes | None:
    """The next message on this connection, or None when it has ended without one."""
    said: asyncio.Future[Any] = asyncio.ensure_future(dealer.recv())
    ended: asyncio.Future[Any] = asyncio.ensure_future(recv_monitor_message(watched))
    try:
        await asyncio.wait((said, ended), return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            with suppress(zmq.Again):  # what came before the end counts
                return bytes(await dealer.recv(zmq.NOBLOCK))
        return bytes(said.result()) if said.done() else None
    finally:
        for future in (said, ended):
            future.cancel()
        await asyncio.gather(said, ended, return_exceptions=True)


async def _endpoint(made: zmq.asyncio.Socket, address: Address) -> str:
    """The address as ZeroMQ wants it: resolved, since it listens on numbers only. Sets what IPv6 needs."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, *_, numbers = found[0]
    made.setsockopt(zmq.IPV6, int(family == socket.AF_INET6))
    return f"tcp://{Address(str(numbers[0]), address.port)}"


def _say(router: zmq.asyncio.Socket, route: bytes, data: bytes) -> None:
    """Answer on one connection; one that is gone, or does not read, is not waited for."""
    said = asyncio.ensure_future(router.send_multipart([route, data], zmq.NOBLOCK))
    said.add_done_callback(asyncio.Future.exception)


def _words(error: OSError | zmq.ZMQError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
