"""`pydsm serve`: one replica of the key-value machine, with a Redis port, until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pydsm.cli.configuration import read_options
from pydsm.cli.loop import run
from pydsm.cli.transports import TransportKind, load_peer_tls, tls_files, transport_maker
from pydsm.core.config import WINDOW_BYTES_MAX, Config
from pydsm.core.faults import CallerFault, WorldFault
from pydsm.core.ids import ReplicaId
from pydsm.machines.kv import KeyValue
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.clock import DIFFERENCE_MS_MAX
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits, why_not_ready
from pydsm.runtime.parts import MakeTransport, Parts
from pydsm.runtime.transfers import BeginAgain
from pydsm.server.native import Host, NativeServer
from pydsm.server.resp import RespServer
from pydsm.storage.identity import Identity, ReplicaStore
from pydsm.storage.memory import MemoryStore
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.address import Address, parse_address

log = logging.getLogger("pydsm.serve")

READY = "ready"
"""The word by which a replica that serves clients can be told in its output."""

_YOUNG_OBJECTS_BEFORE_COLLECTION = 50_000
_SWITCH_SECONDS = 0.0005


class Storage(StrEnum):
    """Where records go."""

    SQLITE = "sqlite"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """When the next checkpoint is proposed: whatever comes first since the last one."""

    instances: int = 10_000
    bytes: int = 256 << 20
    seconds: int = 300


@dataclass(frozen=True, slots=True)
class Settings:
    """What one replica needs to know, checked."""

    identity: Identity
    listen: Address
    names: tuple[str, ...]
    transport: MakeTransport
    redis: Address
    clients: Address | None
    http: Address | None
    ready_limits: ReadyLimits
    checkpoints: CheckpointLimits
    data: Path | None
    thrifty: bool
    clock_difference_ms: int
    window_bytes: int
    batch_limits: BatchLimits
    until_stdin_closes: bool


def _take_file(context: typer.Context, path: Path | None) -> Path | None:
    """Put the file's values where defaults come from; the environment and the command line come before those."""
    if path is not None:
        context.default_map = read_options(path, serve)
    return path


