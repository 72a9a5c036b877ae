"""Measures every performance goal of PyDSM: `python -m benchmarks.table [ROW ...]`. `--list` lists the rows.

Prints for each figure the minimum, the goal and the measured value. Each is a median of five runs, with keys and values
of 8 bytes; the load generator and all replicas share this machine. All rows take about an hour, half of it for the
long run.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import comparison
from benchmarks.common import guarded, record
from benchmarks.long_run import LongRun, last_by_second, run_long
from benchmarks.memory import MUST_BYTES_PER_KEY, measure_memory
from pydsm.bench.loads import FixedRate, Flood
from pydsm.bench.machine import calibrate
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure, measure_in_turns
from pydsm.bench.recording import Recording
from pydsm.bench.results import Measurement
from pydsm.bench.view import WIDE, console_for, number, show_machine, show_notes
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError

_CONFLICTS = {0.02: 0.7, 0.25: 0.5, 1.0: 0.5}
_CONFLICT_AIM = 0.9


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the measurements."""

    runs: int = 5
    commands: int = 100_000
    seconds: float = 10.0
    keys: int = 1_000_000
    minutes: int = 30
    minute_seconds: float = 60.0
    beside: comparison.Sizes = field(default_factory=comparison.Sizes)


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of a row."""

    what: str
    measured: float | None
    """None: it could not be measured, and `why` states the reason."""
    must: float
    aim: float | None = None
    at_least: bool = True
    unit: str = ""
    why: str = ""

    @property
    def verdict(self) -> str:
        """The verdict, in one or two words."""
        if self.measured is None:
            return "NOT MEASURED"
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        return "must" if self._reaches(self.must) else "MISSED"

    def _reaches(self, bound: float) -> bool:
        assert self.measured is not None
        return self.measured >= bound if self.at_least else self.measured <= bound


Measured = tuple[list[Goal], list[Measurement]]
Measure = Callable[[Size, ProgressCallback], Awaitable[Measured]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: its goals, and how to measure them."""

    name: str
    what: str
    measure: Measure


def flood(replicas: int, storage: Storage, must: float, aim: float) -> Row:
    """All requests are submitted together."""

    async def work(size: Size, on_progress: ProgressCallback) -> Measured:
        async with local_target(GroupShape(replicas, storage)) as target:
            one = await measure(target, BenchmarkPlan(Flood(size.commands), runs=size.runs), on_progress)
        return [Goal("commands/s", one.median("commands_per_second"), must, aim)], [one]

    return Row(f"{storage.value}-{replicas}", f"{replicas} replicas, {_words(storage)}, open loop of writes", work)


def conflicts(replicas: int, storage: Storage) -> Row:
    """The throughput with a hot key, divided by that without conflicts, measured in turns."""

    async def work(size: Size, on_progress: ProgressCallback) -> Measured:
        shares = [0.0, *_CONFLICTS]
        plans = [BenchmarkPlan(Flood(size.commands), BenchmarkWorkload(share), size.runs) for share in shares]
        async with local_target(GroupShape(replicas, storage)) as target:
            none, *some = await measure_in_turns(target, plans, on_progress)
        goals: list[Goal] = []
        for (share, must), one in zip(_CONFLICTS.items(), some, strict=True):
            ratio = ratio_of_rounds(one, none)
            goals.append(Goal(f"{100 * share:g} % on one key, of no conflicts", ratio, must, _CONFLICT_AIM))
        return goals, [none, *some]

    return Row(f"conflicts-{storage.value}-{replicas}", f"{replicas} replicas, {_words(storage)}, one hot key", work)


def ratio_of_rounds(one: Measurement, other: Measurement) -> float:
    """The median of the ratios of runs that alternated."""
    pairs = zip(one.values("commands_per_second"), other.values("commands_per_second"), strict=True)
    return median(this / that for this, that in pairs)


async def _slow_load(size: Size, storage: Storage, on_progress: ProgressCallback) -> Measurement:
    async with local_target(GroupShape(5, storage)) as target:
        return await measure(target, BenchmarkPlan(FixedRate(1000, size.seconds), runs=size.runs), on_progress)


