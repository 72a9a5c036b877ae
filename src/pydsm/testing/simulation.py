"""Runs a class in the simulator: replicas that crash, networks that lose and repeat messages, disks that are slow."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import gettempdir
from typing import Any

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.library.handles import class_of
from pydsm.machines.base import CommandFailed, Result, StateMachine
from pydsm.machines.declared.declaration import StateMachine as DeclaredStateMachine
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.sim.base.counts import Counts
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search
from pydsm.sim.workload.planner import KINDS
from pydsm.sim.workload.workload import Ask
from pydsm.testing.values import Calls, Choose, Values

STEPS = 3000
"""Events of one run, by default."""


def simulated(
    machine: type[DeclaredStateMachine],
    *,
    seeds: Iterable[int] = range(10),
    replicas: int | None = None,
    steps: int = STEPS,
    values: Values | None = None,
    guard: bool = True,
) -> Counts:
    """Run a class in the simulator, each seed with its own faults and commands; the same seed is the same run.

    Checks that all replicas execute conflicting commands in one order, get the same results, and end with the same
    state, whatever fails; so a key that is missing in `reads`, `writes` or `updates` is found, and a command that is
    not the same at every replica.

    Args:
        machine: the class.
        seeds: which runs.
        replicas: how many; if None, each seed chooses.
        steps: the number of events in a run.
        values: for parameters of these names, what to choose from, or a function of a `random.Random`. The other
            arguments are drawn from their annotations, from few values.
        guard: whether commands that read clocks, draw random numbers or do I/O fail with `NotDeterministic`.

    Returns:
        Counts of what the runs exercised.

    Raises AssertionError, with what happened, if a run breaks an invariant.
    """
    machine = class_of(machine)
    calls = Calls(machine, values or {})
    search = Search(
        replicas=replicas,
        steps=steps,
        kinds=KINDS,
        workload=lambda random: _Workload(machine, calls, guarded=guard),
        relation=DeclaredKeys,
    )
    totals = Counts()
    for seed in seeds:
        run = search.play(search.plan(seed))
        totals.add(run.counts)
        if run.finding is not None:
            shrunk = search.shrink(run)
            path = Path(gettempdir()) / f"pydsm-{machine.__name__}-seed-{seed}.json"
            failure_report.save(path, shrunk.plan, shrunk.finding, machine.__qualname__)
            lines = (*failure_report.describe_plan(shrunk.plan), "", *search.explain(shrunk.plan, shrunk.finding))
            explanation = "\n".join(lines)
            raise AssertionError(
                f"seed {seed} breaks {shrunk.finding.invariant}: {shrunk.finding.what}\n"
                f"the smallest plan found is in {path}\n{explanation}"
            )
    return totals


class _Workload:
    """See `sim.workload.Workload`."""

    def __init__(self, cls: type[DeclaredStateMachine], calls: Calls, *, guarded: bool) -> None:
        self._cls = cls
        self._calls = calls
        self._guarded = guarded

    def machine(self) -> StateMachine:
        """A new one."""
        return DeclaredMachine(self._cls, guarded=self._guarded, logs=False)

    def command(self, random: Random, hot: bool) -> bytes:
        """Any call."""
        return self._calls.draw(Choose(random)).encoded

    def model(self) -> None:
        """Client histories are not checked: results are compared between replicas."""
        return

    def ask(self, command: bytes) -> Ask | None:
        """Nothing is kept of a command."""
        return None

    def seen(self, result: Result) -> Any:
        """A failure is its text."""
        return result.message if isinstance(result, CommandFailed) else result
