"""`Replica` and `connect` for programs without asyncio, such as Flask and Django applications and scripts.

    from pydsm import blocking

    with blocking.connect("127.0.0.1:7100", Inventory) as inventory:
        inventory.add("bolt", 5)

Each has a thread with an event loop. The object to call may be used from any number of threads; start it after a
process has forked, since a thread does not exist in the copy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydsm.library import connection, replica
from pydsm.library.handles import M
from pydsm.library.replica import TIMEOUT_SECONDS
from pydsm.library.threads import Blocking, BlockingHandle
from pydsm.runtime.maintenance import PauseReport, ResumeReport, SnapshotReport

__all__ = ["Blocking", "BlockingHandle", "Replica", "connect"]


class Replica(Blocking[M]):
    """A replica in this process; see `pydsm.Replica`, whose arguments these are."""

    def __init__(
        self,
        machine: type[M],
        *,
        name: str,
        listen: str,
        peers: Mapping[str, str],
        data_dir: str | Path | None,
        clients: str | None = None,
        group: str = "pydsm",
        timeout: float = TIMEOUT_SECONDS,
        guard: bool | None = None,
        checkpoint_instances: int | None = None,
    ) -> None:
        self._replica = replica.Replica(
            machine,
            name=name,
            listen=listen,
            peers=peers,
            data_dir=data_dir,
            clients=clients,
            group=group,
            timeout=timeout,
            guard=guard,
            checkpoint_instances=checkpoint_instances,
        )
        super().__init__(machine, self._replica, f"pydsm-{name}")

    @property
    def not_ready_reason(self) -> str | None:
        """See `pydsm.Replica.not_ready_reason`."""
        return self._thread.run(self._not_ready_reason())

    async def _not_ready_reason(self) -> str | None:
        return self._replica.not_ready_reason

    def ready(self, timeout: float = 60.0) -> None:
        """See `pydsm.Replica.ready`."""
        self._thread.run(self._replica.ready(timeout))

    def pause(self) -> PauseReport:
        """See `pydsm.Replica.pause`."""
        return self._thread.run(self._replica.pause())

    def resume(self) -> ResumeReport:
        """See `pydsm.Replica.resume`."""
        return self._thread.run(self._replica.resume())

    def snapshot(self, timeout: float = 60.0) -> SnapshotReport:
        """See `pydsm.Replica.snapshot`."""
        return self._thread.run(self._replica.snapshot(timeout))


def connect(
    addresses: str | Sequence[str], machine: type[M], *, group: str = "pydsm", timeout: float = TIMEOUT_SECONDS
) -> Blocking[M]:
    """A client of replicas in other processes; see `pydsm.connect`, whose arguments these are."""
    return Blocking(machine, connection.connect(addresses, machine, group=group, timeout=timeout), "pydsm-client")
