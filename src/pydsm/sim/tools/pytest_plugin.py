"""A pytest fixture that tests a user's state machine or conflict relation in the simulator.

Put `pytest_plugins = ["pydsm.sim.tools.pytest_plugin"]` into conftest.py, then:

    def test_inventory_is_replicated(simulated):
        simulated(Inventory, lambda random: b"take bolt %d" % random.randrange(9), seeds=range(20))

What is checked without knowing the machine: every replica executes conflicting commands in the same order, gets the
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
"""Default number of events per seed: about a fifth of a second."""


class MachineWorkload:
    """A `Workload` from a user's parts."""

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
        """The user's machine in its first state."""
        return self._machine()

    def command(self, random: Random, hot: bool) -> bytes:
        """The user's commands; `hot` ones are as any other."""
        return self._command(random)

    def model(self) -> Model | None:
        """The user's model, if there is one."""
        return self._model

    def ask(self, command: bytes) -> Ask | None:
        """What the user's function says."""
        return self._ask(command)

    def seen(self, result: Result) -> object:
        """A failure is its text."""
        return result.message if isinstance(result, CommandFailed) else result


def no_history(command: bytes) -> Ask | None:
    """For machines without a model: nothing is kept."""
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
        """Run `seeds`, and return counts of what they exercised.

        Args:
            machine: makes a machine in its first state.
            command: draws a command; must use no other source of chance.
            seeds: which runs.
            replicas: size of the group; by seed if None.
            steps: events in the phase of faults.
            faults: kinds, as in `planning.KINDS`.
            relation: makes the conflict relation.
            model: how one key behaves, for linearizability.
            ask: a command in the model's words, or None for one that is not checked.
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
    """Plays a user's machine in the simulated world; see `Simulated`."""
    return Simulated(tmp_path)
