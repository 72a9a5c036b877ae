"""`pydsm bench`: measures a group under load, either a new local one or a running one."""

import asyncio
import contextlib
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pydsm.bench.compare import Verdict, compare
from pydsm.bench.loads import Closed, FixedRate, Flood, Load
from pydsm.bench.measure import BenchmarkPlan, ProgressCallback, measure
from pydsm.bench.plots import check_can_plot, plot
from pydsm.bench.recording import Recording
from pydsm.bench.results import read
from pydsm.bench.target import Target
from pydsm.bench.view import console_for, progress, show, show_comparison, show_machine
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.cli.bench_group import GroupShape, local_target
from pydsm.cli.loop import run
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.transport.address import Address, parse_address, system_error_text

_MEASUREMENTS_MAX = 200
_RUNS_MAX = 1000
_SECONDS_MAX = 86_400
_REACH_SECONDS_MAX = 5.0
_AT_HINT = "is a replica running there, with --native at this address?"


class LoadKind(StrEnum):
    """How requests are generated."""

    FLOOD = "flood"
    RATE = "rate"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BenchmarkMatrix:
    """The requested measurements: each plan with each group."""

    shapes: list[GroupShape]
    at: Target | None
    """A running group, in place of new ones."""
    plans: list[BenchmarkPlan]

    @property
    def steps(self) -> int:
        """The number of runs, including those that warm up."""
        return (len(self.shapes) or 1) * sum(1 + plan.runs for plan in self.plans)


