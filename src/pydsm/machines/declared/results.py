"""The results of calls as bytes, and the exceptions that commands raise.

A result is None or its encoding; a raised exception is a byte that MessagePack never begins with, and a record. An
exception of a class of one's own is agreed on with its arguments and its text. Of one that Python defines, replicas
agree on the class only, because its text may differ between versions of Python; the text reaches the caller as
`CommandRaised`. See docs/decisions/exceptions-are-results.md.
"""

import ast
import builtins
import sys
from typing import Any

import msgspec

from pydsm.core.types.errors import PyDSMError
from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.machines.declared.kinds import encode_canonical
from pydsm.machines.declared.signatures import Signature
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
    """An exception of a class of one's own.

    Without the module of the class: a script is `__main__` at one replica, and has its name at another.
    """

    name: str
    text: str
    arguments: Any
    attributes: Any = None
    """What it has besides, by name; None if that cannot be encoded."""


class _Unknown(msgspec.Struct, array_like=True):
    """A call that the present version does not have."""

    tag: str
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode_raised = msgspec.msgpack.Decoder(_Raised).decode
_decode_unknown = msgspec.msgpack.Decoder(_Unknown).decode


def is_own(kind: type[BaseException]) -> bool:
    """Whether a user has defined this class of exceptions, and not Python or the encoder of values."""
    return kind.__module__.partition(".")[0] not in _NOT_OWN


_NOT_OWN = frozenset({*sys.stdlib_module_names, "builtins", "msgspec"})


def raised(error: BaseException) -> Result:
    """The result of a command that raised."""
    kind = type(error)
    if not is_own(kind):
        return CommandRaised(kind.__qualname__, text_of(error))
    try:
        arguments = encode_canonical(error.args)
        text = text_of(error)
        return _RAISED + _encode(_Raised(kind.__qualname__, text, msgspec.Raw(arguments), _attributes(error)))
    except Exception:
        return CommandRaised(kind.__qualname__, "")


def _attributes(error: BaseException) -> msgspec.Raw | None:
    try:
        return msgspec.Raw(encode_canonical(vars(error)))
    except Exception:
        return None


def not_available(tag: str, version: int) -> Result:
    """The result of a call that the present version does not have."""
    return _RAISED + _RAISED + _encode(_Unknown(tag, version))


def value_of(result: Result, signature: Signature) -> Any:
    """What a method returned, from the result of its call; raises what it raised."""
    if result is None:
        return None
    if isinstance(result, bytes):
        if result[:1] != _RAISED:
            return signature.decode_result(result)
        if result[1:2] == _RAISED:
            unknown = _decode_unknown(result[2:])
            raise NotAvailable(unknown.tag, unknown.version)
        raise _made_again(_decode_raised(result[1:]), signature)
    if isinstance(result, CommandFailed):
        raise _from_text(result, signature)
    raise CommandError("the result", f"is a {type(result).__name__}: the group has another state machine")


def _made_again(raised: _Raised, signature: Signature) -> BaseException:
    kind = _find(raised.name, signature)
    if kind is None or issubclass(kind, _ENDS_ITERATION):
        return CommandError(raised.name, raised.text)
    made: Exception | None = None
    try:
        made = kind(*raised.arguments)
        is_same = encode_canonical(made.args) == encode_canonical(raised.arguments)
    except Exception:
        is_same = False
    if made is None or not is_same:  # its __init__ takes other arguments than those that it gives to Exception
        made = kind.__new__(kind)
        made.args = tuple(raised.arguments)
    if raised.attributes and _attributes(made) != encode_canonical(raised.attributes):
        made.__dict__.update(raised.attributes)
    return made


_ENDS_ITERATION = (StopIteration, StopAsyncIteration)
"""Exceptions that a coroutine cannot raise: `await` would give a RuntimeError instead."""


def _find(name: str, signature: Signature) -> type[Exception] | None:
    """An exception class that this process has: in the module of the state machine, or the only one of this name.

    Nothing that a replica names is imported.
    """
    owner: Any = signature.method.function.__globals__
    for part in name.split("."):
        owner = owner.get(part) if isinstance(owner, dict) else getattr(owner, part, None)
    if isinstance(owner, type) and issubclass(owner, Exception):
        return owner
    found, pending = [], [Exception]
    while pending:
        for one in type.__subclasses__(pending.pop()):
            pending.append(one)
            if one.__qualname__ == name and one not in found and one.__module__ != "builtins":
                found.append(one)
    return found[0] if len(found) == 1 else None


def _from_text(failed: CommandFailed, signature: Signature) -> BaseException:
    """The exception for a failure that is text: of a class that the interpreter defines, or a refusal of a replica."""
    name, _, text = failed.message.partition(": ")
    kind = getattr(builtins, name, None) or _find(name, signature)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        if not issubclass(kind, Exception) or issubclass(kind, _ENDS_ITERATION):
            return CommandError(name, text)
        try:
            if kind is KeyError:
                return KeyError(ast.literal_eval(text))  # its text is the repr of its argument
        except (ValueError, SyntaxError):
            return KeyError(text)
        try:
            return kind(text) if text else kind()
        except TypeError:
            return CommandError(name, text)
    return CommandError("CommandFailed", failed.message)
