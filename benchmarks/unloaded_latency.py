"""Latency of one request at a time: one native client, one command in flight, against a group of processes here.

Run: python -m benchmarks.unloaded_latency [--replicas 5] [--storage memory] [--seconds 5] [--runs 5] [--out FILE]

The group, the client and all other programs share this machine's cores. With storage on disk, compare with the duration
of one sync: a commit takes one at the others, and then one at the leader before the answer is sent.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import recorded
from pydsm.bench.loads import Closed
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure
from pydsm.bench.recording import Recording
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unloaded_latency", description="Latency of one request at a time."
    )
    parser.add_argument("--replicas", type=int, default=5, help="replicas of the group (5)")
    parser.add_argument("--storage", type=Storage, choices=list(Storage), help="memory or sqlite (both, one by one)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a run (5)")
    parser.add_argument("--runs", type=int, default=5, help="runs that count (5)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        for storage in [options.storage] if options.storage else [Storage.MEMORY, Storage.SQLITE]:
            async with local_target(GroupShape(options.replicas, storage)) as target:
                recording.add(
                    await measure(target, BenchmarkPlan(Closed(1, 1, options.seconds), runs=options.runs), on_progress)
                )

    return recorded("unloaded_latency", arguments, options.out, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
