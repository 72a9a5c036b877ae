"""The types that fields of a state machine may have: how their values are checked, copied, encoded and ordered.

Guarantees that a value in the state is exactly what a snapshot restores, at every replica: a value that is not of one
of the plain types goes through its encoding when it is stored. What can be changed in place is replaced by a container
that notes its changes, or compared with its encoding (`tracking`).
"""

import dataclasses
import datetime
import decimal
import enum
import math
import types
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pydsm.core.types.errors import UsageError

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
"""The range of integers that MessagePack can encode."""

_ATOMS: frozenset[type] = frozenset((type(None), bool, int, float, str, bytes))
_LEAVES: tuple[type, ...] = (
    *_ATOMS,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
_ORDERED = frozenset((int, str, bytes, bool, datetime.date, datetime.timedelta, decimal.Decimal, uuid.UUID))
"""Types of which any two values are ordered."""

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_encode_sorted: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="deterministic").encode


class DeclarationError(UsageError, TypeError):
    """A state machine is declared in a way that cannot be replicated; the text names the class and what to change."""


def needs_check(value: Any, of: type) -> bool:
    """Whether a number or text, which is of the plain type `of`, is one that cannot be encoded."""
    if of is int:
        return not INT_MIN <= value <= INT_MAX
    return of is str and not value.isascii() and _has_surrogates(value)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def encode_canonical(value: object) -> bytes:
    """The encoding of a value, the same for equal values: dictionaries and sets are sorted."""
    try:
        return _encode_sorted(value)
    except TypeError:
        return encode(_sorted(value))


def _sorted(value: object) -> object:
    """A value with its dictionaries and sets in an order that depends on their contents only."""
    if isinstance(value, dict):
        return dict(sorted(((key, _sorted(one)) for key, one in dict.items(value)), key=lambda item: encode(item[0])))
    if isinstance(value, set | frozenset):
        return sorted(set.__iter__(value) if isinstance(value, set) else value, key=encode)
    if isinstance(value, list | tuple):
        return [_sorted(one) for one in value]
    if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        return _sorted(msgspec.to_builtins(value, str_keys=False, builtin_types=(bytes,)))
    return value


class Kind:
    """The type of a value. Two values of one kind are equal exactly if their canonical encodings are."""

    container: type | None = None
    """`dict`, `list` or `set`, if its values are containers."""
    is_object = False
    """Whether its values are objects that can be changed in place."""

    def __init__(self, of: Any, plain: Iterable[type] = ()) -> None:
        self.of = of
        self.plain = frozenset(plain)
        """The types of the values that need no check; of these, `needs_check` finds the few that cannot be encoded."""
        self._decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(of).decode

    @property
    def can_change(self) -> bool:
        """Whether its values may be changed in place."""
        return self.has_containers or self.has_objects

    @property
    def has_containers(self) -> bool:
        """Whether its values may be containers."""
        return self.container is not None

    @property
    def has_objects(self) -> bool:
        """Whether its values may be objects that can be changed in place."""
        return self.is_object

    def checked(self, value: object) -> Any:
        """A copy of the value that is exactly of this type. Raises TypeError if the value is not of this type."""
        try:
            return self._decode(encode_canonical(value))
        except (msgspec.ValidationError, TypeError) as error:
            raise TypeError(f"{type(value).__name__} does not fit {name_of(self.of)}: {error}") from None
        except UnicodeEncodeError as error:
            raise TypeError(f"a text cannot be encoded: {error}") from None

    def decode(self, encoded: bytes) -> Any:
        """The value, from its encoding."""
        return self._decode(encoded)

    def member(self, value: object) -> "Kind":
        """This kind; for a union, the kind of its member that has this value."""
        return self


class DictKind(Kind):
    """A dict."""

    container = dict

    def __init__(self, of: Any, keys: Kind, values: Kind) -> None:
        super().__init__(of)
        self.keys = keys
        self.values = values
        self.sort_key = sort_key_of(keys.of)


class ListKind(Kind):
    """A list."""

    container = list

    def __init__(self, of: Any, items: Kind) -> None:
        super().__init__(of)
        self.values = items


class SetKind(Kind):
    """A set."""

    container = set

    def __init__(self, of: Any, items: Kind) -> None:
        super().__init__(of)
        self.values = items
        self.sort_key = sort_key_of(items.of)


class ObjectKind(Kind):
    """An object with attributes that can be changed: a dataclass or a Struct that is not frozen."""

    is_object = True


class UnionKind(Kind):
    """One of several kinds, of which some can be changed in place."""

    def __init__(self, of: Any, members: list[Kind]) -> None:
        super().__init__(of, frozenset().union(*(member.plain for member in members)))
        self.members = members

    @property
    def has_containers(self) -> bool:
        """See `Kind`."""
        return any(member.has_containers for member in self.members)

    @property
    def has_objects(self) -> bool:
        """See `Kind`."""
        return any(member.has_objects for member in self.members)

    def member(self, value: object) -> Kind:
        """See `Kind`."""
        for member in self.members:
            if member.container is not None and isinstance(value, member.container):
                return member
            if member.is_object and isinstance(value, member.of):
                return member
        return _NOTHING


class AnyKind(Kind):
    """Whatever JSON can express, and bytes; its lists and dicts have values of any kind."""

    def __init__(self) -> None:
        super().__init__(Any, _ATOMS)

    @property
    def has_containers(self) -> bool:
        """See `Kind`."""
        return True

    def member(self, value: object) -> Kind:
        """See `Kind`."""
        if isinstance(value, dict):
            return _ANY_DICT
        return _ANY_LIST if isinstance(value, list) else _NOTHING


