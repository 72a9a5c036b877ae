"""What fields hold: values that cannot be encoded are refused, objects that can be changed are undone wherever got."""

import datetime
import enum
import functools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from pydsm import DeclarationError, StateMachine, command
from pydsm.machines.declared.kinds import sort_key_of
from tests.unit.machines.declared.shops import Note
from tests.unit.machines.declared.test_tracking import Harness, Refused


class Numbers(StateMachine):
    """Keys that are numbers, dates and enumerations."""

    def __init__(self) -> None:
        self.by_number: dict[int, int] = {}
        self.by_share: dict[float, int] = {}
        self.by_price: dict[Decimal, int] = {}

    @command
    def noop(self) -> None:
        """Changes nothing."""


SURROGATE = json.loads('"\\ud800"')

UNENCODABLE: dict[str, Callable[[Any], object]] = {
    "key": lambda fields: fields.counts.__setitem__(SURROGATE, 1),
    "value": lambda fields: fields.json.__setitem__("a", SURROGATE),
    "item": lambda fields: fields.json.__setitem__("a", [SURROGATE]),
    "field": lambda fields: setattr(fields, "text", SURROGATE),
    "member": lambda fields: fields.tags.add(SURROGATE),
}


@pytest.mark.parametrize("where", UNENCODABLE)
def test_a_text_that_cannot_be_encoded_is_an_error_of_the_command(where: str) -> None:
    harness = Harness()
    before = harness.plain()
    with pytest.raises(TypeError, match="cannot be encoded"), harness.command() as fields:
        UNENCODABLE[where](fields)
    assert harness.plain() == before == harness.machine.fields()


def test_a_key_of_more_than_64_bits_is_an_error_of_the_command() -> None:
    harness = Harness(Numbers)
    with pytest.raises(OverflowError), harness.command() as fields:
        fields.by_number[1 << 64] = 1
    assert harness.plain()["by_number"] == {}


ACCESSES: dict[str, Callable[[Any], list[Any]]] = {
    "copy": lambda notes: notes.copy(),
    "add": lambda notes: notes + [],  # noqa: RUF005 - the operator is what is tested
    "add to": lambda notes: [] + notes,  # noqa: RUF005 - the operator is what is tested
    "multiply": lambda notes: notes * 1,
    "multiply by": lambda notes: 1 * notes,
    "slice": lambda notes: notes[:],
    "unpack": lambda notes: [*notes],
    "list": list,
    "sorted": lambda notes: sorted(notes, key=lambda note: str(note.text)),
}


def change_and_refuse(note: Note) -> None:
    note.text = "after"
    raise Refused


@pytest.mark.parametrize("access", ACCESSES)
def test_a_change_of_an_object_is_undone_however_the_command_got_it(access: str) -> None:
    harness = Harness()
    with harness.command() as fields:
        fields.notes.append(Note("before"))
    with pytest.raises(Refused), harness.command() as fields:
        change_and_refuse(ACCESSES[access](fields.notes)[0])
    assert harness.machine.fields()["notes"] == [Note("before")]
    with harness.command() as fields:
        kept = ACCESSES[access](fields.notes)[0]
        kept.text = "after"
    assert harness.machine.fields()["notes"] == [Note("after")]
    kept.text = "later"
    assert harness.machine.fields()["notes"] == [Note("after")]


def move_and_refuse(move: Callable[[Any], object], notes: Any) -> None:
    move(notes)
    for note in notes:
        note.text = "changed"
    raise Refused


MOVES: dict[str, Callable[[Any], object]] = {
    "reverse": lambda notes: notes.reverse(),
    "slice": lambda notes: notes.__setitem__(slice(0, 1), []),
    "delete": lambda notes: notes.__delitem__(slice(0, 1)),
    "insert": lambda notes: notes.insert(0, Note("new")),
    "nothing": lambda notes: None,
}


@pytest.mark.parametrize("name", MOVES)
def test_a_change_of_an_object_that_a_list_has_moved_is_undone(name: str) -> None:
    harness = Harness()
    with harness.command() as fields:
        fields.notes.extend([Note("first"), Note("last")])
    before = harness.plain()
    with pytest.raises(Refused), harness.command() as fields:
        move_and_refuse(MOVES[name], fields.notes)
    assert harness.plain() == before == harness.machine.fields()


class Level(enum.Enum):
    """Values whose encodings are in another order."""

    LOW = "low"
    MIDDLE = "a middle one"


