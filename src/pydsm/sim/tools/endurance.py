"""Runs a world for simulated hours under steady load and ordinary faults, and reports sizes that grow.

Generates the load and the faults from the seed as time advances. Checks every invariant, as in any other run. The
checkers remove instances that had left every disk at the previous sample (`Invariants.forget`), and check histories of
clients in windows (`windowed`). Two checks are weaker than in a short run: answers to Validate are compared with the
remaining instances only, and requests that every process has given up have no recorded result.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from statistics import median

from pydsm.core.types.ids import Deps, SessionId, session_of, timestamp_of
from pydsm.sim.base import plan as p
from pydsm.sim.base.history import Call, Outcome, end_time
from pydsm.sim.base.latencies import latencies
from pydsm.sim.base.settings import Settings
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers.windowed import Windows
from pydsm.sim.cluster.sizes import QUANTITIES, sizes
from pydsm.sim.cluster.world import World
from pydsm.sim.workload.workload import RegisterWorkload

_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
HOUR_US = 60 * _MINUTE_US

RATE = 8.0
"""Requests per simulated second: 24 simulated hours take about a quarter of an hour on one core."""
_CLIENTS = 12
_SAMPLE_US = 30 * _SECOND_US
_FAULTS_EVERY_US = 10 * _MINUTE_US
_DOWN_US = (5 * _SECOND_US, 60 * _SECOND_US)

_SESSION_IDLE_MS = 180_000
_SESSION_OVER_MS = 10 * _SESSION_IDLE_MS
WARM_UP_US = 5 * _MINUTE_US
"""Time until sessions begin to expire; samples in it do not count."""

GROWTH_MAX = 1.25
"""Maximum ratio of the medians of the last and the first third of a run."""
PEAK_GROWTH_MAX = 2.0
"""The same for maxima: faults cause them, and the faults of one hour are longer by chance than those of another."""
_SLACK = {"record_bytes": 20_000, "snapshot_bytes": 10_000}
_SLACK_ELSE = 60
"""Growth that is below these absolute values does not count: a checkpoint's cycle may be at any point in a sample."""


def endurance_settings(seed: int, replicas: int, hours: float) -> Settings:
    """A group in one building, with realistic time limits, and a checkpoint about every minute."""
    return Settings(
        seed=seed,
        replicas=replicas,
        steps_max=1 << 62,
        horizon_us=int(hours * HOUR_US) + 1,
        tick_period_us=20_000,
        gossip_ticks=500,
        scan_ticks=100,
        checkpoint_instances=300,
        checkpoint_ticks=120_000,
        clock_rates=(1.0,) * replicas,
        latencies_us=latencies("building", replicas, Random(seed)),
        loss=0.001,
        duplication=0.001,
        retrying=True,
        session_idle_ms_max=_SESSION_IDLE_MS,
        scan_events=100_000,
    )


@dataclass(frozen=True, slots=True)
class EnduranceSample:
    """One interval of simulated time: the median and the maximum of each quantity."""

    until_us: int
    medians: dict[str, int]
    peaks: dict[str, int]
    executed: int
    """Commands executed since the beginning; each counts once."""
    checkpoints: int
    """Of the group, since the beginning."""
    restarts: int
    oracle: int
    """Records in the checkers: requests, decided instances and calls that were not removed."""


