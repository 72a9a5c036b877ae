"""Checks that instances which all replicas have executed leave memory in time (protocol.md, section 6).

While all replicas are up and connected, their configuration bounds the instances that a replica may keep:

    kept  <=  known  -  D

D is per leader. It grows by `drop_instances_max` with each tick, up to the prefix that every replica had executed when
the last whole *cycle* of the window began. A cycle has three steps, one for each line of the proof in
docs/explanation/log-compaction.md. Each takes as long as one round of reports (`round_us`) after its condition holds:

1. Every replica has executed A. One round later all have received reports of that from all.
2. Every replica has executed everything that any replica knew by then. One round later each has noted A as leaving.
3. The same again, since a note waits for everything that was known when it was made. One round later A may leave.

The checker assumes nothing about how long deciding and executing take: it checks the conditions. It assumes that no
fault is active, so a fault, a new process of a replica or a lost report starts the cycle and D again.
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
"""The longest durable write, as a multiple of its mean."""
_WRITES = 2
"""Durable writes that delay a report: the present one, and its own."""


class MemoryChecker:
    """Call `ticked` at every tick, and `fault_injected` or `disturbed` at every fault and lost report."""

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
        """When the condition of the present step began to hold, or None."""
        none: Deps = (0,) * len(hosts)
        self._known = self._leaving = self._due = none
        self._must: list[Deps] = [none] * len(hosts)
        """Per replica, D: the instances that must have left its memory."""

    @property
    def round_us(self) -> int:
        """The longest time until all replicas have handled a report from all, on the slowest clock and disk so far."""
        settings = self._context.settings
        told_us = int((settings.gossip_ticks + 1) * TICK_US / self._slowest) + 1
        durable_us = _WRITES * (int(_SYNC_LATEST * self._sync_us) + 1)
        there_us = int(LATEST[settings.spread] * settings.farthest_us) + 1
        return told_us + durable_us + there_us + 3 * settings.tick_period_us

    def fault_injected(self, fault: Fault) -> None:
        """Record that a fault begins. A crash that comes later is detected by the new process."""
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
        """Record that no bound holds for `lasting_us` microseconds."""
        self._quiet_from_us = max(self._quiet_from_us, self._schedule.now + lasting_us)
        self._processes = []

    def ticked(self, host: Host) -> None:
        """Check a replica after a tick. Raises Violation if it has not dropped the instances of D."""
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
        """End the present step of the cycle if its condition has held for long enough."""
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
        """Start the cycle again with the present processes."""
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
