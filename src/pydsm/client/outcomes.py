"""What a client is told when a command has no result: always definite about what is known, never a guess."""

from uuid import UUID

from pydsm.core.faults import PyDSMError, WorldFault


class NotDone(PyDSMError):
    """Root of the outcomes of a command that has no result. `request_id` is set once it was sent."""

    request_id: UUID | None = None


class Aborted(NotDone):
    """The command was definitely not executed and will not be. It is safe to send it again."""


class Overloaded(Aborted):
    """The command was not taken, and not executed: the group has more to do than it may hold. Send it again later."""


class Unknown(NotDone):
    """The command was sent, again and again, and no answer came in time: it may have been executed, or may be later.

    Sent by the application once more it is another request. `pydsm trace` tells what became of `request_id`.
    """


class SessionExpired(NotDone):
    """The replicas have forgotten the session: not executed now, and whether it was before cannot be told any more."""


class RequestExpired(NotDone):
    """The replicas have dropped the result: the command was executed before, or given up, and not executed now."""


class NoReplica(Aborted, WorldFault):
    """No replica could be reached in time: the command was never sent. The text names every address with its reason."""


class ClientClosed(NotDone):
    """The client was closed. A command that was under way may have been executed."""
