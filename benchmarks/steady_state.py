"""Measures whether memory and disk usage grow: `python -m benchmarks.steady_state --minutes 30 --rate 500`.

A group with storage on disk under a steady load of writes over a bounded number of keys, with clients that keep their
sessions, and frequent checkpoints. About every ten seconds it reports the resident memory of each replica, the size of
each data directory, throughput and latency. The last minute is compared with the third: before that, buffers fill, and
sessions, keys and the first snapshots are created.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.common import guarded, record
from benchmarks.long_run import with_memory
from pydsm.bench.loads import FixedRate, clients_for, connected
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure_with
from pydsm.bench.plots import check_can_plot
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.bench.target import Target, counters
from pydsm.bench.view import console_for, number, show_machine
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KEYS = 10_000
_PARTS_PER_MINUTE = 6
_BEHIND_SECONDS_MAX = 10.0
_BASE_MINUTE = 3
_MINUTES_MAX = 24 * 60

LIMITS = {"resident": (1.10, 8.0), "data": (1.25, 8.0), "p99": (3.0, 50.0)}
"""Limits for the last minute, compared with the base minute: a factor, and an absolute amount (MiB, ms)."""
THROUGHPUT_MIN = 0.95


@dataclass(frozen=True, slots=True)
class SteadyStatePlan:
    """The options of a measurement."""

    minutes: int = 30
    rate: float = 500.0
    replicas: int = 3
    checkpoint_instances: int = 2000
    minute_seconds: float = 60.0
    """Seconds per minute; shorter ones are for tests of this script."""

    def __post_init__(self) -> None:
        if not 2 <= self.minutes <= _MINUTES_MAX:
            raise UsageError(f"--minutes must be between 2 and {_MINUTES_MAX}, got {self.minutes}")


async def measure_steady_state(plan: SteadyStatePlan, on_progress: ProgressCallback) -> Measurement:
    """One measurement; each sixth of a minute is one of its runs."""
    shape = GroupShape(plan.replicas, Storage.SQLITE, checkpoint_instances=plan.checkpoint_instances)
    load = FixedRate(plan.rate, plan.minute_seconds / _PARTS_PER_MINUTE, _BEHIND_SECONDS_MAX)
    part = BenchmarkPlan(load, BenchmarkWorkload(keys=_KEYS))
    done: list[BenchmarkRun] = []
    async with (
        local_target(shape) as target,
        connected(target.clients, clients_for(load, len(target.clients))) as clients,
    ):
        for number in range(1, 1 + plan.minutes * _PARTS_PER_MINUTE):
            run = await measure_with(clients, target, part, number)
            done.append(with_data(with_memory(run, target), target, await counters(target)))
            if number % _PARTS_PER_MINUTE == 0:
                on_progress(line(number // _PARTS_PER_MINUTE, done[-_PARTS_PER_MINUTE:]))
            if any("did not keep up" in note for note in run.notes):
                done[-1].notes.append("stopped: the group did not keep up with the rate; give a lower --rate")
                break
    name = f"{plan.minutes} minutes at {plan.rate:,.0f}/s on disk, {plan.replicas} replicas"
    return Measurement(name, {**shape.setting(), **load.setting(), **part.workload.setting()}, done)


def with_data(run: BenchmarkRun, target: Target, counted: Sequence[dict[str, int]]) -> BenchmarkRun:
    """Add the size of each data directory and the counters of the replicas."""
    figures = dict(run.figures)
    for replica, directory in enumerate(target.data):
        figures[f"replica_{replica + 1}_data_mib"] = directory_bytes(directory) / 2**20
    figures["snapshots"] = float(max(each.get("snapshot", 0) for each in counted))
    figures["instances_in_memory"] = float(max(each.get("instances", 0) for each in counted))
    return BenchmarkRun(figures, run.latency_us, [*run.notes])


def directory_bytes(directory: Path) -> int:
    """The size of all files in a directory. A file that is removed meanwhile does not count."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _of(runs: Iterable[BenchmarkRun], ending: str) -> list[list[float]]:
    """The figures of all replicas, for each run."""
    return [[value for name, value in run.figures.items() if name.endswith(ending)] for run in runs]


def _largest(runs: Sequence[BenchmarkRun], ending: str) -> list[float]:
    """The maximum over these runs, for each replica."""
    return [max(column) for column in zip(*_of(runs, ending), strict=True)]


def line(minute: int, runs: Sequence[BenchmarkRun]) -> str:
    """A row of the table."""
    resident = ", ".join(f"{value:,.0f}" for value in _largest(runs, "_resident_mib"))
    data = ", ".join(f"{value:,.1f}" for value in _largest(runs, "_data_mib"))
    figures = {name: median(run.figures[name] for run in runs) for name in ("commands_per_second", "p50_ms", "p99_ms")}
    return (
        f"minute {minute}: {figures['commands_per_second']:,.0f}/s, p50 {number(figures['p50_ms'])} ms, "
        f"p99 {number(figures['p99_ms'])} ms, resident {resident} MiB, data {data} MiB, "
        f"{runs[-1].figures['snapshots']:,.0f} checkpoints, {runs[-1].figures['instances_in_memory']:,.0f} instances"
    )


