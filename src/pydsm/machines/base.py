"""The interface of state machines: `footprint` is called before agreement, `apply` after it.

A machine gets conflicting commands in the same order on every replica, and must be deterministic: the only clock is
`timestamp_ms`, which is agreed, and nothing else may come from outside. A machine has the methods of `StateMachine`;
each other class here is an optional ability, which a machine has if it has the methods.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from pydsm.core.types.messages import Footprint


class CommandFailed(Exception):
    """The result of a command that was refused or raised: its effects are undone, the same on every replica.

    Attributes:
        message: the error text for the client.
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

    Replicas agree only on the class of the exception: its text may differ between versions of Python, or contain an
    address in memory. So two of these are equal if their classes are, and only the class is stored in snapshots.

    Attributes:
        error_type: the name of the exception's class.
        message: the class and the text.
    """

    def __init__(self, error_type: str, text: str) -> None:
        super().__init__(f"{error_type}: {text}" if text else error_type)
        self.error_type = error_type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandRaised) and other.error_type == self.error_type

    def __hash__(self) -> int:
        return hash(self.error_type)


Result = object
"""The result of a command; a CommandFailed instance if it failed."""


class StateMachine(Protocol):
    """The methods that every state machine has. Commands are passed in batches."""

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """The keys that these commands read, write and update together. Must not depend on the state.

        Raises UsageError for a command that does not parse; such a command is not proposed.
        """
        ...

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Execute one agreed batch; returns a list with one result per command, in order.

        For a refused command, return a CommandFailed. An exception raised by `apply` becomes a result as well, see
        `SupportsUndo`. Results are stored until their client has them: a result must not change with the state.

        Args:
            commands: the encoded commands of the batch.
            timestamp_ms: agreed Unix time of the batch in milliseconds.
        """
        ...

    def digest(self) -> bytes:
        """32 bytes that are equal on two replicas if and only if their states are equal."""
        ...


@runtime_checkable
class SupportsUndo(Protocol):
    """Optional: the machine can undo all changes since a savepoint.

    Then a command that raises has changed nothing. Without this ability, the changes that it made before it raised
    stay, the same on every replica; and the machine gets one command at a time, which is slower under load, unless it
    `HandlesFailures`.
    """

    def savepoint(self) -> None:
        """Mark the current state, replacing the earlier mark. Called before each batch, so it should be cheap."""
        ...

    def rollback(self) -> None:
        """Restore the state of the last mark, and keep the mark. An exception from this stops the replica."""
        ...


@runtime_checkable
class SupportsReadSkipping(Protocol):
    """Optional: the machine can skip commands that only read, where their results are not used."""

    def apply_unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Change the state exactly as `apply` does; returns as many results, which are ignored.

        Called instead of `apply` where no client waits for the results and no session stores them: at all replicas
        except the one that the client is connected to, and at a restart.
        """
        ...


@runtime_checkable
class HandlesFailures(Protocol):
    """Optional: `apply` returns a CommandFailed for every failure and never raises because of a command.

    The machine gets whole batches. If `apply` raises nevertheless, all commands of that batch are answered as failed,
    possibly after they were executed.
    """

    handles_failures: bool
    """Must be True."""


@runtime_checkable
class LocalFaults(Protocol):
    """Optional: names exceptions that are caused by this replica alone, not by a command, such as a full disk.

    They stop the replica, and its next start executes the batch again. MemoryError and OperationalError always do this,
    and OSError for a `DurableStateMachine`. An exception that every replica raises for the same command must not be
    listed, because it would stop all of them.
    """

    local_faults: tuple[type[Exception], ...]
    """For example `(sqlite3.OperationalError,)`, which SQLite raises for a full disk."""


@runtime_checkable
class SupportsScheduledCommands(Protocol):
    """Optional: the machine has commands that are due at some time without a client's request."""

    def due_commands(self, now_ms: int) -> Sequence[bytes]:
        """Commands that are due at `now_ms`; a bounded number. `now_ms` is Unix time in ms that is not agreed.

        Called periodically on every replica, so a command may be proposed and executed more than once. Must not change
        the state; a command that is still due is returned again. Should be fast when nothing is due.
        """
        ...


@runtime_checkable
class SupportsLifecycle(Protocol):
    """Optional: the machine has resources that must be opened and released, such as files, connections or threads.

    Both methods are called on the event loop that executes commands, which is blocked while they do not await; each may
    take up to a minute. Between `stop` and `start` only `footprint` is called, which does not depend on the state.
    """

    async def start(self) -> None:
        """Open the resources, with the state as it was before. Called first, and again after each `stop`.

        If it raises, it must leave nothing open. Then a starting replica does not start; a paused one stays paused,
        reports the exception, and calls this again at the next resume.
        """
        ...

    async def stop(self) -> None:
        """Release all resources, and keep the state: `start` may follow in this process.

        Called once after each `start` that succeeded, unless the process is killed. An exception is reported to the
        operator; the machine counts as stopped all the same, and the next call is `start`.
        """
        ...


@runtime_checkable
class SupportsSnapshots(Protocol):
    """Optional: the state can be saved and restored. Without this, a restart executes all commands again."""

    def snapshot(self) -> Iterator[bytes]:
        """The state at the time of this call, as an iterator of chunks; an empty chunk is a step without a result.

        The machine may execute batches between two steps; they must not change the remaining chunks. A step should take
        a few milliseconds at most, whatever the size of the state. Chunks depend only on the state, so equal states
        have equal chunks, and each chunk has a fixed part of the keys: if two replicas differ, the first different
        chunk shows which keys to examine. At most one snapshot is in progress; one that is abandoned is closed.
        """
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by that of a snapshot. Raises ValueError if the chunks are not a snapshot."""
        ...


@runtime_checkable
class DurableStateMachine(SupportsSnapshots, Protocol):
    """Optional: the machine stores its own state durably, and has it again after a restart.

    It also stores applied markers for the runtime: names with a few bytes of content, whose meaning the machine need
    not understand. It changes them in the same transaction as its state. So after a crash the markers show which
    batches are in the state, and these are not executed again. A transaction may be lost in a power failure, if all
    later transactions are lost with it.

    `restore` and `apply` belong to the transaction that the next `commit` ends; `stop` or a killed process undoes what
    is not committed. `restore` does not change markers; it is called in another thread, never at the same time as
    other methods. See docs/decisions/durable-machines-keep-applied-markers.md.
    """

    def commit(self, marker: str, content: bytes, obsolete: Sequence[str]) -> None:
        """Commit everything since the last commit, together with this marker, and delete the obsolete markers.

        All of it is committed, or nothing. An exception stops the replica; nothing is lost, because the next start
        executes the batch again. An existing marker of this name is replaced.
        """
        ...

    def marker(self, name: str) -> bytes | None:
        """The content of a stored marker; None if there is no such marker."""
        ...

    def markers(self) -> Iterable[str]:
        """The names of all stored markers: about one for each batch since the last snapshot but one."""
        ...


@runtime_checkable
class SupportsKeyListing(Protocol):
    """Optional, for a machine with snapshots: it can list the keys of a chunk, for reports to operators."""

    def keys_in(self, chunk: bytes) -> Sequence[bytes]:
        """The keys in this chunk of a snapshot. Raises ValueError if it is not such a chunk."""
        ...
