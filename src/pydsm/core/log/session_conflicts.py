"""Requests that may come twice are ordered against every other request of their session (PROTOCOL 7; see `sessions`).

Decides which batches conflict because of sessions, on top of whatever relation the machine has: those that retry
requests of a session, and all others that have requests of it. First attempts commute, so sessions order nothing until
something fails. Guards that this holds for every relation, also for one in which nothing else conflicts. Costs one
entry for each session and leader, and time for the sessions of a batch, not for its requests.
"""

from collections.abc import Collection, Iterator

from pydsm.core.log.conflicts import Backlog, ConflictIndex, EverythingConflicts, Relation
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, SessionId
from pydsm.core.types.messages import Batch


def sessions_conflict(left: Batch, right: Batch) -> bool:
    """Whether one retries requests of a session of which the other has requests as well."""
    if not left.retried and not right.retried:
        return False
    return not right.sessions.isdisjoint(left.retried) or not left.sessions.isdisjoint(right.retried)


def with_sessions(relation: Relation) -> Relation:
    """The relation together with what sessions demand. Once is enough."""
    if isinstance(relation, WithSessions | EverythingConflicts):
        return relation
    return WithSessions(relation)


class WithSessions:
    """A `Relation`. `machine` is the one without sessions."""

    def __init__(self, machine: Relation) -> None:
        self.machine = machine

    def conflict(self, left: Batch, right: Batch) -> bool:
        """In the machine, or by their sessions."""
        return sessions_conflict(left, right) or self.machine.conflict(left, right)

    def index(self, replicas: int) -> ConflictIndex:
        """The machine's index, and the newest instances of each session."""
        return _SessionIndex(self.machine.index(replicas), replicas)

    def backlog(self, replicas: int) -> Backlog:
        """The machine's backlog, and the instances of each session."""
        return _SessionBacklog(self.machine.backlog(replicas), replicas)


class _SessionIndex:
    """Per leader and session, the highest index that has requests of it, and the highest that retries some."""

    def __init__(self, machine: ConflictIndex, replicas: int) -> None:
        self._machine = machine
        self._naming: list[dict[SessionId, int]] = [{} for _ in range(replicas)]
        self._retrying: list[dict[SessionId, int]] = [{} for _ in range(replicas)]

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._machine.add(id, batch)
        leader, index = id
        naming = self._naming[leader]
        for session in batch.sessions:
            if naming.get(session, 0) < index:
                naming[session] = index
        retrying = self._retrying[leader]
        for session in batch.retried:
            retrying[session] = max(index, retrying.get(session, 0))

    def conflicts(self, batch: Batch) -> Deps:
        found = self._machine.conflicts(batch)
        if batch.retried:
            found = _highest(found, self._naming, batch.retried)
        if any(self._retrying):
            found = _highest(found, self._retrying, batch.sessions)
        return found

    def discard(self, entries_max: int) -> bool:
        """See `ConflictIndex`; sessions are few."""
        return self._machine.discard(entries_max)


def _highest(found: Deps, latest: list[dict[SessionId, int]], sessions: Collection[SessionId]) -> Deps:
    return tuple(
        max([last, *[of_leader.get(session, 0) for session in sessions]])
        for last, of_leader in zip(found, latest, strict=True)
    )


class _SessionBacklog:
    """Per leader and session, who has requests of it, and who retries some."""

    def __init__(self, machine: Backlog, replicas: int) -> None:
        self._machine = machine
        self._naming: list[dict[SessionId, set[int]]] = [{} for _ in range(replicas)]
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
        yield self._naming[leader], batch.sessions
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
        for latest, sessions in ((self._naming, batch.retried), (self._retrying, batch.sessions)):
            for leader, last in enumerate(deps):
                for id in _up_to(ReplicaId(leader), last, latest[leader], sessions):
                    if id not in found:
                        found.add(id)
                        yield id


def _up_to(
    leader: ReplicaId, last: int, latest: dict[SessionId, set[int]], sessions: Collection[SessionId]
) -> list[InstanceId]:
    """Every instance of one leader that is there for one of these sessions, ascending."""
    indexes = set[int]().union(*[latest[session] for session in sessions if session in latest])
    return [InstanceId(leader, index) for index in sorted(indexes) if index <= last]
