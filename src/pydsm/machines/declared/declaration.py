"""The class `StateMachine`, and what a class that inherits from it declares.

Decides what is an error at the definition of the class; types are resolved at its first use, because annotations may
name classes that are defined later.
"""

import ast
import datetime
import inspect
import sys
import textwrap
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from pydsm.machines.declared.agreed import AgreedValues
from pydsm.machines.declared.generics import substituted, type_arguments
from pydsm.machines.declared.kinds import DeclarationError, Kind, kind_of, name_of
from pydsm.machines.declared.methods import Method
from pydsm.machines.declared.signatures import Signature
from pydsm.machines.declared.sources import check_source
from pydsm.machines.declared.state import State

_RESERVED_PARAMETERS = frozenset({"timeout"})


class StateMachine:
    """Inherit from this: the fields are the state, `command` and `query` methods are what the group agrees on.

    Fields are set in `__init__`, which takes no arguments, with annotations of their types; `__init__` must do the same
    at every replica. Fields may be numbers, text, bytes, dates, tuples, enumerations, dataclasses and msgspec Structs,
    and dict, list and set of these. Dicts and sets are iterated in the order of their keys, because replicas may insert
    in different orders; use a list where order matters.

    A command that raises changes nothing: its effects are undone at every replica, and its caller gets the exception.

    Attributes:
        version: 1 unless the class says otherwise. Raise it together with the fields or with what commands do.
        former: the class of the version before, which executes until every replica has the new version.
    """

    version: ClassVar[int] = 1
    """Raise it together with the fields or the behaviour of commands; then give `former` and `migrate` too."""
    former: ClassVar[type["StateMachine"] | None] = None
    """The class of the version before, which executes commands until every replica has the new version."""

    _state: State | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._declaration = Declaration(cls, _names_where_defined())

    _declaration: ClassVar["Declaration"]

    def migrate(self, former: Any) -> None:
        """Set the fields from those of a machine of the version before; called on a new machine of this version.

        It must do the same at every replica. What it takes over from `former` is copied.
        """
        # Only a class with a former version needs it, so it cannot be abstract.
        raise NotImplementedError(f"{type(self).__name__} has a former version, and so needs a method migrate")

    @property
    def now(self) -> datetime.datetime:
        """The agreed time (UTC, in milliseconds), the same at every replica.

        Raises RuntimeError outside of commands and queries.
        """
        return self._agreed.now

    @property
    def random(self) -> Random:
        """A source of random numbers that are the same at every replica, and different for each call of a command."""
        return self._agreed.random

    def uuid(self) -> uuid.UUID:
        """A random UUID (version 4) that is the same at every replica, and unique."""
        return self._agreed.uuid()

    @property
    def _agreed(self) -> AgreedValues:
        state = self.__dict__.get("_state")
        if state is None or state.agreed.call is None:
            raise RuntimeError("agreed time and random numbers exist only while a command or query is executed")
        return typing.cast(AgreedValues, state.agreed)

    if not TYPE_CHECKING:  # so that a type checker knows which attributes a class has

        def __getattr__(self, name: str) -> Any:
            state = self.__dict__.get("_state")
            if state is None:
                raise AttributeError(f"{type(self).__name__} has no field {name}")
            return state.get_object(name)

        def __setattr__(self, name: str, value: Any) -> None:
            state = self.__dict__.get("_state")
            if state is None or (name not in state.kinds and isinstance(getattr(type(self), name, None), property)):
                object.__setattr__(self, name, value)
            else:
                state.set_field(name, value)

        def __delattr__(self, name: str) -> None:
            raise TypeError(f"{name} is a field of a state machine: set it to another value, it cannot be deleted")


