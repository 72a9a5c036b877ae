"""The four classes of errors. A refusal of the protocol is a message, not an exception."""


class PyDSMError(Exception):
    """Root of every exception that PyDSM raises on purpose."""


class UsageError(PyDSMError):
    """The caller broke the contract of a call or of a configuration; nothing happened."""


class PeerProtocolError(PyDSMError):
    """A peer violated the protocol; the message was dropped, and its connection should be closed."""


class FarAhead(PeerProtocolError):
    """A message named an instance too far above the known indexes and was dropped. This replica may be far behind."""


class OperationalError(PyDSMError):
    """The disk, the network or the operating system failed; acknowledged results stay valid."""


class RolledBack(OperationalError):
    """This replica's data directory is older than the state that its peers saw: it must not take part."""


class InvariantViolation(PyDSMError):
    """A bug in PyDSM. The replica stops immediately and keeps its evidence; continuing could lose data."""


class Diverged(InvariantViolation):
    """The state of this replica is not the agreed one: its machine is not deterministic, or its memory is faulty.

    Attributes:
        number: of the checkpoint at which the states differ.
        part: the first part of the snapshot that differs, as `divergence.fold` counts them.
    """

    def __init__(self, message: str, number: int, part: int) -> None:
        super().__init__(message)
        self.number = number
        self.part = part
