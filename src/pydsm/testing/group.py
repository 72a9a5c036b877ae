"""A whole group in the process of a test, in memory: starts in some milliseconds, and uses no port and no file."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic

from pydsm.core.types.config import Config
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import ReplicaId
from pydsm.library.handles import M, class_of
from pydsm.library.replica import TIMEOUT_SECONDS, Replica
from pydsm.library.settings import ReplicaSettings
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.starts import StartLimits
from pydsm.storage.identity import Identity
from pydsm.storage.memory import MemoryStore
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, LocalIdentity, StartExchange, Transport
from pydsm.transport.members import Member
from pydsm.transport.memory import MemoryHub, MemoryTransport

_POLL_SECONDS = 0.001


class Group(Generic[M]):
    """Replicas of a class in this process, for tests, as an async context manager.

    Example:
        async with Group(Inventory, 3) as group:
            await group[0].add("bolt", 5)
            assert await group[2].left("bolt") == 5

    Args:
        machine: the class.
        replicas: how many.
        timeout: of calls, in seconds.
        guard: whether commands that read clocks, draw random numbers or do I/O fail with `NotDeterministic`.
    """

    def __init__(
        self, machine: type[M], replicas: int = 3, *, timeout: float = TIMEOUT_SECONDS, guard: bool = True
    ) -> None:
        machine = class_of(machine)
        self._hub = MemoryHub()
        self._machines: list[DeclaredMachine] = []
        self.replicas: tuple[Replica[M], ...] = tuple(
            self._replica(machine, ReplicaId(number), replicas, timeout, guard=guard) for number in range(replicas)
        )
        """The replicas, for `pause`, `resume`, `stop` and `observe`."""

    def _replica(self, machine: type[M], number: ReplicaId, count: int, timeout: float, *, guard: bool) -> Replica[M]:
        names = tuple(f"r{one}" for one in range(count))
        identity = Identity("group", names[number], number, count)
        nowhere = Address("127.0.0.1", 0)
        settings = ReplicaSettings(identity, names, (nowhere,) * count, nowhere, None, None, Config(number, count))
        declared = DeclaredMachine(machine, guarded=guard)
        self._machines.append(declared)
        listed = tuple(Member(name) for name in names)

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> Transport:
            me = LocalIdentity(identity.group, number, count, incarnation, members=listed)
            return MemoryTransport(me, self._hub, admit, starts)

        def make_node() -> Node:
            limits = StartLimits(grace_seconds_min=_POLL_SECONDS, grace_seconds_max=_POLL_SECONDS)
            return Node(settings.config, NodeComponents(declared, MemoryStore(), transport, names=names, starts=limits))

        return Replica.of_node(machine, settings, make_node, timeout)

    async def __aenter__(self) -> "Group[M]":
        try:
            await asyncio.gather(*(replica.start() for replica in self.replicas))
            for replica in self.replicas:
                while replica.observe().not_participating_reason is not None:
                    await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop all replicas at once; open calls fail with `OutcomeUnknown`. Idempotent."""
        await asyncio.gather(*(replica.stop(drain=0) for replica in self.replicas))

    @contextmanager
    def cut(self, *numbers: int) -> Iterator[None]:
        """While this context is open, these replicas exchange no messages with the others; messages are lost."""
        kept = {ReplicaId(number): self._hub.present.pop(ReplicaId(number)) for number in numbers}
        try:
            yield
        finally:
            self._hub.present.update(kept)

    def __getitem__(self, number: int) -> M:
        """The object to call of one replica."""
        return self.replicas[number].handle

    def __len__(self) -> int:
        return len(self.replicas)

    def __iter__(self) -> Iterator[M]:
        return (replica.handle for replica in self.replicas)

    async def same_state(self, timeout: float = 10.0) -> bool:
        """Wait until every running replica has executed what any has, and return whether their states are equal.

        Raises OperationalError if a replica has not within `timeout` seconds.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        running = [number for number, one in enumerate(self.replicas) if one.not_ready_reason != "it is not running"]
        while True:
            seen = [self.replicas[number].observe() for number in running]
            if all(one.frontier == seen[0].frontier and one.known == seen[0].frontier for one in seen):
                return len({self._machines[number].digest() for number in running}) <= 1
            if asyncio.get_running_loop().time() >= deadline:
                raise OperationalError(
                    f"after {timeout:g} s the replicas have executed {[one.frontier for one in seen]} of what is known"
                )
            await asyncio.sleep(_POLL_SECONDS)