def bench(
    replicas: Annotated[str, typer.Option(help="Sizes of the group that is started, as 3 or 3,5,7. [default: 3]")] = "",
    storage: Annotated[str, typer.Option(help="Its storage: memory, sqlite or both. [default: memory]")] = "",
    thrifty: Annotated[
        bool, typer.Option("--thrifty", help="Its replicas send to the minimum number of peers.")
    ] = False,
    batch_commands_max: Annotated[str, typer.Option(help="Its batch limits, as 1,10,100 (see pydsm serve).")] = "",
    at: Annotated[str, typer.Option(help="Client ports of a running group instead: HOST:PORT,HOST:PORT")] = "",
    load: Annotated[
        LoadKind,
        typer.Option(
            help="flood: all requests together. rate: a fixed number per second. closed: clients wait for answers."
        ),
    ] = LoadKind.FLOOD,
    requests: Annotated[int, typer.Option(help="Requests of a flood.")] = 100_000,
    rate: Annotated[
        str, typer.Option(help="Requests per second, for the load rate; as 1000,10000 for a sweep.")
    ] = "1000",
    seconds: Annotated[float, typer.Option(help="Length of a run, for the loads rate and closed.")] = 10,
    clients: Annotated[str, typer.Option(help="Clients, for the load closed.")] = "10",
    pipeline: Annotated[str, typer.Option(help="Requests that each of them keeps in flight.")] = "1",
    conflict: Annotated[str, typer.Option(help="Shares of requests on one hot key, as 0,0.02,0.25,1.")] = "0",
    reads: Annotated[str, typer.Option(help="Shares of requests that read.")] = "0",
    value_bytes: Annotated[str, typer.Option(help="Sizes of values.")] = "8",
    keys: Annotated[int, typer.Option(help="Different keys; 0 for a new one with every request of a run.")] = 0,
    runs: Annotated[int, typer.Option(help="Measured runs, after one warm-up run.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Write all figures of all runs to this JSON file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write plots to this directory; needs the plots extra.")] = None,
    compare_with: Annotated[
        Path | None,
        typer.Option("--compare", help="Compare with this file from --out; exit status 1 if a figure is worse."),
    ] = None,
) -> int:
    """Measure throughput, latency and resource use of a group. All combinations of listed values are measured."""
    for name, value, most in (("--runs", runs, _RUNS_MAX), ("--seconds", seconds, _SECONDS_MAX)):
        if not 0 < value <= most:
            raise UsageError(f"{name} must be above 0 and at most {most}, got {value:g}")
    old = None if compare_with is None else read(compare_with)
    if plots is not None:
        check_can_plot()
    conflicts, read_shares = numbers("--conflict", conflict, float), numbers("--reads", reads, float)
    shapes = itertools.product(conflicts, read_shares, numbers("--value-bytes", value_bytes, int))
    workloads = [BenchmarkWorkload(*shape, keys=keys) for shape in shapes]
    loads: list[Load]
    match load:
        case LoadKind.FLOOD:
            loads = [Flood(requests)]
        case LoadKind.RATE:
            loads = [FixedRate(one, seconds) for one in numbers("--rate", rate, float)]
        case LoadKind.CLOSED:
            counts = itertools.product(numbers("--clients", clients, int), numbers("--pipeline", pipeline, int))
            loads = [Closed(count, depth, seconds) for count, depth in counts]
    plans = [BenchmarkPlan(one, workload, runs) for one in loads for workload in workloads]
    if at:
        if replicas or storage or thrifty or batch_commands_max:
            raise UsageError("--at names a running group: remove the options that describe a new one")
        addresses = [parse_address(address.strip()) for address in at.split(",")]
        running = Target(addresses, setting={"replicas": len(addresses), "storage": "running group"})
        matrix = BenchmarkMatrix([], running, plans)
    else:
        matrix = BenchmarkMatrix(
            list(_shapes(replicas or "3", storage or "memory", thrifty, batch_commands_max)), None, plans
        )
    if (count := matrix.steps // (1 + runs)) > _MEASUREMENTS_MAX:
        raise UsageError(f"the options give {count} measurements, over the limit of {_MEASUREMENTS_MAX}: combine fewer")
    recording = Recording(f"pydsm {shlex.join(sys.argv[1:])}", out)

    async def measured() -> int:
        with progress(sys.stderr, matrix.steps) as on_progress:
            await _measure(matrix, recording, on_progress)
        return 0

    run(measured())
    results = recording.finish()
    console = console_for(sys.stdout)
    show(results.measurements, console)
    show_machine(results, console)
    if out is not None:
        console.print(f"results: {out}", soft_wrap=True, markup=False)
    for picture in [] if plots is None else plot(results.measurements, plots):
        console.print(f"plot: {picture}", soft_wrap=True, markup=False)
    failed = any("FAILED" in note for measurement in results.measurements for note in measurement.notes)
    if old is None:
        return 1 if failed else 0
    comparison = compare(old, results)
    show_comparison(comparison, console)
    return 1 if failed or comparison.of(Verdict.WORSE) else 0


async def _measure(matrix: BenchmarkMatrix, recording: Recording, on_progress: ProgressCallback) -> None:
    if matrix.at is not None:
        await asyncio.gather(*map(_reach, matrix.at.clients))
        for plan in matrix.plans:
            recording.add(await measure(matrix.at, plan, on_progress))
    for shape in matrix.shapes:
        async with local_target(shape) as target:
            for plan in matrix.plans:
                recording.add(await measure(target, plan, on_progress))


async def _reach(address: Address) -> None:
    """Raises OperationalError if no server listens at this address.

    Without this check, clients would retry until their requests have timed out.
    """
    try:
        async with asyncio.timeout(_REACH_SECONDS_MAX):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError as error:
        raise OperationalError(f"--at {address}: no connection within {_REACH_SECONDS_MAX:g} s; {_AT_HINT}") from error
    except OSError as error:
        raise OperationalError(f"--at {address}: {system_error_text(error)}; {_AT_HINT}") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _shapes(replicas: str, storage: str, thrifty: bool, batch_commands_max: str) -> Iterator[GroupShape]:
    storages = list(Storage) if storage == "both" else [_storage(storage)]
    limits: list[int | None] = [None]
    if batch_commands_max:
        limits = [*numbers("--batch-commands-max", batch_commands_max, int)]
    for where, size, limit in itertools.product(storages, numbers("--replicas", replicas, int), limits):
        yield GroupShape(size, where, thrifty, limit)


def _storage(text: str) -> Storage:
    try:
        return Storage(text)
    except ValueError as error:
        raise UsageError(f"--storage must be memory, sqlite or both, got {text!r}") from error


_Number = TypeVar("_Number", int, float)


def numbers(option: str, text: str, number: Callable[[str], _Number]) -> list[_Number]:
    """The numbers in a comma-separated list. Raises UsageError for anything else."""
    try:
        return [number(part) for part in text.split(",")]
    except ValueError as error:
        kind = "whole numbers" if number is int else "numbers"
        raise UsageError(f"{option} takes {kind}, separated by commas; got {text!r}") from error
