"""Outcomes of commands without a result: each states exactly what is known about execution."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from pydsm.core.types.errors import OperationalError, PyDSMError, UsageError


class CommandNotCompleted(PyDSMError):
    """Base class of the outcomes without a result. `request_id` is the id of the command, None if it was never sent."""

    request_id: UUID | None = None


class CommandAborted(CommandNotCompleted):
    """The command was definitely not executed and will not be. It is safe to send it again."""


class ReplicaOverloaded(CommandAborted):
    """The group is overloaded: the command was not accepted and not executed. Send it again later."""


class OutcomeUnknown(CommandNotCompleted):
    """The command was sent without an answer in time: it may have been executed, or may be executed later.

    If the application sends it again, that is another request; `again` asks for the outcome of this one. `pydsm trace`
    shows the state of `request_id`.
    """

    repeat: Callable[[float | None], Awaitable[Any]] | None = None
    """Sends the command again under its request id, for so many seconds."""

    async def again(self, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as in every call
        """The result of this command: it is sent again under its request id, so it is executed once, now or before.

        The group keeps the result for a repetition while this exception object exists, within its limits.

        Args:
            timeout: in seconds; by default that of the replica or client.

        Raises:
            OutcomeUnknown: there was no answer in time once more.
            RequestExpiredError, SessionExpiredError: the group does not have the result any more.
        """
        if self.repeat is None:
            raise UsageError("this command cannot be sent again: its client does not support that")
        return await self.repeat(timeout)


class SessionExpiredError(CommandNotCompleted):
    """The session has expired: not executed by this attempt; whether an earlier attempt was executed is unknown."""


class RequestExpiredError(CommandNotCompleted):
    """The result has expired: the command was executed or abandoned before, and was not executed by this attempt."""


class NoReplicaReachable(CommandAborted, OperationalError):
    """No replica could be reached in time: the command was never sent. The text names every address with its reason."""


class ClientClosed(CommandNotCompleted):
    """The client was closed. A command in flight may have been executed."""
