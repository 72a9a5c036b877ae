"""What a node is made of besides the core: given by whoever starts one."""

from dataclasses import dataclass
from typing import Protocol

from pydsm.core.conflicts import Relation
from pydsm.machines.base import StateMachine
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.lifecycle import HoldLimits
from pydsm.runtime.starts import StartLimits
from pydsm.storage.identity import ReplicaStore
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.transport.base import Admit, Starts, Transport


class MakeTransport(Protocol):
    """Makes this replica's transport once its incarnation and its start are known."""

    def __call__(self, incarnation: int, admit: Admit, starts: Starts) -> Transport:
        """Not started yet."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of besides the core."""

    machine: StateMachine
    store: ReplicaStore
    transport: MakeTransport
    relation: Relation | None = None
    limits: BatchLimits | None = None
    snapshots: SnapshotFiles | None = None
    """Where snapshots are kept; None for a store that dies with its process."""
    hold: HoldLimits | None = None
    starts: StartLimits | None = None