class Declaration:
    """What a class declares: its methods by tag, and its fields."""

    def __init__(self, cls: type[StateMachine], local_names: Mapping[str, Any]) -> None:
        self.cls = cls
        self._names = local_names
        self.methods: dict[str, Method[Any, Any, Any]] = {}
        """The commands and queries by attribute."""
        for base in reversed(cls.__mro__):
            for attribute, value in vars(base).items():
                if isinstance(value, Method):
                    self.methods[attribute] = value
                else:
                    self.methods.pop(attribute, None)
        self._check()

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.cls.__qualname__.rpartition("<locals>.")[2]

    def _check(self) -> None:
        tags: dict[str, str] = {}
        for attribute, method in self.methods.items():
            where = f"{self.name}.{attribute}"
            if inspect.iscoroutinefunction(method.function) or inspect.isgeneratorfunction(method.function):
                raise DeclarationError(f"{where} must be an ordinary function: def, without yield")
            if tags.setdefault(method.tag, attribute) != attribute:
                raise DeclarationError(
                    f"{where} and {tags[method.tag]} have one name in encoded commands: give one of them name= or "
                    "since="
                )
            if method.since > self.cls.version:
                raise DeclarationError(
                    f"{where} has since={method.since}, but the class has version {self.cls.version}"
                )
            self._check_parameters(where, method)
            if method.checked and vars(self.cls).get(attribute) is method:
                check_source(method.function, where, self.cls)
        self._check_class_attributes()
        if inspect.isfunction(initialise := vars(self.cls).get("__init__")):
            check_source(initialise, f"{self.name}.__init__", self.cls)
        former = self.cls.former
        if former is not None and former.version != self.cls.version - 1:
            raise DeclarationError(
                f"{self.name} has version {self.cls.version}, so its former class must have version "
                f"{self.cls.version - 1}, not {former.version}"
            )

    def _check_class_attributes(self) -> None:
        """Refuse what commands could change or keep outside of the fields."""
        annotated = inspect.get_annotations(self.cls)
        for name, value in vars(self.cls).items():
            where = f"{self.name}.{name}"
            if isinstance(value, cached_property) or hasattr(value, "cache_parameters"):
                raise DeclarationError(
                    f"{where} keeps a result at each replica alone, which is wrong when fields change: use an ordinary "
                    "method or property"
                )
            if type(value) in (dict, list, set) and name not in annotated and not name.startswith("__"):
                raise DeclarationError(
                    f"{where} is a {type(value).__name__} without a type: annotate it to make it a field, or as "
                    "ClassVar if nothing changes it"
                )

    @staticmethod
    def _check_parameters(where: str, method: Method[Any, Any, Any]) -> None:
        parameters = list(inspect.signature(method.function).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise DeclarationError(f"{where} takes *{parameter.name}: name each parameter, with its type")
            if parameter.name in _RESERVED_PARAMETERS:
                raise DeclarationError(f"{where} has a parameter {parameter.name}, which every call has already")
            if parameter.annotation is parameter.empty:
                raise DeclarationError(f"{where} has no type for {parameter.name}: annotate it")
        names = {parameter.name for parameter in parameters}
        for name in method.footprints.named():
            if name not in names:
                raise DeclarationError(
                    f"{where} declares the key {name!r}, but has no such parameter; it has "
                    f"{', '.join(sorted(names)) or 'none'}"
                )

    @cached_property
    def draws(self) -> bool:
        """Whether any method may use random numbers, so that calls carry some."""
        return any(
            bool({"random", "uuid"} & set(_names_in(value.function if isinstance(value, Method) else value)))
            for base in self.cls.__mro__
            if base not in (StateMachine, object)
            for value in vars(base).values()
            if callable(value) or isinstance(value, Method)
        )

    @cached_property
    def signatures(self) -> dict[str, Signature]:
        """What can be called, by attribute. Raises DeclarationError."""
        return {
            attribute: Signature(method, f"{self.name}.{attribute}", self._hints(method), has_entropy=self.draws)
            for attribute, method in self.methods.items()
        }

    @cached_property
    def by_tag(self) -> dict[str, Signature]:
        """What can be called, by tag."""
        return {signature.method.tag: signature for signature in self.signatures.values()}

    @cached_property
    def fields(self) -> dict[str, Kind]:
        """The fields with their kinds, in the order of their names. Raises DeclarationError."""
        found: dict[str, Any] = {}
        for base in reversed(self.cls.__mro__):
            if base not in (StateMachine, object):
                found.update(self._annotated(base))
        kinds = {}
        for name, of in sorted(found.items()):
            try:
                kinds[name] = kind_of(of)
            except DeclarationError as error:
                raise DeclarationError(f"{self.name}.{name}: {error}") from None
        return kinds

    def _annotated(self, base: type) -> Iterator[tuple[str, Any]]:
        scope = {**_globals_of(base), **self._names}
        for name, of in inspect.get_annotations(base).items():
            value = self._evaluate(of, scope, f"{base.__name__}.{name}")
            if typing.get_origin(value) is not ClassVar and value is not ClassVar:
                yield name, self._substituted(value, base)
        initialise = vars(base).get("__init__")
        if initialise is not None:
            for name, text in _annotations_in(initialise):
                yield name, self._substituted(self._evaluate(text, scope, f"{base.__name__}.{name}"), base)

    def _substituted(self, of: Any, owner: type) -> Any:
        """A type without type variables. Raises DeclarationError for one that stands for nothing."""
        of = substituted(of, self._type_arguments[owner])
        left = [of] if isinstance(of, typing.TypeVar) else list(getattr(of, "__parameters__", ()))
        if left and not isinstance(of, type):
            raise DeclarationError(
                f"{self.name} is generic in {left[0].__name__}: name the type, {self.name}[...], or inherit from that"
            )
        return of

    @cached_property
    def _type_arguments(self) -> dict[type, dict[Any, Any]]:
        return type_arguments(self.cls)

    def _evaluate(self, of: Any, scope: Mapping[str, Any], where: str) -> Any:
        if not isinstance(of, str):
            return of
        try:
            return eval(of, dict(scope))
        except Exception as error:
            raise DeclarationError(f"the type of {where}, {of}, cannot be evaluated: {error}") from None

    def _hints(self, method: Method[Any, Any, Any]) -> dict[str, Any]:
        function = method.function
        try:
            hints = typing.get_type_hints(function, localns=dict(self._names), include_extras=True)
            owner = next(base for base in self.cls.__mro__ if method in vars(base).values())
            return {name: self._substituted(of, owner) for name, of in hints.items()}
        except DeclarationError:
            raise
        except Exception as error:
            raise DeclarationError(f"the types of {function.__qualname__} cannot be evaluated: {error}") from None

    def wrong_value(self, name: str, error: Exception) -> DeclarationError:
        """What is wrong with a field that `__init__` sets to a value of another type."""
        return DeclarationError(f"{self.name}.{name} has another type after __init__: {error}")

    def missing(self, name: str) -> DeclarationError:
        """What is wrong with a field that is annotated but has no value."""
        return DeclarationError(f"{self.name}.{name} has no value after __init__: set it there")

    def field_error(self, name: str, value: object) -> DeclarationError:
        """What is wrong with a field that has a value but no kind."""
        if not _has_source(self.cls):
            return DeclarationError(
                f"{self.name}.{name} has no type: the source of __init__ is not available here, so annotate {name} in "
                "the body of the class"
            )
        return DeclarationError(
            f"{self.name}.{name} has no type: write self.{name}: {name_of(type(value))}[...] = ... in __init__, "
            f"or annotate {name} in the body of the class"
        )


def _globals_of(base: type) -> dict[str, Any]:
    """The global names where a class is defined."""
    for value in vars(base).values():
        function = value.function if isinstance(value, Method) else value
        if inspect.isfunction(function):
            return function.__globals__
    return vars(sys.modules[base.__module__])


def _has_source(cls: type) -> bool:
    try:
        inspect.getsource(vars(cls)["__init__"])
    except (KeyError, OSError, TypeError):
        return False
    return True


def _annotations_in(initialise: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """The fields that an `__init__` annotates, with the texts of their types."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(initialise)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Attribute)
            and isinstance(node.target.value, ast.Name)
            and node.target.value.id == "self"
        ):
            yield node.target.attr, ast.unparse(node.annotation)


def _names_in(function: Any) -> Iterator[str]:
    """The names that a function mentions, also in functions inside it."""
    code = getattr(function, "__code__", None)
    pending = [code] if code is not None else []
    while pending:
        one = pending.pop()
        yield from one.co_names
        pending += [constant for constant in one.co_consts if inspect.iscode(constant)]


def _names_where_defined() -> dict[str, Any]:
    """The local names of the function in which the class is defined; nothing for a class of a module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name == "__init_subclass__":
        frame = frame.f_back
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
