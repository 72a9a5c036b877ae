"""The decorators `command` and `query`, and what they make of a method.

Decides which values of the arguments are the keys of a command. Types of arguments are looked at by `signatures`.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from pydsm.machines.declared.declaration import StateMachine

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S", bound="StateMachine")
S_contra = TypeVar("S_contra", bound="StateMachine", contravariant=True)


class Everything:
    """See `everything`."""

    def __repr__(self) -> str:
        return "everything"


everything: Final = Everything()
"""In `reads`, `writes` or `updates`: the command conflicts with every command of its machine."""

Keys = str | Sequence[str] | Callable[..., object] | Everything
"""Names of parameters, or a function of the arguments, or `everything`."""


class Footprints:
    """What a command declares of its keys, as it was given to the decorator."""

    __slots__ = ("kind", "reads", "updates", "writes")

    def __init__(self, reads: Keys | None, writes: Keys | None, updates: Keys | None, kind: str | None) -> None:
        self.reads = reads
        self.writes = writes
        self.updates = updates
        self.kind = kind

    @property
    def is_everything(self) -> bool:
        """Whether the command conflicts with every other one."""
        declared = (self.reads, self.writes, self.updates)
        return all(keys is None for keys in declared) or any(isinstance(keys, Everything) for keys in declared)

    def named(self) -> Iterable[str]:
        """The names of parameters in it."""
        for keys in (self.reads, self.writes, self.updates):
            if isinstance(keys, str):
                yield keys
            elif keys is not None and not callable(keys) and not isinstance(keys, Everything):
                yield from keys


class Call(Generic[P, R_co]):
    """A command or query of a replica or client: call it with the arguments of the method, and await the result."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    @overload
    def __call__(self, *args: Any, timeout: float | None, **kwargs: Any) -> Coroutine[Any, Any, R_co]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Execute it. `timeout` is in seconds, by default that of the replica or client.

        Raises:
            TypeError: the arguments do not have the annotated types; nothing was sent.
            CommandRaised: the method raised an exception whose class this process does not know. One that it knows
                is raised itself.
            CommandNotCompleted: there is no result; the class states what is known. `OutcomeUnknown` has `again()`.
        """
        raise NotImplementedError  # declares the type only: each handle has its own way to send a call


class Method(Generic[S_contra, P, R_co]):
    """A method of a state machine that `command` or `query` has decorated."""

    def __init__(
        self,
        function: Callable[Concatenate[S_contra, P], R_co],
        footprints: Footprints,
        *,
        is_query: bool,
        name: str | None,
        since: int,
        checked: bool,
    ) -> None:
        self.function = function
        self.footprints = footprints
        self.is_query = is_query
        self.since = since
        self.checked = checked
        self.name = name or function.__name__
        """The name in encoded commands, without the version."""
        self.attribute = function.__name__
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function

    @property
    def tag(self) -> str:
        """The name in encoded commands."""
        return self.name if self.since == 1 else f"{self.name}:{self.since}"

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Callable[Concatenate[S_contra, P], R_co]: ...

    @overload
    def __get__(self, instance: "StateMachine", owner: type[Any]) -> Call[P, R_co]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        """Of the class: the function itself, for commands that call each other. Of a machine: the bound method.

        A replica or client has a `Call` in its place; the types are those of such a handle.
        """
        return self.function if instance is None else self.function.__get__(instance, owner)


@overload
def command(function: Callable[Concatenate[S, P], R_co], /) -> Method[S, P, R_co]: ...


@overload
def command(
    *,
    reads: Keys | None = None,
    writes: Keys | None = None,
    updates: Keys | None = None,
    kind: str | None = None,
    name: str | None = None,
    since: int = 1,
    checked: bool = True,
) -> Callable[[Callable[Concatenate[S, P], R_co]], Method[S, P, R_co]]: ...


def command(
    function: Any = None,
    /,
    *,
    reads: Keys | None = None,
    writes: Keys | None = None,
    updates: Keys | None = None,
    kind: str | None = None,
    name: str | None = None,
    since: int = 1,
    checked: bool = True,
) -> Any:
    """Make a method a command: agreed on by the group, and executed by each replica in an order that all agree on.

    Two commands conflict if one writes or updates a key that the other reads or writes, or if both update one key in
    different ways; all others commute, which costs one round trip instead of up to two. Without keys, a command
    conflicts with every command of the machine: always right, and slower.

    Args:
        function: the method, where the decorator is used without arguments.
        reads: the keys that it reads: the name of a parameter, several names, a function of the arguments, or
            `everything`. The items of a list or set, and the keys of a dict, are one key each.
        writes: the keys that it reads and writes.
        updates: the keys that it changes in a way whose order does not matter; its result must not depend on the order
            either. `pydsm.testing.commutes` checks this.
        kind: the name of a family of updates that commute with each other; by default the command's own.
        name: the name in encoded commands; by default that of the method.
        since: the version of the machine that has this command first, or that changed its parameters. Keep the older
            one, under another method name, as long as clients of an older version may send it.
        checked: whether the source is searched for what must not be in a command (`time.time`, `random`, ...).
    """
    footprints = Footprints(reads, writes, updates, kind)
    return _decorate(function, footprints, is_query=False, name=name, since=since, checked=checked)


@overload
def query(function: Callable[Concatenate[S, P], R_co], /) -> Method[S, P, R_co]: ...


@overload
def query(
    *, reads: Keys | None = None, name: str | None = None, since: int = 1, checked: bool = True
) -> Callable[[Callable[Concatenate[S, P], R_co]], Method[S, P, R_co]]: ...


def query(
    function: Any = None,
    /,
    *,
    reads: Keys | None = None,
    name: str | None = None,
    since: int = 1,
    checked: bool = True,
) -> Any:
    """Make a method a query: it sees the effects of every command that was completed before, and changes nothing.

    The arguments are those of `command`. Without `reads`, it conflicts with every command of the machine. A query that
    changes a field fails with TypeError, and the change is undone.
    """
    return _decorate(
        function, Footprints(reads, None, None, None), is_query=True, name=name, since=since, checked=checked
    )


def _decorate(
    function: Any, footprints: Footprints, *, is_query: bool, name: str | None, since: int, checked: bool
) -> Any:
    def decorate(given: Any) -> Method[Any, Any, Any]:
        return Method(given, footprints, is_query=is_query, name=name, since=since, checked=checked)

    return decorate if function is None else decorate(function)
