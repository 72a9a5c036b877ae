"""The interface of a store: it keeps the records of one replica durably. All calls block.

A store is used from one thread at a time; the runtime runs it in a thread of its own.
"""

from collections.abc import Sequence
from typing import Protocol

from pydsm.core.types.effects import Record


class Store(Protocol):
    """Keeps the latest record of each instance, and the latest reservation, frontier and purge record.

    Writing a PurgeRecord removes the instances that it names, in the same atomic step.
    """

    def load(self) -> list[Record]:
        """Return all records: reservation, frontier, purge, then instances in the order of their ids.

        Raises OperationalError on damage.
        """
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Write all of these records or none; when this returns, they survive a power failure.

        Raises OperationalError if that cannot be guaranteed.
        """
        ...

    @property
    def position(self) -> int:
        """How many groups of records were ever made durable in this store: each `write` adds one, atomically with it.

        May be read from any thread while another one writes.
        """
        ...

    def close(self) -> None:
        """Release the files. Closing twice is allowed."""
        ...