ORDERED: dict[Any, list[Any]] = {
    int: [-3, -1, 0, 200, 70_000],
    float: [-3.0, -1.5, 0.0, 1.0, 1e300],
    datetime.timedelta: [datetime.timedelta(seconds=seconds) for seconds in (-1, 5, 10, 100)],
    datetime.datetime: [datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (1900, 1970, 2000, 2600)],
    Level: [Level.MIDDLE, Level.LOW],
}


@pytest.mark.parametrize("of", ORDERED, ids=lambda of: of.__name__)
def test_keys_and_members_are_in_the_order_of_their_values(of: Any) -> None:
    annotations = {"items": dict[of, int], "members": set[of]}
    harness = Harness(type("Keys", (StateMachine,), {"__annotations__": annotations, "items": {}, "members": set()}))
    for first in (ORDERED[of], ORDERED[of][::-1]):
        with harness.command() as fields:
            fields.items.clear()
            fields.members.clear()
            for key in first:
                fields.items[key] = 1
                fields.members.add(key)
        assert list(harness.fields.items) == list(harness.fields.members) == ORDERED[of]


def test_what_is_not_a_number_is_behind_the_numbers_and_naive_times_behind_others() -> None:
    key, time_key = sort_key_of(float), sort_key_of(datetime.datetime)
    assert sorted([float("nan"), 1.0, -1.0], key=key)[:2] == [-1.0, 1.0]
    naive, aware = datetime.datetime(1999, 1, 1), datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # noqa: DTZ001
    assert sorted([naive, aware], key=time_key) == [aware, naive]


def test_an_equal_key_that_replaces_another_one_is_the_one_that_iterations_give() -> None:
    harness = Harness(Numbers)
    with harness.command() as fields:
        fields.by_price[Decimal("1.0")] = 1
        assert list(fields.by_price) == [Decimal("1.0")], "the order is kept from here"
        del fields.by_price[Decimal("1.0")]
        fields.by_price[Decimal("1.00")] = 1
    assert [str(price) for price in harness.fields.by_price] == ["1.00"]
    assert [str(price) for price in harness.plain()["by_price"]] == ["1.00"]


def test_a_property_can_be_set_in_a_command() -> None:
    class Celsius(StateMachine):
        def __init__(self) -> None:
            self.kelvin: float = 0.0

        @property
        def celsius(self) -> float:
            return self.kelvin - 273.0

        @celsius.setter
        def celsius(self, degrees: float) -> None:
            self.kelvin = degrees + 273.0

        @command
        def noop(self) -> None:
            """Changes nothing."""

    harness = Harness(Celsius)
    with harness.command() as fields:
        fields.celsius = 7.0
    assert harness.machine.fields() == {"kelvin": 280.0}
    with pytest.raises(AttributeError), harness.command() as fields:
        fields.now = 3


@pytest.mark.parametrize("value", [{}, [1], set()], ids=str)
def test_a_container_of_the_class_is_a_field_or_a_constant(value: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Shared\.cache is a .* without a type: annotate it"):
        type("Shared", (StateMachine,), {"cache": value})
    type("Shared", (StateMachine,), {"cache": value, "__annotations__": {"cache": ClassVar[Any]}})
    type("Shared", (StateMachine,), {"cache": value, "__annotations__": {"cache": type(value)}})


@pytest.mark.parametrize(
    "decorator",
    [functools.cached_property, functools.cache, functools.lru_cache(3)],
    ids=["cached_property", "cache", "lru_cache"],
)
def test_a_method_that_keeps_its_result_is_refused(decorator: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Cached\.total keeps a result at each replica alone"):
        type("Cached", (StateMachine,), {"total": decorator(lambda self: 3)})


@pytest.mark.parametrize("annotated_in_class", [True, False])
def test_the_order_of_a_field_that_is_a_frozenset_is_found(annotated_in_class: bool) -> None:
    def tags(self: Any) -> list[str]:
        return list(self.tags)

    def initialise(self: Any) -> None:
        self.tags: frozenset[str] = frozenset()  # type: ignore[misc] # a function that becomes a method

    declared = {"__annotations__": {"tags": frozenset[str]}} if annotated_in_class else {"__init__": initialise}
    with pytest.raises(DeclarationError, match=r"iterates over the set self\.tags"):
        type("Tagged", (StateMachine,), {**declared, "all": command(tags)})
    type("Tagged", (StateMachine,), {"__annotations__": {"tags": set[str]}, "tags": set(), "all": command(tags)})
