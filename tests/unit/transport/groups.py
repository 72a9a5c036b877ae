"""Small groups of transports for tests, of either kind, each end with what it received."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydsm.core.protocol.starts import Start, StartInfo
from pydsm.core.types.ids import Epoch, InstanceId, ReplicaId
from pydsm.core.types.messages import Batch, CommitQuery, Footprint, Message, PreAccept
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, LocalIdentity, Transport
from pydsm.transport.frames import PREAMBLE, Claim, Hello, encode_handshake
from pydsm.transport.handshake import HandshakeValidator
from pydsm.transport.limits import TransportLimits
from pydsm.transport.members import Member
from pydsm.transport.memory import MemoryHub, MemoryTransport
from pydsm.transport.secret import GroupSecret
from pydsm.transport.tcp import TcpTransport
from pydsm.transport.tls import TlsFiles, load_tls
from pydsm.transport.zeromq import ZeroMqTransport
from tests.certificates import authority
from tests.ports import free_ports
from tests.unit.transport.starts import PlainStarts
from tests.waiting import eventually

START = StartInfo(Start(1, 7), 0)
"""The StartInfo of a replica."""

QUICK = TransportLimits(handshake_seconds_max=0.5, backoff_seconds_min=0.01, backoff_seconds_max=0.05)

PATIENT = TransportLimits(handshake_seconds_max=30, backoff_seconds_min=0.01, backoff_seconds_max=0.05)
"""For groups without intended delays: a handshake may be slow on a busy machine."""


def admit_all(peer: ReplicaId, incarnation: int) -> str | None:
    """No incarnation is wrong."""
    return None


def small(index: int) -> Message:
    """Any message that does not weigh much."""
    return CommitQuery((InstanceId(ReplicaId(0), index),))


def large(index: int, size: int) -> Message:
    """A message of somewhat more than `size` bytes."""
    return PreAccept(InstanceId(ReplicaId(0), index), Batch((), (), Footprint(writes=(bytes(size),))), (0, 0, 0))


def hello_of(me: LocalIdentity) -> Hello:
    """The first message of this replica."""
    return HandshakeValidator(me, (), admit_all, PlainStarts(me.replica, me.replicas)).hello()


def hello(group: str, replica: int, replicas: int) -> bytes:
    """How a connection begins."""
    return PREAMBLE + encode_handshake(hello_of(who(replica, replicas, group=group)))


async def say(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, me: LocalIdentity) -> bytes:
    """Do the whole handshake as this replica, without a secret; returns the Confirmation or the Refusal."""
    writer.write(PREAMBLE + encode_handshake(hello_of(me)))
    assert await reader.readexactly(len(PREAMBLE)) == PREAMBLE
    await read_frame(reader)
    writer.write(encode_handshake(Claim(me.incarnation, START)))
    return await read_frame(reader)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The payload of the next frame."""
    length, _ = struct.unpack(">II", await reader.readexactly(8))
    return await reader.readexactly(length)


@dataclass
class End:
    """One replica's transport and everything that it received."""

    transport: Transport
    received: list[tuple[ReplicaId, Message]] = field(default_factory=list)
    fault: Exception | None = None

    def receive(self, sender: ReplicaId, message: Message) -> None:
        """Raises `fault` when one is set."""
        if self.fault is not None:
            raise self.fault
        self.received.append((sender, message))


def peers_of(me: LocalIdentity, ports: Sequence[int]) -> dict[ReplicaId, Address]:
    """Where the others listen."""
    return {ReplicaId(peer): Address("127.0.0.1", port) for peer, port in enumerate(ports) if peer != me.replica}


def tcp_end(
    me: LocalIdentity,
    ports: Sequence[int],
    admit: Admit = admit_all,
    limits: TransportLimits = QUICK,
    files: TlsFiles | None = None,
    starts: PlainStarts | None = None,
) -> End:
    """A TCP end whose peers listen on the other ports of the loopback address."""
    peers = peers_of(me, ports)
    tls = None if files is None else load_tls(files, {peer: (f"r{peer + 1}", "127.0.0.1") for peer in peers})
    starts = starts or PlainStarts(me.replica, me.replicas)
    return End(TcpTransport(me, Address("127.0.0.1", ports[me.replica]), peers, admit, starts, limits, tls))


def who(
    replica: int,
    replicas: int = 3,
    incarnation: int = 7,
    group: str = "test",
    epoch: int = 0,
    names: Sequence[str] = (),
    secret: bytes | None = None,
) -> LocalIdentity:
    """A member of a test group: r1, r2, ... unless it is given other names."""
    members = tuple(Member(name, f"{name}.example:7000") for name in names or [f"r{n + 1}" for n in range(replicas)])
    known = None if secret is None else GroupSecret(secret)
    return LocalIdentity(group, ReplicaId(replica), replicas, incarnation, Epoch(epoch), members, known)


class Network:
    """Where the replicas of one group find each other, by one kind of transport."""

    def __init__(self, kind: str, replicas: int) -> None:
        self._kind = kind
        self._hub = MemoryHub()
        self.ports = free_ports(replicas)

    def end(
        self,
        me: LocalIdentity,
        admit: Admit = admit_all,
        limits: TransportLimits = QUICK,
        starts: PlainStarts | None = None,
    ) -> End:
        """The transport of one replica, not started; another one for the same replica is its next start."""
        starts = starts or PlainStarts(me.replica, me.replicas)
        match self._kind:
            case "memory":
                return End(MemoryTransport(me, self._hub, admit, starts))
            case "tcp":
                return tcp_end(me, self.ports, admit, limits, starts=starts)
            case "tls":
                return tcp_end(me, self.ports, admit, limits, authority().issue(f"r{me.replica + 1}"), starts)
            case "zeromq":
                peers = peers_of(me, self.ports)
                here = Address("127.0.0.1", self.ports[me.replica])
                return End(ZeroMqTransport(me, here, peers, admit, starts, limits))
            case _:
                raise AssertionError(self._kind)


@asynccontextmanager
async def started(*ends: End) -> AsyncIterator[None]:
    """All ends started; stopped at the end."""
    try:
        for end in ends:
            await end.transport.start(end.receive)
        yield
    finally:
        for end in ends:
            await end.transport.stop()


@asynccontextmanager
async def group(
    kind: str, replicas: int = 3, limits: TransportLimits = PATIENT, secret: bytes | None = None
) -> AsyncIterator[list[End]]:
    """All ends, started and connected to each other; stopped at the end."""
    network = Network(kind, replicas)
    ends = [network.end(who(replica, replicas, secret=secret), limits=limits) for replica in range(replicas)]
    async with started(*ends):
        await eventually(lambda: all(len(end.transport.connected) == replicas - 1 for end in ends), "all are connected")
        yield ends