def serve(
    name: Annotated[str, typer.Option(help="Name of this replica, one of those in --peers.")],
    peers: Annotated[str, typer.Option(help="All replicas, itself too, the same everywhere: r1=HOST:PORT,r2=...")],
    redis: Annotated[str, typer.Option(help="Address for Redis clients, HOST:PORT.")],
    listen: Annotated[str, typer.Option(help="Address for replicas, HOST:PORT (default: that of --peers).")] = "",
    clients: Annotated[str, typer.Option(help="Address for native clients, HOST:PORT (default: none).")] = "",
    http: Annotated[str, typer.Option(help="Address for /health, /ready, /metrics, /status (default: none).")] = "",
    data: Annotated[Path | None, typer.Option(help="Directory of this replica's data.")] = None,
    storage: Annotated[Storage, typer.Option(help="sqlite survives restarts, memory does not.")] = Storage.SQLITE,
    transport: Annotated[
        TransportKind, typer.Option(help="Between replicas, the same everywhere; zeromq needs the extra zmq.")
    ] = TransportKind.TCP,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Encrypt between replicas: this replica's certificate, in PEM form.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="The authority that signed every replica's certificate.")] = None,
    group: Annotated[str, typer.Option(help="Name of the group, the same everywhere.")] = "pydsm",
    thrifty: Annotated[
        bool, typer.Option("--thrifty/--no-thrifty", help="Ask only as many replicas as needed.")
    ] = False,
    batch_commands_max: Annotated[
        int, typer.Option(min=1, help="Commands that are agreed on together, at most.")
    ] = BatchLimits().batch_commands_max,
    ready_lag: Annotated[
        int, typer.Option(help="Instances of one leader that may be missing here while /ready says yes.")
    ] = ReadyLimits().lag_instances_max,
    clock_difference_ms: Annotated[
        int,
        typer.Option(min=1, help="Milliseconds by which the clock may differ from the group's time while ready."),
    ] = DIFFERENCE_MS_MAX,
    checkpoint_instances: Annotated[
        int, typer.Option(help="Batches executed from one checkpoint to the next, at most about.")
    ] = CheckpointLimits().instances,
    checkpoint_bytes: Annotated[
        int, typer.Option(help="Bytes of commands executed from one checkpoint to the next, at most about.")
    ] = CheckpointLimits().bytes,
    window_bytes: Annotated[
        int,
        typer.Option(
            help="Memory for what a replica that is away has missed, about; one that misses more fetches a snapshot."
        ),
    ] = WINDOW_BYTES_MAX,
    checkpoint_seconds: Annotated[
        int, typer.Option(help="Seconds from one checkpoint to the next while anything is executed, at most about.")
    ] = CheckpointLimits().seconds,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when the parent process is gone.", hidden=True)
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with any of these options; the environment, then the command line, override it.",
            is_eager=True,
            callback=_take_file,
        ),
    ] = None,
) -> int:
    """Run one replica. Every option may also stand in the environment or in a file."""
    if storage is Storage.SQLITE and data is None:
        raise CallerFault("--storage sqlite needs --data DIR, a directory of this replica's own")
    members = parse_members(peers)
    if name not in members:
        raise CallerFault(f"--name {name} is not in --peers, which names {', '.join(members)}")
    replica = ReplicaId(list(members).index(name))
    identity = Identity(group, name, replica, len(members))
    here = _address("--listen", listen) if listen else members[name]
    others = {ReplicaId(peer): address for peer, address in enumerate(members.values()) if peer != replica}
    files = tls_files(transport, tls_cert, tls_key, tls_ca)
    tls = None if files is None else load_peer_tls(files, tuple(members), others)
    settings = Settings(
        identity=identity,
        listen=here,
        names=tuple(members),
        transport=transport_maker(transport, identity, here, others, tls),
        redis=_address("--redis", redis),
        clients=_address("--clients", clients) if clients else None,
        http=_address("--http", http) if http else None,
        ready_limits=ReadyLimits(lag_instances_max=ready_lag),
        checkpoints=CheckpointLimits(checkpoint_instances, checkpoint_bytes, checkpoint_seconds),
        data=data if storage is Storage.SQLITE else None,
        thrifty=thrifty,
        clock_difference_ms=clock_difference_ms,
        window_bytes=window_bytes,
        batch_limits=BatchLimits(batch_commands_max=batch_commands_max),
        until_stdin_closes=until_stdin_closes,
    )
    _log_to_stderr(name)
    return run(_serve(settings))


def _address(option: str, text: str) -> Address:
    try:
        return parse_address(text)
    except CallerFault as fault:
        raise CallerFault(f"{option}: {fault}") from fault


def parse_members(text: str) -> dict[str, Address]:
    """Names and addresses, in order. Raises CallerFault for what is not NAME=HOST:PORT,... or names one twice."""
    members: dict[str, Address] = {}
    for part in text.split(","):
        name, separator, address = part.strip().partition("=")
        if not (name and separator):
            raise CallerFault(f"{part.strip()!r} in --peers is not NAME=HOST:PORT")
        if name in members:
            raise CallerFault(f"--peers names {name} twice")
        members[name] = _address("--peers", address)
    if len(set(members.values())) != len(members):
        raise CallerFault("two replicas in --peers have one address")
    return members


async def _serve(settings: Settings) -> int:
    """One life after the other, as long as each ends with the snapshot of a peer from which the next can begin."""
    stop = _stop_request(settings)
    while True:
        failure = await _one_life(settings, stop)
        if not isinstance(failure, BeginAgain):
            return 1 if failure is not None else 0


async def _one_life(settings: Settings, stop: asyncio.Future[None]) -> Exception | None:
    """Serve until somebody wants it to stop, or it has to stop by itself: then why."""
    machine = KeyValue()
    node = make_node(settings, machine)
    watched = contextlib.AsyncExitStack()
    try:
        await node.start()
        server = RespServer(node.submit_many, lambda: _sections(settings.identity.name, node, machine))
        await _listen_for_clients(server, settings.redis)
        if settings.clients is not None:
            watched.push_async_callback(await _listen_for_native_clients(settings, settings.clients, node))
        if settings.http is not None:
            watched.push_async_callback(await _listen_for_watchers(settings, settings.http, node))
        _calm_the_interpreter()
        print(_ready_line(settings), flush=True)
        await asyncio.wait((stop, node.failure), return_when=asyncio.FIRST_COMPLETED)
        failure = node.failure.result() if node.failure.done() else None
        if not isinstance(failure, BeginAgain):
            log.info("stopping" if failure is None else "stopping after a failure")
        await node.stop()
        await server.stop()
        return failure
    finally:
        await node.stop()
        await watched.aclose()


