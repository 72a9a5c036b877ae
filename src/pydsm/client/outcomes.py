"""What a client is told when a command has no result: always definite about what is known, never a guess."""

from pydsm.core.faults import PyDSMError, WorldFault


class NotDone(PyDSMError):
    """Root of the outcomes of a command that has no result."""


class Aborted(NotDone):
    """The command was definitely not executed and will not be. It is safe to send it again."""


class Overloaded(Aborted):
    """The command was not taken, and not executed: the group has more to do than it may hold. Send it again later."""


class Unknown(NotDone):
    """The command was sent and no answer came: it may have been executed, may be later, or never.

    Send it again only if executing it twice does no harm; or read first what it has done.
    """


class NoReplica(Aborted, WorldFault):
    """No replica could be reached in time: the command was never sent. The text names every address with its reason."""


class ClientClosed(NotDone):
    """The client was closed. A command that was under way may have been executed."""
