"""Runs a load against a group and computes the figures of each run: throughput, latency and costs.

Decides which requests count and which notes a reader needs: for example, whether the load generator was the limit.
Guarantees comparable runs: each has separate requests from its own seed, and the first run only warms up.
"""

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydsm.bench.loads import Closed, FixedRate, Flood, Load, LoadResult, clients_for, connected, drive
from pydsm.bench.processes import busy_seconds, cores, cpu_seconds, resident_bytes
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.bench.target import Target, counters
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.client import Client
from pydsm.core.types.errors import OperationalError

_WARM_UP_SECONDS = 2.0
_POOL_REQUESTS = 100_000
GENERATOR_CORES_MAX = 0.9
"""Above this share of its one core, the load generator was the limit."""
_FULL_SHARE = 0.95
_OTHER_CORES_MAX = 0.2
_LATE_SHARE_MAX = 0.5

ProgressCallback = Callable[[str], None]
"""Receives a description of the next step."""


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """A load and a workload, and how often to run them."""

    load: Load
    workload: BenchmarkWorkload = field(default_factory=BenchmarkWorkload)
    runs: int = 5


def name_of(target: Target, plan: BenchmarkPlan) -> str:
    """The name of a measurement: its setting, without values that are the defaults."""
    setting, workload = target.setting, plan.workload
    words = [f"{setting['replicas']} replicas", str(setting.get("storage", "")), _shape(plan.load)]
    words += ["thrifty"] if setting.get("thrifty") else []
    words += [f"batches of {setting['batch_commands_max']}"] if "batch_commands_max" in setting else []
    words += [f"{100 * workload.conflict:g} % on one key"] if workload.conflict else []
    words += [f"{100 * workload.reads:g} % reads"] if workload.reads else []
    words += [f"{workload.value_bytes} byte values"] if workload.value_bytes != BenchmarkWorkload().value_bytes else []
    words += [f"{workload.keys:,} keys"] if workload.keys else []
    return ", ".join(filter(None, words))


def _shape(load: Load) -> str:
    match load:
        case Flood():
            return f"flood of {load.requests:,}"
        case FixedRate():
            return f"{load.per_second:,g}/s"
        case Closed():
            return f"{load.clients} clients x {load.pipeline}"


async def measure(target: Target, plan: BenchmarkPlan, progress: ProgressCallback = lambda _: None) -> Measurement:
    """Warm up and run. Raises OperationalError if the group does not answer."""
    (measurement,) = await measure_in_turns(target, [plan], progress)
    return measurement


async def measure_in_turns(
    target: Target, plans: Sequence[BenchmarkPlan], progress: ProgressCallback = lambda _: None
) -> list[Measurement]:
    """Measure several plans with one group, one run of each in turn, so that the machine's load is the same for all."""
    runs: list[list[BenchmarkRun]] = [[] for _ in plans]
    rounds = max(plan.runs for plan in plans)
    for number in range(1 + rounds):
        for plan, done in zip(plans, runs, strict=True):
            what = name_of(target, plan)
            progress(f"{what}: {f'run {number} of {rounds}' if number else 'warming up'}")
            run = await measure_once(target, plan, number)
            if number:
                done.append(run)
    return [
        Measurement(
            name_of(target, plan),
            {**target.setting, **plan.load.setting(), **plan.workload.setting()},
            done,
        )
        for plan, done in zip(plans, runs, strict=True)
    ]


async def measure_once(target: Target, plan: BenchmarkPlan, number: int) -> BenchmarkRun:
    """One run with new connections; number 0 warms up. For callers that choose the order of runs."""
    load = plan.load if number else _warm_up(plan.load)
    async with connected(target.clients, clients_for(load, len(target.clients))) as clients:
        return await measure_with(clients, target, BenchmarkPlan(load, plan.workload), number)


async def measure_with(clients: Sequence[Client], target: Target, plan: BenchmarkPlan, number: int) -> BenchmarkRun:
    """One run with connected clients, which stay connected."""
    requests = plan.workload.requests(_pool(plan.load), seed=number)
    before = await counters(target)
    with_costs = UsageMeter(target.pids)
    result = await _run_load(plan.load, clients, requests)
    costs = with_costs.since()
    return figures_of_run(result, costs, _difference(before, await counters(target)), plan.load)


async def _run_load(load: Load, clients: Sequence[Client], requests: Sequence[bytes]) -> LoadResult:
    """Run the load without garbage collection in the generator, whose cost would not be the group's."""
    gc.collect()
    gc.disable()
    try:
        return await drive(load, clients, requests)
    finally:
        gc.enable()


def _warm_up(load: Load) -> Load:
    match load:
        case Flood():
            return load
        case FixedRate():
            return FixedRate(load.per_second, min(load.seconds, _WARM_UP_SECONDS))
        case Closed():
            return Closed(load.clients, load.pipeline, min(load.seconds, _WARM_UP_SECONDS))


