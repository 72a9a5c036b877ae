"""Messages over TCP: every replica dials every other, and sends on the connections that it dialled.

Decides which connections exist, and checks that a certificate belongs to the replica that presents it. `handshake`
decides which peers are accepted, `reconnect` when to dial again, `backlog` what is queued for a slow peer. No input of
an unauthenticated connection can crash the replica or exhaust its memory: a connection that breaks the wire format is
closed and the reason logged.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.core.types.messages import Message
from pydsm.core.wire.codec import decode_message, encode_message
from pydsm.core.wire.raw_messages import BatchCache
from pydsm.logs import LogLimiter, printable
from pydsm.transport.address import Address, cannot_listen, system_error_text
from pydsm.transport.backlog import Backlog
from pydsm.transport.base import Admit, LocalIdentity, Receive, StartExchange, Traffic
from pydsm.transport.coalescing import FlushTimer, can_wait
from pydsm.transport.frames import Stamp, decode_messages, decode_stamp
from pydsm.transport.handshake import REASON_CHARACTERS_MAX, HandshakeValidator
from pydsm.transport.limits import TransportLimits
from pydsm.transport.pending import PendingConnections
from pydsm.transport.reconnect import Reconnector
from pydsm.transport.secret import warn_if_unauthenticated
from pydsm.transport.tcp_connections import Incoming, Outgoing
from pydsm.transport.tls import Tls, explain

log = logging.getLogger("pydsm.transport")


class TcpTransport:
    """See `transport.base.Transport`.

    `peers` are the others, by their ids; `admit` decides about incarnations, `starts` about starts; with `tls`
    everything is encrypted and certificates identify the peers.
    """

    def __init__(
        self,
        me: LocalIdentity,
        listen: Address,
        peers: Mapping[ReplicaId, Address],
        admit: Admit,
        starts: StartExchange,
        limits: TransportLimits | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or TransportLimits()
        self.tls = tls
        self._me = me
        self._listen = listen
        self.validator = HandshakeValidator(me, peers, admit, starts)
        self.log_limiter = LogLimiter(log)
        self.pending: PendingConnections[Incoming] = PendingConnections(self.limits)
        self._links = {peer: _Link(self, peer, address) for peer, address in sorted(peers.items())}
        self._incoming: dict[ReplicaId, Incoming] = {}
        self._server: asyncio.Server | None = None
        self._receive: Receive | None = None
        self._batch_cache = BatchCache()
        self._dialling: list[asyncio.Task[None]] = []
        self._to_flush: dict[ReplicaId, _Link] = {}
        self._flush_timer = FlushTimer(self.limits.linger_seconds_max, self._flush_all)

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
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Incoming(self), self._listen.host, self._listen.port)
        except OSError as error:
            raise cannot_listen("replicas", self._listen, error) from error
        hosts = [one.getsockname()[0] for one in self._server.sockets]
        warn_if_unauthenticated(hosts, self._me.secret, encrypted=self.tls is not None)
        self._dialling = [loop.create_task(link.run()) for link in self._links.values()]

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `transport.base.Transport`."""
        data = encode_message(message)
        may_linger = can_wait(message) and self.limits.linger_seconds_max > 0
        for peer in to:
            link = self._links[peer]
            self.traffic.messages_dropped += link.enqueue(data, can_wait=may_linger)
            if link.is_due:
                if not self._to_flush:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._to_flush[peer] = link
            else:
                self._flush_timer.begin()

    async def stop(self) -> None:
        """See `transport.base.Transport`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flush_timer.stop()
        self._flush_all()  # queued commits: without them, peers would have to recover decided instances
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        self._dialling = []
        for link in self._links.values():
            link.close()
        for incoming in [*self.pending.all(), *self._incoming.values()]:
            incoming.close()

    def _flush(self) -> None:
        touched, self._to_flush = self._to_flush, {}
        for link in touched.values():
            link.flush()

    def _flush_all(self) -> None:
        for link in self._links.values():
            link.flush()

    @property
    def stamp(self) -> Stamp:
        """The stamp of a frame of messages that is sent now."""
        return self.validator.stamp()

    def connection_accepted(self, incoming: Incoming, host: str) -> None:
        """See `tcp_connections.ConnectionOwner`."""
        oldest = self.pending.add(incoming, host)
        if oldest is not None:
            oldest.close_as_oldest()

    def peer_authenticated(self, incoming: Incoming, peer: ReplicaId) -> None:
        """See `tcp_connections.ConnectionOwner`."""
        self.pending.remove(incoming)
        self.pending.note_member_host(peer, incoming.host)
        self._links[peer].dial_now()
        earlier = self._incoming.get(peer)
        self._incoming[peer] = incoming
        if earlier is not None:
            earlier.close()

    def connection_closed(self, incoming: Incoming) -> None:
        """See `tcp_connections.ConnectionOwner`."""
        self.pending.remove(incoming)
        if incoming.peer is not None and self._incoming.get(incoming.peer) is incoming:
            del self._incoming[incoming.peer]

    def deliver(self, peer: ReplicaId, payload: bytes) -> None:
        """See `tcp_connections.ConnectionOwner`."""
        assert self._receive is not None
        traffic = self.traffic
        traffic.bytes_received += len(payload)
        self.validator.check_stamp(peer, decode_stamp(payload))
        for data in decode_messages(payload):
            traffic.messages_received += 1
            self._receive(peer, decode_message(data, self._me.replicas, self._batch_cache))


class _Link(Reconnector):
    """The outgoing side of one peer: queued messages, and the connection that is kept open."""

    def __init__(self, owner: TcpTransport, peer: ReplicaId, address: Address) -> None:
        super().__init__(owner.validator.me.name_of(peer), address, owner.limits)
        self._peer = peer
        self._owner = owner
        self._connection: Outgoing | None = None
        self._backlog = Backlog(self.name, address, owner.limits)

    @property
    def is_up(self) -> bool:
        """Whether the handshake is complete and the connection is open."""
        return self._open_transport is not None

    @property
    def _open_transport(self) -> asyncio.Transport | None:
        return None if self._connection is None else self._connection.transport

    @property
    def is_due(self) -> bool:
        """Whether to send the queued messages at the end of this turn."""
        return self._backlog.is_due

    def enqueue(self, data: bytes, *, can_wait: bool) -> int:
        """Queue an encoded message for this turn's end or the next connection. Returns how many were dropped."""
        transport = self._open_transport
        if transport is None:
            return self._backlog.enqueue(data, connected=False, can_wait=can_wait)
        buffered = transport.get_write_buffer_size()
        return self._backlog.enqueue(data, connected=True, buffered_bytes=buffered, can_wait=can_wait)

    def flush(self) -> None:
        """Write all queued messages in one call, as frames with the stamp of now."""
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
        """Close the connection; `run` opens another one unless it was cancelled."""
        if self._connection is not None:
            self._connection.close()

    async def one_connection(self) -> str | None:
        """See `Reconnector`."""
        connection = Outgoing(self._owner, self._peer, self.address)
        try:
            async with asyncio.timeout(self._limits.handshake_seconds_max):
                await self._dial(connection)
                await connection.ready.wait()
            if connection.transport is None or connection.fault is not None:
                return _failure_reason(connection)
            self._connection = connection
            log.info("connected to %s at %s", self.name, self.address)
            self.flush()
            await connection.ended.wait()
            log.info("lost the connection to %s at %s", self.name, self.address)
            return None if connection.fault is None else _failure_reason(connection)
        except TimeoutError:
            return "it does not answer"
        except ssl.SSLError as error:
            return explain(error)
        except OSError as error:
            return system_error_text(error)
        finally:
            self._connection = None
            connection.close()

    async def _dial(self, connection: Outgoing) -> None:
        tls, seconds = self._owner.tls, self._limits.handshake_seconds_max
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl": tls.client, "ssl_handshake_timeout": 2 * seconds, "ssl_shutdown_timeout": seconds}
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        hosts = [str(numbers[0]) for *_, numbers in found]
        self._owner.pending.member_is_at(self._peer, hosts)
        for host in hosts:
            try:
                await loop.create_connection(lambda: connection, host, self.address.port, **options)
            except ssl.SSLError:
                raise
            except OSError:
                if host == hosts[-1]:
                    raise
            else:
                return


def _failure_reason(connection: Outgoing) -> str:
    if connection.fault is not None:
        return printable(str(connection.fault), REASON_CHARACTERS_MAX)
    if isinstance(connection.error, ssl.SSLError):
        return explain(connection.error)
    return "it closed the connection during the handshake"
