"""What clients ask for: a source of commands, and how a command appears in the history of clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from pydsm.machines.base import CommandFailed, Result, StateMachine
from pydsm.sim.linearizability import Model
from pydsm.sim.registers import PAIR, KeyModel, Registers


@dataclass(frozen=True, slots=True)
class Ask:
    """A command as the linearizability checker sees it."""

    key: str
    action: str
    argument: object


class Workload(Protocol):
    """A machine with a source of commands for it. One object serves one or many runs."""

    def machine(self) -> StateMachine:
        """A machine in its first state: one for each life of each replica."""
        ...

    def command(self, random: Random, hot: bool) -> bytes:
        """Any command; one that conflicts with many others if `hot`."""
        ...

    def model(self) -> Model | None:
        """How one key behaves; None when client histories are not to be checked."""
        ...

    def ask(self, command: bytes) -> Ask | None:
        """What the history says of this command; None for one that is not checked there."""
        ...

    def seen(self, result: Result) -> object:
        """A result as the model gives it."""
        ...


class RegisterWorkload:
    """Commands for `registers`. Every run draws its own mix, from all reads to all writes, one key to many."""

    def __init__(self, random: Random) -> None:
        self._keys = [f"k{number}" for number in range(random.choice([1, 2, 4, 12, 40]))]
        self._pairs = [f"{PAIR}{number}" for number in range(random.choice([0, 0, 1, 2]))]
        self._hot_share = random.choice([0.0, 0.1, 0.5, 0.9])
        self._actions = ["read", "write", "add", "top", "take"]
        self._weights = [random.choice([1, 1, 3, 10]) for _ in self._actions]
        self._barriers = random.choice([0.0, 0.0, 0.0, 0.02])
        self._read = "when" if len(self._keys) in (4, 12) else "read"

    def machine(self) -> StateMachine:
        """Empty registers."""
        return Registers()

    def command(self, random: Random, hot: bool) -> bytes:
        """Numbers are large and drawn evenly, so that a sum tells which additions are in it."""
        if not hot and random.random() < self._barriers:
            return b"sum"
        names = [*self._keys, *self._pairs]
        key = names[0] if hot or random.random() < self._hot_share else random.choice(names)
        weights = self._weights[:2] if key in self._pairs else self._weights
        action = random.choices(self._actions[: len(weights)], weights)[0]
        if action == "read":
            return f"{self._read} {key}".encode()
        return f"{action} {key} {random.randrange(1, 1 << 40)}".encode()

    def command_for(self, random: Random, key: str) -> bytes:
        """A command on this key; no fewer writes than reads."""
        action = random.choice(["write", "write", "add", "take", self._read])
        return (
            f"{action} {key}".encode()
            if action == self._read
            else f"{action} {key} {random.randrange(1, 1 << 40)}".encode()
        )

    def model(self) -> Model:
        """Integers."""
        return KeyModel()

    def ask(self, command: bytes) -> Ask | None:
        """Everything but `sum`, whose result is compared between replicas instead."""
        return parse(command)

    def seen(self, result: Result) -> object:
        """A refusal is its text; the time of a read is left out."""
        if isinstance(result, list):
            return result[0]
        return result.message if isinstance(result, CommandFailed) else result


def parse(command: bytes) -> Ask | None:
    """A command of `registers` in the words of a history."""
    words: Sequence[str] = command.decode().split(" ")
    if words[0] == "sum":
        return None
    action = "read" if words[0] == "when" else words[0]
    return Ask(words[1], action, int(words[2]) if len(words) > 2 else None)
