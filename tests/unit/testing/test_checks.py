"""`simulated` and `commutes` find false declarations."""

import dataclasses
import enum
from typing import Annotated, Literal, NamedTuple

import msgspec
import pytest

from pydsm import StateMachine, UsageError, command, query
from pydsm.testing import commutes, simulated
from tests.unit.machines.declared.shops import Inventory


class Saturating(Inventory):
    """Its updates do not commute."""

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        self.stock[sku] = min(10, self.stock.get(sku, 0) + n)


class Counting(Inventory):
    """The result of its update depends on the order."""

    @command(updates="sku")
    def add(self, sku: str, n: int) -> int:  # type: ignore[override]
        self.stock[sku] = self.stock.get(sku, 0) + n
        return self.stock[sku]


class Looking(Inventory):
    """Its query reads more than it declares."""

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return sum(self.stock.values())


class Forgetful(Inventory):
    """Its command writes more than it declares."""

    @command(writes="source")
    def move(self, source: str, target: str, *, n: int) -> None:
        self.stock[target] = self.stock.get(source, 0)


def test_true_declarations_pass() -> None:
    commutes(Inventory, examples=100)


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (
            Saturating,
            r"add\('[ab]', -?\d+\) and add\('[ab]', -?\d+\) do not conflict, but their order matters after add",
        ),
        (Counting, r"add\('[ab]', \d\) gives -?\d if .* and -?\d if"),
        (Looking, r"add\('[ab]', 1\) and left\('[ab]'\) do not conflict, .*: left\('[ab]'\) gives 1 if"),
        (Forgetful, r"do not conflict, but their order matters"),
    ],
)
def test_a_false_declaration_fails_with_a_small_example(cls: type[StateMachine], text: str) -> None:
    with pytest.raises(AssertionError, match=text) as failed:
        commutes(cls)
    assert len(str(failed.value)) < 400


def test_the_simulator_runs_a_class_under_faults() -> None:
    counts = simulated(Inventory, seeds=range(3), steps=2000)
    assert counts.calls_done
    assert counts.restarts


def test_the_simulator_finds_a_key_that_is_missing() -> None:
    with pytest.raises(AssertionError, match="breaks"):
        simulated(Forgetful, seeds=range(20), steps=2000, values={"n": [1], "skus": [["a"]]})


class Size(enum.Enum):
    """Some sizes."""

    SMALL = 1
    LARGE = 2


class Pair(NamedTuple):
    """Two numbers."""

    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Order:
    """A value with others in it."""

    pairs: tuple[Pair, ...]
    size: Size | None


class Typed(StateMachine):
    """Takes arguments of many types."""

    def __init__(self) -> None:
        self.count: int = 0

    @command
    def take(
        self,
        order: Order,
        kind: Literal["x", "y"],
        few: Annotated[int, msgspec.Meta(ge=5, lt=7)],
        table: dict[str, list[float]],
        members: set[bytes],
    ) -> None:
        assert 5 <= few < 7
        assert kind in ("x", "y")
        self.count += len(order.pairs)


def test_arguments_are_drawn_from_their_annotations_unless_they_are_given() -> None:
    assert simulated(Typed, seeds=[1], steps=500).calls_done
    with pytest.raises(UsageError, match="no command or query of Typed has a parameter colour"):
        simulated(Typed, seeds=[1], values={"colour": ["red"]})
