"""Runs of a load against a group, each with its figures: throughput, latency, and what it cost whom.

Decides what is counted and what a reader must be told besides: a benchmark that measured its own generator says so.
Guards that runs are alike: each has requests of its own from its own seed, and the first one only warms up.
"""

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydsm.bench.loads import Closed, Driven, FixedRate, Flood, Load, clients_for, connected, drive
from pydsm.bench.processes import busy_seconds, cores, cpu_seconds, resident_bytes
from pydsm.bench.results import BenchmarkRun, Measurement
from pydsm.bench.target import Target, counters
from pydsm.bench.workload import BenchmarkWorkload
from pydsm.client import Client
from pydsm.core.types.errors import OperationalError

_WARM_UP_SECONDS = 2.0
_POOL_REQUESTS = 100_000
GENERATOR_CORES_MAX = 0.9
"""A generator, which is one process with one loop, that used more was the limit."""
_FULL_SHARE = 0.95
_OTHER_CORES_MAX = 0.2
_LATE_SHARE_MAX = 0.5

ProgressCallback = Callable[[str], None]
"""Takes what is done next."""


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """What is measured of a target."""

    load: Load
    workload: BenchmarkWorkload = field(default_factory=BenchmarkWorkload)
    runs: int = 5


def name_of(target: Target, plan: BenchmarkPlan) -> str:
    """What tells a measurement from others, as far as it is not as always."""
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
    """Warm up and run. Raises OperationalError when the group does not answer."""
    (measurement,) = await measure_in_turns(target, [plan], progress)
    return measurement


async def measure_in_turns(
    target: Target, plans: Sequence[BenchmarkPlan], progress: ProgressCallback = lambda _: None
) -> list[Measurement]:
    """Several plans against one group, a run of each in turn, so that the hour's mood is the same for all of them."""
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
    """One run; number 0 is the one that warms up. For those who measure in an order of their own."""
    load = plan.load if number else _warm_up(plan.load)
    async with connected(target.clients, clients_for(load, len(target.clients))) as clients:
        return await measure_with(clients, target, BenchmarkPlan(load, plan.workload), number)


async def measure_with(clients: Sequence[Client], target: Target, plan: BenchmarkPlan, number: int) -> BenchmarkRun:
    """One run of clients that are connected already, and may stay so."""
    requests = plan.workload.requests(_pool(plan.load), seed=number)
    before = await counters(target)
    with_costs = Costs(target.pids)
    driven = await _driven(plan.load, clients, requests)
    costs = with_costs.since()
    return judge(driven, costs, _difference(before, await counters(target)), plan.load)


async def _driven(load: Load, clients: Sequence[Client], requests: Sequence[bytes]) -> Driven:
    """Without collections of garbage in the generator, which are not the group's."""
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
    """How many requests are made beforehand."""
    match load:
        case Flood():
            return load.requests
        case FixedRate():
            return min(_POOL_REQUESTS, max(1, round(load.per_second * load.seconds)))
        case Closed():
            return _POOL_REQUESTS


def _difference(before: Sequence[dict[str, int]], after: Sequence[dict[str, int]]) -> dict[str, int]:
    """Of all replicas together."""
    return {
        name: sum(late.get(name, 0) - early.get(name, 0) for early, late in zip(before, after, strict=True))
        for name in ("fast", "slow", "proposed")
        if after
    }


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time of some period, and memory at its end."""

    seconds: float
    generator: float
    replicas: float | None
    others: float | None
    """Of everything else on this machine."""
    resident: list[int]
    """Of each replica; empty where it is not known."""


class Costs:
    """Takes the time from here on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._before = time.perf_counter(), time.process_time(), self._replicas(), busy_seconds()

    def since(self) -> Spent:
        """What was spent since then. Raises OperationalError when a replica has ended meanwhile."""
        before_seconds, before_generator, before_replicas, before_busy = self._before
        generator, replicas, busy = time.process_time() - before_generator, self._replicas(), busy_seconds()
        spent = None if replicas is None or before_replicas is None else replicas - before_replicas
        others = (
            None if busy is None or before_busy is None or spent is None else busy - before_busy - generator - spent
        )
        resident = [resident_bytes(pid) for pid in self._pids]
        return Spent(
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


def judge(driven: Driven, costs: Spent, counted: dict[str, int], load: Load) -> BenchmarkRun:
    """The figures of one run, and what must be said of them. Raises OperationalError when nothing was answered."""
    if not driven.answered:
        raise OperationalError(
            f"no request was answered ({driven.example or 'none was sent in time'}); see the replicas' logs"
        )
    figures = {"commands": float(driven.answered), "seconds": driven.seconds}
    figures["commands_per_second"] = driven.answered / driven.seconds
    if driven.latencies.total:
        for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("p999_ms", 99.9), ("max_ms", 100)):
            figures[name] = driven.latencies.percentile_ms(percent)
    if driven.lateness.total:
        figures["late_p50_ms"] = driven.lateness.percentile_ms(50)
        figures["late_p99_ms"] = driven.lateness.percentile_ms(99)
    figures["generator_us_per_command"] = 1e6 * costs.generator / driven.answered
    figures["generator_cores"] = costs.generator / costs.seconds
    if costs.replicas is not None:
        figures["replicas_us_per_command"] = 1e6 * costs.replicas / driven.answered
        figures["replicas_cores"] = costs.replicas / costs.seconds
    if costs.others is not None:
        figures["other_cores"] = costs.others / costs.seconds
    if costs.resident:
        figures["resident_mib_max"] = max(costs.resident) / 2**20
    if commits := counted.get("fast", 0) + counted.get("slow", 0):
        figures["fast_share"] = counted["fast"] / commits
        figures["commands_per_instance"] = driven.answered / commits
    figures["load_average"] = os.getloadavg()[0]
    return BenchmarkRun(figures, driven.latencies.counts, _notes(driven, figures, load))


def _notes(driven: Driven, figures: dict[str, float], load: Load) -> list[str]:
    notes: list[str] = []
    if driven.failed:
        notes.append(f"{driven.failed:,} requests FAILED, the first with {driven.example}")
    if driven.unsent:
        notes.append(
            f"did not keep up: stopped with {driven.unsent:,} requests not sent; its latencies grow with its length"
        )
    if figures["generator_cores"] > GENERATOR_CORES_MAX:
        notes.append("limited by the load generator, which had its one core busy: the group could do more")
    busy = figures["generator_cores"] + figures.get("replicas_cores", 0)
    if busy > _FULL_SHARE * cores():
        notes.append(f"all {cores()} cores were busy with replicas and load generator: more cores would do more")
    if figures.get("other_cores", 0) > _OTHER_CORES_MAX:
        notes.append("other programs were at work on this machine meanwhile")
    if isinstance(load, FixedRate) and figures["late_p50_ms"] > _LATE_SHARE_MAX * figures["p50_ms"]:
        notes.append("more than half of the median latency is the load generator's own lateness")
    return notes
