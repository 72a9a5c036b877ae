"""The components of a node other than the core, passed by the caller that creates it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pydsm.core.log.conflicts import Relation
from pydsm.core.types.ids import ReplicaId
from pydsm.logs import printable
from pydsm.machines.base import StateMachine
from pydsm.runtime.apply_gate import ApplyQueueLimits
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.clock import DIFFERENCE_MS_MAX, unix_ms
from pydsm.runtime.starts import StartLimits
from pydsm.storage.identity import ReplicaStore
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.transport.base import Admit, StartExchange, Transport

_NUMBERED = re.compile(r"\breplicas? ([0-9]{1,4}(?:, [0-9]{1,4})*)\b")


class MakeTransport(Protocol):
    """Makes this replica's transport once its incarnation and its start are known."""

    def __call__(self, incarnation: int, admit: Admit, starts: StartExchange) -> Transport:
        """Returns a transport that is not started yet."""
        ...


@dataclass(frozen=True, slots=True)
class NodeComponents:
    """The components of a node other than the core."""

    machine: StateMachine
    store: ReplicaStore
    transport: MakeTransport
    relation: Relation | None = None
    limits: BatchLimits | None = None
    snapshots: SnapshotFiles | None = None
    """The snapshot files; None for a store in memory."""
    hold: ApplyQueueLimits | None = None
    starts: StartLimits | None = None
    wall_clock_ms: Callable[[], int] = unix_ms
    """Unix time in milliseconds."""
    clock_difference_ms_max: int = DIFFERENCE_MS_MAX
    """By how much the wall clock may differ from the group's time before this replica is not ready."""
    names: tuple[str, ...] = ()
    """The names of all members, in order, for logs and messages; if empty, replicas are named by their numbers."""

    def name_of(self, replica: ReplicaId) -> str:
        """The name of a member, safe to print."""
        return printable(self.names[replica], 64) if replica < len(self.names) else f"replica {replica}"

    def with_names(self, text: str) -> str:
        """A text of the core, with the names of members instead of their numbers."""
        return _NUMBERED.sub(self._names_in, text)

    def _names_in(self, found: "re.Match[str]") -> str:
        numbers = [int(number) for number in found[1].split(", ")]
        if max(numbers) >= len(self.names):
            return found[0]
        return ", ".join(self.name_of(ReplicaId(number)) for number in numbers)
