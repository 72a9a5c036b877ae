"""Measures throughput and processor time per command, by size of the group and by size of a batch.

Run: python -m benchmarks.growth [--out FILE] [--plots DIRECTORY]

Floods of writes without conflicts, storage in memory. Batches are limited by `pydsm serve --batch-commands-max`; a
small limit gets fewer requests, so that a run takes seconds and not minutes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import recorded
from pydsm.bench.loads import Flood
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure
from pydsm.bench.plots import check_can_plot, plot
from pydsm.bench.recording import Recording
from pydsm.cli.bench_group import GroupShape, local_target

_BATCHES_IN_A_RUN_MAX = 4000


def requests_for(limit: int, requests_max: int) -> int:
    """The number of requests for batches of this size: enough for a stable figure."""
    return min(requests_max, limit * _BATCHES_IN_A_RUN_MAX)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and plot if requested."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Throughput and processor time by replicas and batch sizes."
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[3, 5, 7], help="sizes of the group (3 5 7)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000], help="batch limits")
    parser.add_argument("--commands", type=int, default=100_000, help="commands of a run, at most (100000)")
    parser.add_argument("--runs", type=int, default=5, help="runs that count (5)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    parser.add_argument("--plots", type=Path, help="write plots to this directory; needs the plots extra")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        if options.plots is not None:
            check_can_plot()
        shapes = [GroupShape(replicas) for replicas in options.replicas]
        shapes += [GroupShape(options.replicas[0], batch_commands_max=limit) for limit in options.batches]
        for shape in shapes:
            count = requests_for(shape.batch_commands_max or options.commands, options.commands)
            async with local_target(shape) as target:
                recording.add(await measure(target, BenchmarkPlan(Flood(count), runs=options.runs), on_progress))
        for picture in [] if options.plots is None else plot(recording.results().measurements, options.plots):
            on_progress(f"plot: {picture}")

    return recorded("growth", arguments, options.out, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
