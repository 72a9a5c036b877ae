"""Checks what a class declares of its keys: that commands which do not conflict really may be executed in any order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from random import Random
from typing import Any

from pydsm.core.log.conflicts import footprints_conflict
from pydsm.library.handles import class_of
from pydsm.machines.base import Result
from pydsm.machines.declared.declaration import StateMachine
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.machines.declared.results import value_of
from pydsm.testing.values import Calls, Choose, DrawnCall, Values

_EARLIER_MAX = 8
_TIMESTAMP_MS = 1_700_000_000_000


def commutes(machine: type[StateMachine], *, examples: int = 500, values: Values | None = None, seed: int = 0) -> None:
    """Execute pairs of commands that do not conflict in both orders, and compare the states and the results.

    Every pair of commands and queries of the class is tried, on states that earlier commands have made.

    Args:
        machine: the class.
        examples: how often each pair is tried.
        values: as for `simulated`.
        seed: another one tries other examples.

    Raises AssertionError, with the smallest example, for a pair whose order matters: a key is missing in `reads`,
    `writes` or `updates`, or an update does not commute with itself.
    """
    machine = class_of(machine)
    calls, search = Calls(machine, values or {}), _Search(machine)
    for one, other in combinations_with_replacement(calls.signatures, 2):
        if one.is_everything or other.is_everything:
            continue
        random = Random(f"{seed} {one.method.tag} {other.method.tag}")
        choose = Choose(random)
        for _ in range(examples):
            pair = calls.draw(choose, one), calls.draw(choose, other)
            earlier = tuple(calls.draw(choose) for _ in range(random.randint(0, _EARLIER_MAX)))
            example = _Example(earlier, *pair)
            if search.difference(example) is not None:
                raise AssertionError(search.difference(search.smallest(example)))


@dataclass(frozen=True, slots=True)
class _Example:
    """Two calls, after others that make the state."""

    earlier: tuple[DrawnCall, ...]
    one: DrawnCall
    other: DrawnCall

    def smaller(self) -> Iterator["_Example"]:
        """Examples with a call less, or with a smaller argument."""
        for place in range(len(self.earlier)):
            yield replace(self, earlier=(*self.earlier[:place], *self.earlier[place + 1 :]))
        for call in _smaller(self.one):
            yield replace(self, one=call)
        for call in _smaller(self.other):
            yield replace(self, other=call)
        for place, before in enumerate(self.earlier):
            for call in _smaller(before):
                yield replace(self, earlier=(*self.earlier[:place], call, *self.earlier[place + 1 :]))


class _Search:
    """Compares the orders of examples, on two machines."""

    def __init__(self, cls: type[StateMachine]) -> None:
        self._first, self._second = DeclaredMachine(cls, logs=False), DeclaredMachine(cls, logs=False)

    def smallest(self, example: _Example) -> _Example:
        """An example that shows a difference, none of whose smaller ones does."""
        while True:
            for smaller in example.smaller():
                if self.difference(smaller) is not None:
                    example = smaller
                    break
            else:
                return example

    def difference(self, example: _Example) -> str | None:
        """What depends on the order; None if nothing does, or if the two conflict."""
        one, other = example.one, example.other
        first, second = self._first, self._second
        if footprints_conflict(first.footprint([one.encoded]), first.footprint([other.encoded])):
            return None
        for machine in (first, second):
            machine.reset()
            for call in example.earlier:
                machine.apply([call.encoded], _TIMESTAMP_MS)
        ahead = [first.apply([call.encoded], _TIMESTAMP_MS)[0] for call in (one, other)]
        behind = [second.apply([call.encoded], _TIMESTAMP_MS)[0] for call in (other, one)][::-1]
        after = f" after {', '.join(map(str, example.earlier))}" if example.earlier else ""
        pair = f"{one} and {other} do not conflict, but their order matters{after}"
        for call, in_order, reversed_ in zip((one, other), ahead, behind, strict=True):
            if in_order != reversed_:
                return (
                    f"{pair}: {call} gives {_shown(in_order, call)} if {one} is first, and "
                    f"{_shown(reversed_, call)} if {other} is first"
                )
        if first.digest() != second.digest():
            return f"{pair}: they leave {first.fields()} if {one} is first, and {second.fields()} if {other} is"
        return None


def _smaller(call: DrawnCall) -> Iterator[DrawnCall]:
    """Calls with a number that is nearer to 0, or less in a list or text."""
    for name, value in call.arguments.items():
        for other in _smaller_values(value):
            try:
                yield call.with_argument(name, other)
            except TypeError:
                continue


def _smaller_values(value: Any) -> Iterator[Any]:
    if isinstance(value, int) and not isinstance(value, bool) and value:
        yield from dict.fromkeys(
            (0, value // 2 if value > 0 else -(-value // 2), value - 1 if value > 0 else value + 1)
        )
    elif isinstance(value, list):
        yield from (value[:place] + value[place + 1 :] for place in range(len(value)))


def _shown(result: Result, call: DrawnCall) -> str:
    try:
        return repr(value_of(result, call.signature))
    except Exception as error:
        return repr(error)
