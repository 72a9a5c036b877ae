"""Messages over TCP: every replica dials every other, and uses the connection that it dialled to send.

Decides who may talk to us (the greeting must name our group and a replica that is not us), when to dial again
(jittered backoff), and what happens to a peer that is slow or away (bounded queues; what does not fit is dropped and
counted, because the core repeats what matters). Guards that nothing a stranger sends can crash the replica or fill
its memory: a connection that breaks the wire format is closed and the reason logged.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from collections.abc import Iterable, Mapping

from pydsm.core.codec import decode_message, encode_message
from pydsm.core.faults import PeerFault, WorldFault
from pydsm.core.ids import ReplicaId
from pydsm.core.messages import Message
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, Receive, Self, Traffic
from pydsm.transport.frames import (
    FRAME_BYTES_MAX,
    PREAMBLE,
    Hello,
    Refusal,
    decode_greeting,
    decode_messages,
    encode_greeting,
    encode_messages,
    message_bytes,
)
from pydsm.transport.tcp_connections import Incoming, Outgoing, TcpLimits

__all__ = ["TcpLimits", "TcpTransport"]

log = logging.getLogger("pydsm.transport")


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
        self._strangers: set[Incoming] = set()
        self._incoming: dict[ReplicaId, Incoming] = {}
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
            self._server = await loop.create_server(lambda: Incoming(self), self._listen.host, self._listen.port)
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
            self.traffic.messages_dropped += link.take(data)
            self._touched[peer] = link

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
        """See `tcp_connections.Owner`."""
        me = self._me
        return PREAMBLE + encode_greeting(Hello(me.group, me.replica, me.replicas, me.incarnation))

    def judge(self, payload: bytes) -> ReplicaId:
        """See `tcp_connections.Owner`."""
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

    def arrived(self, incoming: "Incoming") -> bool:
        """See `tcp_connections.Owner`."""
        if len(self._strangers) >= self.limits.strangers_max:
            return False
        self._strangers.add(incoming)
        return True

    def met(self, incoming: "Incoming", peer: ReplicaId) -> None:
        """See `tcp_connections.Owner`."""
        self._strangers.discard(incoming)
        self._links[peer].dial_now()
        earlier = self._incoming.get(peer)
        self._incoming[peer] = incoming
        if earlier is not None:
            earlier.close()

    def left(self, incoming: "Incoming") -> None:
        """See `tcp_connections.Owner`."""
        self._strangers.discard(incoming)
        if incoming.peer is not None and self._incoming.get(incoming.peer) is incoming:
            del self._incoming[incoming.peer]

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """See `tcp_connections.Owner`."""
        assert self._receive is not None
        traffic = self.traffic
        traffic.bytes_received += len(payload)
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas))


class _Link:
    """What we send to one peer: the queue of this turn, and the connection that is kept up for it."""

    def __init__(self, owner: TcpTransport, peer: ReplicaId, address: Address) -> None:
        self._owner = owner
        self._peer = peer
        self._address = address
        self._connection: Outgoing | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._overflowing = False
        self._last_complaint = ""
        self._peer_is_back = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether the peer has greeted us and the connection still stands."""
        return self._open_transport is not None

    @property
    def _open_transport(self) -> asyncio.Transport | None:
        return None if self._connection is None else self._connection.transport

    def take(self, data: bytes) -> int:
        """Queue an encoded message for the end of this turn, or for the next connection; how many were dropped."""
        size = message_bytes(data)
        if size > FRAME_BYTES_MAX:
            log.warning("a message of %d bytes is over the limit of a frame and was dropped", size)
            return 1
        if self._open_transport is None:
            return self._keep_newest(data, size)
        waiting = self._queued_bytes + size + self._open_transport.get_write_buffer_size()
        fits = waiting <= self._owner.limits.peer_queue_bytes_max
        if fits:
            self._queue.append(data)
            self._queued_bytes += size
        elif not self._overflowing:
            log.warning("replica %d at %s is too slow: %d bytes wait for it", self._peer, self._address, waiting)
        self._overflowing = not fits
        return 0 if fits else 1

    def _keep_newest(self, data: bytes, size: int) -> int:
        """A connection that is about to come finds what was said lately, a peer that is gone costs little memory."""
        self._queue.append(data)
        self._queued_bytes += size
        dropped = 0
        while self._queued_bytes > self._owner.limits.absent_queue_bytes_max:
            self._queued_bytes -= message_bytes(self._queue.popleft())
            dropped += 1
        return dropped

    def flush(self) -> None:
        """Write everything queued in one go."""
        if not self._queue or self._open_transport is None:
            return
        queue, self._queue, self._queued_bytes = self._queue, deque(), 0
        data = b"".join(map(encode_messages, _divide(queue, self._owner.limits.frame_bytes_wanted)))
        self._open_transport.write(data)
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
        connection = Outgoing(self._owner, self._peer)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._owner.limits.greeting_seconds_max):
                await loop.create_connection(lambda: connection, self._address.host, self._address.port)
                await connection.ready.wait()
            if connection.transport is None:
                return str(connection.fault or "it closed the connection before it said who it is")
            self._connection = connection
            log.info("connected to replica %d at %s", self._peer, self._address)
            self.flush()
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


def _divide(messages: Iterable[bytes], wanted: int) -> list[list[bytes]]:
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
