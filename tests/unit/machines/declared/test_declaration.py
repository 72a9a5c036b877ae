"""What is an error where a class is defined, or where it is used first."""

import dataclasses
import datetime
import heapq
import os
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from random import randrange
from time import monotonic as clock
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from pydsm import DeclarationError, StateMachine, command, query
from pydsm.machines.declared.generics import specialised
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.machines.declared.results import value_of
from pydsm.testing import Group


def define(function: Callable[..., Any], **declared: Any) -> type[StateMachine]:
    """A class with this command."""
    return type("Defined", (StateMachine,), {"run": command(**declared)(function)})


class Fields:
    """Stands for self in the functions below."""

    tags: set[str]
    counts: dict[str, int]


def reads_a_clock(self: Fields) -> float:
    return time.time()


def reads_a_clock_by_another_name(self: Fields) -> float:
    return clock()


def reads_a_calendar(self: Fields) -> str:
    return str(datetime.datetime.now(datetime.UTC))


def draws_a_number(self: Fields) -> int:
    return randrange(6)


def draws_by_module(self: Fields) -> int:
    return random.choice([1, 2])


def makes_a_uuid(self: Fields) -> str:
    return str(uuid.uuid4())


def reads_chance_of_the_system(self: Fields) -> bytes:
    return os.urandom(4)


def opens_a_file(self: Fields) -> str:
    with open("file") as file:
        return file.read()


def pushes(self: Fields, n: int) -> None:
    heapq.heappush([n], n)


def hashes(self: Fields, text: str) -> int:
    return hash(text)


def iterates(self: Fields, words: list[str]) -> list[str]:
    return [one + "!" for one in {word.strip() for word in words}]


def iterates_in_a_loop(self: Fields, words: list[str]) -> str:
    last = ""
    unique = set(words)
    for word in unique:
        last = word
    return last


def makes_a_list(self: Fields, words: set[str]) -> list[str]:
    return list(words)


def joins(self: Fields, words: list[str]) -> str:
    return ",".join(set(words) | {"a"})


def pops(self: Fields, words: list[str]) -> str:
    rest = set(words)
    return rest.pop()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (reads_a_clock, "calls time.time: the clocks of replicas differ; use self.now"),
        (reads_a_clock_by_another_name, "calls clock: "),
        (reads_a_calendar, "calls datetime.datetime.now: "),
        (draws_a_number, "use self.random"),
        (draws_by_module, "calls random.choice: "),
        (makes_a_uuid, "self.uuid()"),
        (reads_chance_of_the_system, "calls os.urandom: "),
        (opens_a_file, "calls open: "),
        (hashes, "calls hash: "),
        (pushes, "use bisect.insort"),
        (iterates, "iterates over the set {"),
        (iterates_in_a_loop, "use sorted(unique)"),
        (makes_a_list, "iterates over the set words"),
        (joins, "iterates over the set"),
        (pops, "iterates over the set rest"),
    ],
)
def test_what_differs_between_replicas_is_found_where_the_class_is_defined(
    function: Callable[..., Any], text: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        define(function)
    assert text in str(raised.value)
    line = str(raised.value).split(":")[1]
    assert function.__code__.co_firstlineno < int(line) <= function.__code__.co_firstlineno + 5
    define(function, checked=False)


def helper() -> float:
    return time.monotonic()


def calls_a_function(self: Fields) -> float:
    return helper()


def test_what_functions_and_methods_do_that_a_command_calls_is_found_too() -> None:
    with pytest.raises(DeclarationError, match=r"run calls helper, which calls time\.monotonic"):
        define(calls_a_function)

    with pytest.raises(DeclarationError, match=r"Two\.run calls second, which calls first, which calls random\.random"):

        class Two(StateMachine):
            @command
            def run(self) -> float:
                return self.second(1)

            def second(self, n: int) -> float:
                return self.first() if n else self.second(n - 1)

            @staticmethod
            def first() -> float:
                return random.random()

    with pytest.raises(DeclarationError, match=r"Begins\.__init__ calls time\.time"):

        class Begins(StateMachine):
            def __init__(self) -> None:
                self.began: float = time.time()


def sorts(self: Fields, words: set[str]) -> list[str]:
    return sorted({word.strip() for word in words}) + sorted(word for word in words)


def asks_a_set(self: Fields, words: set[str]) -> bool:
    return "a" in words and len(words | {"b"}) > 1 and any(word == "b" for word in words) and bool(max(words))


def iterates_over_a_field(self: Fields) -> list[str]:
    return [one for one in self.tags] + list(self.counts)  # noqa: C416


def has_a_local_name(self: Fields, n: int) -> int:
    time = datetime.timedelta(seconds=n)
    hash = {"a": 1}
    return int(time.total_seconds()) + hash.get("a", 0)


@pytest.mark.parametrize("function", [sorts, asks_a_set, iterates_over_a_field, has_a_local_name])
def test_what_is_the_same_everywhere_is_not_refused(function: Callable[..., Any]) -> None:
    define(function)


async def waits(self: Fields) -> None: ...


def no_type(self: Fields, n) -> None: ...  # type: ignore[no-untyped-def]


def any_number(self: Fields, *n: int) -> None: ...


def reserved(self: Fields, timeout: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "declared", "text"),
    [
        (waits, {}, "must be an ordinary function"),
        (no_type, {}, "no type for n"),
        (any_number, {}, "takes *n"),
        (reserved, {}, "every call has already"),
        (hashes, {"writes": "key", "checked": False}, "has no such parameter; it has text"),
        (sorts, {"since": 2}, "the class has version 1"),
    ],
)
def test_a_method_that_cannot_be_a_command_is_refused(
    function: Callable[..., Any], declared: dict[str, Any], text: str
) -> None:
    with pytest.raises(DeclarationError, match=text.replace("*", r"\*")):
        define(function, **declared)


