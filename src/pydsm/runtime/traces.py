"""Traces of requests through their instances at one replica, for `pydsm trace`.

Stores the latest instances: the time of each stage, how each was decided, and the requests in it; and, for the most
recent ones only, the batches, which show conflicts. Decides nothing; everything here may be dropped at any time. The
state of a request in its session comes from `core/sessions/sessions`.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from pydsm.core.log.conflicts import Relation
from pydsm.core.log.instance import Instance
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId, sequence_of, session_of
from pydsm.core.types.messages import Batch, Run
from pydsm.core.types.status import Status

CONFLICTS_LOOKED_AT_MAX = 64
"""Number of the latest covered instances of each leader that are compared to find conflicts."""

_STAGES = {
    Status.PRE_ACCEPTED: "pre-accepted",
    Status.ACCEPTED: "accepted",
    Status.COMMITTED: "committed",
    Status.EXECUTED: "executed",
}


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """How much is stored; the oldest instances are dropped first."""

    instances_max: int = 4096
    """Instances."""
    runs_max: int = 100_000
    """Runs of request ids in all of them."""
    batches_bytes_max: int = 16 << 20
    """Encoded bytes of the stored batches."""


@dataclass(slots=True)
class _Seen:
    """One instance."""

    at: dict[str, float] = field(default_factory=dict)
    """The clock, in seconds, when each stage was reached."""
    name: RequestId | None = None
    runs: tuple[Run, ...] = ()
    batch: Batch | None = None
    commands: int = 0
    timestamp_ms: int = 0
    retried: bool = False
    nop: bool = False
    deps: Deps = ()
    initial_deps: Deps | None = None
    voted: Ballot | None = None
    position: int = 0
    """Position among the instances executed here since the start, from 1; 0 if not executed."""


class InstanceTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that contains a request."""

    id: str
    name: str
    """The id of its first request."""
    status: str
    path: str
    """fast, slow, recovered, nop, or undecided."""
    commands: int
    retries: bool
    """Whether it may contain requests that are in another instance as well."""
    proposed_ms: int
    """Unix time at its leader when the batch was made."""
    deps: tuple[int, ...]
    initial_deps: tuple[int, ...] | None
    """The deps that its leader proposed; None if unknown at this replica."""
    conflicts: tuple[str, ...] | None
    """The latest instances that it conflicts with and is ordered after; None if its batch is not stored any more."""
    stages_ms: dict[str, float]
    """When each stage was reached here, in ms after this replica first saw the instance."""
    seen_seconds_ago: float


class RequestTrace(msgspec.Struct, frozen=True, kw_only=True):
    """The trace of one request at one replica. New fields are added with a default."""

    request: str
    replica: int
    state: str
    """The state of the request in its session: see `core.sessions.sessions.RequestState`."""
    instances: tuple[InstanceTrace, ...]
    """In the order of execution here, undecided ones last; the first that is not a nop executed the request."""
    remembered_instances: int
    remembered_seconds: float
    """Age of the oldest instance that is stored here."""


