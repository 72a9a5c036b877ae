"""Draws the plots, from new measurements or from result files.

Run: python -m benchmarks.plots --to DIRECTORY [FILE ...]

Without files it measures: latency at rising rates, throughput by conflict rate, and throughput by size of the group,
some minutes in all. Needs the plots extra.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import guarded, record
from pydsm.bench.loads import FixedRate, Flood
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure, measure_in_turns
from pydsm.bench.plots import check_can_plot, plot
from pydsm.bench.recording import Recording
from pydsm.bench.results import read
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import UsageError

_RATES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_CONFLICTS = (0, 0.02, 0.1, 0.25, 0.5, 1)
_SIZES = (3, 5, 7)


def main(arguments: Sequence[str]) -> int:
    """Measure if there are no files, and plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plots", description="Plots result files or new measurements."
    )
    parser.add_argument("files", type=Path, nargs="*", help="result files made with --out (none: measure now)")
    parser.add_argument("--to", type=Path, required=True, help="directory for the plots")
    parser.add_argument("--rates", type=float, nargs="+", default=_RATES, help="requests per second")
    parser.add_argument("--conflicts", type=float, nargs="+", default=_CONFLICTS, help="shares on one key")
    parser.add_argument("--replicas", type=int, nargs="+", default=_SIZES, help="sizes of the group (3 5 7)")
    parser.add_argument("--commands", type=int, default=100_000, help="commands of a flood (100000)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a run at a fixed rate (5)")
    parser.add_argument("--runs", type=int, default=5, help="runs that count (5)")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        for storage in Storage:
            for replicas in options.replicas:
                shares = options.conflicts if replicas == options.replicas[0] else [0.0]
                plans = [
                    BenchmarkPlan(Flood(options.commands), BenchmarkWorkload(share), options.runs) for share in shares
                ]
                async with local_target(GroupShape(replicas, storage)) as target:
                    recording.add(*await measure_in_turns(target, plans, on_progress))
            async with local_target(GroupShape(options.replicas[0], storage)) as target:
                for rate in options.rates:
                    plan = BenchmarkPlan(FixedRate(rate, options.seconds), runs=options.runs)
                    measurement = await measure(target, plan, on_progress)
                    recording.add(measurement)
                    if any("did not keep up" in note for note in measurement.notes):
                        break

    def action() -> int:
        check_can_plot()
        if options.files:
            measurements = [one for path in options.files for one in read(path).measurements]
        else:
            options.to.mkdir(parents=True, exist_ok=True)
            measurements = record("plots", arguments, options.to / "results.json", work).measurements
        made = plot(measurements, options.to)
        for picture in made:
            print(f"plot: {picture}")
        if not made:
            raise UsageError("these files have no data to plot: measure several rates, shares or sizes")
        return 0

    return guarded("plots", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