def test_two_methods_must_not_have_one_name_in_encoded_commands() -> None:
    with pytest.raises(DeclarationError, match="have one name"):

        class Twice(StateMachine):
            @command(name="put")
            def one(self) -> None: ...

            @command(name="put")
            def two(self) -> None: ...


def test_a_dataclass_may_be_a_state_machine() -> None:
    @dataclasses.dataclass
    class Shop(StateMachine):
        limit: ClassVar[int] = 3
        stock: dict[str, int] = dataclasses.field(default_factory=dict)
        total: int = 0

        @command
        def add(self, sku: str) -> int:
            self.stock[sku] = self.total = min(self.limit, self.total + 1)
            return self.total

    machine = DeclaredMachine(Shop)
    machine.apply([Shop._declaration.signatures["add"].encode(("a",), {})], 1)
    assert machine.fields() == {"stock": {"a": 1}, "total": 1}


@dataclasses.dataclass(frozen=True)
class HalfFrozen:
    """Frozen, with a list in it."""

    items: list[int]


@pytest.mark.parametrize("of", [deque[int], frozenset[list[int]], dict[HalfFrozen, int], set[list[int]], type, complex])
def test_a_field_of_a_type_that_cannot_be_replicated_is_refused(of: Any) -> None:
    cls: type[StateMachine] = type("Odd", (StateMachine,), {"__annotations__": {"odd": of}, "odd": None})
    with pytest.raises(DeclarationError, match=r"Odd\.odd"):
        DeclaredMachine(cls)


def test_a_field_needs_the_annotation_of_its_type() -> None:
    class Untyped(StateMachine):
        def __init__(self) -> None:
            self.typed: int = 0
            self.stock = {}  # type: ignore[var-annotated]

        @query
        def ask(self) -> int:
            return self.typed

    with pytest.raises(DeclarationError, match=r"write self\.stock: dict\[\.\.\.\] = \.\.\. in __init__"):
        DeclaredMachine(Untyped)


class Later(StateMachine):
    """Its annotations name a class that is defined below."""

    items: "list[Item]"

    def __init__(self) -> None:
        self.items = []

    @command
    def put(self, item: "Item") -> None:
        self.items.append(item)


@dataclasses.dataclass(frozen=True)
class Item:
    """See Later."""

    number: int


def test_annotations_may_name_what_is_defined_later_and_locally() -> None:
    class Local(StateMachine):
        def __init__(self) -> None:
            self.one: Item2 = Item2(1)

        @query
        def ask(self) -> "Item2":
            return self.one

    @dataclasses.dataclass(frozen=True)
    class Item2:
        number: int

    machine = DeclaredMachine(Later)
    machine.apply([Later._declaration.signatures["put"].encode((Item(1),), {})], 1)
    assert machine.fields() == {"items": [Item(1)]}
    with pytest.raises(DeclarationError, match="Item2"):
        _ = Local._declaration.fields  # a local name must be there when the class is defined


def test_a_subclass_has_the_methods_and_fields_of_its_base_and_may_replace_them() -> None:
    class Base(StateMachine):
        def __init__(self) -> None:
            self.n: int = 0

        @command
        def add(self) -> None:
            self.n += 1

        @command
        def gone(self) -> None: ...

    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.m: int = 0

        gone = None  # type: ignore[assignment]

        @command
        def both(self) -> int:
            Base.add(self)
            self.m += 1
            return self.n + self.m

    machine = DeclaredMachine(Derived)
    assert sorted(Derived._declaration.signatures) == ["add", "both"]
    machine.apply([Derived._declaration.signatures["both"].encode((), {})], 1)
    assert machine.fields() == {"m": 1, "n": 1}


T = TypeVar("T")
K = TypeVar("K")


class Store(StateMachine, Generic[K, T]):
    """Two type variables, of which one is fixed by a class that inherits."""

    table: dict[K, T | None]

    def __init__(self) -> None:
        self.table = {}

    @command(writes="key")
    def put(self, key: K, value: T) -> T | None:
        former = self.table.get(key)
        self.table[key] = value
        return former


class ByName(Store[str, T], Generic[T]):
    """Fixes the first."""


class Names(ByName[Item]):
    """Fixes the second."""


def test_the_types_of_a_generic_class_are_those_that_it_is_given() -> None:
    for cls in (specialised(Store[str, Item]), specialised(ByName[Item]), Names):
        signature = cls._declaration.signatures["put"]
        machine = DeclaredMachine(cls)
        results = machine.apply([signature.encode(("a", Item(number)), {}) for number in (1, 2)], 1)
        assert [value_of(result, signature) for result in results] == [None, Item(1)]
        assert machine.fields() == {"table": {"a": Item(2)}}
        with pytest.raises(TypeError, match="at `key`"):
            signature.encode((1, Item(1)), {})
    assert specialised(Store[str, Item]) is specialised(Store[str, Item])
    assert specialised(Store[str, Item]).__name__ == "Store[str, Item]"


async def test_a_generic_class_with_its_type_can_be_replicated() -> None:
    async with Group(Store[str, int], 2) as group:
        await group[0].put("a", 1)
        assert await group[1].put("a", 2) == 1


def test_a_generic_class_without_its_type_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Store is generic in K: name the type, Store\[\.\.\.\]"):
        Group(Store, 1)
