"""A pytest fixture that tests a user's state machine or conflict relation in the simulator.

Put `pytest_plugins = ["pydsm.sim.tools.pytest_plugin"]` into conftest.py, then:

    def test_inventory_is_replicated(simulated):
        simulated(Inventory, lambda random: b"take bolt %d" % random.randrange(9), seeds=range(20))

The checks need no knowledge of the machine: every replica executes conflicting commands in the same order, gets the
same results, and ends with the same digest, whatever the faults. A machine that reads a clock, iterates over a set or
omits a key from its footprint fails here. With a `model`, the answers to clients are checked for linearizability too.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest

from pydsm.core.log.conflicts import DeclaredKeys, Relation
from pydsm.machines.base import CommandFailed, Result, StateMachine
from pydsm.sim.base.counts import Counts
from pydsm.sim.checkers.linearizability import Model
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search
from pydsm.sim.workload.planner import KINDS
from pydsm.sim.workload.workload import Ask

STEPS = 3000
"""Default number of events per seed: a seed takes about a fifth of a second."""


class MachineWorkload:
    """A `Workload` from the functions that a user provides."""

    def __init__(
        self,
        machine: Callable[[], StateMachine],
        command: Callable[[Random], bytes],
        model: Model | None,
        ask: Callable[[bytes], Ask | None],
    ) -> None:
        self._machine = machine
        self._command = command
        self._model = model
        self._ask = ask

    def machine(self) -> StateMachine:
        """Returns the user's machine in its initial state."""
        return self._machine()

    def command(self, random: Random, hot: bool) -> bytes:
        """Draws a command of the user; `hot` is ignored."""
        return self._command(random)

    def model(self) -> Model | None:
        """Returns the user's model, or None."""
        return self._model

    def ask(self, command: bytes) -> Ask | None:
        """Returns the command for the history, by the user's function."""
        return self._ask(command)

    def seen(self, result: Result) -> object:
        """Returns the result; for a failure its text."""
        return result.message if isinstance(result, CommandFailed) else result


def no_history(command: bytes) -> Ask | None:
    """For machines without a model: no command is checked in a history."""
    return None


class Simulated:
    """Callable: runs seeds with a user's machine, and fails the test with an explanation if an invariant breaks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(
        self,
        machine: Callable[[], StateMachine],
        command: Callable[[Random], bytes],
        *,
        seeds: Iterable[int] = range(10),
        replicas: int | None = None,
        steps: int = STEPS,
        faults: tuple[str, ...] = KINDS,
        relation: Callable[[], Relation] = DeclaredKeys,
        model: Model | None = None,
        ask: Callable[[bytes], Ask | None] = no_history,
    ) -> Counts:
        """Run `seeds`, and return counts of the events in them.

        Args:
            machine: creates a machine in its initial state.
            command: draws a command; must use no other source of randomness.
            seeds: seeds of the runs.
            replicas: size of the group; chosen by the seed if None.
            steps: events in the phase of faults.
            faults: kinds, as in `planning.KINDS`.
            relation: creates the conflict relation.
            model: the behaviour of one key, for linearizability.
            ask: returns a command in the form that the model uses, or None if it is not checked.
        """
        search = Search(
            replicas=replicas,
            steps=steps,
            kinds=faults,
            workload=lambda random: MachineWorkload(machine, command, model, ask),
            relation=relation,
        )
        totals = Counts()
        for seed in seeds:
            run = search.play(search.plan(seed))
            totals.add(run.counts)
            if run.finding is not None:
                shrunk = search.shrink(run)
                path = self._directory / f"seed-{seed}.json"
                failure_report.save(path, shrunk.plan, shrunk.finding, machine.__qualname__)
                explanation = "\n".join(
                    (*failure_report.describe_plan(shrunk.plan), "", *search.explain(shrunk.plan, shrunk.finding))
                )
                pytest.fail(
                    f"seed {seed} breaks {shrunk.finding.invariant}: {shrunk.finding.what}\n"
                    f"the smallest plan found is in {path}\n{explanation}",
                    pytrace=False,
                )
        return totals


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    """Runs a user's machine in the simulated world; see `Simulated`."""
    return Simulated(tmp_path)
