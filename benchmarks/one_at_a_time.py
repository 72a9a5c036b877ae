"""Latency of one request at a time: one native client, one command in flight, against a group of processes here.

Run: python -m benchmarks.one_at_a_time [--replicas 5] [--storage memory] [--requests 2000]

The group, the client and whatever else runs share this machine's cores. With storage on disk, the cost of one sync is
measured beside it: a commit takes one at the leader and one at the others, at the same time, and one more before it is
told.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.loop import run
from pydsm.cli.serve import Storage
from pydsm.client import Client
from pydsm.machines.kv import encode
from pydsm.storage.sync_cost import sync_seconds

_WARM_UP = 300


@dataclass(frozen=True, slots=True)
class Measured:
    """One group's latencies."""

    replicas: int
    storage: str
    requests: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    sync_ms: float | None
    """What one sync of this disk takes when it is idle."""

    def __str__(self) -> str:
        sync = "" if self.sync_ms is None else f"; one sync of this disk: {self.sync_ms:.2f} ms"
        return (
            f"{self.replicas} replicas, {self.storage}: p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, "
            f"p99.9 {self.p999_ms:.2f} ms{sync}"
        )


async def measure(replicas: int, storage: Storage, requests: int) -> Measured:
    """Start a group, warm it up, and ask."""
    with tempfile.TemporaryDirectory(prefix="pydsm-bench-") as directory:
        sync_ms = None if storage is Storage.MEMORY else 1000 * sync_seconds(Path(directory))
        taken: list[float] = []
        async with LocalGroup(replicas, Path(directory), storage) as group, Client(group.clients) as client:
            for number in range(_WARM_UP + requests):
                command = encode((b"SET", b"k%07d" % number, b"%08d" % number))
                before = time.perf_counter()
                await client.execute(command)
                taken.append(1000 * (time.perf_counter() - before))
    taken = sorted(taken[_WARM_UP:])
    return Measured(
        replicas,
        storage.value,
        requests,
        p50_ms=taken[len(taken) // 2],
        p99_ms=taken[len(taken) * 99 // 100],
        p999_ms=taken[len(taken) * 999 // 1000],
        sync_ms=sync_ms,
    )


async def report(replicas: int, storages: Sequence[Storage], requests: int, *, as_json: bool) -> int:
    """A line for each kind of storage."""
    for storage in storages:
        measured = await measure(replicas, storage, requests)
        print(json.dumps(asdict(measured)) if as_json else measured, flush=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.one_at_a_time", description="Latency of one request at a time."
    )
    parser.add_argument("--replicas", type=int, default=5, help="replicas of the group (5)")
    parser.add_argument("--storage", type=Storage, choices=list(Storage), help="memory or sqlite (both, one by one)")
    parser.add_argument("--requests", type=int, default=2000, help="requests that are measured (2000)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    storages = [options.storage] if options.storage else [Storage.MEMORY, Storage.SQLITE]
    return run(report(options.replicas, storages, options.requests, as_json=options.json))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
