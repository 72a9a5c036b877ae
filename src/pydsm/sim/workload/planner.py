"""Draws one plan: the faults, their kinds and times, and the operations of clients.

`planning` sets up the worlds of each kind.
"""

from collections.abc import Sequence
from random import Random

import msgspec

from pydsm.core.types.quorums import quorums
from pydsm.sim.base.plan import (
    ClockRate,
    Crash,
    CrashInside,
    Cut,
    Fault,
    Operation,
    Pause,
    Plan,
    PowerCut,
    PutBack,
    SlowDisk,
    SlowLinks,
    Storm,
)
from pydsm.sim.base.settings import TICK_US, Settings
from pydsm.sim.base.triggers import Links
from pydsm.sim.workload.clock_faults import WALL_CLOCK
from pydsm.sim.workload.workload import Workload

LOSS, DUPLICATION = "loss", "duplication"
DRAWN = (
    LOSS,
    DUPLICATION,
    "partition",
    "one-way",
    "slow-link",
    "crash",
    "crash-inside",
    "power",
    "pause",
    "slow-disk",
    "clock",
    "duel",
)
"""Kinds that every plan may draw, in this order: a seed's random numbers depend on the order."""
KINDS = (*DRAWN, WALL_CLOCK)
"""The kinds that `--faults` accepts."""

_KIND_SHARE = 0.6
STEPS_PER_DUEL = 1200
"""Events for each duel, in a plan that has only duels."""
_RECOVERIES_PER_DUEL = 8
"""Time between two duels in a plan of duels alone, as a multiple of the time until a recovery begins."""
_FAULTS_PER_KIND = (1, 2, 4, 8)
"""The maximum number of faults of each kind; a seed draws one of these."""
_DUELS = 3
"""Duels per other fault. Most duels reach no rare branch of recovery, so many are needed."""
_STEPS_PER_OPERATION_AND_REPLICA = 9


