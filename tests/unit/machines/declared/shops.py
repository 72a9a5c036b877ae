"""State machines that the tests of declared classes use."""

import dataclasses
import enum
import random
import time
from typing import Any

import msgspec

from pydsm import StateMachine, command, everything, query


class OutOfStock(Exception):
    """There is less than was asked for."""


class TwoArguments(Exception):
    """An exception that cannot be made from its text alone."""

    def __init__(self, sku: str, *, wanted: int) -> None:
        super().__init__(sku, wanted)
        self.wanted = wanted


class Inventory(StateMachine):
    """Keys, an update that commutes, a refusal."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}
        self.total: int = 0

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        self.stock[sku] = self.stock.get(sku, 0) + n

    @command(writes="sku")
    def take(self, sku: str, n: int = 1) -> int:
        self.stock[sku] = self.stock.get(sku, 0) - n
        if self.stock[sku] < 0:
            raise OutOfStock(sku)
        return self.stock[sku]

    @command(writes=("source", "target"))
    def move(self, source: str, target: str, *, n: int) -> None:
        self.stock[target] = self.stock.get(target, 0) + n
        if self.stock.get(source, 0) < n:
            raise TwoArguments(source, wanted=n)
        self.stock[source] -= n

    @command(writes=everything)
    def clear(self) -> dict[str, int]:
        removed = dict(self.stock)
        self.stock.clear()
        return removed

    @command
    def broken(self, sku: str) -> int:
        self.total += 1
        return self.stock[sku]

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return self.stock.get(sku, 0)

    @query(reads="skus")
    def left_of(self, skus: list[str]) -> list[int]:
        return [self.stock.get(sku, 0) for sku in skus]

    @query
    def everything_left(self) -> dict[str, int]:
        return self.stock

    @query
    def wrong(self) -> None:
        self.total += 1


class Colour(enum.Enum):
    """Some colours."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Point:
    """A value that cannot be changed."""

    x: int
    y: int


@dataclasses.dataclass
class Job:
    """An object that can be changed, with a list in it."""

    name: str
    steps: list[str] = dataclasses.field(default_factory=list)


class Note(msgspec.Struct):
    """The same as a Struct."""

    text: str
    stars: int = 0


class Everything(StateMachine):
    """Fields of all kinds. `run` is for tests of fields: it changes them as the test wants."""

    def __init__(self) -> None:
        self.number: int = 0
        self.share: float = 0.0
        self.text: str = ""
        self.colour: Colour = Colour.RED
        self.maybe: list[int] | None = None
        self.counts: dict[str, int] = {}
        self.points: dict[Point, tuple[int, str]] = {}
        self.nested: dict[str, dict[str, list[int]]] = {}
        self.queue: list[int] = []
        self.rows: list[list[int]] = []
        self.tags: set[str] = set()
        self.groups: dict[str, set[int]] = {}
        self.jobs: dict[str, Job] = {}
        self.notes: list[Note] = []
        self.first: Job = Job("first")
        self.json: Any = {}

    @command
    def noop(self) -> None:
        """Changes nothing."""


def now_of_this_process() -> float:
    """A clock behind a helper function."""
    return time.time()


class Careless(StateMachine):
    """Calls what is not the same at every replica, where the source of the command does not show it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @command(checked=False)
    def clock(self) -> None:
        self.times.append(now_of_this_process())

    @command(checked=False)
    def number(self) -> float:
        return random.random()

    @command
    def agreed(self) -> str:
        return f"{self.now.isoformat()} {self.random.randrange(1000)} {self.uuid()}"
