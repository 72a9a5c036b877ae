"""Orders retried requests against all other requests of their session (docs/reference/protocol.md, section 7).

Decides which batches conflict because of sessions, in addition to the relation of the machine: a batch that retries
requests of a session conflicts with every batch that has requests of that session. First attempts commute, so sessions
add no order until something is retried. Guarantees this for every relation, even for one without other conflicts. Uses
one entry per session and leader, and time per session of a batch, not per request. See `core/sessions/sessions`.
"""

from collections.abc import Collection, Iterator

from pydsm.core.log.conflicts import Backlog, ConflictIndex, EverythingConflicts, Relation
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, SessionId
from pydsm.core.types.messages import Batch


def sessions_conflict(left: Batch, right: Batch) -> bool:
    """Whether one batch retries requests of a session of which the other batch has requests too."""
    if not left.retried and not right.retried:
        return False
    return not right.sessions.isdisjoint(left.retried) or not left.sessions.isdisjoint(right.retried)


def with_sessions(relation: Relation) -> Relation:
    """The relation extended by conflicts of sessions; unchanged if it has them already or is a total order."""
    if isinstance(relation, WithSessions | EverythingConflicts):
        return relation
    return WithSessions(relation)


class WithSessions:
    """A `Relation`: that of the machine, extended by conflicts of sessions. `machine` is the original one."""

    def __init__(self, machine: Relation) -> None:
        self.machine = machine

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Whether they conflict in the machine or by their sessions."""
        return sessions_conflict(left, right) or self.machine.conflict(left, right)

    def index(self, replicas: int) -> ConflictIndex:
        """The machine's index, and per session the newest instances."""
        return _SessionIndex(self.machine.index(replicas), replicas)

    def backlog(self, replicas: int) -> Backlog:
        """The machine's backlog, and per session its instances."""
        return _SessionBacklog(self.machine.backlog(replicas), replicas)


class _SessionIndex:
    """Per leader and session, the highest index with requests of the session, and the highest with retries."""

    def __init__(self, machine: ConflictIndex, replicas: int) -> None:
        self._machine = machine
        self._retried: list[dict[SessionId, int]] = [{} for _ in range(replicas)]
        self._retrying: list[dict[SessionId, int]] = [{} for _ in range(replicas)]

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._machine.add(id, batch)
        leader, index = id
        naming = self._retried[leader]
        for session in batch.sessions:
            if naming.get(session, 0) < index:
                naming[session] = index
        retrying = self._retrying[leader]
        for session in batch.retried:
            retrying[session] = max(index, retrying.get(session, 0))

    def conflicts(self, batch: Batch) -> Deps:
        found = self._machine.conflicts(batch)
        if batch.retried:
            found = _highest(found, self._retried, batch.retried)
        if any(self._retrying):
            found = _highest(found, self._retrying, batch.sessions)
        return found

    def discard(self, entries_max: int) -> bool:
        """See `ConflictIndex`. Entries of sessions are few and are not counted."""
        return self._machine.discard(entries_max)


def _highest(found: Deps, latest: list[dict[SessionId, int]], sessions: Collection[SessionId]) -> Deps:
    return tuple(
        max([last, *[of_leader.get(session, 0) for session in sessions]])
        for last, of_leader in zip(found, latest, strict=True)
    )


class _SessionBacklog:
    """Per leader and session, the indexes with requests of the session, and those with retries."""

    def __init__(self, machine: Backlog, replicas: int) -> None:
        self._machine = machine
        self._retried: list[dict[SessionId, set[int]]] = [{} for _ in range(replicas)]
        self._retrying: list[dict[SessionId, set[int]]] = [{} for _ in range(replicas)]

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._machine.add(id, batch)
        for latest, sessions in self._columns(id.leader, batch):
            for session in sessions:
                latest.setdefault(session, set()).add(id.index)

    def remove(self, id: InstanceId, batch: Batch) -> None:
        self._machine.remove(id, batch)
        for latest, sessions in self._columns(id.leader, batch):
            for session in sessions:
                latest[session].remove(id.index)
                if not latest[session]:
                    del latest[session]

    def _columns(
        self, leader: ReplicaId, batch: Batch
    ) -> Iterator[tuple[dict[SessionId, set[int]], Collection[SessionId]]]:
        yield self._retried[leader], batch.sessions
        yield self._retrying[leader], frozenset(batch.retried)

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        """See `Backlog`."""
        if not batch.retried and not any(self._retrying):
            yield from self._machine.conflicting(batch, deps)
            return
        found: set[InstanceId] = set()
        for id in self._machine.conflicting(batch, deps):
            found.add(id)
            yield id
        for latest, sessions in ((self._retried, batch.retried), (self._retrying, batch.sessions)):
            for leader, last in enumerate(deps):
                for id in _up_to(ReplicaId(leader), last, latest[leader], sessions):
                    if id not in found:
                        found.add(id)
                        yield id


def _up_to(
    leader: ReplicaId, last: int, latest: dict[SessionId, set[int]], sessions: Collection[SessionId]
) -> list[InstanceId]:
    """All instances of one leader in `latest` for any of these sessions, up to index `last`, ascending."""
    indexes = set[int]().union(*[latest[session] for session in sessions if session in latest])
    return [InstanceId(leader, index) for index in sorted(indexes) if index <= last]