def make_node(settings: Settings, machine: KeyValue) -> Node:
    """The replica, not yet started. Raises WorldFault when its data directory cannot be used."""
    identity = settings.identity
    store: ReplicaStore = MemoryStore() if settings.data is None else SqliteStore(settings.data, identity)
    limits = settings.checkpoints
    config = Config(
        replica=identity.replica,
        replicas=identity.replicas,
        thrifty=settings.thrifty,
        window_bytes_max=settings.window_bytes,
        checkpoint_instances_max=limits.instances,
        checkpoint_bytes_max=limits.bytes,
        checkpoint_ticks=limits.seconds * 1000,
    )
    snapshots = None if settings.data is None else SnapshotFiles(settings.data, identity)
    parts = Parts(
        machine,
        store,
        settings.transport,
        limits=settings.batch_limits,
        snapshots=snapshots,
        clock_difference_ms_max=settings.clock_difference_ms,
    )
    return Node(config, parts)


def _sections(name: str, node: Node, machine: KeyValue) -> dict[str, dict[str, str]]:
    """What INFO tells besides what the port knows itself."""
    keys, expiries = machine.counts()
    counted = {"db0": f"keys={keys},expires={expiries},avg_ttl=0"} if keys else {}
    return {"Stats": {"name": name, **node.info()}, "Keyspace": counted}


async def _listen_for_clients(server: RespServer, address: Address) -> None:
    try:
        await server.start(address.host, address.port)
    except OSError as error:
        raise WorldFault(
            f"cannot listen for Redis clients on {address}: {error.strerror or error}; free the port or use another"
        ) from error


async def _listen_for_native_clients(settings: Settings, address: Address, node: Node) -> Callable[[], Awaitable[None]]:
    """Open the port for native clients; gives what closes it."""
    host = Host(
        settings.identity,
        settings.names,
        lambda: why_not_ready(node.observe(), settings.ready_limits) is None,
        node.grant,
        node.session_ms,
    )
    server = NativeServer(node.submit_requests, host)
    await server.start(address)
    return server.stop


async def _listen_for_watchers(settings: Settings, address: Address, node: Node) -> Callable[[], Awaitable[None]]:
    """Open the HTTP port; gives what closes it. Imported only here: a replica without the port starts faster."""
    from pydsm.server.http import HttpServer, Subject

    subject = Subject(settings.identity, settings.names, node.observe, node.trace, node.maintenance)
    server = HttpServer(subject, settings.ready_limits)
    await server.start(address)
    return server.stop


def _stop_request(settings: Settings) -> asyncio.Future[None]:
    """Done when somebody wants the replica to stop."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def stopped() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    if settings.until_stdin_closes:
        try:
            loop.add_reader(sys.stdin.fileno(), stopped)
        except OSError as error:
            raise CallerFault(f"--until-stdin-closes needs a pipe as standard input: {error.strerror}") from error
    return stop


def _calm_the_interpreter() -> None:
    """Fewer collections, since little of what is made here is cyclic; and a storage thread that waits less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_BEFORE_COLLECTION, 20, 100)
    sys.setswitchinterval(_SWITCH_SECONDS)


def _ready_line(settings: Settings) -> str:
    identity = settings.identity
    clients = "" if settings.clients is None else f"clients on {settings.clients}, "
    http = "" if settings.http is None else f"http on {settings.http}, "
    where = "memory" if settings.data is None else str(settings.data)
    return (
        f"{identity.name} {READY}: replica {identity.replica} of {identity.replicas} in group {identity.group}, "
        f"replicas on {settings.listen}, redis on {settings.redis}, {clients}{http}data in {where}"
    )


def _log_to_stderr(name: str) -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s"
    )
