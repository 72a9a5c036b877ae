"""Bugs in the handling of a command that raises."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from pydsm.machines import failures
from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.runtime import results
from tests.sim.injected.registry import bug


@bug("5, a command that raises is a result (9, PySyncObj)")
def exception_of_a_command_ends_the_replica(patch: pytest.MonkeyPatch) -> None:
    def apply(self: failures.GuardedApply, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        return self._machine.apply(commands, timestamp_ms)

    patch.setattr(failures.GuardedApply, "__call__", apply)


@bug("5, a command that raises: its effects are undone")
def effects_of_a_raising_command_kept(patch: pytest.MonkeyPatch) -> None:
    original = failures.GuardedApply._execute_one

    def execute_one(
        self: failures.GuardedApply,
        apply: Callable[[Sequence[bytes], int], list[Result]],
        command: bytes,
        timestamp_ms: int,
    ) -> Result:
        undo, self._undo = self._undo, None
        try:
            return original(self, apply, command, timestamp_ms)
        finally:
            self._undo = undo

    patch.setattr(failures.GuardedApply, "_execute_one", execute_one)


@bug("5, a command that raises: the rest of its batch is executed once")
def batch_executed_again_on_top_of_itself(patch: pytest.MonkeyPatch) -> None:
    original = failures.GuardedApply.__call__

    def apply(self: failures.GuardedApply, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        if self._undo is not None and len(commands) > 1:
            try:
                return self._machine.apply(commands, timestamp_ms)
            except Exception:
                return [self._execute_one(self._machine.apply, command, timestamp_ms) for command in commands]
        return original(self, commands, timestamp_ms)

    patch.setattr(failures.GuardedApply, "__call__", apply)


@bug("5, a command that raises: the rest of its batch is executed")
def whole_batch_fails_with_one_command(patch: pytest.MonkeyPatch) -> None:
    original = failures.GuardedApply.__call__

    def apply(self: failures.GuardedApply, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        if self._undo is None or len(commands) == 1:
            return original(self, commands, timestamp_ms)
        self._undo.savepoint()
        try:
            return self._machine.apply(commands, timestamp_ms)
        except Exception as error:
            self._undo.rollback()
            return [CommandRaised(type(error).__name__, "")] * len(commands)

    patch.setattr(failures.GuardedApply, "__call__", apply)


@bug("5, a command that raises: every replica keeps the same result")
def text_of_an_exception_kept(patch: pytest.MonkeyPatch) -> None:
    original = results._extended

    def extended(value: object) -> object:
        if isinstance(value, CommandRaised):
            return original(CommandFailed(value.message))
        return original(value)

    encode = msgspec.msgpack.Encoder(enc_hook=extended).encode
    patch.setattr(results, "_encode", encode)
