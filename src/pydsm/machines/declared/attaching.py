"""Makes checked values a part of the state."""

from typing import Any

from pydsm.machines.declared.journal import ABSENT
from pydsm.machines.declared.kinds import DictKind, Kind, ListKind, SetKind
from pydsm.machines.declared.tracking import Root


def attach(value: Any, kind: Kind, root: Root, entry: Any = ABSENT) -> Any:
    """A checked value as it is in the state: with containers that note their changes."""
    from pydsm.machines.declared.dicts import ObjectDict, TrackedDict  # noqa: PLC0415 - they attach what is in them
    from pydsm.machines.declared.lists import ObjectList, TrackedList  # noqa: PLC0415
    from pydsm.machines.declared.sets import TrackedSet  # noqa: PLC0415

    member = kind.member(value)
    if isinstance(member, DictKind):
        return (ObjectDict if member.values.has_objects else TrackedDict)(value, member, root, entry)
    if isinstance(member, ListKind):
        return (ObjectList if member.values.has_objects else TrackedList)(value, member, root, entry)
    return TrackedSet(value, member, root, entry) if isinstance(member, SetKind) else value