@dataclass(slots=True)
class SizeSamples:
    """The sizes of a group, sample by sample."""

    quantities: list[Counter[str]] = field(default_factory=list)
    containers: list[Counter[str]] = field(default_factory=list)

    def grown(self) -> list[str]:
        """One line per quantity that grew; empty if none did."""
        warm_up = WARM_UP_US // _SAMPLE_US
        third = (len(self.quantities) - warm_up) // 3
        if third < 1:
            return ["the run was too short to decide"]
        first, last = self.quantities[warm_up : warm_up + third], self.quantities[-third:]
        found = []
        for name in QUANTITIES:
            slack = _SLACK.get(name, _SLACK_ELSE)
            for what, of, limit in (("median", median, GROWTH_MAX), ("largest", max, PEAK_GROWTH_MAX)):
                early, late = (of([look[name] for look in part]) for part in (first, last))
                if late > limit * early + slack:
                    found.append(f"{name}: {what} {early:,.0f} in the first third, {late:,.0f} in the last")
        return found + (self._containers_that_grew(warm_up + third) if found else [])

    def _containers_that_grew(self, looks: int) -> list[str]:
        early, late = self.containers[looks - 1], self.containers[-1]
        grown = [
            (size - early[name], name) for name, size in late.items() if size > GROWTH_MAX * early[name] + _SLACK_ELSE
        ]
        return [f"{name} has {late[name]:,} entries, after {early[name]:,}" for _, name in sorted(grown)[:-6:-1]]


