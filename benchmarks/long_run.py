"""Measures a group under long load: `python -m benchmarks.long_run [--minutes 30]`.

The load is half of the maximum throughput, for half an hour. Measures the maximum with floods, then sends half of it at
a fixed rate, over a bounded number of keys, so that the data does not grow. Reports throughput, latency and the
resident memory of each replica for every minute, and compares the last minute with the second: the first still warms
up. Stops early, with a warning, if the group does not keep up or its memory reaches the limit.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import guarded, record
from pydsm.bench.loads import FixedRate, Flood
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure, measure_once
from pydsm.bench.processes import resident_bytes
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.bench.target import Target
from pydsm.bench.view import console_for, number, show_machine
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import UsageError

_MINUTES_MAX = 24 * 60
_KEYS = 100_000
_SECONDS_PER_MINUTE = 60.0
_BEHIND_SECONDS_MAX = 10.0
"""Maximum length. Other programs may disturb a long run; the figures by minute show when."""


@dataclass(frozen=True, slots=True)
class LongRun:
    """The options of a run."""

    minutes: int = 30
    replicas: int = 3
    storage: Storage = Storage.MEMORY
    rate: float | None = None
    """Requests per second. None: half of the maximum, which is measured before."""
    memory_gib_max: float = 8.0
    """Resident memory of all replicas together at which the run stops."""
    minute_seconds: float = _SECONDS_PER_MINUTE
    """Seconds per minute; shorter ones are for tests of this script."""

    def __post_init__(self) -> None:
        if not 3 <= self.minutes <= _MINUTES_MAX:
            raise UsageError(f"--minutes must be between 3 and {_MINUTES_MAX}, got {self.minutes}")


async def run_long(plan: LongRun, on_progress: ProgressCallback) -> Measurement:
    """One measurement; each minute is one of its runs."""
    shape = GroupShape(plan.replicas, plan.storage)
    workload = BenchmarkWorkload(keys=_KEYS)
    rate = plan.rate
    if rate is None:
        async with local_target(shape) as target:
            flood = await measure(target, BenchmarkPlan(Flood(), workload, runs=3), on_progress)
            rate = (flood.median("commands_per_second") or 0) / 2
    minutes: list[BenchmarkRun] = []
    async with local_target(shape) as target:
        load = FixedRate(rate, plan.minute_seconds, _BEHIND_SECONDS_MAX)
        for minute in range(1, 1 + plan.minutes):
            run = await measure_once(target, BenchmarkPlan(load, workload), minute)
            minutes.append(with_memory(run, target))
            on_progress(_line(minute, minutes[-1]))
            if trouble := stop_reason(minutes[-1], plan):
                minutes[-1].notes.append(f"stopped after minute {minute} of {plan.minutes}: {trouble}")
                break
    return Measurement(
        f"{plan.minutes} minutes at {rate:,.0f}/s, {plan.replicas} replicas, {plan.storage.value}",
        {**shape.setting(), **load.setting(), **workload.setting(), "minutes": plan.minutes},
        minutes,
    )


def with_memory(run: BenchmarkRun, target: Target) -> BenchmarkRun:
    """Add the resident memory of each replica."""
    resident = [each for pid in target.pids if (each := resident_bytes(pid)) is not None]
    mib = {f"replica_{replica + 1}_resident_mib": each / 2**20 for replica, each in enumerate(resident)}
    return BenchmarkRun({**run.figures, **mib}, run.latency_us, [*run.notes])


def stop_reason(run: BenchmarkRun, plan: LongRun) -> str | None:
    """Why the run must stop, or None."""
    if any("did not keep up" in note for note in run.notes):
        return "the group did not keep up with the rate; give a lower --rate"
    resident = sum(value for name, value in run.figures.items() if name.endswith("_resident_mib")) / 1024
    if resident > plan.memory_gib_max:
        return f"replicas had {resident:.1f} GiB of memory, over --memory-gib {plan.memory_gib_max:g}"
    return None


def last_by_second(measurement: Measurement) -> dict[str, float]:
    """Throughput, and resident memory of the replica that grew most: the last minute divided by the second."""
    if len(measurement.runs) < 2:
        return {}
    second, last = measurement.runs[1].figures, measurement.runs[-1].figures
    ratios = {"throughput": last["commands_per_second"] / second["commands_per_second"]}
    grown = [last[name] / second[name] for name in second if name.endswith("_resident_mib") and second[name]]
    return {**ratios, **({"resident memory": max(grown)} if grown else {})}


def _line(minute: int, run: BenchmarkRun) -> str:
    figures = run.figures
    resident = ", ".join(f"{value:,.0f}" for name, value in figures.items() if name.endswith("_resident_mib"))
    return (
        f"minute {minute}: {figures['commands_per_second']:,.0f}/s, p50 {number(figures['p50_ms'])} ms, "
        f"p99 {number(figures['p99_ms'])} ms, resident {resident} MiB"
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print. Returns status 1 if it stopped early."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_run", description="Runs half of the maximum load for a long time."
    )
    standard = LongRun()
    parser.add_argument("--minutes", type=int, default=standard.minutes, help="length (30)")
    parser.add_argument("--replicas", type=int, default=standard.replicas, help="size of the group (3)")
    parser.add_argument("--storage", type=Storage, choices=list(Storage), default=standard.storage)
    parser.add_argument("--rate", type=float, help="requests per second (half of the maximum, measured before)")
    parser.add_argument("--memory-gib", type=float, default=standard.memory_gib_max, help="stop at this memory (8)")
    parser.add_argument("--minute-seconds", type=float, default=_SECONDS_PER_MINUTE, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        plan = LongRun(
            options.minutes, options.replicas, options.storage, options.rate, options.memory_gib, options.minute_seconds
        )
        recording.add(await run_long(plan, on_progress))

    def action() -> int:
        results = record("long_run", arguments, options.out, work)
        console = console_for(sys.stdout)
        (measurement,) = results.measurements
        for minute, run in enumerate(measurement.runs, 1):
            console.print(_line(minute, run), soft_wrap=True)
        for what, ratio in last_by_second(measurement).items():
            console.print(f"last minute / second minute, {what}: {ratio:.3f}", soft_wrap=True)
        stopped = [note for note in measurement.notes if note.startswith("stopped")]
        for note in measurement.notes:
            console.print(f"! {note}", soft_wrap=True, markup=False)
        show_machine(results, console)
        return 1 if stopped else 0

    return guarded("long_run", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
