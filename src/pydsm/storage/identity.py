"""Whose data a store holds, and whom its replica has met.

A store opened under another identity refuses, so that no replica acts on another's votes. Incarnations tell a replica
that came back with its data from one that lost them: the latter may not take part as the old one (PROTOCOL 6).
"""

from dataclasses import dataclass
from typing import Protocol

from pydsm.core.ids import ReplicaId
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


class ReplicaStore(Store, Protocol):
    """A store that knows which life of which replica it holds."""

    @property
    def incarnation(self) -> int:
        """64 random bits, drawn when the store was made: the same as long as its data are."""
        ...

    def peers(self) -> dict[ReplicaId, int]:
        """Incarnation of every peer met so far, in every life of this store."""
        ...

    def remember_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """Keep a peer's incarnation, for `peers`. Raises WorldFault if the disk fails."""
        ...

    def check(self) -> None:
        """Raises WorldFault if the files of the store were removed or replaced: what is written next would be lost."""
        ...
