"""Compares PyDSM with PySyncObj, etcd and Redis: alternating runs on the same machine in the same minutes.

Run: python -m benchmarks.comparison [pysyncobj] [etcd] [redis] [--out FILE]

Each round measures both sides, and the ratio of each round is kept, so that a change of the machine's load
affects both. All servers listen on the loopback address only, and every run has a bounded number of requests.

- PySyncObj: 3 nodes in 3 processes, in memory, against 3 replicas in memory. All requests are submitted together, to
  its leader, from within its process, which is where it is fastest; those to PyDSM come over sockets, through all
  replicas. Its election timeouts are raised, because under this load it would lose its leader, and its period is the
  best of those that were tried.
- etcd: 3 members with its own defaults, durable, against 3 replicas with SQLite and full synchronisation, with the same
  number of clients and of requests in flight. Its client is `benchmarks.etcd_client`; once through all members, and
  once through the leader alone, which is where etcd is faster.
- Redis: one process, without replication and persistence, under `redis-benchmark`, against one of 3 replicas in memory
  under the same load.

A missing program is reported with the command to install it, and makes the exit status 1.
"""

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import guarded, record
from benchmarks.etcd_client import connect, put_message
from pydsm.bench.loads import Closed, Flood
from pydsm.bench.measure import GENERATOR_CORES_MAX, BenchmarkPlan, ProgressCallback, UsageMeter, measure_once
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement, Setting
from pydsm.bench.target import Target
from pydsm.bench.view import console_for, show, show_machine
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.local_group import free_ports
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError, PeerProtocolError

PEERS = ("pysyncobj", "etcd", "redis")
_HOST = "127.0.0.1"
_NODES = 3
_START_SECONDS_MAX = 60.0
_RUN_SECONDS_MAX = 180.0
_STOP_SECONDS_MAX = 10.0
_INSTALL_DEBIAN = 'run tools/bench-peers.sh, or "apt-get install'

Side = Callable[[int], Awaitable[BenchmarkRun]]
"""One run of one side; receives the number of the round."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurements."""

    runs: int = 5
    flood: int = 20_000
    clients: int = 3
    in_flight: int = 1000
    etcd_requests: int = 30_000
    redis_requests: int = 200_000


def missing(peer: str) -> str | None:
    """What must be installed before a peer can be measured; None if nothing is missing."""
    if peer == "pysyncobj":
        return None if find_spec("pysyncobj") else "PySyncObj is not installed: pip install 'pydsm-epaxos[bench]'"
    wanted = {"etcd": ("etcd", "etcd-server"), "redis": ("redis-server", "redis-server redis-tools")}
    program, package = wanted[peer]
    programs = (program, "redis-benchmark") if peer == "redis" else (program,)
    absent = [name for name in programs if shutil.which(name) is None]
    return f'{" and ".join(absent)} not found: {_INSTALL_DEBIAN} {package}"' if absent else None


async def in_turns(
    names: tuple[str, str],
    setting: Setting,
    ours: Side,
    theirs: Side,
    runs: int,
    on_progress: ProgressCallback,
) -> list[Measurement]:
    """Alternate both sides, and compute their ratio for each round. The first round warms up."""
    sides: tuple[list[BenchmarkRun], list[BenchmarkRun]] = ([], [])
    for number in range(1 + runs):
        for name, side, done in zip(names, (ours, theirs), sides, strict=True):
            on_progress(f"{name}: {f'run {number} of {runs}' if number else 'warming up'}")
            run = await side(number)
            if number:
                done.append(run)
    speeds = [[run.figures["commands_per_second"] for run in done] for done in sides]
    ratios = [BenchmarkRun({"throughput_ratio": one / other}) for one, other in zip(*speeds, strict=True)]
    made = [Measurement(name, setting, done) for name, done in zip(names, sides, strict=True)]
    return [*made, Measurement(f"{names[0]} / {names[1]}", setting, ratios)]


def figures(commands: int, seconds: float, costs: UsageMeter, *, load_is_here: bool = True) -> BenchmarkRun:
    """The figures of a peer, like those of `pydsm.bench`; of the load generator only if it is this process."""
    spent = costs.since()
    values = {"commands": float(commands), "seconds": seconds, "commands_per_second": commands / seconds}
    if spent.replicas is not None:
        values["replicas_us_per_command"] = 1e6 * spent.replicas / commands
        values["replicas_cores"] = spent.replicas / spent.seconds
    if not load_is_here:
        return BenchmarkRun(values)
    values["generator_us_per_command"] = 1e6 * spent.generator / commands
    values["generator_cores"] = spent.generator / spent.seconds
    limited = values["generator_cores"] > GENERATOR_CORES_MAX
    return BenchmarkRun(values, notes=["limited by the load generator, which had its one core busy"] if limited else [])