def _pool(load: Load) -> int:
    """The number of requests that are created in advance."""
    match load:
        case Flood():
            return load.requests
        case FixedRate():
            return min(_POOL_REQUESTS, max(1, round(load.per_second * load.seconds)))
        case Closed():
            return _POOL_REQUESTS


def _difference(before: Sequence[dict[str, int]], after: Sequence[dict[str, int]]) -> dict[str, int]:
    """The differences, summed over all replicas."""
    return {
        name: sum(late.get(name, 0) - early.get(name, 0) for early, late in zip(before, after, strict=True))
        for name in ("fast", "slow", "proposed")
        if after
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time in an interval, and memory at its end."""

    seconds: float
    generator: float
    replicas: float | None
    others: float | None
    """Processor time of all other programs on this machine."""
    resident: list[int]
    """Resident memory of each replica; empty if it is unknown."""


class UsageMeter:
    """Measures the costs from its creation on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._before = time.perf_counter(), time.process_time(), self._replicas(), busy_seconds()

    def since(self) -> Usage:
        """The costs since the creation. Raises OperationalError if a replica has ended meanwhile."""
        before_seconds, before_generator, before_replicas, before_busy = self._before
        generator, replicas, busy = time.process_time() - before_generator, self._replicas(), busy_seconds()
        spent = None if replicas is None or before_replicas is None else replicas - before_replicas
        others = (
            None if busy is None or before_busy is None or spent is None else busy - before_busy - generator - spent
        )
        resident = [resident_bytes(pid) for pid in self._pids]
        return Usage(
            seconds=time.perf_counter() - before_seconds,
            generator=generator,
            replicas=spent,
            others=None if others is None else max(0.0, others),
            resident=[each for each in resident if each is not None],
        )

    def _replicas(self) -> float | None:
        each = [cpu_seconds(pid) for pid in self._pids]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if known and len(known) == len(each) else None


def figures_of_run(result: LoadResult, costs: Usage, counted: dict[str, int], load: Load) -> BenchmarkRun:
    """The figures of one run, with notes. Raises OperationalError if no request was answered."""
    if not result.answered:
        raise OperationalError(
            f"no request was answered ({result.example or 'none was sent in time'}); see the replicas' logs"
        )
    figures = {"commands": float(result.answered), "seconds": result.seconds}
    figures["commands_per_second"] = result.answered / result.seconds
    if result.latencies.total:
        for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("p999_ms", 99.9), ("max_ms", 100)):
            figures[name] = result.latencies.percentile_ms(percent)
    if result.lateness.total:
        figures["late_p50_ms"] = result.lateness.percentile_ms(50)
        figures["late_p99_ms"] = result.lateness.percentile_ms(99)
    figures["generator_us_per_command"] = 1e6 * costs.generator / result.answered
    figures["generator_cores"] = costs.generator / costs.seconds
    if costs.replicas is not None:
        figures["replicas_us_per_command"] = 1e6 * costs.replicas / result.answered
        figures["replicas_cores"] = costs.replicas / costs.seconds
    if costs.others is not None:
        figures["other_cores"] = costs.others / costs.seconds
    if costs.resident:
        figures["resident_mib_max"] = max(costs.resident) / 2**20
    if commits := counted.get("fast", 0) + counted.get("slow", 0):
        figures["fast_share"] = counted["fast"] / commits
        figures["commands_per_instance"] = result.answered / commits
    figures["load_average"] = os.getloadavg()[0]
    return BenchmarkRun(figures, result.latencies.counts, _notes(result, figures, load))


def _notes(result: LoadResult, figures: dict[str, float], load: Load) -> list[str]:
    notes: list[str] = []
    if result.failed:
        notes.append(f"{result.failed:,} requests FAILED, the first with {result.example}")
    if result.unsent:
        notes.append(
            f"did not keep up: stopped with {result.unsent:,} requests not sent; its latencies grow with its length"
        )
    if figures["generator_cores"] > GENERATOR_CORES_MAX:
        notes.append("limited by the load generator, which used its one core fully: the group could do more")
    busy = figures["generator_cores"] + figures.get("replicas_cores", 0)
    if busy > _FULL_SHARE * cores():
        notes.append(f"replicas and load generator used all {cores()} cores: the group could do more with more cores")
    if figures.get("other_cores", 0) > _OTHER_CORES_MAX:
        notes.append("other programs were at work on this machine during the run")
    if isinstance(load, FixedRate) and figures["late_p50_ms"] > _LATE_SHARE_MAX * figures["p50_ms"]:
        notes.append("more than half of the median latency is a delay of the load generator itself")
    return notes
