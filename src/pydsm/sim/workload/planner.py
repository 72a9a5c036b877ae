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
"""Kinds that a plan draws by itself, in this order: a seed's random numbers depend on it."""
KINDS = (*DRAWN, WALL_CLOCK)
"""What `--faults` may name."""

_KIND_SHARE = 0.6
STEPS_PER_DUEL = 1200
"""Of a plan of duels alone."""
_RECOVERIES_PER_DUEL = 8
"""Time between two duels in a plan of duels alone, as a multiple of how long it takes until a recovery begins."""
_FAULTS_PER_KIND = (1, 2, 4, 8)
"""From calm seeds to wild ones: the most of each kind."""
_DUELS = 3
"""Duels per other fault: each reaches little, and the branches that they are for are rare."""
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
        self._patience_us = settings.recovery_timeout_ticks * TICK_US
        patience_ticks = settings.recovery_timeout_ticks + settings.recovery_jitter_ticks
        self._recovery_us = (patience_ticks + settings.scan_ticks + settings.retry_ticks) * TICK_US
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
            LOSS: self._storm,
            DUPLICATION: self._storm,
            "partition": self._partition,
            "one-way": self._one_way,
            "slow-link": self._slow_link,
            "crash": self._crash,
            "crash-inside": self._crash_inside,
            "power": self._power_cut,
            "pause": self._pause,
            "slow-disk": self._slow_disk,
            "clock": self._clock,
            "duel": self._duel,
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
        """A plan of so many duels and nothing else."""
        slot_us = _RECOVERIES_PER_DUEL * self._recovery_us
        self._horizon_us = count * slot_us
        for place in range(count):
            self._duel_at(place * slot_us + self._random.randrange(self._recovery_us))
        return self._sorted_plan()

    def laggards(self) -> Plan:
        """A usual plan, in which one after the other, or as many at once as a quorum can spare, are away for long."""
        plan = self.plan()
        random, spare = self._random, quorums(self._replicas).f
        faults = list(plan.faults)
        for start in (0.05, 0.5) if random.random() < 0.5 else (0.1,):
            away = random.sample(range(self._replicas), random.randint(1, max(1, spare)))
            for one in away:
                at_us = int((start + 0.1 * random.random()) * self._horizon_us)
                lasting_us = int(random.choice([0.15, 0.3]) * (1 + random.random()) * self._horizon_us)
                rest = [other for other in range(self._replicas) if other not in away or random.random() < 0.3]
                faults.append(self._absence(at_us, lasting_us, one, rest))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def pipelines(self) -> Plan:
        """A usual plan of bursts, each of one client, in which a few clients do everything, mostly at one replica."""
        self._clients = self._random.choice([2, 3, 6])
        self._in_bursts = True
        plan = self.plan()
        far = self._settings.farthest_us
        faults = list(plan.faults)
        for operation in self._random.sample(plan.operations, min(8, len(plan.operations))):
            at_us, one = operation.at_us + self._random.randrange(1 + far), operation.replica
            rest = self._some_replicas()
            faults.append(Cut(at_us, self._long_while(), self._links_between([one], rest, both_ways=False)))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def _burst(self, at_us: int) -> None:
        """A client sends many commands, about at once."""
        client = self._random.randrange(self._clients)
        replica = client % self._replicas if self._random.random() < 0.8 else self._any_replica()
        gap_us = self._random.choice([0, 50, 1000, self._settings.farthest_us])
        for place in range(self._random.randint(2, 10)):
            if self._random.random() < 0.05:
                replica = self._any_replica()
            command = self._workload.command(self._random, hot=False)
            self._operations.append(Operation(at_us + place * gap_us, client, replica, command))

    def put_backs(self) -> Plan:
        """A usual plan, in which disks of as many replicas as a quorum can spare are put back, one after the other."""
        plan = self.plan()
        random, spare = self._random, quorums(self._replicas).f
        faults = list(plan.faults)
        for one in random.sample(range(self._replicas), random.randint(1, spare) if spare else 0):
            for start in (0.05, 0.5) if random.random() < 0.5 else (0.2,):
                at_us = int((start + 0.1 * random.random()) * self._horizon_us)
                lasting_us = int(random.choice([0.05, 0.2, 0.4]) * random.random() * self._horizon_us)
                faults.append(PutBack(at_us, one, lasting_us, self._while()))
        return msgspec.structs.replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))

    def _absence(self, at_us: int, lasting_us: int, one: int, rest: list[int]) -> Fault:
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
                self._burst(at_us)
                continue
            burst = random.choice([1, 1, 1, 2, 5])
            for _ in range(burst):
                self._operate(at_us + random.randrange(1 + self._settings.farthest_us), hot=burst > 1)

    def _operate(self, at_us: int, hot: bool) -> None:
        client = self._random.randrange(self._clients)
        home = client % self._replicas
        replica = home if self._random.random() < 0.8 else self._any_replica()
        self._operations.append(Operation(at_us, client, replica, self._workload.command(self._random, hot)))

    def _any_replica(self) -> int:
        return self._random.randrange(self._replicas)

    def _some_replicas(self, least: int = 1) -> list[int]:
        return self._random.sample(
            range(self._replicas), self._random.randint(min(least, self._replicas), self._replicas)
        )

    def _any_time(self) -> int:
        return self._random.randrange(self._horizon_us)

    def _while(self) -> int:
        return int(self._patience_us * self._random.choice([0.1, 0.5, 1, 2, 5]) * (0.5 + self._random.random()))

    def _long_while(self) -> int:
        """Long enough for others to begin a recovery, and often to end it."""
        return int(self._recovery_us * (0.7 + 2.5 * self._random.random()))

    @property
    def _way_us(self) -> int:
        """About how long it takes until a command has reached the other replicas."""
        return self._settings.farthest_us + self._settings.sync_us + self._settings.gather_us + 300

    def _hurting_time(self) -> int:
        """Any time, or just when an operation is on its way."""
        if self._random.random() < 0.5:
            return self._any_time()
        return self._random.choice(self._operations).at_us + self._random.randrange(4 * self._way_us)

    def _storm(self, kind: str) -> None:
        share = self._random.choice([0.1, 0.3, 0.6])
        loss, duplication = (share, 0.0) if kind == LOSS else (0.0, share)
        self._faults.append(Storm(self._any_time(), self._while(), loss, duplication))

    def _links_between(self, left: Sequence[int], right: Sequence[int], both_ways: bool) -> Links:
        links = [(one, other) for one in left for other in right if one != other]
        if both_ways:
            links += [(other, one) for one, other in links]
        return tuple(dict.fromkeys(links))

    def _partition(self, kind: str) -> None:
        side = self._some_replicas()
        rest = [replica for replica in range(self._replicas) if replica not in side]
        self._faults.append(Cut(self._any_time(), self._while(), self._links_between(side, rest, both_ways=True)))

    def _one_way(self, kind: str) -> None:
        links = self._links_between(self._some_replicas(), self._some_replicas(), both_ways=False)
        self._faults.append(Cut(self._any_time(), self._while(), links))

    def _slow_link(self, kind: str) -> None:
        links = self._links_between(self._some_replicas(), self._some_replicas(), self._random.random() < 0.5)
        extra_us = 1 + int(self._patience_us * self._random.choice([0.1, 0.5, 1.5]))
        self._faults.append(SlowLinks(self._any_time(), self._while(), links, extra_us))

    def _crash(self, kind: str) -> None:
        self._faults.append(Crash(self._hurting_time(), self._any_replica(), self._while()))

    def _crash_inside(self, kind: str) -> None:
        calls = self._random.randint(1, 20)
        self._faults.append(CrashInside(self._any_time(), self._any_replica(), calls, self._while()))

    def _power_cut(self, kind: str) -> None:
        down_us = tuple(self._while() for _ in range(self._replicas))
        self._faults.append(PowerCut(self._hurting_time(), down_us))

    def _pause(self, kind: str) -> None:
        deaf = self._random.random() < 0.3
        self._faults.append(Pause(self._hurting_time(), self._any_replica(), self._while(), deaf))

    def _slow_disk(self, kind: str) -> None:
        sync_us = self._random.choice([2000, 20_000, self._patience_us])
        self._faults.append(SlowDisk(self._any_time(), self._while(), self._any_replica(), sync_us))

    def _clock(self, kind: str) -> None:
        self._faults.append(ClockRate(self._any_time(), self._any_replica(), self._random.choice([0.3, 0.8, 1.2, 3.0])))

    def _duel(self, kind: str) -> None:
        """At any time."""
        self._duel_at(self._any_time())

    def _duel_at(self, start_us: int) -> None:
        """Conflicting commands led at once, each heard of by some replicas only; then their leaders fall silent."""
        random = self._random
        way_us = self._way_us
        if random.random() < 0.5 and self._crossing(start_us, way_us):
            return
        leaders = random.sample(range(self._replicas), min(self._replicas, random.choice([2, 2, 2, 3])))
        for leader in leaders:
            self._lead(leader, start_us + random.randrange(1 + way_us // 2))
            deaf = [other for other in range(self._replicas) if other in leaders or random.random() < 0.5]
            links = self._links_between([leader], deaf, both_ways=random.random() < 0.3)
            unheard = [other for other in range(self._replicas) if random.random() < 0.3]
            links += self._links_between(unheard, [leader], both_ways=False)
            self._faults.append(Cut(start_us, self._long_while() + 4 * way_us, links))
            self._silence(leader, start_us + random.randrange(way_us, 6 * way_us))
        unlucky = [(one, other) for one in range(self._replicas) for other in range(self._replicas) if one != other]
        share = random.choice([0.0, 0.1, 0.3])
        links = tuple(link for link in unlucky if random.random() < share)
        self._faults.append(Cut(start_us + 2 * way_us, 2 * self._long_while(), links))

    def _silence(self, leader: int, at_us: int) -> None:
        """A leader dies, sleeps, or is heard by few; or nothing of the kind."""
        random = self._random
        match random.choice(["crash", "pause", "cut", "cut", "nothing"]):
            case "crash":
                self._faults.append(Crash(at_us, leader, self._long_while()))
            case "pause":
                self._faults.append(Pause(at_us, leader, self._long_while(), deaf=random.random() < 0.5))
            case "cut":
                links = self._links_between([leader], self._some_replicas(), both_ways=random.random() < 0.3)
                self._faults.append(Cut(at_us, 2 * self._long_while(), links))
            case _:
                pass

    def _lead(self, leader: int, at_us: int) -> None:
        """A client of its own, so that the command leaves at once."""
        client = self._clients + len(self._operations)
        command = self._workload.command(self._random, hot=True)
        self._operations.append(Operation(at_us, client, leader, command))

    def _crossing(self, start_us: int, way_us: int) -> bool:
        """Two recoveries that wait for each other; False if a group of this size cannot get there.

        The first leader is heard by `few` and dies. The second is heard by `many`, who cannot answer it for a
        while; if that is long, its clock is so slow that it hardly begins anything by itself.
        Whoever recovers the first instance hears the second leader and few of the many, and has to wait; the many,
        who recover the second, wait for the first. Either a Waiting ends this, or the second leader commits at last.
        """
        sizes = quorums(self._replicas)
        few_count = sizes.slow - sizes.e
        many_count = self._replicas - 2 - few_count
        if few_count < 1 or many_count <= sizes.n - sizes.f - sizes.e:
            return False
        first, second, *others = self._random.sample(range(self._replicas), self._replicas)
        few, many = others[:few_count], others[few_count:]
        long_us = 2 * self._long_while()
        for leader in (first, second):
            self._lead(leader, start_us + self._random.randrange(1 + way_us // 4))
        between = self._links_between
        mute_us = self._random.choice([long_us, self._long_while()])
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
