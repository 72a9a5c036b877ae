"""A replica in the process of the program that uses it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Generic

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.library.handles import M, class_of, handle
from pydsm.library.local_calls import LocalCalls
from pydsm.library.settings import ReplicaSettings, replica_settings
from pydsm.machines.declared.guard import is_development
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.maintenance import PauseReport, ResumeReport, SnapshotReport
from pydsm.runtime.node import Node
from pydsm.runtime.observation import Observation, ReadyLimits, not_ready_reason
from pydsm.runtime.snapshot_transfer import RestartRequired
from pydsm.server.native import NativeServer
from pydsm.server.native_connection import NativeServerContext
from pydsm.storage.identity import ReplicaStore
from pydsm.storage.memory import MemoryStore
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange, Transport
from pydsm.transport.members import Member
from pydsm.transport.tcp import TcpTransport

log = logging.getLogger("pydsm.replica")

TIMEOUT_SECONDS = 10.0
"""The default of `timeout`."""
_READY_POLL_SECONDS = 0.02

MakeNode = Callable[[], Node]


class Replica(Generic[M]):
    """One replica of a group, in this process, as an async context manager that gives the object to call.

    Example:
        async with Replica(Inventory, name="a", listen="127.0.0.1:7000", peers=PEERS, data_dir="a") as inventory:
            await inventory.add("bolt", 5)

    The group answers while a majority of its replicas runs; until then, calls wait for at most their timeout.

    Args:
        machine: the class, which inherits from `StateMachine`.
        name: of this replica, unique in its group, and the same at each start.
        listen: the address for other replicas, HOST:PORT.
        peers: the addresses of all replicas by their names, the same at every replica. If this replica is among them,
            the others use the address here, and `listen` may be another one of this computer.
        data_dir: a directory of this replica alone. None keeps everything in memory: such a replica cannot come back
            after its process has ended.
        clients: an address for `connect` of other processes, HOST:PORT.
        group: the name of the group; replicas and clients of another one are refused.
        timeout: how long a call may take, in seconds, unless it says otherwise.
        guard: whether commands are watched for what is not the same at every replica, see `NotDeterministic`; the same
            at every replica. None: with `python -X dev` or PYDSM_GUARD=1.
        checkpoint_instances: about how many batches there are between two snapshots.

    Raises:
        UsageError: these arguments cannot work.
        DeclarationError: the class cannot be replicated.
    """

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
        settings = replica_settings(
            group=group,
            name=name,
            listen=listen,
            peers=peers,
            clients=clients,
            data_dir=data_dir,
            checkpoint_instances=checkpoint_instances,
        )
        machine = class_of(machine)
        guarded = is_development() if guard is None else guard
        self._begin(machine, settings, lambda: _tcp_node(machine, settings, guarded=guarded), timeout)

    def _begin(self, machine: type[M], settings: ReplicaSettings, make_node: MakeNode, timeout: float) -> None:
        if timeout <= 0:
            raise UsageError(f"timeout must be above 0 seconds, not {timeout:g}")
        self._settings = settings
        self._make_node = make_node
        self._calls = LocalCalls(timeout)
        self._handle: M = handle(machine, self._calls.execute)
        self._node: Node | None = None
        self._server: NativeServer | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @classmethod
    def of_node(cls, machine: type[M], settings: ReplicaSettings, make_node: MakeNode, timeout: float) -> "Replica[M]":
        """A replica with another transport or store than those of `Replica`; see `pydsm.testing.Group`."""
        replica = cls.__new__(cls)
        replica._begin(machine, settings, make_node, timeout)
        return replica

    # Starting and stopping

    async def start(self) -> M:
        """Load what the data directory has, and take part; returns the object to call. Use `stop` in the end.

        Raises OperationalError if the data are damaged or an address is taken.
        """
        if self._node is not None or self._failure is not None:
            raise UsageError("this replica was started already: make another one")
        await self._start_node()
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return self._handle

    async def __aenter__(self) -> M:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self, drain: float = 5.0) -> None:
        """Answer the calls that are accepted, if the group does so within `drain` seconds, and stop. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._stop_node(drain)
        self._calls.end(f"replica {self.name} is stopped" if self._failure is None else str(self._failure))

    async def _start_node(self) -> None:
        node = self._make_node()
        try:
            await node.start()
            if self._settings.clients is not None:
                self._server = _native_server(node, self._settings)
                await self._server.start(self._settings.clients)
        except BaseException:
            await node.stop()
            raise
        self._node = node
        self._calls.use(node)

    async def _stop_node(self, drain: float = 5.0) -> None:
        node, self._node = self._node, None
        server, self._server = self._server, None
        if node is not None:
            await node.stop(drain)
            self._calls.node = None
        if server is not None:
            await server.stop()

    async def _watch(self) -> None:
        """Start the replica again after it fetched a snapshot; note any other failure."""
        while (node := self._node) is not None:
            failure = await asyncio.shield(node.failure)
            await self._stop_node()
            if isinstance(failure, RestartRequired):
                try:
                    await self._start_node()
                    continue
                except Exception as error:
                    failure = error
            self._failure = failure
            self._calls.end(f"replica {self.name} has failed: {failure}")
            return

    async def failed(self) -> Exception:
        """Wait until this replica has stopped by itself, and return why; while all is well, this does not return."""
        if self._watching is None:
            raise UsageError("this replica is not started")
        await asyncio.wait((self._watching,))
        return self._failure or OperationalError(f"replica {self.name} is stopped")

    # What it is

    @property
    def handle(self) -> M:
        """The object to call, which `start` returns."""
        return self._handle

    @property
    def name(self) -> str:
        """The name of this replica."""
        return self._settings.identity.name

    @property
    def members(self) -> dict[str, str]:
        """The address of each replica of the group, by its name."""
        return {name: str(at) for name, at in zip(self._settings.names, self._settings.addresses, strict=True)}

    @property
    def failure(self) -> Exception | None:
        """Why this replica has stopped by itself; None while all is well."""
        return self._failure

    def observe(self) -> Observation:
        """What is to be seen of this replica now: what it has executed, its connections, its counters."""
        return self._running().observe()

    @property
    def not_ready_reason(self) -> str | None:
        """Why calls would have to wait now, in one line; None if this replica is ready."""
        if self._node is None:
            return "it is not running" if self._failure is None else str(self._failure)
        return not_ready_reason(self._node.observe(), ReadyLimits())

    async def ready(self, timeout: float = 60.0) -> None:
        """Wait until this replica and a majority of its group are ready for calls. `timeout` is in seconds.

        Raises OperationalError if that takes longer, with the reason.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while (reason := self.not_ready_reason) is not None:
            if self._failure is not None or asyncio.get_running_loop().time() >= deadline:
                raise OperationalError(f"replica {self.name} is not ready: {reason}")
            await asyncio.sleep(_READY_POLL_SECONDS)  # what it waits for comes from peers, which may not run yet

    # Maintenance

    async def pause(self) -> PauseReport:
        """Answer the open calls, then execute nothing more until `resume`; the replica still takes part in agreement.

        Raises OperationalError if it is stopped.
        """
        return await self._running().maintenance.pause()

    async def resume(self) -> ResumeReport:
        """Execute what was agreed on meanwhile, and go on. Raises OperationalError if it is stopped."""
        return await self._running().maintenance.resume()

    async def snapshot(self, timeout: float = 60.0) -> SnapshotReport:
        """Take a snapshot of the state now; `timeout` is in seconds.

        Raises UsageError for a replica without a data directory, or while it is paused, and OperationalError if it is
        stopped or the disk fails.
        """
        return await self._running().maintenance.snapshot(timeout)

    def _running(self) -> Node:
        if self._node is None:
            raise OperationalError(f"replica {self.name} is not running")
        return self._node


def _tcp_node(machine: type[M], settings: ReplicaSettings, *, guarded: bool) -> Node:
    identity = settings.identity
    peers = {ReplicaId(one): at for one, at in enumerate(settings.addresses) if one != identity.replica}
    listed = tuple(Member(name, str(at)) for name, at in zip(settings.names, settings.addresses, strict=True))

    def transport(incarnation: int, admit: Admit, starts: StartExchange) -> Transport:
        me = LocalIdentity(identity.group, identity.replica, identity.replicas, incarnation, members=listed)
        return TcpTransport(me, settings.listen, peers, admit, starts)

    store: ReplicaStore
    snapshots: SnapshotFiles | None
    if settings.data_dir is None:
        store, snapshots = MemoryStore(), None
    else:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        store, snapshots = SqliteStore(settings.data_dir, identity), SnapshotFiles(settings.data_dir, identity)
    replicated = DeclaredMachine(machine, identity.replica, identity.replicas, guarded=guarded)
    components = NodeComponents(replicated, store, transport, snapshots=snapshots, names=settings.names)
    return Node(settings.config, components)


def _native_server(node: Node, settings: ReplicaSettings) -> NativeServer:
    context = NativeServerContext(
        settings.identity,
        settings.names,
        lambda: not_ready_reason(node.observe(), ReadyLimits()) is None,
        node.grant,
        node.session_ms,
    )
    return NativeServer(node.submit_requests, context)
