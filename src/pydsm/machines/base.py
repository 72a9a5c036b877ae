"""What a state machine is to PyDSM: footprints before agreement, batches after it.

A machine sees the same conflicting commands in the same order on every replica, so it must be deterministic: time is
`timestamp_ms` as agreed, and nothing else may come from outside.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from pydsm.core.types.messages import Footprint


class CommandFailed(Exception):
    """The result of a command that refused or raised: its effects are undone, and every replica agrees on it.

    Attributes:
        message: what the client is told.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandFailed) and other.message == self.message

    def __hash__(self) -> int:
        return hash(self.message)


class CommandRaised(CommandFailed):
    """The result of a command that raised an exception.

    Replicas agree on the class of the exception alone: its text may differ between versions of Python, or name an
    address in memory. So two of these are equal when their classes are, and only the class is kept in snapshots.

    Attributes:
        error_type: the name of the exception's class.
        message: class and text.
    """

    def __init__(self, error_type: str, text: str) -> None:
        super().__init__(f"{error_type}: {text}" if text else error_type)
        self.error_type = error_type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandRaised) and other.error_type == self.error_type

    def __hash__(self) -> int:
        return hash(self.error_type)


Result = object
"""What a command gives back; a CommandFailed instance when it failed."""


class StateMachine(Protocol):
    """The batch form, which is the fast one."""

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """The keys that these commands touch together. Must not depend on the state.

        Raises UsageError for a command that does not parse; such a command never reaches agreement.
        """
        ...

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Execute one agreed batch; a list with one result per command, in order.

        A command that is refused gives a CommandFailed, returned. What `apply` raises is a result as well, see
        `SupportsUndo`. A result is kept until its client has it: it must not change when the state does.
        """
        ...

    def digest(self) -> bytes:
        """32 bytes that are equal on two replicas exactly when their states are."""
        ...


@runtime_checkable
class SupportsUndo(Protocol):
    """What a machine has besides if it can take back what it did since a moment of its choice.

    Then a command that raises has changed nothing. Without this, its changes up to there stay, at every replica alike;
    and the machine gets one command at a time, which is slower in floods, unless it is one that `HandlesFailures`.
    """

    def savepoint(self) -> None:
        """Mark the present state. It replaces the mark before. Called before each batch, so it costs little."""
        ...

    def rollback(self) -> None:
        """Have the state of the last mark again, which stays. What this raises ends the replica."""
        ...


@runtime_checkable
class SupportsReadSkipping(Protocol):
    """What a machine has besides if it can leave out commands that only read, where nobody looks at their results."""

    def apply_unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Change the state exactly as `apply` does; as many results, which mean nothing.

        Called instead of `apply` at replicas where nobody waits for the results and no session keeps them: everywhere
        but where the client is connected, and at a restart.
        """
        ...


@runtime_checkable
class HandlesFailures(Protocol):
    """What a machine has besides if `apply` answers every failure by itself and raises nothing for a command.

    It gets whole batches. If it raises all the same, every command of that batch is answered as failed, perhaps after
    it was executed.
    """

    handles_failures: bool
    """True."""


@runtime_checkable
class LocalFaults(Protocol):
    """What a machine has besides if some exceptions say nothing about a command, but that this replica cannot go on.

    They end the replica, and its next start executes the batch again. Without this: MemoryError and OperationalError,
    and OSError for a machine with `DurableStateMachine`. An exception that every replica raises for the same command
    must not be among them, since that would end all of them.
    """

    local_faults: tuple[type[Exception], ...]
    """For example `(sqlite3.OperationalError,)`: a disk that is full."""


@runtime_checkable
class SupportsScheduledCommands(Protocol):
    """What a machine has besides if some of its work is due at a time and not when a client asks for it."""

    def due_commands(self, now_ms: int) -> Sequence[bytes]:
        """Commands to propose because their time has come, by a clock that is not agreed on; a bounded number.

        Called now and then, on every replica, so a command may be proposed more than once and must allow that. Changes
        nothing by itself; what is not agreed on is named again. Takes little time when nothing is due.
        """
        ...


@runtime_checkable
class SupportsLifecycle(Protocol):
    """What a machine has besides if it holds what must be opened and released: files, connections, threads.

    Both are called on the loop that executes, which stands still while they do not await; within a minute. Between
    `stop` and `start` nothing is asked of the machine but `footprint`, which does not depend on the state.
    """

    async def start(self) -> None:
        """Be ready to execute, with the state of before. Called at first, and again after each `stop`.

        One that raises leaves nothing open. A replica that starts does not start then; one that is paused stays paused,
        shows what was raised, and calls it again when somebody resumes it.
        """
        ...

    async def stop(self) -> None:
        """Release everything, and remember the state: `start` may follow in this process.

        Called once after each `start` that succeeded, unless the process is killed. What it raises is shown to people;
        nothing more is asked of the machine all the same, and `start` comes next.
        """
        ...


@runtime_checkable
class SupportsSnapshots(Protocol):
    """What a machine has besides if its state can be saved and brought back. Without it a restart executes it all."""

    def snapshot(self) -> Iterator[bytes]:
        """The state as it is now, in chunks, made as they are asked for; an empty one is a step without a result.

        The machine may execute batches between two steps, which changes nothing about what comes. A step takes a few
        milliseconds at most, however large the state is. Chunks depend on the state alone, so that equal states have
        equal chunks, and each holds what belongs to one part of all keys, always the same: where two replicas differ,
        the first different chunk says which keys to look at. Not more than one snapshot is under way; one that is not
        wanted to its end is closed.
        """
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Have the state of a snapshot instead of the present one. Raises ValueError for what is none."""
        ...


@runtime_checkable
class DurableStateMachine(SupportsSnapshots, Protocol):
    """What a machine has besides if it keeps its state by itself, where a restart finds it again.

    It keeps notes for the runtime, named values that it need not understand, and changes them in one transaction with
    its state. So it is known after a crash what the state has, and that is not executed again. A transaction that is
    lost with the last moments before a power cut does no harm, as long as all that follow are lost with it.

    `restore` and `apply` belong to the transaction that the next `commit` ends; a process that is killed, or `stop`,
    undoes what is not committed. `restore` leaves notes alone, and is called in another thread, while nothing else is.
    """

    def commit(self, note: str, content: bytes, forgotten: Sequence[str]) -> None:
        """Keep what was applied or restored since the last commit, and this note, and drop those forgotten.

        All of it or nothing. What it raises ends the replica; nothing is lost, since a restart executes it again.
        """
        ...

    def note(self, name: str) -> bytes | None:
        """The content of a note that is kept; None when there is none."""
        ...

    def notes(self) -> Iterable[str]:
        """The names of all that are kept: one for each batch since the last snapshot but one."""
        ...


@runtime_checkable
class SupportsKeyListing(Protocol):
    """What a machine with snapshots has besides if it can tell what a chunk is about, for people."""

    def keys_in(self, chunk: bytes) -> Sequence[bytes]:
        """The keys in this chunk of a snapshot. Raises ValueError for what is none."""
        ...
