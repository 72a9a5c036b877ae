"""What a command has changed so far, so that it can be undone if it raises.

Guarantees that after `undo` every field has the value that it had at the last `clear`. The containers of the state
append to `changes` before they change; see `tracking`.
"""

from typing import Any, NamedTuple, Protocol

from pydsm.machines.declared.kinds import Kind, encode_canonical


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


class Seen(NamedTuple):
    """An object of the state that a command has got, and may have changed."""

    owner: Any
    """The part of the state that it was in."""
    key: Any
    """Where it was in its owner when the command got it; the items of a list may have moved since."""
    value: Any
    kind: Kind
    before: bytes
    """Its encoding when the command got it."""

    @property
    def has_changed(self) -> bool:
        """Whether its encoding is another one now."""
        return encode_canonical(self.value) != self.before


class Journal:
    """Of one state machine. The lists are never replaced, so that others may hold them."""

    __slots__ = ("changes", "given", "seen")

    def __init__(self) -> None:
        self.changes: list[tuple[Any, ...]] = []
        """Each change: a function that undoes it, and the arguments of that."""
        self.given: list[tuple[Adopts, Any]] = []
        """Where the present command has put plain containers or objects, which are copied when it ends."""
        self.seen: dict[int, Seen] = {}
        """The objects that the present command has got, by `id`."""

    def undo(self) -> None:
        """Undo all changes, the last one first."""
        self.given.clear()
        changes = self.changes
        while changes:
            undo, *arguments = changes.pop()
            undo(*arguments)
        # After the containers, because a change that was undone may have put an object back as the command left it.
        for one in self.seen.values():
            one.owner.restore_object(one.key, one.value, one.kind.decode(one.before))
        self.seen.clear()

    def settle(self) -> None:
        """The command has ended: copy what it has put into the state, so that no other reference to it is left.

        Raises TypeError if something in it does not have the type of its field.
        """
        for one in self.seen.values():
            if one.has_changed:
                one.owner.adopt_object(one.key, one.value)
        given = self.given
        while given:
            part, key = given.pop()
            part.adopt(key)
        self.seen.clear()

    @property
    def has_changes(self) -> bool:
        """Whether the present command has changed anything."""
        return bool(self.changes) or any(one.has_changed for one in self.seen.values())
