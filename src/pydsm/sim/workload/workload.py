"""The workload of simulated clients: a source of commands, and how a command appears in the history of clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from pydsm.machines.base import CommandFailed, CommandRaised, Result, StateMachine
from pydsm.sim.checkers.linearizability import Model
from pydsm.sim.workload.registers import PAIR, RAISED, TWO, KeyModel, Registers, RegistersWithoutUndo

_BROKEN_WRITES_1_OF = 8
"""One of this many writes raises."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A command as the linearizability checker sees it."""

    key: str
    action: str
    argument: object
    other_keys: tuple[str, ...] = ()


class Workload(Protocol):
    """A machine with a source of commands for it. One object serves one or many runs."""

    def machine(self) -> StateMachine:
        """Returns a machine in its initial state: one for each process of each replica."""
        ...

    def command(self, random: Random, hot: bool) -> bytes:
        """Returns any command; one that conflicts with many others if `hot`."""
        ...

    def model(self) -> Model | None:
        """Returns the behaviour of one key; None if client histories are not to be checked."""
        ...

    def ask(self, command: bytes) -> Ask | None:
        """Returns the command for the history; None for a command that is not checked there."""
        ...

    def seen(self, result: Result) -> object:
        """Returns a result in the form that the model uses."""
        ...


class RegisterWorkload:
    """Commands for `registers`. Each run draws its own mix of reads and writes, over one key or many."""

    def __init__(self, random: Random) -> None:
        self._keys = [f"k{number}" for number in range(random.choice([1, 2, 4, 12, 40]))]
        self._pairs = [f"{PAIR}{number}" for number in range(random.choice([0, 0, 1, 2]))]
        self._hot_share = random.choice([0.0, 0.1, 0.5, 0.9])
        self._actions = ["read", "write", "add", "top", "take"]
        self._weights = [random.choice([1, 1, 3, 10]) for _ in self._actions]
        self._barriers = random.choice([0.0, 0.0, 0.0, 0.02])
        self._undoes = len(self._keys) not in (2, 12)
        self._read = "when" if len(self._keys) in (4, 12) else "read"

    def machine(self) -> StateMachine:
        """Returns empty registers; in some runs they cannot undo the changes of a command that raises."""
        return Registers() if self._undoes else RegistersWithoutUndo()

    def command(self, random: Random, hot: bool) -> bytes:
        """Draws a command. Numbers are large and drawn evenly, so that a sum shows which additions are in it."""
        if not hot and random.random() < self._barriers:
            return b"sum"
        names = [*self._keys, *self._pairs]
        key = names[0] if hot or random.random() < self._hot_share else random.choice(names)
        weights = self._weights[:2] if key in self._pairs else self._weights
        action = random.choices(self._actions[: len(weights)], weights)[0]
        if action == "read":
            return f"{self._read} {key}".encode()
        number = random.randrange(1, 1 << 40)
        if action == "write" and key not in self._pairs and number % _BROKEN_WRITES_1_OF == 0:
            action = "break"
        return f"{action} {key} {number}".encode()

    def command_for(self, random: Random, key: str) -> bytes:
        """Draws a command on this key: a write at least as often as a read."""
        action = random.choice(["write", "write", "add", "take", self._read])
        return (
            f"{action} {key}".encode()
            if action == self._read
            else f"{action} {key} {random.randrange(1, 1 << 40)}".encode()
        )

    def model(self) -> Model:
        """Returns the model of integers by key."""
        return KeyModel(self._undoes)

    def ask(self, command: bytes) -> Ask | None:
        """Returns every command but `sum`, whose result is compared between replicas instead."""
        return parse(command)

    def seen(self, result: Result) -> object:
        """Returns the text of a failure, `RAISED` for an exception, and the result of a read without its time."""
        if isinstance(result, list):
            return tuple(result[1:]) if result[0] == TWO else result[0]
        if isinstance(result, CommandRaised):
            return RAISED
        return result.message if isinstance(result, CommandFailed) else result


class PipelineWorkload(RegisterWorkload):
    """Commands over few keys, some over two of them, so that a wrong order changes results."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._keys = self._keys[: random.choice([2, 3, 6])] if len(self._keys) > 1 else ["k0", "k1"]
        self._pairs = []
        self._two_share = random.choice([0.0, 0.1, 0.3])

    def command(self, random: Random, hot: bool) -> bytes:
        """Draws a command of `RegisterWorkload`, or one over two keys."""
        if random.random() >= self._two_share:
            return super().command(random, hot)
        left, right = random.sample(self._keys, 2)
        if random.random() < 0.5:
            return f"both {left} {right}".encode()
        return f"move {left} {right} {random.randrange(1, 1 << 40)}".encode()


def parse(command: bytes) -> Ask | None:
    """Returns a command of `registers` in the form that a history uses; None for `sum`."""
    words: Sequence[str] = command.decode().split(" ")
    if words[0] == "sum":
        return None
    if words[0] in ("both", "move"):
        return Ask(words[1], words[0], int(words[3]) if len(words) > 3 else 0, (words[2],))
    action = "read" if words[0] == "when" else words[0]
    return Ask(words[1], action, int(words[2]) if len(words) > 2 else None)
