"""Whose data a store holds, and whom its replica has met.

A store opened under another identity refuses, so that no replica acts on another's votes. Incarnations tell a replica
that came back with its data from one that lost them: the latter may not take part as the old one (PROTOCOL 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydsm.core.protocol.starts import Met, Start
from pydsm.core.types.ids import ReplicaId
from pydsm.storage.base import Store


@dataclass(frozen=True, slots=True)
class Identity:
    """One replica of one group.

    `group` names the group, `name` the replica in it, `replica` its position among `replicas`.
    """

    group: str
    name: str
    replica: ReplicaId
    replicas: int


class StartStore(Protocol):
    """What a store knows of starts, its own replica's and those of others (see `core.protocol.starts`)."""

    @property
    def position(self) -> int:
        """See `storage.base.Store`."""
        ...

    def begin_start(self) -> Start:
        """Raise the number of starts durably, with a new random id. Once, before the replica takes part."""
        ...

    def starts(self) -> dict[ReplicaId, Met]:
        """What is remembered of the starts of peers."""
        ...

    def remember_starts(self, starts: Mapping[ReplicaId, Met]) -> None:
        """Keep these, for `starts`. Raises OperationalError if the disk fails."""
        ...


class ReplicaStore(Store, StartStore, Protocol):
    """A store that knows which life of which replica it holds."""

    @property
    def incarnation(self) -> int:
        """64 random bits, drawn when the store was made: the same as long as its data are."""
        ...

    @property
    def is_slow(self) -> bool:
        """Whether its methods wait for a disk, so that they must not run in the thread of the event loop."""
        ...

    def peers(self) -> dict[ReplicaId, int]:
        """Of every peer that took part so far, in every life of this store, the fingerprint of its incarnation."""
        ...

    def remember_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """Keep the fingerprint of a peer's incarnation, for `peers`. Raises OperationalError if the disk fails."""
        ...

    def check(self) -> None:
        """Raises OperationalError if the files of the store were removed or replaced.

        What is written next would be lost.
        """
        ...
