"""The fields of one state machine while it is replicated: noted when they change, checked, and undone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydsm.machines.declared.agreed import AgreedValues
from pydsm.machines.declared.attaching import attach
from pydsm.machines.declared.journal import ABSENT, Journal
from pydsm.machines.declared.kinds import Kind, needs_check
from pydsm.machines.declared.tracking import Root, Tracked

if TYPE_CHECKING:
    from pydsm.machines.declared.declaration import StateMachine


class State:
    """Of one machine object, which has it as `_state`. Field values stay attributes of that object."""

    __slots__ = ("_fields", "_objects", "_root", "agreed", "journal", "kinds")

    def __init__(self, machine: "StateMachine") -> None:
        """Attach a machine object whose `__init__` has run. Raises DeclarationError for a field without a type."""
        declaration = type(machine)._declaration
        self.kinds: dict[str, Kind] = declaration.fields
        self.journal = Journal()
        self.agreed = AgreedValues()
        self._root = Root(self.journal)
        self._fields = machine.__dict__
        self._objects: dict[str, Any] = {}
        """Fields that are objects which can be changed: not attributes, so that `get_object` is called for them."""
        for name, value in self._fields.items():
            if name not in self.kinds:
                raise declaration.field_error(name, value)
        for name, kind in self.kinds.items():
            if name not in self._fields:
                if not hasattr(machine, name):
                    raise declaration.missing(name)
                self._fields[name] = getattr(machine, name)
            try:
                self.put(name, kind.checked(self._fields[name]))
            except (TypeError, OverflowError) as error:
                raise declaration.wrong_value(name, error) from None
        self._fields["_state"] = self

    def put(self, name: str, value: Any) -> None:
        """Give a field a checked value that nothing else refers to; not noted in the journal."""
        kind = self.kinds[name]
        self.put_back(name, attach(value, kind, Root(self.journal)))

    def put_back(self, key: str, value: Any) -> None:
        """Give a field a value of the state."""
        if value is ABSENT:
            self._fields.pop(key, None)
        elif (
            self.kinds[key].has_objects and type(value) not in self.kinds[key].plain and not isinstance(value, Tracked)
        ):
            self._fields.pop(key, None)
            self._objects[key] = value
        else:
            self._objects.pop(key, None)
            self._fields[key] = value

    def get_object(self, name: str) -> Any:
        """A field that is an object, which the command may change. Raises AttributeError if there is none."""
        try:
            value = self._objects[name]
        except KeyError:
            raise AttributeError(f"the state machine has no field {name}") from None
        self._root.see(self, name, value, self.kinds[name], name)
        return value

    def set_field(self, name: str, value: Any) -> None:
        """Give a field a value, which is checked and copied, and note it in the journal."""
        kind = self.kinds.get(name)
        if kind is None:
            raise TypeError(f"{name} is not a field: set it in __init__, with the annotation of its type")
        of, old = type(value), self.value(name)
        if of not in kind.plain or needs_check(value, of):
            if value is old:
                return
            if kind.can_change:
                self.journal.given.append((self, name))
            else:
                value = kind.checked(value)
        self.journal.changes.append((self.put_back, name, old))
        self._objects.pop(name, None)
        self._fields[name] = value

    def adopt(self, key: str) -> None:
        """See `Adopts`."""
        self.put(key, self.kinds[key].checked(self.value(key)))

    def restore_object(self, key: str, value: Any, before: Any) -> None:
        """Put an object back as it was before the command, which may have changed it."""
        if self._objects.get(key) is value:
            self._objects[key] = before

    def adopt_object(self, key: str, value: Any) -> None:
        """The object in this field was changed."""
        if self._objects.get(key) is value:
            self.adopt(key)

    def containers(self) -> Iterator[tuple[str, Tracked]]:
        """The fields that are containers, in the order of their names."""
        for name in self.kinds:
            value = self.value(name)
            if isinstance(value, Tracked):
                yield name, value

    def value(self, name: str) -> Any:
        """The value of a field."""
        return self._objects[name] if name in self._objects else self._fields[name]
