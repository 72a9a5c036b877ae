"""Runs seeds, and reports the first one that breaks an invariant. Used by `simulate`, `soak` and tests."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydsm.core.log.conflicts import Relation
from pydsm.core.replica import Replica
from pydsm.sim.base.plan import Plan
from pydsm.sim.cluster.world import Finding, MakeReplica, WorldRun, run_plan
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.shrink import Shrunk, shrink
from pydsm.sim.workload.adversary_planning import SIZES, make_adversary
from pydsm.sim.workload.planner import KINDS
from pydsm.sim.workload.planning import (
    STEPS,
    make_contending_leaders,
    make_lagging_members,
    make_pipelines,
    make_plan,
    make_put_backs,
)
from pydsm.sim.workload.slow_worlds import make_slow
from pydsm.sim.workload.workload import RegisterWorkload, Workload

SHRINK_SECONDS = 60.0
"""Default time limit for shrinking a failed run, in seconds."""

_COMMON_SIZES = (3, 5, 7)
_OTHER_SIZES = (1, 2, 4, 4, 6, 9)
_OTHER_SHARE = 0.15


def group_size(seed: int) -> int:
    """The size of a seed's group if none is given: mostly 3, 5 or 7, sometimes another."""
    random = Random(f"size {seed}")
    return random.choice(_OTHER_SIZES if random.random() < _OTHER_SHARE else _COMMON_SIZES)


def adversary_size(seed: int) -> int:
    """The size of a seed's group in a run with targeted faults: 2 to 7."""
    return Random(f"size {seed}").choice(SIZES)


@dataclass(frozen=True, slots=True)
class Search:
    """How seeds are run. The defaults are the simulator's own machine and the real core."""

    replicas: int | None = None
    steps: int = STEPS
    kinds: Sequence[str] = KINDS
    workload: Callable[[Random], Workload] = RegisterWorkload
    make_replica: MakeReplica = Replica
    duels_only: bool = False
    """Use `planning.make_contending_leaders` in place of `make_plan`; `kinds` is ignored."""
    laggards_only: bool = False
    """The same for `planning.make_lagging_members`."""
    pipelines_only: bool = False
    """The same for `planning.make_pipelines`, with its own workload."""
    slow_only: bool = False
    """The same for `slow_worlds.make_slow`."""
    adversary_only: bool = False
    """The same for `adversary_planning.make_adversary`."""
    put_backs_only: bool = False
    """The same for `planning.make_put_backs`."""
    relation: Callable[[], Relation] | None = None
    """Creates the conflict relation of each run; None for the one that the seed chooses."""

    def plan(self, seed: int) -> Plan:
        """The plan of a seed."""
        if self.adversary_only:
            replicas = adversary_size(seed) if self.replicas is None else self.replicas
            return make_adversary(seed, replicas, self.steps, self.workload)
        replicas = group_size(seed) if self.replicas is None else self.replicas
        if self.duels_only:
            return make_contending_leaders(seed, replicas, self.steps, self.workload)
        if self.laggards_only:
            return make_lagging_members(seed, replicas, self.steps, self.workload)
        if self.pipelines_only:
            return make_pipelines(seed, replicas, self.steps)
        if self.slow_only:
            return make_slow(seed, replicas, self.steps, self.workload)
        if self.put_backs_only:
            return make_put_backs(seed, replicas, self.steps, self.workload)
        return make_plan(seed, replicas, self.steps, self.kinds, self.workload)

    def play(self, plan: Plan, trace: Callable[[str], None] | None = None) -> WorldRun:
        """Run a plan."""
        workload = self.workload(Random(plan.settings.seed))
        relation = self.relation() if self.relation is not None else None
        return run_plan(plan, workload, relation=relation, make_replica=self.make_replica, trace=trace)

    def runs(self, seeds: Sequence[int]) -> Iterator[WorldRun]:
        """Run one seed after another."""
        for seed in seeds:
            yield self.play(self.plan(seed))

    def shrink(self, run: WorldRun, seconds_max: float = SHRINK_SECONDS) -> Shrunk:
        """Shrink the plan of a failed run, for at most `seconds_max`."""
        assert run.finding is not None
        deadline = time.monotonic() + seconds_max
        return shrink(run.plan, run.finding, self._find, lambda: time.monotonic() < deadline)

    def _find(self, plan: Plan) -> Finding | None:
        return self.play(plan).finding

    def explain(self, plan: Plan, finding: Finding, lines_max: int = 60) -> list[str]:
        """Select the trace lines of a failed run that matter, at most `lines_max`."""
        lines: list[str] = []
        self.play(plan, lines.append)
        return failure_report.describe_failure(lines, finding.instances, lines_max)


@dataclass(frozen=True, slots=True)
class SearchReport:
    """A failed run: its shrunk plan, the file that contains it, and its trace lines."""

    path: Path
    plan: Plan
    finding: Finding
    played: int
    lines: tuple[str, ...]


def report(search: Search, run: WorldRun, directory: Path, seconds_max: float = SHRINK_SECONDS) -> SearchReport:
    """Shrink a failed run, save it in `directory`, and explain it."""
    shrunk = search.shrink(run, seconds_max)
    path = directory / f"pydsm-seed-{run.plan.settings.seed}.json"
    failure_report.save(path, shrunk.plan, shrunk.finding)
    lines = (*failure_report.describe_plan(shrunk.plan), "", *search.explain(shrunk.plan, shrunk.finding))
    return SearchReport(path, shrunk.plan, shrunk.finding, shrunk.played, lines)
