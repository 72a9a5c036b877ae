"""What a command has changed so far, so that it can be undone if it raises.

Guarantees that after `undo` every field has the value that it had at the last `clear`. The containers of the state
append to `changes` before they change; see `tracking`.
"""

from typing import Any, Protocol

from pydsm.machines.declared.kinds import encode_canonical


class Absent:
    """Stands for a missing value where None is one."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


class Adopts(Protocol):
    """A part of the state that was given plain containers or objects in the present command."""

    def adopt(self, key: Any) -> None:
        """Replace what was given under this key by a checked copy. Raises TypeError for a wrong type."""
        ...


class Journal:
    """Of one state machine. The lists are never replaced, so that others may hold them."""

    __slots__ = ("changes", "given", "seen")

    def __init__(self) -> None:
        self.changes: list[tuple[Any, ...]] = []
        """Each change: a function that undoes it, and the arguments of that."""
        self.given: list[tuple[Adopts, Any]] = []
        """Where the present command has put plain containers or objects, which are copied when it ends."""
        self.seen: dict[int, tuple[Any, Any, Any, bytes]] = {}
        """The objects that the present command has got, by `id`: where each is, and its encoding before."""

    def undo(self) -> None:
        """Undo all changes, the last one first."""
        self.given.clear()
        self.seen.clear()
        changes = self.changes
        while changes:
            undo, *arguments = changes.pop()
            undo(*arguments)

    def settle(self) -> None:
        """The command has ended: copy what it has put into the state, so that no other reference to it is left.

        Raises TypeError if something in it does not have the type of its field.
        """
        for owner, key, value, before in self.seen.values():
            if encode_canonical(value) != before:
                owner.adopt_object(key, value)
        given = self.given
        while given:
            part, key = given.pop()
            part.adopt(key)
        self.seen.clear()

    @property
    def has_changes(self) -> bool:
        """Whether the present command has changed anything."""
        return len(self.changes) > len(self.seen) or any(
            encode_canonical(value) != before for _, _, value, before in self.seen.values()
        )