@asynccontextmanager
async def process(
    *words: str, stdin: int | None = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program, and end it at the end of the context."""
    started = await asyncio.create_subprocess_exec(
        *words, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await started.communicate()
        except TimeoutError:
            started.kill()
            await started.communicate()


# PySyncObj


async def against_pysyncobj(sizes: Sizes, on_progress: ProgressCallback) -> list[Measurement]:
    """All requests are submitted together; both sides in memory."""
    addresses = [f"{_HOST}:{port}" for port in free_ports(_NODES)]
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[asyncio.subprocess.Process] = []
        for me in addresses:
            others = [address for address in addresses if address != me]
            words = (sys.executable, "-m", "benchmarks.pysyncobj_node", me, *others)
            nodes.append(await stack.enter_async_context(process(*words, stdin=asyncio.subprocess.PIPE)))
        roles = [await _line(node, _START_SECONDS_MAX, "PySyncObj") for node in nodes]
        if "leader" not in roles:
            raise OperationalError(f"PySyncObj did not elect a leader within {_START_SECONDS_MAX:g} s: run it again")
        leader = nodes[roles.index("leader")]
        target = await stack.enter_async_context(local_target(GroupShape(_NODES)))
        plan = BenchmarkPlan(Flood(sizes.flood))

        async def theirs(number: int) -> BenchmarkRun:
            assert leader.stdin is not None
            costs = UsageMeter([node.pid for node in nodes])
            leader.stdin.write(f"{sizes.flood} {sizes.flood}\n".encode())
            answer = json.loads(await _line(leader, _RUN_SECONDS_MAX, "PySyncObj"))
            if answer["failed"] or not answer["answered"]:
                raise OperationalError(
                    f"PySyncObj failed {answer['failed']} of {sizes.flood} requests: submit fewer together"
                )
            return figures(answer["answered"], answer["seconds"], costs, load_is_here=False)

        names = (f"PyDSM, 3 replicas, memory, flood of {sizes.flood:,}", f"PySyncObj, flood of {sizes.flood:,}")
        setting: Setting = {"load": "flood", "requests": sizes.flood, "storage": "memory", "replicas": _NODES}
        return await in_turns(
            names, setting, lambda number: measure_once(target, plan, number), theirs, sizes.runs, on_progress
        )


async def _line(program: asyncio.subprocess.Process, seconds: float, who: str) -> str:
    assert program.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            line = (await program.stdout.readline()).decode().strip()
    except TimeoutError as error:
        raise OperationalError(
            f"{who} printed nothing within {seconds:g} s: run it again when the machine is idle"
        ) from error
    if not line:
        raise OperationalError(f"{who} has ended unexpectedly: run it again, or leave it out")
    return line


# etcd


async def against_etcd(sizes: Sizes, on_progress: ProgressCallback) -> list[Measurement]:
    """The same number of clients and of requests in flight; both sides durable."""
    made: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="pydsm-bench-etcd-") as directory:
        async with contextlib.AsyncExitStack() as stack:
            members = await stack.enter_async_context(_etcd(Path(directory)))
            target = await stack.enter_async_context(local_target(GroupShape(_NODES, Storage.SQLITE)))
            for through in ("all members", "its leader"):
                made += await _etcd_through(through, members, target, sizes, on_progress)
    return made


@dataclass(frozen=True, slots=True)
class _Etcd:
    ports: list[int]
    pids: list[int]
    leader: int
    """The leader's index in `ports`."""


@asynccontextmanager
async def _etcd(directory: Path) -> AsyncIterator[_Etcd]:
    """Three running members."""
    ports = free_ports(2 * _NODES)
    clients, peers = ports[:_NODES], ports[_NODES:]
    cluster = ",".join(f"m{number}=http://{_HOST}:{port}" for number, port in enumerate(peers))
    async with contextlib.AsyncExitStack() as stack:
        pids: list[int] = []
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            here, there = f"http://{_HOST}:{client}", f"http://{_HOST}:{peer}"
            words = ["etcd", "--name", f"m{number}", "--data-dir", str(directory / f"m{number}")]
            words += ["--listen-client-urls", here, "--advertise-client-urls", here]
            words += ["--listen-peer-urls", there, "--initial-advertise-peer-urls", there]
            words += ["--initial-cluster", cluster, "--initial-cluster-token", directory.name]
            words += ["--logger", "zap", "--log-level", "error", "--log-outputs", "/dev/null"]
            pids.append((await stack.enter_async_context(process(*words))).pid)
        deadline = time.monotonic() + _START_SECONDS_MAX
        statuses: list[dict[str, Any]] = []
        while len(statuses) < _NODES or any(not status.get("leader") for status in statuses):
            if time.monotonic() > deadline:
                raise OperationalError(f"etcd did not elect a leader within {_START_SECONDS_MAX:g} s: run it again")
            with contextlib.suppress(urllib.error.URLError, OSError):
                statuses = [await asyncio.to_thread(_post, port, "maintenance/status", {}) for port in clients]
            await asyncio.sleep(0.1)
        ids = [status["header"]["member_id"] for status in statuses]
        yield _Etcd(clients, pids, ids.index(statuses[0]["leader"]))


def _post(port: int, call: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{_HOST}:{port}/v3/{call}", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        decoded: dict[str, Any] = json.load(answer)
        return decoded


async def _revision(etcd: _Etcd) -> int:
    answer = await asyncio.to_thread(_post, etcd.ports[etcd.leader], "kv/range", {"key": "MDAwMDAwMDA="})
    return int(answer["header"]["revision"])


async def _etcd_through(
    through: str, etcd: _Etcd, target: Target, sizes: Sizes, on_progress: ProgressCallback
) -> list[Measurement]:
    ports = etcd.ports if through == "all members" else [etcd.ports[etcd.leader]]
    count = sizes.etcd_requests
    ours_seconds: list[float] = []

    async def theirs(number: int) -> BenchmarkRun:
        before = await _revision(etcd)
        links = [await connect(_HOST, ports[place % len(ports)]) for place in range(sizes.clients)]
        messages = [put_message(b"%08d" % place, b"%08d" % number) for place in range(count)]
        costs, start = UsageMeter(etcd.pids), time.perf_counter()
        try:
            async with asyncio.timeout(_RUN_SECONDS_MAX):
                await asyncio.gather(
                    *(
                        client.put_all(messages[place :: len(links)], sizes.in_flight)
                        for place, (_, client) in enumerate(links)
                    )
                )
        except (PeerProtocolError, TimeoutError) as fault:
            why = str(fault) or f"no answer within {_RUN_SECONDS_MAX:g} s"
            raise OperationalError(f"etcd: {why}; use fewer requests in flight") from fault
        finally:
            for transport, _ in links:
                transport.close()
        run = figures(count, time.perf_counter() - start, costs)
        if (grown := await _revision(etcd) - before) != count:
            raise OperationalError(f"etcd executed {grown} of {count} requests: its figures cannot be trusted")
        ours_seconds.append(run.figures["seconds"])
        return run

    async def ours(number: int) -> BenchmarkRun:
        seconds = min(5.0, max(1.0, ours_seconds[-1] if ours_seconds else 1.0))
        return await measure_once(target, BenchmarkPlan(Closed(sizes.clients, sizes.in_flight, seconds)), number)

    load = f"{sizes.clients} clients x {sizes.in_flight}"
    setting: Setting = {
        "load": "closed", "clients": sizes.clients, "pipeline": sizes.in_flight, "replicas": _NODES,
        "storage": "durable", "through": through,
    }  # fmt: skip
    names = (f"PyDSM, 3 replicas, sqlite, {load} (beside {through})", f"etcd, 3 members, {load} through {through}")
    return await in_turns(names, setting, ours, theirs, sizes.runs, on_progress)


# Redis


async def against_redis(
    sizes: Sizes, on_progress: ProgressCallback, pipelines: Sequence[int] = (16, 1)
) -> list[Measurement]:
    """Redis's own benchmark program, on both sides."""
    (port,) = free_ports(1)
    made: list[Measurement] = []
    words = ["redis-server", "--port", str(port), "--bind", _HOST, "--save", "", "--appendonly", "no"]
    async with process(*words) as redis, local_target(GroupShape(_NODES)) as target:
        await _listening(port)
        for pipeline in pipelines:
            made += await _redis_benchmark(pipeline, port, redis.pid, target, sizes, on_progress)
    return made


async def _listening(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while True:
        try:
            _, writer = await asyncio.open_connection(_HOST, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise OperationalError(
                    f"redis-server did not start within {_START_SECONDS_MAX:g} s: run it again"
                ) from error
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def _redis_benchmark(
    pipeline: int, port: int, pid: int, target: Target, sizes: Sizes, on_progress: ProgressCallback
) -> list[Measurement]:
    """SET and GET, on both sides in turns."""
    runs: dict[tuple[str, str], list[BenchmarkRun]] = {}
    for number in range(1 + sizes.runs):
        for who, where, pids in (("PyDSM", target.redis[0].port, target.pids), ("Redis", port, [pid])):
            on_progress(
                f"redis-benchmark -P {pipeline} on {who}: {f'run {number} of {sizes.runs}' if number else 'warming up'}"
            )
            for word in ("SET", "GET"):
                run = await _benchmark_once(where, word, pipeline, sizes.redis_requests, pids)
                if number:
                    runs.setdefault((who, word), []).append(run)
    made: list[Measurement] = []
    for word in ("SET", "GET"):
        setting: Setting = {
            "load": "redis-benchmark", "pipeline": pipeline, "clients": 50, "requests": sizes.redis_requests,
            "replicas": _NODES, "storage": "memory", "command": word,
        }  # fmt: skip
        both = [runs[who, word] for who in ("PyDSM", "Redis")]
        for who, done in zip(("PyDSM, one of 3 replicas", "Redis"), both, strict=True):
            made.append(Measurement(f"{who}, redis-benchmark -P {pipeline} {word}", setting, done))
        speeds = [[run.figures["commands_per_second"] for run in done] for done in both]
        ratios = [BenchmarkRun({"throughput_ratio": one / other}) for one, other in zip(*speeds, strict=True)]
        made.append(Measurement(f"PyDSM / Redis, redis-benchmark -P {pipeline} {word}", setting, ratios))
    return made


async def _benchmark_once(port: int, word: str, pipeline: int, requests: int, pids: Sequence[int]) -> BenchmarkRun:
    words = ["redis-benchmark", "-p", str(port), "-t", word.lower(), "-n", str(requests), "-c", "50", "-q"]
    words += ["-P", str(pipeline)]
    costs = UsageMeter(pids)
    async with process(*words) as program:
        try:
            async with asyncio.timeout(_RUN_SECONDS_MAX):
                output = (await program.communicate())[0].decode()
        except TimeoutError as error:
            raise OperationalError(
                f"redis-benchmark took more than {_RUN_SECONDS_MAX:g} s: use fewer requests"
            ) from error
    found = re.search(rf"{word}: ([\d.]+) requests per second", output)
    if found is None or "rror" in output:
        raise OperationalError(f"redis-benchmark gave no figure: {output.strip() or 'it printed nothing'}")
    return figures(requests, requests / float(found[1]), costs, load_is_here=False)


MEASURE: dict[str, Callable[[Sizes, ProgressCallback], Awaitable[list[Measurement]]]] = {
    "pysyncobj": against_pysyncobj,
    "etcd": against_etcd,
    "redis": against_redis,
}


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison", description="Compares PyDSM with PySyncObj, etcd and Redis."
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"{', '.join(PEERS)} (all)")
    sizes = Sizes()
    parser.add_argument("--runs", type=int, default=sizes.runs, help="rounds that count (5)")
    parser.add_argument("--flood", type=int, default=sizes.flood, help="requests against PySyncObj (20000)")
    parser.add_argument("--clients", type=int, default=sizes.clients, help="clients against etcd (3)")
    parser.add_argument("--in-flight", type=int, default=sizes.in_flight, help="requests in flight of each (1000)")
    parser.add_argument("--etcd-requests", type=int, default=sizes.etcd_requests, help="requests of a run (30000)")
    parser.add_argument("--redis-requests", type=int, default=sizes.redis_requests, help="requests of a run (200000)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    if unknown := [peer for peer in options.peers if peer not in PEERS]:
        parser.error(f"{unknown[0]!r} is not a known peer: give some of {', '.join(PEERS)}, or none for all")
    sizes = Sizes(
        options.runs, options.flood, options.clients, options.in_flight, options.etcd_requests, options.redis_requests
    )
    wanted = options.peers or PEERS
    absent = {peer: why for peer in wanted if (why := missing(peer)) is not None}

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        for peer in wanted:
            if peer not in absent:
                recording.add(*await MEASURE[peer](sizes, on_progress))

    def action() -> int:
        results = record("comparison", arguments, options.out, work)
        console = console_for(sys.stdout)
        show([one for one in results.measurements if "throughput_ratio" not in one.figures], console)
        for one in results.measurements:
            if (ratio := one.median("throughput_ratio")) is not None:
                each = one.values("throughput_ratio")
                console.print(
                    f"{one.name}: {ratio:.3g} ({min(each):.3g} to {max(each):.3g})", soft_wrap=True, markup=False
                )
        show_machine(results, console)
        for peer, why in absent.items():
            console.print(f"NOT MEASURED: {peer}: {why}", soft_wrap=True, markup=False)
        return 1 if absent else 0

    return guarded("comparison", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
