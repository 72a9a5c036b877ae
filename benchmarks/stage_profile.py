"""Measures the processor time of a command by stage: `python -m benchmarks.stage_profile`.

One replica of three leads a third of the commands and follows two thirds, so its profile under load has all costs of a
command at a replica; the load generator has the costs at a client. py-spy (in the extra `bench`) samples both a few
hundred times a second; a sample counts for the innermost stage in its stack. The share of a stage, times the processor
time of the process per command of the group, is its cost in microseconds.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import guarded
from pydsm.bench.loads import FixedRate, Flood
from pydsm.bench.measure import BenchmarkPlan, measure_once
from pydsm.bench.processes import cpu_seconds
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.loop import run
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError, UsageError

REPLICA = (
    ("leader: read and decode the client's frames", ("server/native.py:data_received",)),
    ("leader: footprint of the batch", ("KeyValue.footprint",)),
    ("leader: gather a batch, name its requests", ("Batcher._gather", "Batcher._take", "Batcher.flush")),
    ("leader: answers to the client", ("NativeConnection._flush", "NativeConnection._answered", "_Proposal.answer")),
    ("conflicts: look up the batch's keys", ("Log.conflicts",)),
    ("conflicts: enter the batch's keys", ("ConflictIndex.add", "_KeyIndex.add", "_SessionIndex.add")),
    ("messages: read frames", ("FrameReader.feed", "FrameReader.payloads")),
    ("messages: decode", ("decode_message",)),
    ("messages: encode and write", ("TcpTransport.send", "TcpTransport._flush")),
    ("machine: apply the batch", ("KeyValue.apply",)),
    ("sessions: what was executed already", ("Sessions.execute",)),
    ("records: encode and write (a thread of its own)", ("ThreadedDisk._work", "SqliteStore.write")),
    ("records: hand over", ("Performer._write_group", "InlineDisk.write")),
    ("core: agreement and order", ("Replica.receive", "Replica.propose", "Replica.tick")),
    ("loop, and waiting for the system", ("",)),
)
CLIENT = (
    ("client: encode and write frames", ("Link._flush",)),
    ("client: read, decode and settle answers", ("Link.data_received",)),
    ("client: take commands", ("Client._submit", "Client.submit", "Client.execute_many", "Client._begin")),
    ("load generator itself, loop, system", ("",)),
)
Stages = Sequence[tuple[str, Sequence[str]]]

_SAMPLES_PER_SECOND = 250
_IDLE = "_worker (concurrent/futures/thread.py"


def shares(raw: str, stages: Stages) -> dict[str, float]:
    """The share of each stage in py-spy's raw output, whose lines have a stack and a count."""
    counted: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and _IDLE not in stack:
            counted[_stage_of(stack.split(";"), stages)] += int(count)
    total = counted.total()
    return {name: counted[name] / total if total else 0.0 for name, _ in stages}


def _stage_of(stack: Sequence[str], stages: Stages) -> str:
    for frame in reversed(stack):
        function, _, location = frame.partition(" (")
        for name, marks in stages:
            for mark in marks:
                path, _, method = mark.rpartition(":")
                if mark and function.endswith(method) and path in location:
                    return name
    return stages[-1][0]


class _Spy:
    """py-spy on a process, for about the duration of the load."""

    def __init__(self, pid: int, seconds: float, output: Path) -> None:
        self._output = output
        self._command = [
            *("record", "--nonblocking", "--format", "raw", "--output", str(output), "--pid", str(pid)),
            *("--rate", str(_SAMPLES_PER_SECOND), "--duration", str(max(1, int(seconds)))),
        ]

    async def run(self) -> str:
        """The raw output. Raises OperationalError when py-spy cannot look."""
        program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if program is None:
            raise UsageError("py-spy is not installed: pip install 'pydsm-epaxos[bench]'")
        process = await asyncio.create_subprocess_exec(
            program, *self._command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        if process.returncode or not self._output.exists():
            raise OperationalError(f"py-spy cannot look into a process: {errors.decode(errors='replace').strip()}")
        return self._output.read_text(errors="replace")


async def _profile(shape: GroupShape, rate: float | None, seconds: float) -> None:
    workload = BenchmarkWorkload(keys=100_000)
    async with local_target(shape) as target:
        load: FixedRate | Flood = FixedRate(rate, seconds) if rate else Flood()
        await measure_once(target, BenchmarkPlan(load, workload), 0)
        replica = target.pids[0]
        processes = (("a replica", replica, REPLICA), ("the load generator with its clients", os.getpid(), CLIENT))
        for title, pid, stages in processes:
            with tempfile.TemporaryDirectory(prefix="pydsm-profile-") as directory:
                spy = asyncio.create_task(_Spy(pid, seconds, Path(directory) / "raw").run())
                before, commands, number = cpu_seconds(pid), 0.0, 1
                while not spy.done():
                    done = await measure_once(target, BenchmarkPlan(load, workload), number)
                    commands += done.figures["commands"]
                    number += 1
                after = cpu_seconds(pid)
                raw = await spy
            if before is None or after is None or not commands:
                raise OperationalError("this system does not provide the processor time of a process")
            whole = 1e6 * (after - before) / commands
            print(f"{title}: {whole:.2f} µs of processor time for each command of the group")
            for name, share in shares(raw, stages).items():
                print(f"  {share * whole:5.2f} µs  {100 * share:4.0f} %  {name}")
            sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Profile and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stage_profile", description="Where a command's time goes."
    )
    parser.add_argument("--storage", type=Storage, choices=list(Storage), default=Storage.MEMORY)
    parser.add_argument("--replicas", type=int, default=3, help="size of the group (3)")
    parser.add_argument("--rate", type=float, help="requests per second (a flood, unless given)")
    parser.add_argument("--seconds", type=float, default=8, help="how long each process is looked at (8)")
    options = parser.parse_args(arguments)

    async def work() -> int:
        await _profile(GroupShape(options.replicas, options.storage), options.rate, options.seconds)
        return 0

    return guarded("stage_profile", lambda: run(work()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