class Endurance(World):
    """Call `run` as for any world. `report` receives a sample at the end of each interval of `row_us`."""

    def __init__(self, settings: Settings, rate: float, row_us: int, report: Callable[[EnduranceSample], None]) -> None:
        self._load = Random(f"load {settings.seed}")
        self._fault_random = Random(f"faults {settings.seed}")
        self._asks = RegisterWorkload(Random(settings.seed))
        super().__init__(p.Plan(settings, (), ()), self._asks)
        self._rate = rate
        self._row_us = row_us
        self._report_row = report
        self._windows = Windows(self._asks.model(), state_after)
        self._gone: Deps = (0,) * settings.replicas
        self.samples = SizeSamples()
        self._samples_in_row = 0

    def _begin(self) -> None:
        super()._begin()
        self._schedule.after(0, self._make_load)
        self._schedule.after(_FAULTS_EVERY_US // 10, self._make_faults)
        self._schedule.after(_SAMPLE_US, self._sample)
        self._schedule.after(self._row_us, self._end_interval)

    # load and faults, generated in advance

    def _make_load(self) -> None:
        replicas = self._plan.settings.replicas
        at_us = 0.0
        while (at_us := at_us + self._load.expovariate(self._rate) * _SECOND_US) < _SAMPLE_US:
            client = self._load.randrange(_CLIENTS)
            replica = client % replicas if self._load.random() < 0.95 else self._load.randrange(replicas)
            command = self._asks.command(self._load, hot=False)
            operation = p.Operation(self._schedule.now + int(at_us), client, replica, command)
            self._schedule.after(int(at_us), self._operate, operation)
        self._schedule.after(_SAMPLE_US, self._make_load)

    def _make_faults(self) -> None:
        """Schedule one fault of each kind in a separate interval, so that each is over before the next one begins."""
        if self._healed:
            return
        for place, fault in enumerate(self._draw_faults()):
            self._schedule.after(place * _FAULTS_EVERY_US // 5, self._strike, fault)
        self._schedule.after(_FAULTS_EVERY_US, self._make_faults)

    def _draw_faults(self) -> Iterator[p.Fault]:
        """Draw faults. The first replica has all of them except restarts: its memory is as old as the run."""
        random, replicas = self._fault_random, self._plan.settings.replicas
        one = random.randrange(replicas)
        others = [other for other in range(replicas) if other != one]
        down_us = random.randint(*_DOWN_US)
        away = tuple((one, other) for other in others)
        if replicas > 1:
            yield p.Crash(0, random.randrange(1, replicas), down_us)
            yield p.CrashInside(0, random.randrange(1, replicas), random.randint(1, 20), down_us)
        yield p.Cut(0, random.randint(*_DOWN_US), away + tuple((other, one) for one, other in away))
        yield random.choice(
            (
                p.Storm(0, down_us, 0.1, 0.1),
                p.SlowDisk(0, down_us, one, 20_000),
                p.SlowLinks(0, down_us, away, 30_000),
                p.Pause(0, one, down_us // 4, deaf=random.random() < 0.5),
            )
        )

    # sampling, checks, removal

    def _sample(self) -> None:
        self._check_windows()
        self._invariants.forget(self._gone, {request.request_id for request in self.clients.requests}, self._is_over)
        self._gone = tuple(map(min, zip(*(self._purged_at(host.id) for host in self.hosts), strict=True)))
        quantities, containers = sizes(self.hosts)
        self.samples.quantities.append(quantities)
        self.samples.containers.append(containers)
        self._samples_in_row += 1
        if not self._healed:
            self._schedule.after(_SAMPLE_US, self._sample)

    def _is_over(self, session: SessionId) -> bool:
        """Whether the session began long ago and no running replica has it; one that is down has expired it too."""
        if timestamp_of(session) > self._context.walls.now_ms - _SESSION_OVER_MS:
            return False
        return all(host.process is None or host.process.sessions.has_expired(session) for host in self.hosts)

    def _purged_at(self, replica: int) -> Deps:
        purged = self._disks[replica].purged
        return purged.up_to if purged is not None else (0,) * len(self.hosts)

    def _check_windows(self) -> None:
        self._record_outcomes_so_far()
        checked: set[int] = set()
        for key, calls in self.clients.history.by_key().items():
            verdict, count = self._windows.check(key, calls)
            self._record_verdict(verdict)
            checked.update(map(id, calls[:count]))
        history, clients = self.clients.history, self.clients
        history.calls = [one for one in history.calls if id(one) not in checked and one.outcome is not Outcome.FAILED]
        current = {id(request) for request in clients.requests if request.is_open}
        left = set(map(id, history.calls))
        clients.requests = [one for one in clients.requests if id(one) in current or id(one.call) in left]

    def _record_outcomes_so_far(self) -> None:
        """Set the order in which calls took effect, and the outcomes of unknown calls that were executed meanwhile."""
        answers = self._invariants.answers.first
        ranks = {request: rank for rank, request in enumerate(answers)}
        for request in self.clients.requests:
            call = request.call
            if call is None:
                continue
            if request.request_id not in answers:
                if call.outcome is Outcome.UNKNOWN and self._is_over(session_of(request.request_id)):
                    call.outcome = Outcome.FAILED  # no replica will execute it any more
                continue
            call.rank = ranks[request.request_id]
            first = self._asks.seen(answers[request.request_id])
            if call.outcome is Outcome.UNKNOWN:
                call.outcome, call.ended, call.result = Outcome.DONE, end_time(self._schedule.steps + 1), first
            elif call.outcome is Outcome.DONE and call.result != first:
                raise Violation("first result", f"{call} received another result than its first, {first!r}")

    def _check_history(self) -> None:
        """Check the remaining calls, at the end."""
        self._check_windows()
        self._record_outcomes()
        for key, calls in self.clients.history.by_key().items():
            self._record_verdict(self._windows.check_rest(key, calls))

    def _end_interval(self) -> None:
        looks, self._samples_in_row = self.samples.quantities[-self._samples_in_row :], 0
        counts = self._context.counts
        oracle = len(self._invariants.answers.first) + len(self._invariants.decided) + len(self.clients.history.calls)
        if looks:
            self._report_row(
                EnduranceSample(
                    self._schedule.now,
                    {name: int(median(look[name] for look in looks)) for name in QUANTITIES},
                    {name: max(look[name] for look in looks) for name in QUANTITIES},
                    counts.calls_done,
                    max([one.checkpoint.number for host in self.hosts for one in host.disk.snapshots], default=0),
                    counts.restarts,
                    oracle,
                )
            )
        if not self._healed:
            self._schedule.after(self._row_us, self._end_interval)


def state_after(call: Call) -> int | None:
    """The value of the register after a call that determines it; else None."""
    value = {"read": call.result, "write": call.argument}.get(call.action)
    return value if isinstance(value, int) else None
