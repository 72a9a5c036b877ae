"""Measures the memory per key, beyond that of a dict: `python -m benchmarks.memory [--keys 1000000]`.

Writes this number of distinct keys of 8 bytes with values of 8 bytes to a group, and compares the resident memory of
each replica process before and after with that of a bare Python process that puts the same keys and values into a dict.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import guarded, record
from pydsm.bench.loads import Flood, connected, drive
from pydsm.bench.measure import ProgressCallback
from pydsm.bench.processes import resident_bytes
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.bench.target import Target, counters
from pydsm.bench.view import console_for, show_machine
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError, UsageError

MUST_BYTES_PER_KEY = 600
_PART = 50_000
_QUIET_SECONDS_MAX = 60.0
_KEYS_MAX = 20_000_000
_BARE = """
import sys
from pydsm.bench.processes import resident_bytes
import os
before = resident_bytes(os.getpid())
store = {b"%08d" % number: b"%08d" % (number + 1) for number in range(int(sys.argv[1]))}
print(resident_bytes(os.getpid()) - before)
"""


def bare_dict_bytes(keys: int) -> int:
    """Resident memory of a dict with this number of keys and values, measured in a separate process."""
    done = subprocess.run([sys.executable, "-c", _BARE, str(keys)], capture_output=True, text=True, check=True)
    return int(done.stdout)


async def measure_memory(keys: int, storage: Storage, runs: int, on_progress: ProgressCallback) -> Measurement:
    """Bytes per key at each replica, beyond the dict; each run has a new group."""
    on_progress(f"a bare dict of {keys:,} keys")
    bare = bare_dict_bytes(keys)
    shape = GroupShape(3, storage)
    done: list[BenchmarkRun] = []
    for number in range(1, 1 + runs):
        async with local_target(shape) as target:
            before = _resident(target)
            for first in range(0, keys, _PART):
                on_progress(f"run {number} of {runs}: {first:,} of {keys:,} keys written")
                await _write(target, first, min(_PART, keys - first))
            await _quiet(target)
            grown = [late - early for early, late in zip(before, _resident(target), strict=True)]
        figures = {f"replica_{replica + 1}_bytes_per_key": (each - bare) / keys for replica, each in enumerate(grown)}
        most = max(figures.values())
        done.append(BenchmarkRun({**figures, "most_bytes_per_key": most, "dict_bytes_for_each": bare / keys}))
    return Measurement(f"memory of {keys:,} keys, {storage.value}", {**shape.setting(), "keys": keys}, done)


def _resident(target: Target) -> list[int]:
    resident = [resident_bytes(pid) for pid in target.pids]
    known = [each for each in resident if each is not None]
    if len(known) < len(resident):
        raise OperationalError("this system does not provide the memory of processes in /proc: measure on Linux")
    return known


async def _write(target: Target, first: int, count: int) -> None:
    requests = BenchmarkWorkload().requests(count, seed=1, first=first)
    async with connected(target.clients, len(target.clients)) as clients:
        result = await drive(Flood(count), clients, requests)
    if result.failed:
        raise OperationalError(f"{result.failed} writes failed ({result.example}): write fewer keys")


async def _quiet(target: Target) -> None:
    """Wait until all replicas have executed the same instances."""
    deadline = time.monotonic() + _QUIET_SECONDS_MAX
    while len({each.get("executed", 0) for each in await counters(target)}) > 1:
        if time.monotonic() > deadline:
            raise OperationalError(
                f"the replicas did not catch up with each other in {_QUIET_SECONDS_MAX:g} s: see their logs"
            )
        await asyncio.sleep(0.1)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description="Memory of a key at each of three replicas, beyond a dict."
    )
    parser.add_argument("--keys", type=int, default=1_000_000, help="distinct keys (1000000)")
    parser.add_argument("--storage", type=Storage, choices=list(Storage), default=Storage.MEMORY)
    parser.add_argument("--runs", type=int, default=1, help="groups, one after the other (1)")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    async def work(recording: Recording, on_progress: ProgressCallback) -> None:
        recording.add(await measure_memory(options.keys, options.storage, options.runs, on_progress))

    def action() -> int:
        if not 1 <= options.keys <= _KEYS_MAX or options.runs < 1:
            raise UsageError(f"--keys must be between 1 and {_KEYS_MAX}, and --runs at least 1")
        results = record("memory", arguments, options.out, work)
        console = console_for(sys.stdout)
        (measurement,) = results.measurements
        for name in measurement.figures:
            console.print(f"{name.replace('_', ' ')}: {measurement.median(name):,.0f}", soft_wrap=True)
        show_machine(results, console)
        return 0

    return guarded("memory", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
