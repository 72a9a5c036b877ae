"""Small groups of transports for tests, of either kind, each end with what it received."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydsm.core.ids import InstanceId, ReplicaId
from pydsm.core.messages import Batch, Footprint, Inquire, Message, PreAccept
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, Self, Transport
from pydsm.transport.memory import MemoryHub, MemoryTransport
from pydsm.transport.tcp import TcpLimits, TcpTransport
from tests.ports import free_ports
from tests.waiting import eventually

QUICK = TcpLimits(greeting_seconds_max=0.3, backoff_seconds_min=0.01, backoff_seconds_max=0.05)


def admit_all(peer: ReplicaId, incarnation: int) -> str | None:
    """No incarnation is wrong."""
    return None


def small(index: int) -> Message:
    """Any message that does not weigh much."""
    return Inquire((InstanceId(ReplicaId(0), index),))


def large(index: int, size: int) -> Message:
    """A message of somewhat more than `size` bytes."""
    return PreAccept(InstanceId(ReplicaId(0), index), Batch((), (), Footprint(writes=(bytes(size),))), (0, 0, 0))


@dataclass
class End:
    """One replica's transport and everything that came to it."""

    transport: Transport
    received: list[tuple[ReplicaId, Message]] = field(default_factory=list)
    fault: Exception | None = None

    def receive(self, sender: ReplicaId, message: Message) -> None:
        """Raises `fault` when one is set."""
        if self.fault is not None:
            raise self.fault
        self.received.append((sender, message))


def tcp_end(me: Self, ports: Sequence[int], admit: Admit = admit_all, limits: TcpLimits = QUICK) -> End:
    """A TCP end whose peers listen on the other ports of the loopback address."""
    peers = {ReplicaId(peer): Address("127.0.0.1", port) for peer, port in enumerate(ports) if peer != me.replica}
    return End(TcpTransport(me, Address("127.0.0.1", ports[me.replica]), peers, admit, limits))


def who(replica: int, replicas: int = 3, incarnation: int = 7, group: str = "test") -> Self:
    """A member of a test group."""
    return Self(group, ReplicaId(replica), replicas, incarnation)


@asynccontextmanager
async def group(kind: str, replicas: int = 3, limits: TcpLimits = QUICK) -> AsyncIterator[list[End]]:
    """All ends, started and connected to each other; stopped at the end."""
    hub, ports = MemoryHub(), free_ports(replicas)
    ends = [
        End(MemoryTransport(who(replica, replicas), hub, admit_all))
        if kind == "memory"
        else tcp_end(who(replica, replicas), ports, limits=limits)
        for replica in range(replicas)
    ]
    try:
        for end in ends:
            await end.transport.start(end.receive)
        await eventually(lambda: all(len(end.transport.connected) == replicas - 1 for end in ends), "all are connected")
        yield ends
    finally:
        for end in ends:
            await end.transport.stop()
