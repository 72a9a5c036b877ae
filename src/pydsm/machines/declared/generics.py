"""Generic state machines: which types stand for the type variables of a class, such as `Job` in `Queue[Job]`."""

import types
import typing
from collections.abc import Mapping
from typing import Any

_specialised: dict[Any, type] = {}


def specialised(alias: Any) -> Any:
    """The class for a generic class with types, such as `Queue[Job]`, always the same one; other values as they are."""
    origin = typing.get_origin(alias)
    if not isinstance(origin, type):
        return alias
    if alias not in _specialised:
        arguments = ", ".join(getattr(one, "__name__", str(one)) for one in typing.get_args(alias))
        cls = types.new_class(f"{origin.__name__}[{arguments}]", (alias,))
        cls.__module__ = origin.__module__
        _specialised[alias] = cls
    return _specialised[alias]


def type_arguments(cls: type) -> dict[type, dict[Any, Any]]:
    """For each base of a class, and itself, what its type variables stand for."""
    found: dict[type, dict[Any, Any]] = {cls: {}}
    pending = [cls]
    while pending:
        one = pending.pop()
        for base in (*vars(one).get("__orig_bases__", ()), *one.__bases__):
            origin = typing.get_origin(base) or base
            if not isinstance(origin, type) or origin in found or origin is typing.Generic:
                continue
            parameters = getattr(origin, "__parameters__", ())
            arguments = [substituted(argument, found[one]) for argument in typing.get_args(base)]
            found[origin] = dict(zip(parameters, arguments, strict=False))
            pending.append(origin)
    return found


def substituted(of: Any, arguments: Mapping[Any, Any]) -> Any:
    """A type with its type variables replaced, as far as it is known by what."""
    if isinstance(of, typing.TypeVar):
        return arguments.get(of, of)
    parameters = getattr(of, "__parameters__", ())
    if isinstance(of, type) or not parameters:
        return of
    return of[tuple(arguments.get(parameter, parameter) for parameter in parameters)]
