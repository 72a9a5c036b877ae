"""What the dicts, lists and sets of a state have in common: they note what a command changes, and check types.

They behave as the builtin types do, except that dicts and sets are iterated in the order of their keys: commands that
do not conflict are executed in different orders at different replicas, so the order of insertion means nothing. A plain
container that is stored stays as it is until its command ends; then it is replaced by a copy (`Journal.settle`), so
each container in the state has one place. Reading an item costs nothing more than in a builtin type, unless items are
objects that can be changed: then the encoding of each object that a command gets is compared when it ends.
"""

from collections.abc import Iterator
from typing import Any

from pydsm.machines.declared.journal import ABSENT, Journal, Seen
from pydsm.machines.declared.kinds import Kind, encode_canonical


class Frozen:
    """What a snapshot in progress wants to know of one field."""

    def keep(self, entry: Any) -> None:
        """An entry of the field is about to change: of a dict its key, of a list the item that changes inside."""
        raise NotImplementedError  # abstract: each kind of container has its own

    def detach(self, copy: Any) -> None:
        """The whole content of the field is about to be removed; `copy` has it."""
        raise NotImplementedError  # abstract: each kind of container has its own


class Tracked:
    """A container of the state. `_entry` is the entry of the field that it is in; absent for the field itself."""

    __slots__ = ()

    _entry: Any
    _root: "Root"

    def tracked_items(self) -> Iterator[Any]:
        """The containers in it."""
        raise NotImplementedError  # abstract: each kind of container has its own


class Root:
    """What the containers of one field have in common: the journal of the machine, and a snapshot in progress."""

    __slots__ = ("changes", "frozen", "given", "journal")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.changes = journal.changes
        self.given = journal.given
        self.frozen: Frozen | None = None

    def see(self, owner: Any, key: Any, value: Any, kind: Kind, entry: Any) -> None:
        """A command gets an object of the state, which it may change."""
        seen = self.journal.seen
        if id(value) not in seen:
            if self.frozen is not None:
                self.frozen.keep(entry)
            seen[id(value)] = Seen(owner, key, value, kind, encode_canonical(value))


def set_entry(container: Tracked, entry: Any) -> None:
    """State of which entry of a list this container is a part, and all containers in it."""
    container._entry = entry
    for one in container.tracked_items():
        set_entry(one, entry)


__all__ = ["ABSENT", "Frozen", "Root", "Tracked", "set_entry"]
