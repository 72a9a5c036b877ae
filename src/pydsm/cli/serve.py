"""`pydsm serve`: runs one replica of the key-value machine, with a Redis port, until it receives a stop signal."""

import asyncio
import gc
import logging
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pydsm.cli.announce import LISTENING, READY, announce, exit_immediately
from pydsm.cli.checks import address_of, check_distinct, check_given, check_least
from pydsm.cli.client_ports import ClientPorts, PortLimits, PortSettings
from pydsm.cli.configuration import read_options
from pydsm.cli.loop import run
from pydsm.cli.transports import TransportKind, load_peer_tls, tls_files, transport_maker
from pydsm.core.types.config import WINDOW_BYTES_MAX, Config
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.machines.kv import KeyValue
from pydsm.machines.kv.keyspace import VALUE_BYTES_LEAST, VALUE_BYTES_MOST
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.clock import DIFFERENCE_MS_MAX
from pydsm.runtime.components import MakeTransport, NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.observation import ReadyLimits
from pydsm.runtime.snapshot_transfer import RestartRequired
from pydsm.storage.identity import Identity, ReplicaStore
from pydsm.storage.memory import MemoryStore
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.address import Address
from pydsm.transport.secret import read_secret

log = logging.getLogger("pydsm.serve")

_YOUNG_OBJECTS_BEFORE_COLLECTION = 50_000
_SWITCH_SECONDS = 0.0005
_NAME_CHARACTERS_MAX = 64


class Storage(StrEnum):
    """Where records are stored."""

    SQLITE = "sqlite"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """When the next checkpoint is proposed: at the first of these limits since the last one."""

    instances: int = 10_000
    bytes: int = 256 << 20
    seconds: int = 300


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The checked settings of one replica."""

    identity: Identity
    listen: Address
    transport: MakeTransport
    ports: PortSettings
    checkpoints: CheckpointLimits
    data_dir: Path | None
    thrifty: bool
    clock_difference_ms: int
    window_bytes: int
    batch_limits: BatchLimits
    value_bytes_max: int | None
    until_stdin_closes: bool


def _load_file(context: typer.Context, path: Path | None) -> Path | None:
    """Use the file's values as defaults; the environment and the command line override them."""
    if path is not None:
        context.default_map = read_options(path, serve)
    return path


