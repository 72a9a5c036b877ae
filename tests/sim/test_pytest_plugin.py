"""The fixture for users: a correct machine passes, and each typical mistake is reported with an explanation."""

import hashlib
from collections.abc import Sequence
from random import Random

import pytest

from pydsm.core.log.conflicts import EverythingConflicts, NothingConflicts
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.sim.checkers.linearizability import Model
from pydsm.sim.tools.pytest_plugin import Simulated, simulated
from pydsm.sim.workload.registers import KeyModel
from pydsm.sim.workload.workload import Ask

__all__ = ["simulated"]

FAULTS = ("loss", "crash", "partition", "duel")


class Shelf:
    """A machine with puts and takes; a take from an empty shelf fails."""

    def __init__(self) -> None:
        self.stock: dict[bytes, int] = {}

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        return Footprint(writes=tuple(dict.fromkeys(command.split()[1] for command in commands)))

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        return [self.one(*command.split()) for command in commands]

    def one(self, action: bytes, thing: bytes) -> Result:
        left = self.stock.get(thing, 0) + (1 if action == b"put" else -1)
        if left < 0:
            return CommandFailed("the shelf is empty")
        self.stock[thing] = left
        return left

    def digest(self) -> bytes:
        return hashlib.sha256(repr(sorted(self.stock.items())).encode()).digest()


class ForgetsAKey(Shelf):
    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        return Footprint(reads=super().footprint(commands).writes)


class CountsItsOwnLives(Shelf):
    processes = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).processes += 1
        self.process = type(self).processes

    def one(self, action: bytes, thing: bytes) -> Result:
        return (self.process, super().one(action, thing))


def put_or_take(random: Random) -> bytes:
    return random.choice([b"put ", b"put ", b"take "]) + random.choice([b"bolt", b"nut"])


def test_a_correct_machine_passes_and_returns_counts(simulated: Simulated) -> None:
    counts = simulated(Shelf, put_or_take, seeds=range(6), replicas=3, faults=FAULTS)
    assert counts.seeds == 6
    assert counts.calls_done > 50


def test_a_machine_can_be_tested_with_a_users_relation(simulated: Simulated) -> None:
    simulated(Shelf, put_or_take, seeds=range(3), replicas=3, faults=FAULTS, relation=EverythingConflicts)


@pytest.mark.parametrize("machine", [ForgetsAKey, CountsItsOwnLives])
def test_a_machine_that_is_not_deterministic_fails_with_trace_lines(machine: type[Shelf], simulated: Simulated) -> None:
    with pytest.raises(pytest.fail.Exception, match="asks r"):
        simulated(machine, put_or_take, seeds=range(10), replicas=3, faults=FAULTS, steps=2000)


def test_a_relation_that_lets_conflicting_commands_pass_each_other_fails(simulated: Simulated) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"results|digest"):
        simulated(Shelf, put_or_take, seeds=range(10), replicas=3, faults=FAULTS, relation=NothingConflicts)


class LastWins(Shelf):
    """Writes that return the previous value; if stale, the value before the previous one."""

    stale = False

    def one(self, action: bytes, thing: bytes) -> Result:
        before = self.stock.get(thing, 0)
        self.stock[thing] = int(action)
        return 0 if self.stale else before


class Stale(LastWins):
    stale = True


def write(random: Random) -> bytes:
    return b"%d " % random.randrange(1, 1 << 30) + random.choice([b"bolt", b"nut"])


def ask(command: bytes) -> Ask:
    number, key = command.decode().split()
    return Ask(key, "write", int(number))


MODEL: Model = KeyModel()


def test_answers_are_checked_with_a_model_if_there_is_one(simulated: Simulated) -> None:
    simulated(LastWins, write, seeds=range(3), replicas=3, faults=FAULTS, model=MODEL, ask=ask)
    with pytest.raises(pytest.fail.Exception, match="linearizability"):
        simulated(Stale, write, seeds=range(3), replicas=3, faults=FAULTS, model=MODEL, ask=ask)
