"""Calls a user's machine so that an exception becomes a result, the same on every replica.

See docs/reference/protocol.md#5-execution. Decides how a command that raises is handled: its result is
`CommandRaised`, its effects are undone if the machine supports that, and the other commands of its batch are executed.
Guarantees that a command cannot stop the group: otherwise it would stop every replica, and each of them again after a
restart. A fault of this replica alone, such as a full disk, is not a result, because the others do not have it: it is
raised and stops the replica, which executes the batch again at its next start.
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
"""Receives the exception that a command raised, for the log."""


class WrongResults(Exception):
    """`apply` did not return a list with one result for each command."""


class GuardedApply:
    """`StateMachine.apply` of one machine; raises only faults of this replica.

    A machine that supports undo gets whole batches, and single commands after a batch raised. A machine that does not
    always gets single commands, because after a batch raised it would be unknown which of its commands were executed.
    A machine that promises to raise nothing (`HandlesFailures`) gets whole batches.
    """

    def __init__(self, machine: StateMachine, on_raised: OnRaised) -> None:
        self._machine = machine
        self._on_raised = on_raised
        self._undo = machine if isinstance(machine, SupportsUndo) else None
        self._handles_failures = isinstance(machine, HandlesFailures) and machine.handles_failures
        self._apply_unread = machine.apply_unread if isinstance(machine, SupportsReadSkipping) else machine.apply
        self._local_faults = _local_faults(machine)
        self.raised = 0
        """Number of commands that raised since the replica was started."""

    def __call__(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine.apply`."""
        return self._execute(self._machine.apply, commands, timestamp_ms)

    def unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """The same where the results are not used: commands that only read are skipped if the machine supports it."""
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
        raise WrongResults(f"apply returned {given} for {commands} commands, not a list with a result for each")
    return results


def _local_faults(machine: StateMachine) -> tuple[type[BaseException], ...]:
    """Exceptions that are not caused by a command: the interpreter is ending, or memory or the machine's disk is full.

    A machine can raise a `PyDSMError` (`core.types.errors.OperationalError`) on purpose to stop its replica.
    """
    faults: tuple[type[BaseException], ...] = (KeyboardInterrupt, MemoryError, PyDSMError)
    if isinstance(machine, DurableStateMachine):
        faults += (OSError,)
    if isinstance(machine, LocalFaults):
        faults += machine.local_faults
    return faults


def guarded_footprint(machine: StateMachine, commands: Sequence[bytes]) -> Footprint:
    """`StateMachine.footprint`, with other collections converted to tuples.

    Raises UsageError if the machine raises, or does not return a valid footprint. Such a batch must not be proposed:
    the other replicas could not decode it.
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
        raise UsageError(f"the machine's footprint returned a {type(footprint).__name__}, not a Footprint")
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
        raise UsageError(f"the machine's footprint has a key that is a {wrong[0]}, not bytes")
    if len(set(kinds)) != len(kinds):
        raise UsageError("the machine's footprint lists one kind of update twice")
    return footprint


def text_of(error: BaseException) -> str:
    """The text of an exception, cut to the length that a result may have. Never raises."""
    try:
        text = str(error)
    except Exception:
        return "its text is not available"
    return text[:_TEXT_CHARACTERS_MAX]
