"""What a client is told when a command has no result: always definite about what is known, never a guess."""

from uuid import UUID

from pydsm.core.types.errors import OperationalError, PyDSMError


class CommandNotCompleted(PyDSMError):
    """Root of the outcomes of a command that has no result. `request_id` is set once it was sent."""

    request_id: UUID | None = None


class CommandAborted(CommandNotCompleted):
    """The command was definitely not executed and will not be. It is safe to send it again."""


class ReplicaOverloaded(CommandAborted):
    """The command was not taken, and not executed: the group has more to do than it may hold. Send it again later."""


class OutcomeUnknown(CommandNotCompleted):
    """The command was sent, again and again, and no answer came in time: it may have been executed, or may be later.

    Sent by the application once more it is another request. `pydsm trace` tells what became of `request_id`.
    """


class SessionExpiredError(CommandNotCompleted):
    """The replicas have forgotten the session: not executed now, and whether it was before cannot be told any more."""


class RequestExpiredError(CommandNotCompleted):
    """The replicas have dropped the result: the command was executed before, or given up, and not executed now."""


class NoReplicaReachable(CommandAborted, OperationalError):
    """No replica could be reached in time: the command was never sent. The text names every address with its reason."""


class ClientClosed(CommandNotCompleted):
    """The client was closed. A command that was under way may have been executed."""
