"""The transport interface: sends messages to peers; the only guarantee is that a received message was sent by a peer.

Messages may be lost, delayed, duplicated and reordered, so a transport never waits and never queues more than its
limit: the core repeats what matters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydsm.core.protocol.starts import PeerReport, StartInfo
from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.core.types.messages import Message
from pydsm.transport.members import Member, name_of, unnamed
from pydsm.transport.secret import GroupSecret

Receive = Callable[[ReplicaId, Message], None]
"""Receives a decoded message of a peer, on the loop. Raises PeerProtocolError to have that connection closed."""

Admit = Callable[[ReplicaId, int], str | None]
"""Takes a peer and the fingerprint of its incarnation. Returns None to accept it, or the reason to refuse it."""


class StartExchange(Protocol):
    """Exchanges and compares records of starts between this replica and its peers (see `core.protocol.starts`)."""

    @property
    def stamp(self) -> tuple[int, int]:
        """The stamp of a frame sent now: the number of this replica's start, and the position of its store."""
        ...

    def start_info(self, to: ReplicaId | None) -> StartInfo:
        """This start, for a handshake; with the report about the peer `to`, if that is authenticated."""
        ...

    def check_start(self, peer: ReplicaId, incarnation: int, info: StartInfo) -> str | None:
        """Why a handshake of this start of a peer is rejected, or None."""
        ...

    def check_report(self, report: PeerReport) -> None:
        """Compare what a peer has stored about this replica with the data of this replica."""
        ...

    def check_stamp(self, peer: ReplicaId, start: int, position: int) -> str | None:
        """Record the stamp of a received frame. Returns why its messages are rejected, or None."""
        ...

    def report_on(self, peer: ReplicaId) -> PeerReport:
        """What this replica has stored about a peer."""
        ...


_FIRST_EPOCH = Epoch(0)


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """The data that a replica sends in handshakes, and those with which it verifies its peers.

    `members` are all of the group, in order; without them, replicas are called by their numbers. With a `secret`, only
    peers that prove that they have it are accepted.
    """

    group: str
    replica: ReplicaId
    replicas: int
    incarnation: int = field(repr=False)
    epoch: Epoch = _FIRST_EPOCH
    members: tuple[Member, ...] = ()
    secret: GroupSecret | None = field(default=None, repr=False)

    @property
    def listed(self) -> tuple[Member, ...]:
        """All members."""
        return self.members or unnamed(self.replicas)

    def name_of(self, replica: ReplicaId) -> str:
        """The name of a member, which may be this replica, for logs and messages."""
        return name_of(self.listed, replica)

    @property
    def name(self) -> str:
        """The name of this replica, for logs and messages."""
        return self.name_of(self.replica)


@dataclass(slots=True)
class Traffic:
    """Counters since the start of the process."""

    messages_sent: int = 0
    messages_received: int = 0
    messages_dropped: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    refused: int = 0


class Transport(Protocol):
    """The connections of one replica to its peers. Used from one event loop."""

    @property
    def connected(self) -> tuple[ReplicaId, ...]:
        """Peers to which a connection is open, in order."""
        ...

    @property
    def epochs(self) -> Mapping[ReplicaId, Epoch]:
        """The epoch of each peer at its last handshake; peers without one since this start are absent."""
        ...

    @property
    def fingerprints(self) -> Mapping[ReplicaId, int]:
        """For each peer, the fingerprint of the incarnation whose messages are delivered, or were delivered last."""
        ...

    @property
    def traffic(self) -> Traffic:
        """Counters of messages and bytes."""
        ...

    async def start(self, receive: Receive) -> None:
        """Begin to listen and to connect to peers. Raises OperationalError if it cannot listen."""
        ...

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Pass one message to several peers; returns immediately. Messages sent in one turn of the loop leave together.

        A message that can wait (`transport.coalescing`) may be delayed, to share a frame with later ones.
        """
        ...

    async def stop(self) -> None:
        """Close everything. Stopping twice is allowed."""
        ...
