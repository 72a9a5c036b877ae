"""Measures how long a replica takes to recover: `python -m benchmarks.recovery_time --down-minutes 5 --rate 500`.

A group with storage on disk is under a steady load of writes. One replica is killed with SIGKILL, stays down for
`--down-minutes` while the load continues at the others, and is started again, still under load. Reports the time until
its process listens, until its readiness port reports ready, and until it has executed all instances that the others
knew when it was ready; the snapshot that it started from (its own or a peer's, from its log); and the latency of the
load meanwhile.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import guarded, record
from benchmarks.steady_state import directory_bytes
from pydsm.bench.loads import FixedRate, connected
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure_with
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement, Setting
from pydsm.bench.target import Target, counters
from pydsm.bench.view import console_for, show_machine
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.local_group import LocalGroup, free_ports
from pydsm.cli.serve import Storage
from pydsm.cli.status import ask_http, fetch
from pydsm.client import Client
from pydsm.core.types.config import WINDOW_BYTES_MAX
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.server.report import StatusReport
from pydsm.transport.address import Address

_KEYS = 10_000
_PIECE_SECONDS = 2.0
_BEHIND_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.02
_ASK_SECONDS_MAX = 5.0
_BACK_SECONDS_MAX = 600.0
_DOWN_MINUTES_MAX = 24 * 60
_READY = 200


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """The options of a measurement."""

    down_minutes: float = 5.0
    rate: float = 500.0
    replicas: int = 3
    before_seconds: float = 20.0
    """Seconds of load before the kill, so that there are snapshots and data to recover."""
    checkpoint_instances: int = 2000
    window_mib: int = WINDOW_BYTES_MAX >> 20
    """Memory in which the others keep the instances that it misses; beyond it, it needs a snapshot."""

    def __post_init__(self) -> None:
        if not 0 < self.down_minutes <= _DOWN_MINUTES_MAX:
            raise UsageError(f"--down-minutes must be above 0 and at most {_DOWN_MINUTES_MAX}, got {self.down_minutes}")
        if self.replicas < 3:
            raise UsageError(f"--replicas must be at least 3, so that a majority remains, got {self.replicas}")


class WatchedGroup(LocalGroup):
    """A group whose replicas have HTTP ports."""

    def choose_members(self) -> None:
        """Choose these ports as well."""
        super().choose_members()
        self.http = [
            Address(member.listen.host, port) for member, port in zip(self.members, self._ports(), strict=True)
        ]

    def _ports(self) -> list[int]:
        """Free ports that differ from those of the members."""
        taken = {each.port for member in self.members for each in (member.listen, member.redis, member.clients)}
        found: list[int] = []
        while len(found) < len(self.members):
            found += [port for port in free_ports(1) if port not in taken and port not in found]
        return found

    def command(self, replica: int) -> list[str]:
        """The command line that starts this replica."""
        return [*super().command(replica), "--http", str(self.http[replica])]


class SteadyLoad:
    """Runs of a few seconds, one after the other, until it is stopped."""

    def __init__(self, clients: Sequence[Client], target: Target, rate: float) -> None:
        self._clients = clients
        self._target = target
        self._plan = BenchmarkPlan(FixedRate(rate, _PIECE_SECONDS, _BEHIND_SECONDS_MAX), BenchmarkWorkload(keys=_KEYS))
        self.runs: list[BenchmarkRun] = []
        self._stopping = False
        self._piece_over = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop` is called."""
        try:
            while not self._stopping:
                self.runs.append(await measure_with(self._clients, self._target, self._plan, 1 + len(self.runs)))
                self._piece_over.set()
        finally:
            self._piece_over.set()
            self._stopping = True  # also when it failed: no caller waits for it

    async def wait_for_runs(self, pieces: int) -> None:
        """Wait until more than this number of runs have ended, so that each phase has some."""
        while len(self.runs) <= pieces and not self._stopping:
            self._piece_over.clear()
            await self._piece_over.wait()

    def stop(self) -> None:
        """Stop after the present run."""
        self._stopping = True


@dataclass(slots=True)
class RecoveryObservations:
    """Observations of one recovery."""

    figures: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


