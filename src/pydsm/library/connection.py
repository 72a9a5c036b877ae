"""A client of replicas in other processes, with the methods of a class."""

from collections.abc import Sequence
from types import TracebackType
from typing import Generic

from pydsm.client.client import Client
from pydsm.client.limits import ClientLimits
from pydsm.core.types.errors import UsageError
from pydsm.library.handles import M, class_of, handle
from pydsm.library.replica import TIMEOUT_SECONDS
from pydsm.machines.base import CommandFailed, Result


class Connection(Generic[M]):
    """See `connect`, which makes it."""

    def __init__(self, addresses: str | Sequence[str], machine: type[M], *, group: str, timeout: float) -> None:
        machine = class_of(machine)
        if timeout <= 0:
            raise UsageError(f"timeout must be above 0 seconds, not {timeout:g}")
        several = addresses.split(",") if isinstance(addresses, str) else addresses
        self._client = Client(
            [one.strip() for one in several], group=group, limits=ClientLimits(timeout_seconds=timeout)
        )
        self._handle: M = handle(machine, self._execute)

    async def __aenter__(self) -> M:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> M:
        """Connect; returns the object to call. Use `stop` in the end. Raises NoReplicaReachable."""
        await self._client.__aenter__()
        return self._handle

    async def stop(self) -> None:
        """Disconnect. Calls without an outcome fail with ClientClosed. Idempotent."""
        await self._client.close()

    @property
    def handle(self) -> M:
        """The object to call, which `start` returns."""
        return self._handle

    async def _execute(self, command: bytes, timeout_seconds: float | None) -> Result:
        try:
            return await self._client.execute(command, timeout_seconds=timeout_seconds)
        except CommandFailed as failed:
            return failed


def connect(
    addresses: str | Sequence[str], machine: type[M], *, group: str = "pydsm", timeout: float = TIMEOUT_SECONDS
) -> Connection[M]:
    """A client of replicas in other processes: the same object to call as that of a `Replica`.

    Example:
        async with connect("127.0.0.1:7100,127.0.0.1:7101", Inventory) as inventory:
            await inventory.add("bolt", 5)

    It uses the nearest replica that is ready, and another one when that fails.

    Args:
        addresses: those that replicas have for clients, HOST:PORT, any number of the group's.
        machine: the class that the replicas have, or one with the same commands.
        group: the name of the group.
        timeout: how long a call may take, in seconds, unless it says otherwise.

    Raises UsageError for addresses that are none, and DeclarationError for a class that is not a state machine.
    """
    return Connection(addresses, machine, group=group, timeout=timeout)
