"""The status of an instance at one replica, and the legal changes."""

from enum import IntEnum


class Status(IntEnum):
    """Stages of an instance at one replica, in order. The numbers are the durable and wire format."""

    UNKNOWN = 0
    PRE_ACCEPTED = 1
    ACCEPTED = 2
    COMMITTED = 3
    EXECUTED = 4


LEGAL_CHANGES: dict[Status, frozenset[Status]] = {
    Status.UNKNOWN: frozenset({Status.PRE_ACCEPTED, Status.ACCEPTED, Status.COMMITTED}),
    Status.PRE_ACCEPTED: frozenset({Status.ACCEPTED, Status.COMMITTED}),
    Status.ACCEPTED: frozenset({Status.ACCEPTED, Status.COMMITTED}),
    Status.COMMITTED: frozenset({Status.EXECUTED}),
    Status.EXECUTED: frozenset(),
}
"""ACCEPTED to ACCEPTED is a vote in a higher ballot. No change goes to an earlier status."""