async def measure_recovery(plan: RecoveryPlan, on_progress: ProgressCallback) -> tuple[Measurement, list[str]]:
    """One measurement with three runs (before, while it is down, its recovery), and lines about the replica."""
    options = ["--checkpoint-instances", str(plan.checkpoint_instances), "--window-bytes", str(plan.window_mib << 20)]
    with tempfile.TemporaryDirectory(prefix="pydsm-comeback-") as directory:
        group = WatchedGroup(plan.replicas, Path(directory), Storage.SQLITE, *options)
        async with group:
            lost = plan.replicas - 1
            others = Target(group.clients[:lost], group.redis[:lost])
            async with connected(others.clients, len(others.clients)) as clients:
                load = SteadyLoad(clients, others, plan.rate)
                loading = asyncio.create_task(load.run())
                try:
                    runs, lines = await _run_phases(plan, group, load, lost, on_progress)
                finally:
                    load.stop()
                    await loading
            group.check_running()
    name = f"{plan.down_minutes:g} minutes down at {plan.rate:,.0f}/s, {plan.replicas} replicas on disk"
    setting: Setting = {
        "replicas": plan.replicas,
        "storage": Storage.SQLITE.value,
        "rate": plan.rate,
        "down_minutes": plan.down_minutes,
        "checkpoint_instances": plan.checkpoint_instances,
        "window_mib": plan.window_mib,
    }
    return Measurement(name, setting, runs), lines


async def _run_phases(
    plan: RecoveryPlan, group: WatchedGroup, load: SteadyLoad, lost: int, on_progress: ProgressCallback
) -> tuple[list[BenchmarkRun], list[str]]:
    on_progress(f"{plan.before_seconds:g} s with all replicas up")
    await asyncio.sleep(plan.before_seconds)
    await load.wait_for_runs(0)
    before = len(load.runs)
    (metrics,) = await counters(Target((), [group.redis[lost]]))
    on_progress(f"replica {group.members[lost].name} is killed, for {plan.down_minutes:g} minutes")
    await group.kill(lost)
    await asyncio.sleep(plan.down_minutes * 60)
    await load.wait_for_runs(before)
    without = len(load.runs)
    missed = _known(await _status(group, 0)) - metrics.get("known_instances", 0)
    sizes = [directory_bytes(member.data) / 2**20 for member in group.members]
    seen = RecoveryObservations(
        {"missed_instances": float(max(0, missed)), "own_data_mib": sizes[lost], "peer_data_mib": sizes[0]}
    )
    seen.lines.append(f"before it was killed, its newest snapshot was that of checkpoint {metrics.get('snapshot', 0)}")
    on_progress(f"replica {group.members[lost].name} starts again")
    await _watch_return(group, lost, seen)
    at_return = len(load.runs)
    back = [*load.runs[without:at_return]] or load.runs[-1:]
    parts = (load.runs[:before], load.runs[before:without], back)
    merged = [_merged(part) for part in parts]
    return [*merged[:-1], BenchmarkRun({**merged[-1].figures, **seen.figures}, notes=merged[-1].notes)], seen.lines


async def _watch_return(group: WatchedGroup, lost: int, seen: RecoveryObservations) -> None:
    member = group.members[lost]
    said_before = member.log.stat().st_size
    start = time.perf_counter()
    deadline = start + _BACK_SECONDS_MAX
    await group.start(lost)
    seen.figures["listens_seconds"] = time.perf_counter() - start
    reasons: dict[str, None] = {}
    while (answer := await _ready(group.http[lost]))[0] != _READY:
        reasons[answer[1]] = None
        if time.perf_counter() > deadline:
            raise OperationalError(f"{member.name} was not ready after {_BACK_SECONDS_MAX:g} s: {answer[1]}")
        await asyncio.sleep(_POLL_SECONDS)
    seen.figures["ready_seconds"] = time.perf_counter() - start
    goal = _known(await _status(group, 0))
    while _executed(report := await _status(group, lost)) < goal:
        if time.perf_counter() > deadline:
            raise OperationalError(
                f"{member.name} had not caught up after {_BACK_SECONDS_MAX:g} s: it is at {report.members}"
            )
        await asyncio.sleep(_POLL_SECONDS)
    seen.figures["caught_up_seconds"] = time.perf_counter() - start
    (info,) = await counters(Target((), [group.redis[lost]]))
    seen.figures["executed_batches"] = float(info.get("executed", 0))
    first_and_last = dict.fromkeys([*list(reasons)[:1], *list(reasons)[-1:]])
    seen.lines += [f"it was not ready because {reason}" for reason in first_and_last]
    seen.lines.append(f"its status now: {_in_words(report)}; newest snapshot: checkpoint {info.get('snapshot', 0)}")
    with member.log.open("rb") as log:
        log.seek(said_before)
        words = log.read().decode(errors="replace").strip().splitlines()
    seen.lines += [f"its log: {line}" for line in words[:10]] or ["its log: nothing"]