async def latency_in_memory(size: Size, on_progress: ProgressCallback) -> Measured:
    """1,000 requests/s."""
    one = await _slow_load(size, Storage.MEMORY, on_progress)
    return [
        Goal("p50", one.median("p50_ms"), 0.5, 0.3, at_least=False, unit="ms"),
        Goal("p99", one.median("p99_ms"), 3.0, 1.0, at_least=False, unit="ms"),
    ], [one]


async def latency_on_disk(size: Size, on_progress: ProgressCallback) -> Measured:
    """The same with SQLite. The minimum depends on the disk, whose speed is measured just before and after."""
    before = sync_ms()
    one = await _slow_load(size, Storage.SQLITE, on_progress)
    must = before + sync_ms() + 0.5
    return [Goal("p50 (must: two syncs of this disk + 0.5 ms)", one.median("p50_ms"), must, None, False, "ms")], [one]


def sync_ms() -> float:
    """The present duration of one sync of this disk."""
    return calibrate().sync_ms


def redis(pipeline: int, must: float, aim: float, share_must: float, share_aim: float) -> Row:
    """redis-benchmark on PyDSM and on Redis, in turns."""

    async def work(size: Size, on_progress: ProgressCallback) -> Measured:
        if why := comparison.missing("redis"):
            return [Goal("SET and GET, beside Redis", None, must, aim, why=why)], []
        made = await comparison.against_redis(size.beside, on_progress, (pipeline,))
        goals: list[Goal] = []
        for word in ("SET", "GET"):
            ours, _, ratio = (one for one in made if one.setting["command"] == word)
            goals.append(Goal(f"{word}/s", ours.median("commands_per_second"), must, aim))
            goals.append(Goal(f"{word}, of Redis itself", ratio.median("throughput_ratio"), share_must, share_aim))
        return goals, made

    return Row(f"redis-{pipeline}", f"redis-benchmark -c 50 -P {pipeline} on one of 3 replicas, memory", work)


def peer(name: str, what: str, must: float, aim: float) -> Row:
    """Compare with a peer. If there are several ways to use it, the best one for the peer counts."""

    async def work(size: Size, on_progress: ProgressCallback) -> Measured:
        if why := comparison.missing(name):
            return [Goal("times as fast", None, must, aim, why=why)], []
        made = await comparison.MEASURE[name](size.beside, on_progress)
        ratios = [value for one in made if (value := one.median("throughput_ratio")) is not None]
        return [Goal("times as fast", min(ratios), must, aim)], made

    return Row(name, what, work)


async def memory(size: Size, on_progress: ProgressCallback) -> Measured:
    """One group; a second one would give the same figures."""
    one = await measure_memory(size.keys, Storage.MEMORY, 1, on_progress)
    figure = one.median("most_bytes_per_key")
    return [Goal("bytes per key beyond a dict", figure, MUST_BYTES_PER_KEY, at_least=False)], [one]


async def long_run(size: Size, on_progress: ProgressCallback) -> Measured:
    """The last minute divided by the second."""
    one = await run_long(LongRun(size.minutes, minute_seconds=size.minute_seconds), on_progress)
    ratios = last_by_second(one) if not any(note.startswith("stopped") for note in one.notes) else {}
    why = "; ".join(one.notes)
    return [
        Goal("throughput, last / second minute", ratios.get("throughput"), 0.95, why=why),
        Goal("resident memory, last / second minute", ratios.get("resident memory"), 1.1, at_least=False, why=why),
    ], [one]


def _words(storage: Storage) -> str:
    return "memory" if storage is Storage.MEMORY else "SQLite with full sync"


ROWS = (
    flood(3, Storage.MEMORY, 200_000, 400_000),
    flood(5, Storage.MEMORY, 120_000, 250_000),
    flood(3, Storage.SQLITE, 80_000, 150_000),
    flood(5, Storage.SQLITE, 50_000, 100_000),
    *(conflicts(replicas, storage) for storage in (Storage.MEMORY, Storage.SQLITE) for replicas in (3, 5)),
    Row("latency-memory-5", "5 replicas, memory, 1,000 requests/s over all replicas", latency_in_memory),
    Row("latency-sqlite-5", "5 replicas, SQLite with full sync, the same", latency_on_disk),
    redis(16, 60_000, 150_000, 0.07, 0.15),
    redis(1, 15_000, 40_000, 0.15, 0.4),
    peer("pysyncobj", "against PySyncObj, 3 nodes, memory, all requests in flight", 10, 30),
    peer("etcd", "against etcd, 3 members, our SQLite, as many clients and in flight", 5, 20),
    Row("memory", "1,000,000 distinct keys written to 3 replicas", memory),
    Row("long-run", "half of the maximum for 30 minutes", long_run),
)


