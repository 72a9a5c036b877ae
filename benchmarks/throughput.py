"""Commands per second of a group: an open loop of writes, submitted together, one native client per replica.

Run: python -m benchmarks.throughput [--replicas 3] [--storage memory] [--conflict 0.02] [--runs 5] [--out FILE]

Measures as `pydsm bench` does, for 3 and 5 replicas with both kinds of storage. With several shares of
conflicts, runs of all shares alternate in one group, so that they can be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import recorded
from pydsm.bench.loads import Flood
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure_in_turns
from pydsm.bench.recording import Recording
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage


def main(arguments: Sequence[str]) -> int:
    """Measure and print one line for each combination."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description="Commands per second of a group under an open loop."
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[3, 5], help="sizes of the group (3 5)")
    parser.add_argument(
        "--storage", type=Storage, nargs="+", choices=list(Storage), default=[Storage.MEMORY, Storage.SQLITE]
    )
    parser.add_argument("--conflict", type=float, nargs="+", default=[0.0], help="shares that write one key (0)")
    parser.add_argument("--commands", type=int, default=100_000, help="commands of a run (100000)")
    parser.add_argument("--runs", type=int, default=5, help="runs that count (5)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        plans = [
            BenchmarkPlan(Flood(options.commands), BenchmarkWorkload(share), options.runs) for share in options.conflict
        ]
        for storage in options.storage:
            for replicas in options.replicas:
                async with local_target(GroupShape(replicas, storage)) as target:
                    recording.add(*await measure_in_turns(target, plans, on_progress))

    return recorded("throughput", arguments, options.out, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