def minutes_of(measurement: Measurement) -> list[list[BenchmarkRun]]:
    """The runs of the measurement, grouped by whole minutes."""
    runs = measurement.runs
    ends = range(_PARTS_PER_MINUTE, 1 + len(runs), _PARTS_PER_MINUTE)
    return [runs[end - _PARTS_PER_MINUTE : end] for end in ends]


def grown(minutes: Sequence[Sequence[BenchmarkRun]]) -> list[str]:
    """One line for each figure that grew."""
    if len(minutes) < 2:
        return ["there are no two whole minutes to compare"]
    base_minute = min(_BASE_MINUTE, len(minutes) - 1)
    base, last = minutes[base_minute - 1], minutes[-1]
    found = []
    for what, (factor, more) in LIMITS.items():
        if what == "p99":
            pairs = [tuple(median(run.figures["p99_ms"] for run in runs) for runs in (base, last))]
        else:
            pairs = list(zip(_largest(base, f"_{what}_mib"), _largest(last, f"_{what}_mib"), strict=True))
        for early, late in pairs:
            if late > factor * early + more:
                found.append(f"{what}: {early:,.1f} in minute {base_minute}, {late:,.1f} in the last")
    early, late = (median(run.figures["commands_per_second"] for run in runs) for runs in (base, last))
    if late < THROUGHPUT_MIN * early:
        found.append(f"throughput: {early:,.0f}/s in minute {base_minute}, {late:,.0f}/s in the last")
    return found


def draw(measurement: Measurement, path: Path) -> None:
    """Plot memory, data directories and latency over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 8), layout="constrained")
    figure.suptitle(measurement.name)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    runs = measurement.runs
    minutes = [number * float(measurement.setting["seconds"]) / 60 for number in range(1, 1 + len(runs))]
    for axes, ending, title in ((above, "_resident_mib", "resident memory, MiB"), (middle, "_data_mib", "data, MiB")):
        for replica, column in enumerate(zip(*_of(runs, ending), strict=True), 1):
            axes.plot(minutes, column, label=f"replica {replica}")
        _finish(axes, title)
        axes.set_ylim(bottom=0)
    for name, label in (("p50_ms", "p50"), ("p99_ms", "p99")):
        below.plot(minutes, [run.figures[name] for run in runs], label=label)
    _finish(below, "latency, ms")
    below.set_yscale("log")
    below.set_xlabel("minutes")
    figure.savefig(path, dpi=120)


def _finish(axes: "Axes", title: str) -> None:
    axes.set_ylabel(title)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small")


def main(arguments: Sequence[str]) -> int:
    """Measure and print. Returns status 1 if a figure grew."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steady_state",
        description="Measures whether memory and disk usage of a group grow under a steady load.",
    )
    standard = SteadyStatePlan()
    parser.add_argument("--minutes", type=int, default=standard.minutes, help="length (30)")
    parser.add_argument("--rate", type=float, default=standard.rate, help="requests per second (500)")
    parser.add_argument("--replicas", type=int, default=standard.replicas, help="size of the group (3)")
    parser.add_argument(
        "--checkpoint-instances", type=int, default=standard.checkpoint_instances, help="batches per checkpoint (2000)"
    )
    parser.add_argument("--minute-seconds", type=float, default=standard.minute_seconds, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a plot; needs the plots extra")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        plan = SteadyStatePlan(
            options.minutes, options.rate, options.replicas, options.checkpoint_instances, options.minute_seconds
        )

        recording.add(await measure_steady_state(plan, on_progress))

    def action() -> int:
        if options.plot is not None:
            check_can_plot()
        results = record("steady_state", arguments, options.out, work)
        console = console_for(sys.stdout)
        (measurement,) = results.measurements
        for minute, runs in enumerate(minutes_of(measurement), 1):
            console.print(line(minute, runs), soft_wrap=True)
        if options.plot is not None:
            draw(measurement, options.plot)
            console.print(f"plot: {options.plot}", soft_wrap=True)
        found = grown(minutes_of(measurement))
        stopped = [note for note in measurement.notes if note.startswith("stopped")]
        for note in (*measurement.notes, *found):
            console.print(f"! {note}", soft_wrap=True, markup=False)
        console.print(verdict(measurement, flat=not found and not stopped), soft_wrap=True)
        show_machine(results, console)
        return 1 if found or stopped else 0

    return guarded("steady_state", action)


def verdict(measurement: Measurement, *, flat: bool) -> str:
    """One line, with the limits."""
    checkpoints = measurement.runs[-1].figures["snapshots"]
    limits = ", ".join(f"{what} {factor:g} times and {more:g}" for what, (factor, more) in LIMITS.items())
    return (
        f"{'flat' if flat else 'NOT FLAT'}, with {checkpoints:,.0f} checkpoints: the last minute may have, of minute "
        f"{_BASE_MINUTE}: {limits} more (MiB, ms), and {THROUGHPUT_MIN:g} of its throughput"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
