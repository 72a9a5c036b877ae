"""Outcomes of commands without a result: each states exactly what is known about execution."""

from uuid import UUID

from pydsm.core.types.errors import OperationalError, PyDSMError


class CommandNotCompleted(PyDSMError):
    """Base class of the outcomes without a result. `request_id` is the id of the command, None if it was never sent."""

    request_id: UUID | None = None


class CommandAborted(CommandNotCompleted):
    """The command was definitely not executed and will not be. It is safe to send it again."""


class ReplicaOverloaded(CommandAborted):
    """The group is overloaded: the command was not accepted and not executed. Send it again later."""


class OutcomeUnknown(CommandNotCompleted):
    """The command was sent without an answer in time: it may have been executed, or may be executed later.

    If the application sends it again, that is another request. `pydsm trace` shows the state of `request_id`.
    """


class SessionExpiredError(CommandNotCompleted):
    """The session has expired: not executed by this attempt; whether an earlier attempt was executed is unknown."""


class RequestExpiredError(CommandNotCompleted):
    """The result has expired: the command was executed or abandoned before, and was not executed by this attempt."""


class NoReplicaReachable(CommandAborted, OperationalError):
    """No replica could be reached in time: the command was never sent. The text names every address with its reason."""


class ClientClosed(CommandNotCompleted):
    """The client was closed. A command in flight may have been executed."""
