"""Draws arguments of commands from their annotations, from few values, so that commands meet on the same keys."""

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.machines.declared.declaration import StateMachine
from pydsm.machines.declared.kinds import name_of
from pydsm.machines.declared.signatures import Signature

T = TypeVar("T")

Values = Mapping[str, Sequence[Any] | Callable[[Random], Any]]
"""For parameters of these names: what to choose from, or a function that draws one."""

_ITEMS_MAX = 3
_EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Choose:
    """Choices of a random generator."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def integer(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return self._random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(options)


class Calls:
    """Draws calls of a class. Raises UsageError for a parameter whose type needs `values`."""

    def __init__(self, cls: type[StateMachine], values: Values) -> None:
        self.signatures = tuple(cls._declaration.signatures.values())
        self._values = values
        names = {name for signature in self.signatures for name in signature.parameters}
        unknown = sorted(values.keys() - names)
        if unknown:
            raise UsageError(f"no command or query of {cls.__name__} has a parameter {unknown[0]}")

    def draw(self, choose: Choose, signature: Signature | None = None) -> "DrawnCall":
        """A call of this method, or of any."""
        signature = signature or choose.pick(self.signatures)
        arguments = {name: self._argument(name, of, choose) for name, of in signature.parameters.items()}
        bits = choose.integer(0, (1 << 63) - 1)
        encoded = signature.with_bits(signature.encode((), arguments), bits)
        return DrawnCall(signature, arguments, encoded, bits)

    def _argument(self, name: str, of: Any, choose: Choose) -> Any:
        given = self._values.get(name)
        if given is None:
            return draw(of, choose)
        if callable(given):
            return given(Random(choose.integer(0, 1 << 30)))
        return choose.pick(given)


@dataclasses.dataclass(frozen=True, slots=True)
class DrawnCall:
    """A call, with its arguments for people."""

    signature: Signature
    arguments: dict[str, Any]
    encoded: bytes
    bits: int
    """Its random bits."""

    def with_argument(self, name: str, value: Any) -> "DrawnCall":
        """The same call with another argument. Raises TypeError if that does not have the annotated type."""
        arguments = {**self.arguments, name: value}
        encoded = self.signature.with_bits(self.signature.encode((), arguments), self.bits)
        return DrawnCall(self.signature, arguments, encoded, self.bits)

    def __str__(self) -> str:
        return f"{self.signature.method.attribute}({', '.join(map(repr, self.arguments.values()))})"


def draw(of: Any, choose: Choose) -> Any:
    """A value of this type. Raises UsageError for a type that it does not know."""
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin is typing.Annotated:
        return _within(arguments, choose)
    if isinstance(of, typing.NewType):
        return draw(of.__supertype__, choose)
    simple = _SIMPLE.get(of)
    if simple is not None:
        return simple(choose)
    if origin is typing.Literal:
        return choose.pick(arguments)
    if origin in (typing.Union, types.UnionType):
        return draw(choose.pick(arguments), choose)
    if origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return origin(draw(arguments[0], choose) for _ in range(choose.integer(0, _ITEMS_MAX)))
    if origin is tuple:
        return tuple(draw(one, choose) for one in arguments)
    if origin is dict:
        return {draw(arguments[0], choose): draw(arguments[1], choose) for _ in range(choose.integer(0, _ITEMS_MAX))}
    if isinstance(of, type):
        if issubclass(of, enum.Enum):
            return choose.pick(list(of))
        if dataclasses.is_dataclass(of) or issubclass(of, msgspec.Struct) or hasattr(of, "_fields"):
            return of(
                **{name: draw(one, choose) for name, one in typing.get_type_hints(of, include_extras=True).items()}
            )
    raise UsageError(f"values of {name_of(of)} cannot be drawn: give some with values={{parameter: [...]}}")


_SIMPLE: dict[Any, Callable[[Choose], Any]] = {
    int: lambda choose: choose.integer(-2, 9),
    str: lambda choose: choose.pick(("a", "b")),
    bytes: lambda choose: choose.pick((b"a", b"b")),
    bool: lambda choose: choose.pick((False, True)),
    float: lambda choose: choose.integer(-8, 40) / 4,
    type(None): lambda choose: None,
    None: lambda choose: None,
    Any: lambda choose: choose.integer(-2, 9),
    datetime.datetime: lambda choose: _EPOCH + datetime.timedelta(seconds=choose.integer(0, 3)),
    datetime.date: lambda choose: _EPOCH.date() + datetime.timedelta(days=choose.integer(0, 3)),
    datetime.time: lambda choose: datetime.time(choose.integer(0, 23)),
    datetime.timedelta: lambda choose: datetime.timedelta(seconds=choose.integer(0, 9)),
    decimal.Decimal: lambda choose: decimal.Decimal(choose.integer(-8, 40)) / 4,
    uuid.UUID: lambda choose: uuid.UUID(int=choose.integer(0, 2)),
}


def _within(arguments: Sequence[Any], choose: Choose) -> Any:
    """A value of an annotated type, within the limits that msgspec.Meta gives to whole numbers."""
    of, *notes = arguments
    limits = [one for one in notes if isinstance(one, msgspec.Meta)]
    if of is not int or not limits:
        return draw(of, choose)
    lows = [one.ge for one in limits if one.ge is not None] + [one.gt + 1 for one in limits if one.gt is not None]
    highs = [one.le for one in limits if one.le is not None] + [one.lt - 1 for one in limits if one.lt is not None]
    low = int(max(lows)) if lows else min(-2, int(min(highs)))
    return choose.integer(low, min([low + 9, *map(int, highs)]))
