"""The four roots of what can go wrong. A "no" of the protocol is a message and never one of these."""


class PyDSMError(Exception):
    """Root of every exception that PyDSM raises on purpose."""


class UsageError(PyDSMError):
    """The caller broke the contract of a call or of a configuration; nothing happened."""


class PeerProtocolError(PyDSMError):
    """Another process sent what no correct peer sends; the message was dropped, the connection should be too."""


class FarAhead(PeerProtocolError):
    """A message about what is so far beyond anything known here that it was dropped. This replica may be far behind."""


class OperationalError(PyDSMError):
    """Disk, network or operating system failed us; what was acknowledged before stays acknowledged."""


class RolledBack(OperationalError):
    """The data directory of this replica is older than what its peers remember of it: it must not take part."""


class InvariantViolation(PyDSMError):
    """We are wrong. The replica stops at once and keeps its evidence; going on could lose data."""


class Diverged(InvariantViolation):
    """The state of this replica is not the agreed one: its machine is not deterministic, or its memory fails.

    Attributes:
        number: of the checkpoint at which it shows.
        part: the first part of the snapshot that differs, as `divergence.fold` counts them.
    """

    def __init__(self, message: str, number: int, part: int) -> None:
        super().__init__(message)
        self.number = number
        self.part = part