def kind_of(of: Any) -> Kind:
    """The kind of an annotation. Raises DeclarationError for a type that a field of a state machine cannot have."""
    try:
        return _kind_of(of)
    except (TypeError, RecursionError) as error:
        if isinstance(error, DeclarationError):
            raise
        raise DeclarationError(f"{name_of(of)} cannot be a field of a state machine: {error}") from None


def _kind_of(of: Any) -> Kind:
    if of is Any or of is object:
        return _ANY
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    of, origin, arguments = _bare(of, origin, arguments)
    if origin is dict:
        keys = kind_of(arguments[0])
        if keys.can_change and keys is not _ANY:
            raise DeclarationError(f"{name_of(of)} has keys that can be changed")
        return DictKind(of, _NOTHING if keys is _ANY else keys, kind_of(arguments[1]))
    if origin is list:
        return ListKind(of, kind_of(arguments[0]))
    if origin is set:
        members = kind_of(arguments[0])
        if members.can_change and members is not _ANY:
            raise DeclarationError(f"{name_of(of)} has members that can be changed")
        return SetKind(of, _NOTHING if members is _ANY else members)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind_of(argument) for argument in arguments]
        if any(kind.can_change for kind in kinds):
            return UnionKind(of, kinds)
        return Kind(of, frozenset().union(*(kind.plain for kind in kinds)))
    if _is_frozen(of, origin, arguments):
        return Kind(of, {of} & _ATOMS if isinstance(of, type) else ())
    if _is_object(of):
        return ObjectKind(of)
    raise DeclarationError(
        f"{name_of(of)} cannot be a field of a state machine: use dict, list, set, numbers, text, bytes, tuples, "
        "dates, enumerations, dataclasses or msgspec Structs, with the types of their contents"
    )


def _bare(of: Any, origin: Any, arguments: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
    """A type without Annotated, Final and NewType, and with the types of contents that it leaves open."""
    if origin in (typing.Annotated, typing.Final):
        return _bare(arguments[0], typing.get_origin(arguments[0]), typing.get_args(arguments[0]))
    if isinstance(of, typing.NewType):
        return _bare(of.__supertype__, typing.get_origin(of.__supertype__), typing.get_args(of.__supertype__))
    if of is dict:
        return dict[Any, Any], dict, (Any, Any)
    if of in (list, set):
        return of[Any], of, (Any,)
    if of is type(None) or of is None:
        return type(None), None, ()
    return of, origin, arguments


def _is_frozen(of: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether values of this type cannot be changed, nor anything in them."""
    if of in _LEAVES or origin is typing.Literal or (isinstance(of, type) and issubclass(of, enum.Enum)):
        return True
    if origin in (tuple, frozenset):
        return all(argument is Ellipsis or not kind_of(argument).can_change for argument in arguments)
    if not isinstance(of, type):
        return False
    if issubclass(of, tuple) and hasattr(of, "_fields"):
        return all(not kind_of(one).can_change for one in typing.get_type_hints(of).values())
    if _is_frozen_class(of):
        return all(not kind_of(one).can_change for one in _fields_of(of).values())
    return False


def _is_frozen_class(of: type) -> bool:
    if issubclass(of, msgspec.Struct):
        return bool(of.__struct_config__.frozen)
    return dataclasses.is_dataclass(of) and bool(getattr(of, "__dataclass_params__").frozen)  # noqa: B009


def _is_object(of: Any) -> bool:
    return isinstance(of, type) and (issubclass(of, msgspec.Struct) or dataclasses.is_dataclass(of))


def _fields_of(of: type) -> dict[str, Any]:
    hints = typing.get_type_hints(of)
    return {name: one for name, one in hints.items() if typing.get_origin(one) is not typing.ClassVar}


def is_ordered(of: Any) -> bool:
    """Whether any two values of this type can be compared, always with the same result."""
    of, origin, arguments = _bare(of, typing.get_origin(of), typing.get_args(of))
    if origin is tuple:
        return all(argument is Ellipsis or is_ordered(argument) for argument in arguments)
    return of in _ORDERED


def sort_key_of(of: Any) -> Callable[[Any], Any] | None:
    """What puts values of this type in order: their own order if they have one, or else that of their encodings."""
    if is_ordered(of):
        return None
    of, _, _ = _bare(of, typing.get_origin(of), typing.get_args(of))
    if of is float:
        return _float_sort_key
    if of in (datetime.datetime, datetime.time):
        return _time_sort_key
    if isinstance(of, type) and issubclass(of, enum.Enum):
        of_values = {type(one.value) for one in of}
        if len(of_values) == 1 and of_values <= {int, str}:
            return _value_sort_key
    return encode_canonical


def _float_sort_key(value: float) -> tuple[Any, ...]:
    return (True, encode(value)) if math.isnan(value) else (False, value)


def _time_sort_key(value: Any) -> tuple[Any, ...]:
    return value.tzinfo is None, value  # those with and those without a time zone cannot be compared


def _value_sort_key(value: enum.Enum) -> Any:
    return value.value


def name_of(of: Any) -> str:
    """A type as it is written in a program."""
    return of.__name__ if isinstance(of, type) and not typing.get_args(of) else str(of).replace("typing.", "")


_NOTHING = Kind(Any, _ATOMS)
_ANY = AnyKind()
_ANY_DICT = DictKind(dict[Any, Any], _NOTHING, _ANY)
_ANY_LIST = ListKind(list[Any], _ANY)