def serve(
    name: Annotated[
        str, typer.Option(help="Name of this replica, one of those in --peers. (required)", show_default=False)
    ] = "",
    peers: Annotated[
        str,
        typer.Option(
            help="All replicas, including this one, in the same order everywhere: r1=HOST:PORT,r2=... (required)",
            show_default=False,
        ),
    ] = "",
    redis: Annotated[
        str,
        typer.Option(help="Address for Redis clients, HOST:PORT. (this or --native is required)", show_default=False),
    ] = "",
    listen: Annotated[
        str, typer.Option(help="Address for other replicas, HOST:PORT (default: the one in --peers).")
    ] = "",
    native: Annotated[str, typer.Option(help="Address for native clients, HOST:PORT (default: none).")] = "",
    http: Annotated[str, typer.Option(help="Address for /health, /ready, /metrics, /status (default: none).")] = "",
    http_hosts: Annotated[
        str,
        typer.Option(
            help="Accepted Host names of HTTP requests besides addresses, localhost and this computer's name, "
            "separated by commas; * for any."
        ),
    ] = "",
    max_clients: Annotated[
        int,
        typer.Option(
            help="Maximum number of clients of all ports; fewer if the limit of descriptors (ulimit -n) is too low."
        ),
    ] = PortLimits().clients_max,
    client_memory_bytes: Annotated[
        int,
        typer.Option(
            help="Bytes of memory for incomplete commands and unread answers of all clients; beyond it, the client "
            "that uses most is disconnected."
        ),
    ] = PortLimits().client_memory_bytes,
    answer_seconds: Annotated[
        float,
        typer.Option(
            help="Seconds until an unanswered Redis command gets the error CLUSTERDOWN; also seconds without a "
            "majority until commands of all clients are refused immediately."
        ),
    ] = PortLimits().answer_seconds,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory of this replica.")] = None,
    storage: Annotated[Storage, typer.Option(help="sqlite survives restarts, memory does not.")] = Storage.SQLITE,
    transport: Annotated[
        TransportKind, typer.Option(help="Transport between replicas, the same everywhere; zeromq needs the zmq extra.")
    ] = TransportKind.TCP,
    tls_cert: Annotated[
        Path | None, typer.Option(help="This replica's certificate (PEM); enables TLS between replicas.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate (PEM).")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="CA certificate that signed every replica's certificate (PEM).")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with a secret of 16 bytes or more, the same everywhere; peers without it are refused."),
    ] = None,
    group: Annotated[str, typer.Option(help="Name of the group, the same everywhere.")] = "pydsm",
    thrifty: Annotated[
        bool, typer.Option("--thrifty/--no-thrifty", help="Send to the minimum number of replicas.")
    ] = False,
    batch_commands_max: Annotated[
        int, typer.Option(help="Maximum number of commands in one batch.")
    ] = BatchLimits().batch_commands_max,
    ready_lag: Annotated[
        int, typer.Option(help="Maximum lag, in instances of one leader, at which /ready reports ready.")
    ] = ReadyLimits().lag_instances_max,
    clock_difference_ms: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum difference from the group time, in milliseconds, at which /ready reports ready."
        ),
    ] = DIFFERENCE_MS_MAX,
    checkpoint_instances: Annotated[
        int, typer.Option(help="Approximate maximum of batches between two checkpoints.")
    ] = CheckpointLimits().instances,
    checkpoint_bytes: Annotated[
        int, typer.Option(help="Approximate maximum of command bytes between two checkpoints.")
    ] = CheckpointLimits().bytes,
    window_bytes: Annotated[
        int,
        typer.Option(
            help="Approximate bytes kept for a disconnected replica; one that lacks more fetches a snapshot.",
        ),
    ] = WINDOW_BYTES_MAX,
    checkpoint_seconds: Annotated[
        int,
        typer.Option(help="Approximate maximum of seconds between two checkpoints while commands are executed."),
    ] = CheckpointLimits().seconds,
    value_bytes_max: Annotated[
        int | None,
        typer.Option(
            help="Maximum bytes of a value, the same everywhere (default: the group's limit, at first 8388608)."
        ),
    ] = None,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when standard input is closed.", hidden=True)
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with any of these options; the environment, then the command line, override it.",
            is_eager=True,
            callback=_load_file,
        ),
    ] = None,
) -> int:
    """Run one replica. Options can also be set in the environment or in a file."""
    check_given(name, peers, redis or native, data_dir is not None or storage is not Storage.SQLITE)
    check_least("--ready-lag", ready_lag, 0)
    check_least("--batch-commands-max", batch_commands_max, 1)
    check_least("--checkpoint-instances", checkpoint_instances, 1)
    check_least("--checkpoint-bytes", checkpoint_bytes, 1)
    check_least("--checkpoint-seconds", checkpoint_seconds, 1)
    check_least("--window-bytes", window_bytes, 1)
    members = parse_members(peers)
    if name not in members:
        raise UsageError(f"--name {name!r} is not in --peers, which names {', '.join(members)}")
    replica = ReplicaId(list(members).index(name))
    identity = Identity(group, name, replica, len(members))
    if value_bytes_max is not None and not VALUE_BYTES_LEAST <= value_bytes_max <= VALUE_BYTES_MOST:
        raise UsageError(
            f"--value-bytes-max must be between {VALUE_BYTES_LEAST} and {VALUE_BYTES_MOST}, not {value_bytes_max}"
        )
    here = address_of("--listen", listen) if listen else members[name]
    others = {ReplicaId(peer): address for peer, address in enumerate(members.values()) if peer != replica}
    ports = {
        option: address_of(option, text)
        for option, text in (("--redis", redis), ("--native", native), ("--http", http))
        if text
    }
    check_distinct({"--listen" if listen else "--peers": here, **ports})
    _log_to_stderr(name)
    secret = None if secret_file is None else read_secret(secret_file)
    files = tls_files(transport, tls_cert, tls_key, tls_ca)
    tls = None if files is None else load_peer_tls(files, tuple(members), others)
    batch_limits = BatchLimits(batch_commands_max=batch_commands_max)
    settings = ServeOptions(
        identity=identity,
        listen=here,
        transport=transport_maker(transport, identity, here, members, tls, secret),
        ports=PortSettings(
            identity,
            tuple(members),
            redis=ports.get("--redis"),
            native=ports.get("--native"),
            http=ports.get("--http"),
            http_hosts=(*(address.host for address in members.values()), *http_hosts.split(",")),
            ready_limits=ReadyLimits(lag_instances_max=ready_lag),
            limits=PortLimits(max_clients, client_memory_bytes, answer_seconds),
            batch_limits=batch_limits,
        ),
        checkpoints=CheckpointLimits(checkpoint_instances, checkpoint_bytes, checkpoint_seconds),
        data_dir=data_dir if storage is Storage.SQLITE else None,
        thrifty=thrifty,
        clock_difference_ms=clock_difference_ms,
        window_bytes=window_bytes,
        batch_limits=batch_limits,
        value_bytes_max=value_bytes_max,
        until_stdin_closes=until_stdin_closes,
    )
    return run(_serve(settings))


