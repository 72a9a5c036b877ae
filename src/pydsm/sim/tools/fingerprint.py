"""Computes a replica's whole state as one comparable value, equal for equal states.

Leaves out objects that decide nothing (counters, settings) and the order of dict entries; includes everything else in
the object graph, so that a field that is added to the core later is included automatically.
"""

from collections.abc import Hashable, Iterator
from enum import Enum

import msgspec

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.counters import ProtocolCounters

_LEFT_OUT = (Config, ProtocolCounters, DeclaredKeys)


def fingerprint(replica: Replica) -> Hashable:
    """Equal for replicas that behave alike. Raises TypeError for an object that it does not support."""
    return _freeze(replica, set())


def _freeze(value: object, seen: set[int]) -> Hashable:
    if value is None or isinstance(value, int | float | str | bytes | Enum):
        return value
    if isinstance(value, tuple | list):
        return tuple(_freeze(one, seen) for one in value)
    if isinstance(value, dict):
        return tuple(sorted(((_freeze(key, seen), _freeze(one, seen)) for key, one in value.items()), key=repr))
    if isinstance(value, set | frozenset):
        return tuple(sorted((_freeze(one, seen) for one in value), key=repr))
    if isinstance(value, msgspec.Struct):
        return (type(value).__name__, *(_freeze(one, seen) for one in msgspec.structs.astuple(value)))
    if isinstance(value, _LEFT_OUT) or callable(value):
        return None
    if id(value) in seen:
        return "again"
    seen.add(id(value))
    return (type(value).__name__, *(_freeze(one, seen) for one in _fields(value)))


def _fields(value: object) -> Iterator[object]:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names += sorted(getattr(value, "__dict__", ()))
    if not names:
        raise TypeError(f"cannot take the fingerprint of a {type(value).__name__}: it has no fields")
    return (getattr(value, name) for name in names)
