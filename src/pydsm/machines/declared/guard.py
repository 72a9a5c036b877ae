"""Watches what commands really call, while a group is developed and tested.

Guarantees that a command that reads a clock, draws random numbers or does I/O fails with `NotDeterministic`, however
the function was imported, also if other code calls it for the command. It uses the profiler's hook of the thread, which
makes commands several times slower, and replaces a profiler while a command runs.
"""

import os
import sys
from types import FrameType
from typing import Any

from pydsm.machines.declared.agreed import AgreedValues
from pydsm.machines.declared.forbidden import reason_against_builtin


class NotDeterministic(RuntimeError):
    """A command called what is not the same at every replica."""


def is_development() -> bool:
    """Whether commands are watched unless a caller decides otherwise: with `python -X dev`, or PYDSM_GUARD=1."""
    return sys.flags.dev_mode or os.environ.get("PYDSM_GUARD", "") not in ("", "0")


class Guard:
    """Use as a context manager around each command."""

    __slots__ = ("_agreed", "_before", "_found")

    def __init__(self, agreed: AgreedValues) -> None:
        self._agreed = agreed
        self._before: Any = None
        self._found: str | None = None

    def __enter__(self) -> None:
        self._found = None
        self._before = sys.getprofile()
        sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        if self._found is not None:
            raise NotDeterministic(self._found)

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note the first call that is found. Not raised here: exceptions in this hook end the watching."""
        if event != "c_call" or self._found is not None:
            return
        caller = frame.f_globals.get("__name__", "")
        reason = reason_against_builtin(argument, caller, self._agreed.made_random)
        if reason is not None:
            code = frame.f_code
            module = getattr(argument, "__module__", None) or ""
            name = getattr(argument, "__qualname__", repr(argument))
            if module and module != "builtins":
                name = f"{module}.{name}"
            file = os.path.basename(code.co_filename)
            self._found = f"{file}:{frame.f_lineno}: {code.co_name} calls {name}: {reason}"