def parse_members(text: str) -> dict[str, Address]:
    """Parse names and addresses, in order. Raises UsageError unless it is NAME=HOST:PORT,... with different names."""
    members: dict[str, Address] = {}
    for part in text.split(","):
        name, separator, address = part.strip().partition("=")
        if not (name and separator):
            raise UsageError(f"{part.strip()!r} in --peers is not NAME=HOST:PORT")
        if not name.isprintable() or len(name) > _NAME_CHARACTERS_MAX:
            raise UsageError(
                f"--peers has the name {name[:_NAME_CHARACTERS_MAX]!r}: use printable characters, at most "
                f"{_NAME_CHARACTERS_MAX}"
            )
        if name in members:
            raise UsageError(f"--peers names {name} twice")
        members[name] = address_of("--peers", address)
    if len(set(members.values())) != len(members):
        raise UsageError("two replicas in --peers have the same address")
    return members


async def _serve(settings: ServeOptions) -> int:
    """Run the replica; start it again after each snapshot that was fetched from a peer."""
    stop = _stop_request(settings)
    while True:
        failure = await _run_once(settings, stop)
        if not isinstance(failure, RestartRequired):
            return 1 if failure is not None else 0


async def _run_once(settings: ServeOptions, stop: asyncio.Future[None]) -> Exception | None:
    """Serve until a stop is requested or the replica fails; returns the failure, if any."""
    machine = KeyValue(settings.value_bytes_max)
    node = make_node(settings, machine)
    ports = ClientPorts(settings.ports, node, lambda: _sections(settings.identity.name, node, machine))
    try:
        await _start(node, stop)
        await ports.open()
        _tune_gc()
        announce(f"{settings.identity.name} {LISTENING}: {_where(settings)}")
        ports.watch(lambda: announce(f"{settings.identity.name} {READY}: {_where(settings)}"))
        await asyncio.wait((stop, node.failure), return_when=asyncio.FIRST_COMPLETED)
        failure = node.failure.result() if node.failure.done() else None
        if not isinstance(failure, RestartRequired):
            log.info("stopping" if failure is None else "stopping after a failure")
        await node.stop()
        await ports.close_redis()
        return failure
    finally:
        await node.stop()
        await ports.close()


async def _start(node: Node, stop: asyncio.Future[None]) -> None:
    """Start the replica; if a stop is requested before that is done, end the process."""
    starting = asyncio.ensure_future(node.start())
    await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        log.info("stop requested during the start: exiting immediately, before any message was sent")
        exit_immediately(0)
    await starting


def make_node(settings: ServeOptions, machine: KeyValue) -> Node:
    """Create the replica without starting it. Raises OperationalError if its data directory cannot be used."""
    identity = settings.identity
    store: ReplicaStore = MemoryStore() if settings.data_dir is None else SqliteStore(settings.data_dir, identity)
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
    snapshots = None if settings.data_dir is None else SnapshotFiles(settings.data_dir, identity)
    parts = NodeComponents(
        machine,
        store,
        settings.transport,
        limits=settings.batch_limits,
        snapshots=snapshots,
        names=settings.ports.names,
        clock_difference_ms_max=settings.clock_difference_ms,
    )
    return Node(config, parts)


def _sections(name: str, node: Node, machine: KeyValue) -> dict[str, dict[str, str]]:
    """The sections of INFO that come from the node and the state machine."""
    keys, expiries = machine.counts()
    counted = {"db0": f"keys={keys},expires={expiries},avg_ttl=0"} if keys else {}
    memory = {"value_bytes_max": str(machine.value_bytes_max)}
    return {"Stats": {"name": name, **node.info()}, "Memory": memory, "Keyspace": counted}


def _stop_request(settings: ServeOptions) -> asyncio.Future[None]:
    """A future that is done when a stop is requested by SIGTERM, SIGINT or the end of standard input."""
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
            raise UsageError(f"--until-stdin-closes needs a pipe as standard input: {error.strerror}") from error
    return stop


def _tune_gc() -> None:
    """Collect garbage less often, since few objects are cyclic; shorten the thread switch interval for storage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_BEFORE_COLLECTION, 20, 100)
    sys.setswitchinterval(_SWITCH_SECONDS)


def _where(settings: ServeOptions) -> str:
    identity, ports = settings.identity, settings.ports
    redis = "" if ports.redis is None else f"redis on {ports.redis}, "
    native = "" if ports.native is None else f"native clients on {ports.native}, "
    http = "" if ports.http is None else f"http on {ports.http}, "
    where = "memory" if settings.data_dir is None else str(settings.data_dir)
    return (
        f"replica {identity.replica} of {identity.replicas} in group {identity.group}, "
        f"replicas on {settings.listen}, {redis}{native}{http}data in {where}"
    )


def _log_to_stderr(name: str) -> None:
    prefix = name.replace("%", "%%")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s {prefix} %(levelname)s %(name)s: %(message)s"
    )
