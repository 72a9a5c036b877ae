"""What is durable: one replica's records, behind a small blocking interface.

A store is used from one thread at a time; the runtime gives it a thread of its own.
"""

from collections.abc import Sequence
from typing import Protocol

from pydsm.core.types.effects import Record


class Store(Protocol):
    """Keeps the latest record of each instance, the latest reservation and frontier, and what was purged.

    A PurgeRecord takes away the instances that it names, in the same step in which it is kept.
    """

    def load(self) -> list[Record]:
        """Everything kept: reservation, frontier, what was purged, then instances in order of their ids.

        Raises OperationalError on damage.
        """
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Keep these, all or none; on return they survive a power cut.

        Raises OperationalError if that cannot be promised.
        """
        ...

    @property
    def position(self) -> int:
        """How many groups of records were ever made durable here: each `write` adds one, in the same step.

        May be read from any thread while another one writes.
        """
        ...

    def close(self) -> None:
        """Release the files. Closing twice is allowed."""
        ...