class Planner:
    """Draws one plan."""

    def __init__(
        self, random: Random, settings: Settings, steps: int, kinds: Sequence[str], workload: Workload
    ) -> None:
        self._random = random
        self._settings = settings
        self._workload = workload
        self._replicas = settings.replicas
        self._timeout_us = settings.recovery_timeout_ticks * TICK_US
        timeout_ticks = settings.recovery_timeout_ticks + settings.recovery_jitter_ticks
        self._recovery_us = (timeout_ticks + settings.scan_ticks + settings.retry_ticks) * TICK_US
        self._operations_max = max(8, steps // (_STEPS_PER_OPERATION_AND_REPLICA * self._replicas))
        self._kinds = [kind for kind in DRAWN if random.random() < _KIND_SHARE and kind in kinds]
        most = random.choice(_FAULTS_PER_KIND)
        self._counts = {kind: random.randint(1, most * (_DUELS if kind == "duel" else 1)) for kind in self._kinds}
        gap_us = random.choice([300, 2000, 8000, 20_000])
        quiet_us = int(random.choice([0.3, 0.7, 1.5]) * self._recovery_us)
        self._horizon_us = max(self._operations_max * gap_us, (4 + sum(self._counts.values())) * quiet_us)
        self._clients = random.choice([2, 4, 8, 16])
        self._in_bursts = False
        self._operations: list[Operation] = []
        self._faults: list[Fault] = []

    def plan(self) -> Plan:
        """Faults of all kinds, and operations of clients."""
        self._draw_operations()
        draw = {
            LOSS: self._add_storm,
            DUPLICATION: self._add_storm,
            "partition": self._add_partition,
            "one-way": self._add_one_way_cut,
            "slow-link": self._add_slow_link,
            "crash": self._add_crash,
            "crash-inside": self._add_crash_inside,
            "power": self._add_power_cut,
            "pause": self._add_pause,
            "slow-disk": self._add_slow_disk,
            "clock": self._add_clock_rate,
            "duel": self._add_duel_at_any_time,
        }
        for kind, count in self._counts.items():
            for _ in range(count):
                draw[kind](kind)
        return self._sorted_plan()

    def _sorted_plan(self) -> Plan:
        return Plan(
            settings=self._final_settings(),
            faults=tuple(sorted(self._faults, key=lambda fault: fault.at_us)),
            operations=tuple(sorted(self._operations, key=lambda operation: operation.at_us)),
        )

    def duels(self, count: int) -> Plan:
        """A plan with this number of duels and no other fault."""
        slot_us = _RECOVERIES_PER_DUEL * self._recovery_us
        self._horizon_us = count * slot_us
        for position in range(count):
            self._add_duel(position * slot_us + self._random.randrange(self._recovery_us))
        return self._sorted_plan()

    def laggards(self) -> Plan:
        """A usual plan, in which up to f replicas at the same time are also down or unreachable for long."""
        plan = self.plan()
        random, spare = self._random, quorums(self._replicas).f
        faults = list(plan.faults)
        for start in (0.05, 0.5) if random.random() < 0.5 else (0.1,):
            away = random.sample(range(self._replicas), random.randint(1, max(1, spare)))
            for one in away:
                at_us = int((start + 0.1 * random.random()) * self._horizon_us)
                lasting_us = int(random.choice([0.15, 0.3]) * (1 + random.random()) * self._horizon_us)
                rest = [other for other in range(self._replicas) if other not in away or random.random() < 0.3]
                faults.append(self._draw_absence(at_us, lasting_us, one, rest))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def pipelines(self) -> Plan:
        """A usual plan whose operations come in bursts of few clients, each mostly at one replica."""
        self._clients = self._random.choice([2, 3, 6])
        self._in_bursts = True
        plan = self.plan()
        far = self._settings.farthest_us
        faults = list(plan.faults)
        for operation in self._random.sample(plan.operations, min(8, len(plan.operations))):
            at_us, one = operation.at_us + self._random.randrange(1 + far), operation.replica
            rest = self._draw_replicas()
            faults.append(Cut(at_us, self._draw_long_duration_us(), self._links_between([one], rest, both_ways=False)))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def _add_burst(self, at_us: int) -> None:
        """Adds many commands of one client, at almost the same time."""
        client = self._random.randrange(self._clients)
        replica = client % self._replicas if self._random.random() < 0.8 else self._draw_replica()
        gap_us = self._random.choice([0, 50, 1000, self._settings.farthest_us])
        for position in range(self._random.randint(2, 10)):
            if self._random.random() < 0.05:
                replica = self._draw_replica()
            command = self._workload.command(self._random, hot=False)
            self._operations.append(Operation(at_us + position * gap_us, client, replica, command))

    def put_backs(self) -> Plan:
        """A usual plan, in which up to f replicas, one after the other, also get an older copy of their disk."""
        plan = self.plan()
        random, spare = self._random, quorums(self._replicas).f
        faults = list(plan.faults)
        for one in random.sample(range(self._replicas), random.randint(1, spare) if spare else 0):
            for start in (0.05, 0.5) if random.random() < 0.5 else (0.2,):
                at_us = int((start + 0.1 * random.random()) * self._horizon_us)
                lasting_us = int(random.choice([0.05, 0.2, 0.4]) * random.random() * self._horizon_us)
                faults.append(PutBack(at_us, one, lasting_us, self._draw_duration_us()))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def _draw_absence(self, at_us: int, lasting_us: int, one: int, rest: list[int]) -> Fault:
        match self._random.choice(["crash", "crash", "cut", "half", "pause"]):
            case "crash":
                return Crash(at_us, one, lasting_us)
            case "cut":
                return Cut(at_us, lasting_us, self._links_between([one], rest, both_ways=True))
            case "half":
                return Cut(at_us, lasting_us, self._links_between(rest, [one], both_ways=False))
            case _:
                return Pause(at_us, one, lasting_us, deaf=self._random.random() < 0.5)

    def _final_settings(self) -> Settings:
        random = self._random
        rates = tuple(random.choice([0.5, 0.9, 1.0, 1.3, 2.0]) for _ in range(self._replicas))
        return msgspec.structs.replace(
            self._settings,
            horizon_us=self._horizon_us,
            loss=random.choice([0.0, 0.01, 0.05, 0.15]) if LOSS in self._kinds else 0.0,
            duplication=random.choice([0.0, 0.02, 0.2]) if DUPLICATION in self._kinds else 0.0,
            clock_rates=rates if "clock" in self._kinds else self._settings.clock_rates,
        )

    def _draw_operations(self) -> None:
        random = self._random
        while len(self._operations) < self._operations_max:
            at_us = random.randrange(self._horizon_us)
            if self._in_bursts:
                self._add_burst(at_us)
                continue
            burst = random.choice([1, 1, 1, 2, 5])
            for _ in range(burst):
                self._add_operation(at_us + random.randrange(1 + self._settings.farthest_us), hot=burst > 1)

    def _add_operation(self, at_us: int, hot: bool) -> None:
        client = self._random.randrange(self._clients)
        home = client % self._replicas
        replica = home if self._random.random() < 0.8 else self._draw_replica()
        self._operations.append(Operation(at_us, client, replica, self._workload.command(self._random, hot)))

    def _draw_replica(self) -> int:
        return self._random.randrange(self._replicas)

    def _draw_replicas(self, least: int = 1) -> list[int]:
        return self._random.sample(
            range(self._replicas), self._random.randint(min(least, self._replicas), self._replicas)
        )

    def _draw_time_us(self) -> int:
        return self._random.randrange(self._horizon_us)

    def _draw_duration_us(self) -> int:
        return int(self._timeout_us * self._random.choice([0.1, 0.5, 1, 2, 5]) * (0.5 + self._random.random()))

    def _draw_long_duration_us(self) -> int:
        """A duration that is long enough for peers to begin a recovery, and often to end it."""
        return int(self._recovery_us * (0.7 + 2.5 * self._random.random()))

    @property
    def _propagation_us(self) -> int:
        """Approximate time until a command has reached the other replicas."""
        return self._settings.farthest_us + self._settings.sync_us + self._settings.gather_us + 300

    def _draw_critical_time_us(self) -> int:
        """Any time, or a time shortly after an operation began."""
        if self._random.random() < 0.5:
            return self._draw_time_us()
        return self._random.choice(self._operations).at_us + self._random.randrange(4 * self._propagation_us)

    def _add_storm(self, kind: str) -> None:
        share = self._random.choice([0.1, 0.3, 0.6])
        loss, duplication = (share, 0.0) if kind == LOSS else (0.0, share)
        self._faults.append(Storm(self._draw_time_us(), self._draw_duration_us(), loss, duplication))

    def _links_between(self, left: Sequence[int], right: Sequence[int], both_ways: bool) -> Links:
        links = [(one, other) for one in left for other in right if one != other]
        if both_ways:
            links += [(other, one) for one, other in links]
        return tuple(dict.fromkeys(links))

    def _add_partition(self, kind: str) -> None:
        side = self._draw_replicas()
        rest = [replica for replica in range(self._replicas) if replica not in side]
        self._faults.append(
            Cut(self._draw_time_us(), self._draw_duration_us(), self._links_between(side, rest, both_ways=True))
        )

    def _add_one_way_cut(self, kind: str) -> None:
        links = self._links_between(self._draw_replicas(), self._draw_replicas(), both_ways=False)
        self._faults.append(Cut(self._draw_time_us(), self._draw_duration_us(), links))

    def _add_slow_link(self, kind: str) -> None:
        links = self._links_between(self._draw_replicas(), self._draw_replicas(), self._random.random() < 0.5)
        extra_us = 1 + int(self._timeout_us * self._random.choice([0.1, 0.5, 1.5]))
        self._faults.append(SlowLinks(self._draw_time_us(), self._draw_duration_us(), links, extra_us))

    def _add_crash(self, kind: str) -> None:
        self._faults.append(Crash(self._draw_critical_time_us(), self._draw_replica(), self._draw_duration_us()))

    def _add_crash_inside(self, kind: str) -> None:
        calls = self._random.randint(1, 20)
        self._faults.append(CrashInside(self._draw_time_us(), self._draw_replica(), calls, self._draw_duration_us()))

    def _add_power_cut(self, kind: str) -> None:
        down_us = tuple(self._draw_duration_us() for _ in range(self._replicas))
        self._faults.append(PowerCut(self._draw_critical_time_us(), down_us))

    def _add_pause(self, kind: str) -> None:
        deaf = self._random.random() < 0.3
        self._faults.append(Pause(self._draw_critical_time_us(), self._draw_replica(), self._draw_duration_us(), deaf))

    def _add_slow_disk(self, kind: str) -> None:
        sync_us = self._random.choice([2000, 20_000, self._timeout_us])
        self._faults.append(SlowDisk(self._draw_time_us(), self._draw_duration_us(), self._draw_replica(), sync_us))

    def _add_clock_rate(self, kind: str) -> None:
        self._faults.append(
            ClockRate(self._draw_time_us(), self._draw_replica(), self._random.choice([0.3, 0.8, 1.2, 3.0]))
        )

    def _add_duel_at_any_time(self, kind: str) -> None:
        """Adds a duel at any time."""
        self._add_duel(self._draw_time_us())

    def _add_duel(self, start_us: int) -> None:
        """Adds concurrent conflicting commands that each reach only some replicas, and faults of their leaders."""
        random = self._random
        way_us = self._propagation_us
        if random.random() < 0.5 and self._add_crossing_recoveries(start_us, way_us):
            return
        leaders = random.sample(range(self._replicas), min(self._replicas, random.choice([2, 2, 2, 3])))
        for leader in leaders:
            self._add_conflicting_operation(leader, start_us + random.randrange(1 + way_us // 2))
            deaf = [other for other in range(self._replicas) if other in leaders or random.random() < 0.5]
            links = self._links_between([leader], deaf, both_ways=random.random() < 0.3)
            muted = [other for other in range(self._replicas) if random.random() < 0.3]
            links += self._links_between(muted, [leader], both_ways=False)
            self._faults.append(Cut(start_us, self._draw_long_duration_us() + 4 * way_us, links))
            self._add_leader_fault(leader, start_us + random.randrange(way_us, 6 * way_us))
        all_links = [(one, other) for one in range(self._replicas) for other in range(self._replicas) if one != other]
        share = random.choice([0.0, 0.1, 0.3])
        links = tuple(link for link in all_links if random.random() < share)
        self._faults.append(Cut(start_us + 2 * way_us, 2 * self._draw_long_duration_us(), links))

    def _add_leader_fault(self, leader: int, at_us: int) -> None:
        """Adds a crash, a pause or a partition of a leader, or no fault."""
        random = self._random
        match random.choice(["crash", "pause", "cut", "cut", "nothing"]):
            case "crash":
                self._faults.append(Crash(at_us, leader, self._draw_long_duration_us()))
            case "pause":
                self._faults.append(Pause(at_us, leader, self._draw_long_duration_us(), deaf=random.random() < 0.5))
            case "cut":
                links = self._links_between([leader], self._draw_replicas(), both_ways=random.random() < 0.3)
                self._faults.append(Cut(at_us, 2 * self._draw_long_duration_us(), links))
            case _:
                pass

    def _add_conflicting_operation(self, leader: int, at_us: int) -> None:
        """Adds a command of a new client, so that the command is sent immediately."""
        client = self._clients + len(self._operations)
        command = self._workload.command(self._random, hot=True)
        self._operations.append(Operation(at_us, client, leader, command))

    def _add_crossing_recoveries(self, start_us: int, way_us: int) -> bool:
        """Adds two recoveries that wait for each other. Returns False if the group is too small for that.

        The messages of the first leader reach `few`, and it crashes. Those of the second leader reach `many`,
        whose answers are lost for a while; if that lasts long, the second leader's clock is so slow that its timers
        hardly fire. A replica that recovers the first instance receives answers from the second leader and few of the
        many, and has to wait. The replicas of the many that recover the second instance wait for the first. Either
        a Waiting message ends this, or the second leader commits in the end.
        """
        sizes = quorums(self._replicas)
        few_count = sizes.slow - sizes.e
        many_count = self._replicas - 2 - few_count
        if few_count < 1 or many_count <= sizes.n - sizes.f - sizes.e:
            return False
        first, second, *others = self._random.sample(range(self._replicas), self._replicas)
        few, many = others[:few_count], others[few_count:]
        long_us = 2 * self._draw_long_duration_us()
        for leader in (first, second):
            self._add_conflicting_operation(leader, start_us + self._random.randrange(1 + way_us // 4))
        between = self._links_between
        mute_us = self._random.choice([long_us, self._draw_long_duration_us()])
        self._faults += [
            Cut(start_us, long_us, between([first], [second, *many], both_ways=False)),
            Cut(start_us, long_us, between([second, *many], [first], both_ways=False)),
            Cut(start_us, 3 * way_us, between([second], few, both_ways=True)),
            Cut(start_us, mute_us, between(many, [second], both_ways=False)),
            Cut(start_us + 3 * way_us, long_us, between(few, many[1:], both_ways=False)),
            Crash(start_us + 3 * way_us, first, long_us),
        ]
        if mute_us == long_us:
            self._faults += [ClockRate(start_us, second, 0.1), ClockRate(start_us + long_us, second, 1.0)]
        return True
