"""Messages over TCP: every replica dials every other, and uses the connection that it dialled to send.

Decides which connections there are, and that a certificate and the replica that shows it belong together. Who may talk
to us is decided by `handshake`, when to dial again by `redial`, what waits for a slow peer by `backlog`. Guards that
nothing a stranger sends can crash the replica or fill its memory: a connection that breaks the wire format is closed
and the reason logged.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any

from pydsm.core.carriers import KnownBatches
from pydsm.core.codec import decode_message, encode_message
from pydsm.core.faults import PeerFault, WorldFault
from pydsm.core.ids import Epoch, ReplicaId
from pydsm.core.messages import Message
from pydsm.transport.address import Address
from pydsm.transport.backlog import Backlog
from pydsm.transport.base import Admit, Receive, Self, Starts, Traffic
from pydsm.transport.frames import Greeting, Hello, Stamp, decode_messages, decode_stamp
from pydsm.transport.handshake import Doorkeeper
from pydsm.transport.limits import TransportLimits
from pydsm.transport.patience import Patience, can_wait
from pydsm.transport.redial import Redialler
from pydsm.transport.tcp_connections import Incoming, Outgoing
from pydsm.transport.tls import Tls, explain

log = logging.getLogger("pydsm.transport")


class TcpTransport:
    """See `transport.base.Transport`.

    `peers` are the others, by their ids; `admit` decides about incarnations, `starts` about starts; with `tls`
    everything is encrypted and certificates decide who is who.
    """

    def __init__(
        self,
        me: Self,
        listen: Address,
        peers: Mapping[ReplicaId, Address],
        admit: Admit,
        starts: Starts,
        limits: TransportLimits | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or TransportLimits()
        self.tls = tls
        self._me = me
        self._listen = listen
        self._doorkeeper = Doorkeeper(me, peers, admit, starts)
        self._links = {peer: _Link(self, peer, address) for peer, address in sorted(peers.items())}
        self._strangers: set[Incoming] = set()
        self._incoming: dict[ReplicaId, Incoming] = {}
        self._server: asyncio.Server | None = None
        self._receive: Receive | None = None
        self._known = KnownBatches()
        self._dialling: list[asyncio.Task[None]] = []
        self._touched: dict[ReplicaId, _Link] = {}
        self._patience = Patience(self.limits.patient_seconds_max, self._flush_all)

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """See `transport.base.Transport`."""
        return tuple(peer for peer, link in self._links.items() if link.is_up)

    @property
    def epochs(self) -> Mapping[ReplicaId, Epoch]:
        """See `transport.base.Transport`."""
        return self._doorkeeper.epochs

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
        patient = can_wait(message) and self.limits.patient_seconds_max > 0
        for peer in to:
            link = self._links[peer]
            self.traffic.messages_dropped += link.take(data, can_wait=patient)
            if link.is_due:
                if not self._touched:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._touched[peer] = link
            else:
                self._patience.begin()

    async def stop(self) -> None:
        """See `transport.base.Transport`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._patience.stop()
        self._flush_all()  # commits that wait: without them, others would have to recover what is decided
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

    def _flush_all(self) -> None:
        for link in self._links.values():
            link.flush()

    def hello(self, to: ReplicaId | None = None) -> bytes:
        """See `tcp_connections.Owner`."""
        return self._doorkeeper.hello(to)

    @property
    def stamp(self) -> Stamp:
        """What a frame of messages that leaves now begins with."""
        return self._doorkeeper.stamp()

    def judge(self, greeting: Greeting, certificate: Mapping[str, Any] | None) -> ReplicaId:
        """See `tcp_connections.Owner`. A certificate is looked at first: an impostor leaves no trace in `admit`."""
        if self.tls is not None and isinstance(greeting, Hello) and greeting.replica in self._links:
            reason = self.tls.why_not(ReplicaId(greeting.replica), certificate)
            if reason is not None:
                raise PeerFault(reason)
        return self._doorkeeper.judge(greeting)

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
        self._doorkeeper.heard(peer, decode_stamp(payload))
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas, self._known))


class _Link(Redialler):
    """What we send to one peer: what waits for it, and the connection that is kept up."""

    def __init__(self, owner: TcpTransport, peer: ReplicaId, address: Address) -> None:
        super().__init__(peer, address, owner.limits)
        self._owner = owner
        self._connection: Outgoing | None = None
        self._backlog = Backlog(peer, address, owner.limits)

    @property
    def is_up(self) -> bool:
        """Whether the peer has greeted us and the connection still stands."""
        return self._open_transport is not None

    @property
    def _open_transport(self) -> asyncio.Transport | None:
        return None if self._connection is None else self._connection.transport

    @property
    def is_due(self) -> bool:
        """Whether what is queued should leave at the end of this turn."""
        return self._backlog.is_due

    def take(self, data: bytes, *, can_wait: bool) -> int:
        """Queue an encoded message for the end of this turn, or for the next connection; how many were dropped."""
        transport = self._open_transport
        if transport is None:
            return self._backlog.take(data, connected=False, can_wait=can_wait)
        waiting = transport.get_write_buffer_size()
        return self._backlog.take(data, connected=True, elsewhere_bytes=waiting, can_wait=can_wait)

    def flush(self) -> None:
        """Write everything queued in one go."""
        transport = self._open_transport
        if not self._backlog or transport is None:
            return
        frames: list[bytes] = []
        stamp = self._owner.stamp
        while self._backlog:
            frame, messages = self._backlog.next_frame(stamp)
            frames.append(frame)
            self._owner.traffic.messages_sent += messages
            self._owner.traffic.bytes_sent += len(frame)
        transport.write(b"".join(frames))

    def close(self) -> None:
        """Drop the connection; `keep_up` makes another one unless it was cancelled."""
        if self._connection is not None:
            self._connection.close()

    async def one_connection(self) -> str | None:
        """See `Redialler`."""
        connection = Outgoing(self._owner, self.peer)
        try:
            async with asyncio.timeout(self._limits.greeting_seconds_max):
                await self._dial(connection)
                await connection.ready.wait()
            if connection.transport is None:
                return _what_went_wrong(connection)
            self._connection = connection
            log.info("connected to replica %d at %s", self.peer, self.address)
            self.flush()
            await connection.ended.wait()
            log.info("lost the connection to replica %d at %s", self.peer, self.address)
            return str(connection.fault) if connection.fault else None
        except TimeoutError:
            return "it does not answer"
        except ssl.SSLError as error:
            return explain(error)
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
        finally:
            self._connection = None
            connection.close()

    async def _dial(self, connection: Outgoing) -> None:
        tls, seconds = self._owner.tls, self._limits.greeting_seconds_max
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl": tls.client, "ssl_handshake_timeout": 2 * seconds, "ssl_shutdown_timeout": seconds}
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, self.address.host, self.address.port, **options)


def _what_went_wrong(connection: Outgoing) -> str:
    if connection.fault is not None:
        return str(connection.fault)
    if isinstance(connection.error, ssl.SSLError):
        return explain(connection.error)
    return "it closed the connection before it said who it is"
