"""Shrinks a plan that breaks an invariant to the smallest plan found that breaks the same one.

A plan is data, so a smaller plan is tried by leaving elements out and running it: fewer replicas, fewer faults, fewer
operations, simpler settings. The result is not always the smallest possible plan; the search ends when no single
element can be left out, or when its time is over.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

import msgspec

from pydsm.sim.base import plan as p
from pydsm.sim.base.plan import Plan
from pydsm.sim.base.triggers import MessageTrigger, trigger_among
from pydsm.sim.cluster.world import Finding

Play = Callable[[Plan], Finding | None]
"""Runs a plan and returns its violation, or None."""

_Element = TypeVar("_Element")


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest plan found, its violation, and how many plans were run for it."""

    plan: Plan
    finding: Finding
    played: int


def shrink(plan: Plan, finding: Finding, play: Play, in_time: Callable[[], bool]) -> Shrunk:
    """Make a plan smaller while `play` finds a violation of the same invariant and `in_time` returns True."""
    return _Shrinker(plan, finding, play, in_time).shrink()


class _Shrinker:
    def __init__(self, plan: Plan, finding: Finding, play: Play, in_time: Callable[[], bool]) -> None:
        self._plan = plan
        self._finding = finding
        self._play = play
        self._in_time = in_time
        self._played = 0

    def shrink(self) -> Shrunk:
        self._end_early()
        self._drop_replicas()
        size = -1
        while size != len(self._plan) and self._in_time():
            size = len(self._plan)
            self._end_early()
            self._leave_out_faults()
            self._leave_out_operations()
            self._calm()
        return Shrunk(self._plan, self._finding, self._played)

    def _try(self, plan: Plan) -> bool:
        """Return whether this plan violates the same invariant; then it is the new smallest."""
        if plan == self._plan or not self._in_time():
            return False
        self._played += 1
        finding = self._play(plan)
        if finding is None or finding.invariant != self._finding.invariant:
            return False
        self._plan, self._finding = plan, finding
        return True

    def _end_early(self) -> None:
        """Leave out everything that is planned for a time after the violation."""
        end = self._finding.at_us
        faults = tuple(fault for fault in self._plan.faults if fault.at_us <= end)
        operations = tuple(operation for operation in self._plan.operations if operation.at_us <= end)
        last_us = max((element.at_us for element in (*faults, *operations)), default=0)
        horizon_us = min(self._plan.settings.horizon_us, last_us + 1)
        self._try(Plan(msgspec.structs.replace(self._plan.settings, horizon_us=horizon_us), faults, operations))
        self._try(Plan(self._plan.settings, faults, operations))

    def _drop_replicas(self) -> None:
        for replicas in range(1, self._plan.settings.replicas):
            if self._try(_with_fewer_replicas(self._plan, replicas)):
                return

    def _leave_out_faults(self) -> None:
        self._leave_out(
            self._plan.faults, lambda kept: self._try(msgspec.structs.replace(self._plan, faults=tuple(kept)))
        )

    def _leave_out_operations(self) -> None:
        self._leave_out(
            self._plan.operations, lambda kept: self._try(msgspec.structs.replace(self._plan, operations=tuple(kept)))
        )

    def _leave_out(self, elements: Sequence[_Element], keeps: Callable[[Sequence[_Element]], bool]) -> None:
        """Leave out half of the elements first, then smaller parts, and single ones last."""
        kept = list(elements)
        chunk = len(kept)
        while chunk and self._in_time():
            start = 0
            while start < len(kept) and self._in_time():
                without = kept[:start] + kept[start + chunk :]
                if keeps(without):
                    kept = without
                else:
                    start += chunk
            chunk //= 2

    def _calm(self) -> None:
        for change in _calmer(self._plan.settings.replicas):
            settings = msgspec.structs.replace(self._plan.settings, **change)
            self._try(msgspec.structs.replace(self._plan, settings=settings))


def _calmer(replicas: int) -> Iterator[dict[str, object]]:
    """Settings that make a run simpler, one at a time."""
    yield {"loss": 0.0}
    yield {"duplication": 0.0}
    yield {"clock_rates": (1.0,) * replicas}
    yield {"spread": "steady"}
    yield {"batch_requests_max": 1}
    yield {"gather_us": 0}
    yield {"thrifty": False}
    yield {"codec_every": 0}
    yield {"sync_us": 0}
    yield {"starve_us": 0}
    yield {"command_us": 0}


def _with_fewer_replicas(plan: Plan, replicas: int) -> Plan:
    """The same plan for only the first replicas; elements about the others are left out."""
    settings = msgspec.structs.replace(
        plan.settings,
        replicas=replicas,
        clock_rates=plan.settings.clock_rates[:replicas],
        latencies_us=tuple(row[:replicas] for row in plan.settings.latencies_us[:replicas]),
    )
    faults = tuple(less for fault in plan.faults if (less := _fault_among(fault, replicas)) is not None)
    operations = tuple(operation for operation in plan.operations if operation.replica < replicas)
    return Plan(settings, faults, operations)


def _fault_among(fault: p.Fault, replicas: int) -> p.Fault | None:
    match fault:
        case p.PowerCut():
            return msgspec.structs.replace(fault, down_us=fault.down_us[:replicas])
        case p.Cut() | p.SlowLinks():
            links = tuple(link for link in fault.links if max(link) < replicas)
            return msgspec.structs.replace(fault, links=links) if links else None
        case p.Storm():
            return fault
        case MessageTrigger():
            return trigger_among(fault, replicas)
        case (
            p.Crash()
            | p.CrashInside()
            | p.Pause()
            | p.SlowDisk()
            | p.ClockRate()
            | p.ClockJump()
            | p.Death()
            | p.PutBack()
        ):
            return fault if fault.replica < replicas else None
        case unreachable:
            assert_never(unreachable)
