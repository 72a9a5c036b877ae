"""`pydsm demo`: runs a local group of replica processes under load, optionally with a crash, and checks the answers."""

import asyncio
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pydsm.bench.latency import LatencyEstimates
from pydsm.bench.load_client import Ledger, LoadClient, LoadShape, verify
from pydsm.bench.resp import ask, encode_command
from pydsm.cli.demo_plot import can_plot, plot
from pydsm.cli.demo_view import DemoReport, Moment, ReplicaMoment, View, make_view, show_report
from pydsm.cli.local_group import LocalGroup
from pydsm.cli.loop import run
from pydsm.cli.serve import Storage
from pydsm.client import CommandNotCompleted
from pydsm.core.types.errors import OperationalError, PeerProtocolError, UsageError
from pydsm.storage.sync_cost import sync_seconds

_MOMENT_SECONDS = 1.0
_BACK_SECONDS = 3.0
_LONGER_SECONDS_MAX = 30.0
_ANSWERS_SECONDS_MAX = 15.0
_INFO_SECONDS_MAX = 0.5
_PIPELINE_MAX = 400


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The checked options."""

    replicas: int
    seconds: float
    clients: int
    shape: LoadShape
    kill: bool
    storage: Storage
    thrifty: bool
    json: bool
    png: Path | None


def demo(
    replicas: Annotated[int, typer.Option(help="Replicas in the group.")] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds of load.")] = 10,
    clients: Annotated[int, typer.Option(help="Clients, spread over the replicas.")] = 10,
    pipeline: Annotated[int, typer.Option(help="Requests that each client keeps in flight.")] = 16,
    conflict: Annotated[float, typer.Option(help="Share of requests on keys that all clients use.")] = 0.02,
    kill: Annotated[
        bool,
        typer.Option("--kill", help="Kill a replica half-way and restart it; the load continues until it is back."),
    ] = False,
    storage: Annotated[Storage, typer.Option(help="Where the replicas store their records.")] = Storage.SQLITE,
    thrifty: Annotated[bool, typer.Option("--thrifty", help="Send to the minimum number of replicas.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print only one JSON object, at the end.")] = False,
    png: Annotated[
        Path | None, typer.Option(help="Write a plot of the run to this PNG file; needs the plots extra.")
    ] = None,
) -> int:
    """Run a group of replica processes under load on this machine, and check every answer."""
    for name, value, low, high in (
        ("--replicas", replicas, 1, 15),
        ("--seconds", seconds, 1, 86_400),
        ("--clients", clients, 1, 1000),
        ("--pipeline", pipeline, 1, _PIPELINE_MAX),
        ("--conflict", conflict, 0, 1),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name} must be between {low} and {high}, got {value:g}")
    if kill and storage is Storage.MEMORY:
        raise UsageError("--kill needs --storage sqlite: a memory replica cannot rejoin after a crash")
    if kill and replicas < 3:
        raise UsageError(f"--kill needs at least 3 replicas: a group of {replicas} stops when one is down")
    if png is not None and not can_plot():
        raise UsageError("--png needs the plots extra: pip install 'pydsm-epaxos[plots]'")
    plan = DemoOptions(replicas, seconds, clients, LoadShape(pipeline, conflict), kill, storage, thrifty, json, png)
    return run(_demo(plan))


async def _demo(plan: DemoOptions) -> int:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    options = ["--thrifty"] if plan.thrifty else []
    with tempfile.TemporaryDirectory(prefix="pydsm-demo-") as directory, make_view(plan.json, sys.stdout) as view:
        sync_ms = None if plan.storage is Storage.MEMORY else 1000 * sync_seconds(Path(directory))
        view.report(f"starting {plan.replicas} replicas ({plan.storage.value} storage) ...")
        async with LocalGroup(plan.replicas, Path(directory), plan.storage, *options) as group:
            run = _Demo(plan, group, view, sync_ms)
            report = await run.run()
    if plan.png is not None:
        plot(plan.png, run.moments, report, run.events)
    show_report(report, plan.json, sys.stdout)
    if plan.png is not None and not plan.json:
        print(f"plot: {plan.png}")
    return 1 if report.lost or report.wrong else 0


class _Demo:
    """One run against a group that serves clients."""

    def __init__(self, plan: DemoOptions, group: LocalGroup, view: View, sync_ms: float | None) -> None:
        self.moments: list[Moment] = []
        self.events: list[tuple[float, str]] = []
        """Events: seconds since the start, and a description."""
        self._started = 0.0
        self._back_at: float | None = None
        self._sync_ms = sync_ms
        self._plan = plan
        self._group = group
        self._view = view
        self._ledger = Ledger()
        self._clients = [
            LoadClient(number, group.clients, number % plan.replicas, plan.shape, self._ledger)
            for number in range(plan.clients)
        ]
        self._states = ["up"] * plan.replicas
        self._totals = [LatencyEstimates() for _ in range(plan.replicas)]
        self._counters: list[dict[str, int]] = [{} for _ in range(plan.replicas)]

    async def run(self) -> DemoReport:
        """Run the load, the crash if requested, and the checks."""
        loop = asyncio.get_running_loop()
        running = [loop.create_task(client.run()) for client in self._clients]
        crash = loop.create_task(self._kill_and_restart()) if self._plan.kill else None
        self._started = started = last = loop.time()
        while (left := self._seconds_left()) > 0:
            await asyncio.sleep(min(_MOMENT_SECONDS, left))
            last = await self._show_interval(started, last)
        if crash is not None:
            await crash
        for client in self._clients:
            client.stop()
        _, unanswered = await asyncio.wait(running, timeout=_ANSWERS_SECONDS_MAX)
        for client in self._clients:
            client.give_up()
        await asyncio.wait(running, timeout=_ANSWERS_SECONDS_MAX)
        self._view.report("reading all keys through other replicas ...")
        read_at = {number: (client.home + 1) % self._plan.replicas for number, client in enumerate(self._clients)}
        self._group.check_running()
        try:
            verified = await verify(self._ledger, self._group.clients, read_at)
        except (OSError, CommandNotCompleted) as error:
            raise OperationalError(f"a replica does not answer any more: {error or type(error).__name__}") from error
        await self._take_counters()
        self._take_latencies()
        return self._report(last - started, verified, len(unanswered))

    def _seconds_left(self) -> float:
        """Seconds until the load ends. It continues for a while after the killed replica is back, to show that."""
        now, wanted = asyncio.get_running_loop().time(), self._started + self._plan.seconds
        if self._plan.kill:
            back = now if self._back_at is None else self._back_at
            wanted = min(max(wanted, back + _BACK_SECONDS), wanted + _LONGER_SECONDS_MAX)
        return wanted - now

    async def _kill_and_restart(self) -> None:
        victim = self._plan.replicas - 1
        name = self._group.members[victim].name
        await asyncio.sleep(self._plan.seconds / 2)
        await self._group.kill(victim)
        self._states[victim] = "killed"
        self._record_event(f"{name} killed with SIGKILL")
        await asyncio.sleep(min(3.0, self._plan.seconds / 5))
        self._states[victim] = "restarting"
        self._record_event(f"{name} is restarted with its data")
        await self._group.start(victim)
        self._states[victim] = "up again"
        self._back_at = asyncio.get_running_loop().time()
        self._record_event(f"{name} serves again")

    def _record_event(self, what: str) -> None:
        self.events.append((asyncio.get_running_loop().time() - self._started, what))
        self._view.report(what)

    async def _show_interval(self, started: float, last: float) -> float:
        await self._take_counters()
        now = asyncio.get_running_loop().time()
        recent = self._take_latencies()
        replicas = tuple(
            ReplicaMoment(
                name=member.name,
                state=self._states[number],
                commands_per_second=recent[number].total / (now - last),
                p50_ms=recent[number].percentile_ms(50),
                p99_ms=recent[number].percentile_ms(99),
                fast_share=_fast_share([self._counters[number]]),
                recovered=self._counters[number].get("recovered", 0),
                executed=self._counters[number].get("executed", 0),
            )
            for number, member in enumerate(self._group.members)
        )
        everything = _sum(recent)
        moment = Moment(
            seconds=now - started,
            replicas=replicas,
            commands_per_second=everything.total / (now - last),
            p50_ms=everything.percentile_ms(50),
            p99_ms=everything.percentile_ms(99),
            lost=self._ledger.lost,
            wrong=self._ledger.wrong,
        )
        self.moments.append(moment)
        self._view.show(moment)
        return now

    def _take_latencies(self) -> list[LatencyEstimates]:
        """The latencies per replica since the last call; also added to the totals."""
        recent = [_sum(parts) for parts in zip(*(client.take_latencies() for client in self._clients), strict=True)]
        for total, part in zip(self._totals, recent, strict=True):
            total.merge(part)
        return recent

    async def _take_counters(self) -> None:
        await asyncio.gather(*(self._update_counters(number) for number in range(self._plan.replicas)))

    async def _update_counters(self, number: int) -> None:
        """Update the counters from the replica's INFO; keep the old ones if it does not answer."""
        try:
            (info,) = await ask(self._group.redis[number], encode_command(b"INFO"), seconds_max=_INFO_SECONDS_MAX)
        except (OSError, PeerProtocolError):
            return
        if isinstance(info, bytes):
            pairs = (line.partition(":") for line in info.decode().splitlines())
            self._counters[number] = {name: int(value) for name, _, value in pairs if value.isdigit()}

    def _report(self, seconds: float, verified: int, unanswered_clients: int) -> DemoReport:
        everything = _sum(self._totals)
        ledger = self._ledger
        return DemoReport(
            replicas=self._plan.replicas,
            clients=self._plan.clients,
            pipeline=self._plan.shape.pipeline,
            conflict=self._plan.shape.conflict,
            storage=self._plan.storage.value,
            killed=self._plan.kill,
            seconds=seconds,
            commands=everything.total,
            commands_per_second=everything.total / seconds,
            commands_by_replica={
                member.name: total.total for member, total in zip(self._group.members, self._totals, strict=True)
            },
            p50_ms=everything.percentile_ms(50),
            p99_ms=everything.percentile_ms(99),
            p999_ms=everything.percentile_ms(99.9),
            sync_ms=self._sync_ms,
            fast_share=_fast_share(self._counters),
            unknown=sum(map(len, ledger.unknown.values())) + ledger.maybe_counted.total(),
            refused=ledger.refused,
            clients_left_waiting=unanswered_clients,
            keys_verified=verified,
            lost=ledger.lost,
            wrong=ledger.wrong,
            histogram=everything.histogram(),
        )


def _sum(parts: list[LatencyEstimates] | tuple[LatencyEstimates, ...]) -> LatencyEstimates:
    whole = LatencyEstimates()
    for part in parts:
        whole.merge(part)
    return whole


def _fast_share(counters: list[dict[str, int]]) -> float | None:
    """The share of instances that their leaders committed in one round trip; None before the first."""
    fast = sum(one.get("fast", 0) for one in counters)
    slow = sum(one.get("slow", 0) for one in counters)
    return fast / (fast + slow) if fast + slow else None
