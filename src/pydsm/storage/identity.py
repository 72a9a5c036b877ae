"""Identity of the replica whose data a store holds, and of the peers that it has communicated with.

A store refuses to open under another identity, so that no replica acts on the votes of another. The incarnation
distinguishes a replica that restarts with its data from one that lost them, which may not take part as the old one
(docs/reference/protocol.md#6-what-is-durable-when-and-what-may-be-forgotten).
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
    """Keeps the starts of the own replica and of its peers (see `core.protocol.starts`)."""

    @property
    def position(self) -> int:
        """See `storage.base.Store`."""
        ...

    def begin_start(self) -> Start:
        """Raise the number of starts durably, with a new random id. Call once, before the replica takes part."""
        ...

    def starts(self) -> dict[ReplicaId, Met]:
        """The highest known start of each peer."""
        ...

    def save_starts(self, starts: Mapping[ReplicaId, Met]) -> None:
        """Store these entries for `starts`. Raises OperationalError if the disk fails."""
        ...


class ReplicaStore(Store, StartStore, Protocol):
    """A store that also keeps the identity of its replica, of its starts and of its peers."""

    @property
    def incarnation(self) -> int:
        """64 random bits, drawn when the store was created; they stay the same as long as the data exist."""
        ...

    @property
    def is_slow(self) -> bool:
        """Whether its methods wait for a disk, so that they must not run in the thread of the event loop."""
        ...

    def peers(self) -> dict[ReplicaId, int]:
        """Fingerprint of the incarnation of every peer that ever took part, since the store was created."""
        ...

    def remember_peer(self, replica: ReplicaId, incarnation: int) -> None:
        """Store the fingerprint of a peer's incarnation for `peers`. Raises OperationalError if the disk fails."""
        ...

    def check(self) -> None:
        """Raise OperationalError if the files of the store were removed or replaced: later writes would be lost."""
        ...