def _known(report: StatusReport) -> int:
    """Highest index known, summed over all leaders."""
    return sum(member.known for member in report.members)


def _executed(report: StatusReport) -> int:
    return sum(member.executed for member in report.members)


def _in_words(report: StatusReport) -> str:
    state = "ready" if report.ready else f"not ready ({report.not_ready_because})"
    inquired, recovered = (report.counters.get(name, 0) for name in ("inquired", "recovered"))
    return (
        f"{state}, {report.counters.get('executed', 0):,} batches executed since this start, "
        f"{inquired:,} instances in commit queries, {recovered:,} recovered"
    )


async def _ready(address: Address) -> tuple[int, str]:
    try:
        status, body = await asyncio.to_thread(ask_http, address, "/ready", _ASK_SECONDS_MAX)
    except OperationalError as fault:
        return 0, str(fault)
    return status, body.decode(errors="replace").strip()


async def _status(group: WatchedGroup, replica: int) -> StatusReport:
    return await asyncio.to_thread(fetch, group.http[replica], _ASK_SECONDS_MAX)


def _merged(runs: Sequence[BenchmarkRun]) -> BenchmarkRun:
    """Throughput over all runs, and the worst latencies."""
    commands, seconds = (sum(run.figures[name] for run in runs) for name in ("commands", "seconds"))
    figures = {"commands_per_second": commands / seconds, "seconds": seconds}
    for name in ("p50_ms", "p99_ms", "max_ms"):
        figures[name] = max(run.figures[name] for run in runs)
    return BenchmarkRun(figures, notes=list(dict.fromkeys(note for run in runs for note in run.notes)))


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recovery_time",
        description="Kills a replica under load and measures its recovery.",
    )
    standard = RecoveryPlan()
    parser.add_argument("--down-minutes", type=float, default=standard.down_minutes, help="how long it is down (5)")
    parser.add_argument("--rate", type=float, default=standard.rate, help="requests per second (500)")
    parser.add_argument("--replicas", type=int, default=standard.replicas, help="size of the group (3)")
    parser.add_argument(
        "--checkpoint-instances", type=int, default=standard.checkpoint_instances, help="batches per checkpoint (2000)"
    )
    parser.add_argument(
        "--window-mib",
        type=int,
        default=standard.window_mib,
        help=f"MiB that the others keep for it; if it misses more, it fetches a snapshot ({standard.window_mib})",
    )
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    said: list[str] = []

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        plan = RecoveryPlan(
            options.down_minutes,
            options.rate,
            options.replicas,
            checkpoint_instances=options.checkpoint_instances,
            window_mib=options.window_mib,
        )
        measurement, lines = await measure_recovery(plan, on_progress)
        recording.add(measurement)
        said.extend(lines)

    def action() -> int:
        results = record("recovery_time", arguments, options.out, work)
        console = console_for(sys.stdout)
        (measurement,) = results.measurements
        for what, run in zip(("before", "while it is down", "during its recovery"), measurement.runs, strict=True):
            figures = run.figures
            console.print(
                f"{what}: {figures['commands_per_second']:,.0f}/s, the worst of the runs of {_PIECE_SECONDS:g} s: p50 "
                f"{figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, longest {figures['max_ms']:.0f} ms",
                soft_wrap=True,
            )
        back = measurement.runs[-1].figures
        console.print(
            f"its process listens after {back['listens_seconds']:.2f} s, is ready after {back['ready_seconds']:.2f} s, "
            f"and has executed what the others knew then after {back['caught_up_seconds']:.2f} s; it had missed "
            f"{back['missed_instances']:,.0f} instances, and its data were {back['own_data_mib']:.1f} MiB "
            f"(a peer's {back['peer_data_mib']:.1f})",
            soft_wrap=True,
        )
        for line in said:
            console.print(f"  {line}", soft_wrap=True, markup=False)
        show_machine(results, console)
        return 0

    return guarded("recovery_time", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
