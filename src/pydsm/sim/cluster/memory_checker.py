"""Checks that instances which all replicas have executed leave memory in time (protocol.md, section 6).

How much a replica may keep follows from its configuration, while all are up and connected:

    kept  <=  known  -  D

D is per leader. It grows by `drop_instances_max` with each tick, up to what every replica had executed when the last
whole *cycle* of the window began. A cycle has three steps, one for each line of the proof in docs/explanation/
log-compaction.md, and each takes as long as one round of reports (`round_us`) after its condition holds:

1. Every replica has executed A. One round later all have received reports of that from all.
2. Every replica has executed all that any replica knew by then. One round later each has noted A as leaving.
3. Once more, since a note waits for what was known when it was made. One round later A may leave.

Nothing is assumed about how long deciding and executing take: the conditions are looked at. What is assumed is that
no fault is active, so a fault, a new process of a replica or a lost report begins the cycle anew, and D with it.
"""

from collections.abc import Sequence
from functools import reduce
from typing import assert_never

from pydsm.core.replica import Replica
from pydsm.core.types.ids import Deps, merge
from pydsm.sim.base.context import Context
from pydsm.sim.base.describe import vector
from pydsm.sim.base.plan import (
    ClockJump,
    ClockRate,
    Crash,
    CrashInside,
    Cut,
    Death,
    Fault,
    Pause,
    PowerCut,
    PutBack,
    SlowDisk,
    SlowLinks,
    Storm,
)
from pydsm.sim.base.settings import TICK_US
from pydsm.sim.base.triggers import MessageTrigger
from pydsm.sim.base.violation import Violation
from pydsm.sim.cluster.host import Host
from pydsm.sim.cluster.process import ReplicaProcess
from pydsm.sim.devices.network import LATEST

_STEPS = 3
_SYNC_LATEST = 2.0
"""The longest durable write, against its mean."""
_WRITES = 2
"""A report waits for the write under way, and for its own."""


class MemoryChecker:
    """Give it every tick (`ticked`), and every fault and lost report (`struck`, `disturbed`)."""

    def __init__(self, context: Context, hosts: Sequence[Host]) -> None:
        self._context = context
        self._schedule = context.schedule
        self._hosts = hosts
        self._quiet_from_us = 0
        self._slowest = min(host.clock_rate for host in hosts)
        self._sync_us = max(host.disk.sync_us for host in hosts)
        self._processes: list[ReplicaProcess | None] = []
        self._step = 0
        self._since_us: int | None = None
        """When the condition of this step began to hold."""
        none: Deps = (0,) * len(hosts)
        self._known = self._leaving = self._due = none
        self._must: list[Deps] = [none] * len(hosts)
        """Per replica, what must have left its memory: D."""

    @property
    def round_us(self) -> int:
        """By when all have told all, and have looked at it, on the slowest clock and disk so far."""
        settings = self._context.settings
        told_us = int((settings.gossip_ticks + 1) * TICK_US / self._slowest) + 1
        durable_us = _WRITES * (int(_SYNC_LATEST * self._sync_us) + 1)
        there_us = int(LATEST[settings.spread] * settings.farthest_us) + 1
        return told_us + durable_us + there_us + 3 * settings.tick_period_us

    def fault_injected(self, fault: Fault) -> None:
        """A fault begins. A crash is seen by the processes, whenever it comes."""
        match fault:
            case Crash() | CrashInside() | PowerCut():
                self.disturbed()
            case Pause() | Cut() | SlowLinks() | Storm() | SlowDisk() | PutBack():
                self.disturbed(fault.lasting_us)
            case ClockRate() | ClockJump() | Death() | MessageTrigger():
                self.disturbed()
            case unreachable:
                assert_never(unreachable)

    def disturbed(self, lasting_us: int = 0) -> None:
        """No bound holds for `lasting_us` microseconds."""
        self._quiet_from_us = max(self._quiet_from_us, self._schedule.now + lasting_us)
        self._processes = []

    def ticked(self, host: Host) -> None:
        """A replica had the time to drop something. Raises Violation if it did not."""
        if host is self._hosts[0]:
            self._look()
        process, must = host.process, self._must[host.id]
        if (
            self._context.settings.is_starved
            or process is None
            or must == self._due
            or not self._processes
            or self._processes[host.id] is not process
        ):
            return
        drop_max = self._context.settings.drop_instances_max
        must = self._must[host.id] = merge(must, tuple(map(min, self._due, (one + drop_max for one in must))))
        dropped = process.core.dropped
        if merge(dropped, must) != dropped:
            what = (
                f"{process.name} keeps {len(process.core.instances)} instances in memory, "
                f"and has dropped {vector(dropped)}; "
                f"by now it must have dropped {vector(must)}: all replicas executed it long enough ago, without faults"
            )
            raise Violation("bounded memory", what)

    def _look(self) -> None:
        """Whether the present step of the cycle is over."""
        now = self._schedule.now
        if now <= self._quiet_from_us:
            return
        processes = [host.process for host in self._hosts]
        if processes != self._processes or None in processes:
            self._begin(processes)
        if None in processes or (self._since_us is not None and now <= self._since_us + self.round_us):
            return
        cores = [process.core for process in processes if process is not None]
        if self._since_us is not None:
            self._end_step(cores)
        executed = self._executed(cores)
        if merge(executed, self._known) == executed:
            self._since_us = now
            if self._step == 0:
                self._leaving = executed

    def _begin(self, processes: list[ReplicaProcess | None]) -> None:
        """Start the time limits of the present processes again."""
        none: Deps = (0,) * len(processes)
        self._processes = processes
        self._slowest = min(self._slowest, *(host.clock_rate for host in self._hosts))
        self._sync_us = max(self._sync_us, *(host.disk.sync_us for host in self._hosts))
        self._due = none
        self._must = [none if process is None else process.core.dropped for process in processes]
        self._next_cycle()

    def _end_step(self, cores: list[Replica]) -> None:
        self._step += 1
        if self._step == _STEPS:
            self._context.counts.cycles += 1
            self._due = merge(self._due, self._leaving)
            self._next_cycle()
        else:
            self._since_us = None
            self._known = reduce(merge, (core.known for core in cores))

    def _next_cycle(self) -> None:
        self._step = 0
        self._since_us = None
        self._known = (0,) * len(self._hosts)

    @staticmethod
    def _executed(cores: list[Replica]) -> Deps:
        return tuple(map(min, zip(*(core.frontier for core in cores), strict=True)))
