"""The object that a program calls: it has the commands and queries of a class, and sends each call to a group.

Decides how arguments become a call, and results and exceptions become those of the method. How calls reach the group,
and when they are given up, is left to `Execute`.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from pydsm.client.outcomes import OutcomeUnknown
from pydsm.machines.base import Result
from pydsm.machines.declared.declaration import StateMachine
from pydsm.machines.declared.generics import specialised
from pydsm.machines.declared.kinds import DeclarationError
from pydsm.machines.declared.results import value_of
from pydsm.machines.declared.signatures import Signature

M = TypeVar("M", bound=StateMachine)


class Execute(Protocol):
    """Executes one call, and gives its result as the machine made it."""

    def __call__(self, command: bytes, timeout_seconds: float | None) -> Coroutine[Any, Any, Result]:
        """`timeout_seconds` is None for the default. Raises CommandNotCompleted if there is no result."""
        ...


class Handle(Generic[M]):
    """Has a method for each command and query of a class. To a type checker it is an object of that class."""

    def __init__(self, cls: type[M], execute: Execute) -> None:
        self._cls = cls
        for attribute, signature in cls._declaration.signatures.items():
            self.__dict__[attribute] = _call(signature, execute)

    def __getattr__(self, name: str) -> NoReturn:
        cls = self._cls
        if name in cls._declaration.fields:
            raise AttributeError(f"{name} is a field of every replica; write a @query that returns what you need of it")
        raise AttributeError(f"{cls.__name__} has no command or query {name}")

    def __setattr__(self, name: str, value: object) -> None:
        if name != "_cls":
            raise AttributeError(f"{name} cannot be set from outside; write a @command that changes it")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<replicated {self._cls.__name__}>"


def handle(cls: type[M], execute: Execute) -> M:
    """A handle, typed as the class."""
    return cast(M, Handle(cls, execute))


def class_of(given: type[M]) -> type[M]:
    """The class that is meant, also by a generic class with its types, such as `Queue[Job]`.

    Raises DeclarationError unless it is a class of a state machine whose fields and methods can be encoded.
    """
    cls: Any = specialised(given)
    if not (isinstance(cls, type) and issubclass(cls, StateMachine)) or cls is StateMachine:
        raise DeclarationError(f"{cls!r} is not a class that inherits from StateMachine")
    _ = cls._declaration.signatures, cls._declaration.fields
    return cast(type[M], cls)


def _call(signature: Signature, execute: Execute) -> Callable[..., Coroutine[Any, Any, Any]]:
    encode = signature.encode

    async def result_of(command: bytes, timeout: float | None) -> Any:
        try:
            return value_of(await execute(command, timeout), signature)
        except OutcomeUnknown as unknown:
            ask = unknown.repeat

            async def again(timeout_seconds: float | None) -> Any:
                assert ask is not None, "set by who sent it"
                return value_of(await ask(timeout_seconds), signature)

            if ask is not None:
                unknown.repeat = again
            raise

    def call(*arguments: Any, timeout: float | None = None, **named: Any) -> Coroutine[Any, Any, Any]:
        return result_of(encode(arguments, named), timeout)

    call.__name__ = signature.method.attribute
    call.__doc__ = signature.method.__doc__
    return call