def show_goals(rows: Sequence[tuple[Row, list[Goal]]], console: Console) -> None:
    """Print the table."""
    table, wide = Table(), console.width >= WIDE
    if wide:
        table.add_column("row", no_wrap=True)
        table.add_column("work", ratio=1)
    table.add_column("figure", ratio=1)
    for title in ("must", "aim", "measured"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("reached", no_wrap=True)
    for row, goals in rows:
        for place, goal in enumerate(goals):
            about = ["", ""] if place else [row.name, row.what]
            table.add_row(
                *([*about, goal.what] if wide else [f"{row.name}: {goal.what}"]),
                _bound(goal.must, goal),
                _bound(goal.aim, goal),
                _number(goal.measured, goal),
                Text(goal.verdict, style="red" if goal.verdict.isupper() else "green"),
            )
    console.print(table)
    for row, goals in rows:
        for why in dict.fromkeys(goal.why for goal in goals if goal.measured is None):
            console.print(f"NOT MEASURED: {row.name}: {why}", soft_wrap=True, markup=False)


def _bound(value: float | None, goal: Goal) -> str:
    return "" if not value else f"{'>=' if goal.at_least else '<='} {_number(value, goal)}"


def _number(value: float | None, goal: Goal) -> str:
    return "-" if value is None else f"{number(value)} {goal.unit}".strip()


def main(arguments: Sequence[str]) -> int:
    """Measure and print. Returns status 1 if a goal is missed or could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description="Measures every performance goal on this machine."
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to measure (all); --list names them")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and exit")
    size = Size()
    parser.add_argument("--runs", type=int, default=size.runs, help="runs that count (5)")
    parser.add_argument("--commands", type=int, default=size.commands, help="requests of a flood (100000)")
    parser.add_argument("--seconds", type=float, default=size.seconds, help="of a run at a fixed rate (10)")
    parser.add_argument("--keys", type=int, default=size.keys, help="keys of the row memory (1000000)")
    parser.add_argument("--minutes", type=int, default=size.minutes, help="of the long run (30)")
    parser.add_argument("--minute-seconds", type=float, default=size.minute_seconds, help=argparse.SUPPRESS)
    parser.add_argument("--peer-requests", type=int, help="requests of a run against a peer (20,000 to 200,000)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    known = {row.name: row for row in ROWS}
    if options.list:
        for row in ROWS:
            print(f"{row.name:20} {row.what}")
        return 0
    if unknown := [name for name in options.rows if name not in known]:
        parser.error(f"{unknown[0]!r} is not a row; --list prints the names")
    few = {
        name: options.peer_requests for name in ("flood", "etcd_requests", "redis_requests") if options.peer_requests
    }
    size = Size(
        options.runs, options.commands, options.seconds, options.keys, options.minutes, options.minute_seconds,
        comparison.Sizes(runs=options.runs, **few),
    )  # fmt: skip
    rows = [known[name] for name in options.rows] or list(ROWS)
    reached: list[tuple[Row, list[Goal]]] = []

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        for row in rows:
            try:
                goals, measurements = await row.measure(size, on_progress)
            except OperationalError as fault:  # the other rows can still be measured
                goals, measurements = [Goal(row.what, None, 0, why=str(fault))], []
            recording.add(*(replace(one, name=f"{row.name}: {one.name}") for one in measurements))
            reached.append((row, goals))

    def action() -> int:
        results = record("table", arguments, options.out, work)
        console = console_for(sys.stdout)
        show_goals(reached, console)
        show_notes(results.measurements, console)
        show_machine(results, console)
        return 1 if any(goal.verdict.isupper() for _, goals in reached for goal in goals) else 0

    return guarded("table", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