class Traces:
    """A `core.log.observer.InstanceObserver`."""

    def __init__(self, limits: TraceLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or TraceLimits()
        self._clock = clock
        self._seen: OrderedDict[InstanceId, _Seen] = OrderedDict()
        self._runs = 0
        self._batches: deque[tuple[_Seen, int]] = deque()
        self._batches_bytes = 0
        self._executed = 0

    def changed(self, instance: Instance) -> None:
        """See `InstanceObserver`."""
        seen = self._seen.get(instance.id)
        if seen is None:
            seen = self._seen[instance.id] = _Seen()
        stage = _STAGES.get(instance.status)
        if stage is not None and stage not in seen.at:
            seen.at[stage] = self._clock()
        batch = instance.known_batch
        if batch is not None and not seen.runs:
            self._note_batch(seen, batch)
        seen.deps, seen.voted = instance.deps, instance.voted
        if instance.initial_batch is not None:
            seen.initial_deps = instance.initial_deps
        if instance.decided:
            seen.nop = not isinstance(instance.value, Batch)
        if instance.status is Status.EXECUTED:
            self._executed += 1
            seen.position = self._executed
        while len(self._seen) > self._limits.instances_max or self._runs > self._limits.runs_max:
            _, dropped = self._seen.popitem(last=False)
            self._runs -= len(dropped.runs)
            dropped.batch = None
        self._drop_batches()

    def _note_batch(self, seen: _Seen, batch: Batch) -> None:
        seen.runs = batch.runs
        seen.name = batch.name
        seen.commands, seen.timestamp_ms = len(batch.commands), batch.timestamp_ms
        seen.retried = bool(batch.retried)
        self._runs += len(batch.runs)
        seen.batch = batch
        self._batches.append((seen, len(batch.encoded)))
        self._batches_bytes += len(batch.encoded)

    def _drop_batches(self) -> None:
        """Drop the oldest batches over the limit in bytes, and those whose instances were dropped.

        The encoded bytes alone do not limit memory: a batch of one small command takes twenty times its encoded size.
        """
        batches = self._batches
        while batches and (self._batches_bytes > self._limits.batches_bytes_max or batches[0][0].batch is None):
            oldest, size = batches.popleft()
            oldest.batch = None
            self._batches_bytes -= size

    def find(self, id: RequestId, relation: Relation) -> list[InstanceTrace]:
        """Every stored instance that contains the request, in the order of execution."""
        session, sequence = session_of(id), sequence_of(id)
        found = [
            (seen.position or self._executed + 1, name, seen)
            for name, seen in self._seen.items()
            if any(_has(run, session, sequence) for run in seen.runs)
        ]
        return [
            self._trace(name, seen, self._conflicts(name, seen, relation))
            for _, name, seen in sorted(found, key=lambda one: one[:2])
        ]

    def _conflicts(self, id: InstanceId, seen: _Seen, relation: Relation) -> tuple[str, ...] | None:
        """The latest covered instances that conflict with this one and whose batches are stored."""
        if seen.batch is None:
            return None
        found = []
        for leader, last in enumerate(seen.deps):
            for index in range(last, max(0, last - CONFLICTS_LOOKED_AT_MAX), -1):
                other_id = InstanceId(ReplicaId(leader), index)
                other = self._seen.get(other_id)
                batch = None if other is None or other_id == id else other.batch
                if batch is not None and relation.conflict(seen.batch, batch):
                    found.append(str(other_id))
        return tuple(found)

    @property
    def remembered(self) -> int:
        """Number of stored instances."""
        return len(self._seen)

    @property
    def remembered_seconds(self) -> float:
        """Age of the oldest stored instance."""
        for seen in self._seen.values():
            return self._clock() - min(seen.at.values(), default=self._clock())
        return 0.0

    def _trace(self, id: InstanceId, seen: _Seen, conflicts: tuple[str, ...] | None) -> InstanceTrace:
        first = min(seen.at.values(), default=self._clock())
        return InstanceTrace(
            id=str(id),
            name="" if seen.name is None else show(seen.name),
            status=max(seen.at, key=lambda stage: list(_STAGES.values()).index(stage), default="unknown"),
            path=_path(seen),
            commands=seen.commands,
            retries=seen.retried,
            proposed_ms=seen.timestamp_ms,
            deps=seen.deps,
            initial_deps=seen.initial_deps,
            conflicts=conflicts,
            stages_ms={stage: round(1000 * (at - first), 3) for stage, at in seen.at.items()},
            seen_seconds_ago=round(self._clock() - first, 3),
        )


def show(id: RequestId) -> str:
    """The id in the usual form of a UUID."""
    text = id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _has(run: Run, session: bytes, sequence: int) -> bool:
    return session_of(run.first) == session and 0 <= sequence - sequence_of(run.first) < run.count


def _path(seen: _Seen) -> str:
    """How it was decided. An instance committed without a vote here, with its initial deps, took the fast path."""
    if "committed" not in seen.at and "executed" not in seen.at:
        return "undecided"
    if seen.nop:
        return "nop"
    if seen.voted is not None:
        return "slow" if seen.voted.round == 0 else "recovered"
    return "fast" if seen.deps == seen.initial_deps else "slow or recovered, without this replica"
