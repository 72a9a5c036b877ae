"""What fields hold: values that cannot be encoded are refused, objects that can be changed are undone wherever got."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pydsm import StateMachine, command
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
