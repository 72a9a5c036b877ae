"""The results of calls as bytes, and the exceptions that commands raise.

A result is None or its encoding; a raised exception is a byte that MessagePack never begins with, and a record. An
exception of a class of one's own is agreed on with its arguments and its text. Of one that the interpreter defines,
replicas agree on the class only, because its text may differ between versions of Python (docs/decisions/
exceptions-are-results.md); its text reaches the caller as `CommandRaised`.
"""

import builtins
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from pydsm.core.types.errors import PyDSMError
from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.machines.declared.kinds import encode_canonical
from pydsm.machines.failures import text_of

_RAISED = b"\xc1"
"""The first byte of a raised exception; no MessagePack value begins with it."""


class CommandError(PyDSMError):
    """A command raised an exception whose class is not known to this process, or that cannot be made again here.

    Attributes:
        error_type: the name of the class, with its module.
    """

    def __init__(self, error_type: str, text: str) -> None:
        super().__init__(f"{error_type}: {text}" if text else error_type)
        self.error_type = error_type


class NotAvailable(CommandError):
    """The command does not exist in the version of the state machine that the group executes now.

    It was not executed. Either not every replica has the new version of the class yet, or the caller has an older one.
    """

    def __init__(self, tag: str, version: int) -> None:
        CommandError.__init__(
            self,
            "NotAvailable",
            f"the group executes version {version} of the state machine, which has no command {tag!r}",
        )


class _Raised(msgspec.Struct, array_like=True):
    """An exception of a class of one's own."""

    module: str
    name: str
    text: str
    arguments: Any


class _Unknown(msgspec.Struct, array_like=True):
    """A call that the present version does not have."""

    tag: str
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode_raised = msgspec.msgpack.Decoder(_Raised).decode
_decode_unknown = msgspec.msgpack.Decoder(_Unknown).decode


def raised(error: BaseException) -> Result:
    """The result of a command that raised."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return CommandRaised(kind.__name__, text_of(error))
    try:
        arguments = encode_canonical(error.args)
        text = text_of(error)
        return _RAISED + _encode(_Raised(kind.__module__, kind.__qualname__, text, msgspec.Raw(arguments)))
    except Exception:
        return CommandRaised(f"{kind.__module__}.{kind.__qualname__}", "")


def not_available(tag: str, version: int) -> Result:
    """The result of a call that the present version does not have."""
    return _RAISED + _RAISED + _encode(_Unknown(tag, version))


def value_of(result: Result, decode: Callable[[bytes], Any], known: dict[str, type[BaseException]]) -> Any:
    """What a method returned, from the result of its call; raises what it raised.

    `known` are exception classes by module and name; others are looked for in the modules that are imported.
    """
    if result is None:
        return None
    if isinstance(result, bytes):
        if result[:1] != _RAISED:
            return decode(result)
        if result[1:2] == _RAISED:
            unknown = _decode_unknown(result[2:])
            raise NotAvailable(unknown.tag, unknown.version)
        raise _made_again(_decode_raised(result[1:]), known)
    if isinstance(result, CommandFailed):
        raise _builtin(result)
    raise CommandError("the result", f"is a {type(result).__name__}: the group has another state machine")


def _made_again(raised: _Raised, known: dict[str, type[BaseException]]) -> BaseException:
    kind = known.get(f"{raised.module}.{raised.name}") or _find(raised.module, raised.name)
    if kind is None:
        return CommandError(f"{raised.module}.{raised.name}", raised.text)
    try:
        return kind(*raised.arguments)
    except Exception:
        made = kind.__new__(kind)
        made.args = tuple(raised.arguments)
        return made


def _find(module: str, name: str) -> type[BaseException] | None:
    """An exception class of a module that is imported already: nothing that a replica names is imported."""
    owner: Any = sys.modules.get(module)
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner if isinstance(owner, type) and issubclass(owner, Exception) else None


def _builtin(failed: CommandFailed) -> BaseException:
    """The exception for a failure that is text: one that the interpreter defines, or a refusal of a replica."""
    name, _, text = failed.message.partition(": ")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text) if text else kind()
        except TypeError:
            return CommandError(name, text)
    return CommandError(name if name.replace(".", "").isidentifier() else "CommandFailed", failed.message)
