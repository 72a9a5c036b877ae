"""Calls a user's machine so that what it raises is a result, at every replica alike (PROTOCOL 5).

Decides what becomes of a command that raises: it is answered `CommandRaised`, its effects are undone where the machine
offers that, and the other commands of its batch are executed. Guards that a command cannot stop the group: it would
stop every replica, and each of them again after a restart. What only this replica has met, such as a full disk, is no
result, since the others have not met it: that is raised, and ends the replica, which executes the batch again when it
is started again.
"""

from collections.abc import Callable, Sequence
from itertools import chain

from pydsm.core.types.errors import PyDSMError, UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import (
    CommandRaised,
    DurableStateMachine,
    HandlesFailures,
    LocalFaults,
    Result,
    StateMachine,
    SupportsReadSkipping,
    SupportsUndo,
)

_TEXT_CHARACTERS_MAX = 500
_NOT_UNDONE = "; what it had changed before that stays, because this state machine cannot undo"
_PERHAPS_IN_PART = "; commands of its batch may be executed in part, because this state machine cannot undo"

_Apply = Callable[[Sequence[bytes], int], list[Result]]

OnRaised = Callable[[BaseException], None]
"""Gets what a command raised, for the log."""


class WrongResults(Exception):
    """A machine gave another number of results than it got commands, or no list."""


class GuardedApply:
    """`StateMachine.apply` of one machine; raises only what is a fault of this replica.

    A machine that can undo gets whole batches, and single commands when one of them raises. One that cannot gets single
    commands at all times, because after a batch that raised nobody knows which of its commands were executed. One that
    promises to raise nothing (`HandlesFailures`) gets whole batches.
    """

    def __init__(self, machine: StateMachine, on_raised: OnRaised) -> None:
        self._machine = machine
        self._on_raised = on_raised
        self._undo = machine if isinstance(machine, SupportsUndo) else None
        self._handles_failures = isinstance(machine, HandlesFailures) and machine.handles_failures
        self._apply_unread = machine.apply_unread if isinstance(machine, SupportsReadSkipping) else machine.apply
        self._local_faults = _local_faults(machine)
        self.raised = 0
        """Commands that raised since the replica was started."""

    def __call__(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine.apply`."""
        return self._execute(self._machine.apply, commands, timestamp_ms)

    def unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """The same where nobody looks at the results: without what only reads, if the machine can leave that out."""
        return self._execute(self._apply_unread, commands, timestamp_ms)

    def _execute(self, apply: _Apply, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        if self._handles_failures:
            try:
                return _checked(apply(commands, timestamp_ms), len(commands))
            except self._local_faults:
                raise
            except BaseException as error:
                return [self._failed(error, _PERHAPS_IN_PART)] * len(commands)
        if self._undo is not None and len(commands) > 1:
            self._undo.savepoint()
            try:
                return _checked(apply(commands, timestamp_ms), len(commands))
            except self._local_faults:
                raise
            except BaseException:
                self._undo.rollback()
        return [self._execute_one(apply, command, timestamp_ms) for command in commands]

    def _execute_one(self, apply: _Apply, command: bytes, timestamp_ms: int) -> Result:
        if self._undo is not None:
            self._undo.savepoint()
        try:
            return _checked(apply((command,), timestamp_ms), 1)[0]
        except self._local_faults:
            raise
        except BaseException as error:
            if self._undo is None:
                return self._failed(error, _NOT_UNDONE)
            self._undo.rollback()
            return self._failed(error, "")

    def _failed(self, error: BaseException, remark: str) -> CommandRaised:
        self.raised += 1
        self._on_raised(error)
        return CommandRaised(type(error).__name__, text_of(error) + remark)


def _checked(results: object, commands: int) -> list[Result]:
    if not isinstance(results, list) or len(results) != commands:
        given = len(results) if isinstance(results, list) else type(results).__name__
        raise WrongResults(f"apply gave {given} for {commands} commands, and not a list with a result for each")
    return results


def _local_faults(machine: StateMachine) -> tuple[type[BaseException], ...]:
    """What says nothing about a command: the interpreter is to end, memory or the machine's disk is full.

    `PyDSMError` is what a machine raises on purpose to stop its replica (`core.types.errors.OperationalError`).
    """
    faults: tuple[type[BaseException], ...] = (KeyboardInterrupt, MemoryError, PyDSMError)
    if isinstance(machine, DurableStateMachine):
        faults += (OSError,)
    if isinstance(machine, LocalFaults):
        faults += machine.local_faults
    return faults


def guarded_footprint(machine: StateMachine, commands: Sequence[bytes]) -> Footprint:
    """`StateMachine.footprint`, with tuples where the machine gave other collections.

    Raises UsageError for whatever the machine raises, and for what is no footprint. Such a batch must not be proposed:
    the other replicas could not read it.
    """
    try:
        footprint = machine.footprint(commands)
    except (UsageError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"the machine's footprint raised {type(error).__name__}: {text_of(error)}") from error
    if isinstance(machine, HandlesFailures) and machine.handles_failures:
        return footprint
    if not isinstance(footprint, Footprint):
        raise UsageError(f"the machine's footprint gave a {type(footprint).__name__} and not a Footprint")
    try:
        footprint = Footprint(
            tuple(footprint.reads),
            tuple(footprint.writes),
            tuple((kind, tuple(keys)) for kind, keys in footprint.updates),
            bool(footprint.barrier),
        )
    except Exception as error:
        raise UsageError(f"the machine's footprint does not have keys in tuples: {text_of(error)}") from error
    kinds = [kind for kind, _ in footprint.updates]
    names = chain(footprint.reads, footprint.writes, kinds, *(keys for _, keys in footprint.updates))
    wrong = [type(name).__name__ for name in names if type(name) is not bytes]
    if wrong:
        raise UsageError(f"the machine's footprint names a key that is a {wrong[0]} and not bytes")
    if len(set(kinds)) != len(kinds):
        raise UsageError("the machine's footprint names one kind of update twice")
    return footprint


def text_of(error: BaseException) -> str:
    """What an exception says, cut to a length that a result may have. Never raises."""
    try:
        text = str(error)
    except Exception:
        return "its text cannot be had"
    return text[:_TEXT_CHARACTERS_MAX]
