"""Commands per second of a group: an open loop of writes through native clients, one for each replica.

Run: python -m benchmarks.throughput [--replicas 3] [--storage memory] [--conflict 0.02] [--runs 5]

All commands of a run are handed to the clients at once, spread evenly over the replicas; the run ends when the last one
is answered, which is after its execution. Keys and values have 8 bytes. A share of the commands writes one hot key, all
others keys of their own. The group, the clients and whatever else runs share this machine's cores, so compare only
figures of the same machine at the same time; the median of the runs counts, and the first run only warms up.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.loop import run
from pydsm.cli.serve import Storage
from pydsm.client import Client, ClientLimits
from pydsm.machines.kv import encode

_HOT = b"hot00000"


@dataclass(frozen=True, slots=True)
class Measured:
    """One group's throughput."""

    replicas: int
    storage: str
    conflict: float
    commands: int
    per_second: list[float]
    """Of each run, in their order."""

    @property
    def median_per_second(self) -> float:
        """What counts."""
        return median(self.per_second)

    def __str__(self) -> str:
        return (
            f"{self.replicas} replicas, {self.storage}, {100 * self.conflict:g} % on one key: "
            f"{self.median_per_second:,.0f} commands/s "
            f"({min(self.per_second):,.0f} to {max(self.per_second):,.0f} in {len(self.per_second)} runs)"
        )


def commands_of(run_number: int, count: int, conflict: float) -> list[bytes]:
    """Writes; the same for the same number."""
    draw = random.Random(run_number)
    return [
        encode((b"SET", _HOT if draw.random() < conflict else b"%08d" % number, b"%08d" % run_number))
        for number in range(count)
    ]


async def measure(replicas: int, storage: Storage, conflict: float, count: int, runs: int) -> Measured:
    """Start a group, warm it up, and load it."""
    limits = ClientLimits(timeout_seconds=120, in_flight_commands_max=count + 1)
    per_second: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pydsm-bench-") as directory:
        async with LocalGroup(replicas, Path(directory), storage) as group, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Client(group.clients, prefer=address, limits=limits))
                for address in group.clients
            ]
            for number in range(1 + runs):
                commands = commands_of(number, count, conflict)
                parts = [commands[place::replicas] for place in range(replicas)]
                before = time.perf_counter()
                answered = await asyncio.gather(
                    *(client.execute_many(part) for client, part in zip(clients, parts, strict=True))
                )
                seconds = time.perf_counter() - before
                if any(outcome != "OK" for outcomes in answered for outcome in outcomes):
                    raise AssertionError("a write was not acknowledged")
                per_second.append(count / seconds)
    return Measured(replicas, storage.value, conflict, count, per_second[1:])


def main(arguments: Sequence[str]) -> int:
    """Measure and print, one line for each combination."""
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
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)

    async def report() -> int:
        for storage in options.storage:
            for replicas in options.replicas:
                for conflict in options.conflict:
                    measured = await measure(replicas, storage, conflict, options.commands, options.runs)
                    print(json.dumps(asdict(measured)) if options.json else measured, flush=True)
        return 0

    return run(report())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
