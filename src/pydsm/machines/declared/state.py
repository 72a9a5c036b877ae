"""The fields of one state machine while it is replicated: noted when they change, checked, and undone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydsm.machines.declared.agreed import AgreedValues
from pydsm.machines.declared.containers import Root, Tracked, TrackedDict, TrackedList, TrackedSet, attach
from pydsm.machines.declared.journal import ABSENT, Journal
from pydsm.machines.declared.kinds import INT_MAX, INT_MIN, Kind

if TYPE_CHECKING:
    from pydsm.machines.declared.declaration import StateMachine


class State:
    """Of one machine object, which has it as `_state`. Field values stay attributes of that object."""

    __slots__ = ("_fields", "agreed", "journal", "kinds")

    def __init__(self, machine: "StateMachine") -> None:
        """Attach a machine object whose `__init__` has run. Raises DeclarationError for a field without a type."""
        declaration = type(machine)._declaration
        self.kinds: dict[str, Kind] = declaration.fields
        self.journal = Journal()
        self.agreed = AgreedValues()
        self._fields = machine.__dict__
        for name, value in self._fields.items():
            if name not in self.kinds:
                raise declaration.field_error(name, value)
        for name, kind in self.kinds.items():
            if name not in self._fields:
                if not hasattr(machine, name):
                    raise declaration.missing(name)
                self._fields[name] = getattr(machine, name)
            self.put(name, kind.checked(self._fields[name]))
        self._fields["_state"] = self

    def put(self, name: str, value: Any) -> None:
        """Give a field a checked value that nothing else refers to; not noted in the journal."""
        self._fields[name] = attach(value, self.kinds[name], Root(self.journal))

    def set_field(self, name: str, value: Any) -> None:
        """Give a field a value, which is checked and copied, and note it in the journal."""
        kind = self.kinds.get(name)
        if kind is None:
            raise TypeError(f"{name} is not a field: set it in __init__, with the annotation of its type")
        of = type(value)
        if of not in kind.plain or (of is int and not INT_MIN <= value <= INT_MAX):
            old = self._fields[name]
            if value is old:
                return
            if kind.can_change:
                self.journal.given.append((self, name))
            else:
                value = kind.checked(value)
        self.journal.changes.append((self._fields.__setitem__, name, self._fields.get(name, ABSENT)))
        self._fields[name] = value

    def adopt(self, key: str) -> None:
        """See `Adopts`."""
        self.put(key, self.kinds[key].checked(self._fields[key]))

    def containers(self) -> Iterator[tuple[str, Tracked]]:
        """The fields that are containers, in the order of their names."""
        for name in self.kinds:
            value = self._fields[name]
            if isinstance(value, TrackedDict | TrackedList | TrackedSet):
                yield name, value

    def value(self, name: str) -> Any:
        """The value of a field."""
        return self._fields[name]
