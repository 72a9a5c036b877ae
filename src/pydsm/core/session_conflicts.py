"""Requests that may come twice are ordered against every other request of their session (PROTOCOL 7; see `sessions`).

Decides which batches conflict because of sessions, on top of whatever relation the machine has: those that retry
requests of a session, and all others that have requests of it. First attempts commute, so sessions order nothing until
something fails. Guards that this holds for every relation, also for one in which nothing else conflicts. Costs one
entry for each session and leader, and time for the sessions of a batch, not for its requests.
"""

from collections.abc import Iterator

from pydsm.core.conflicts import Backlog, ConflictIndex, EverythingConflicts, Relation, Indexes
from pydsm.core.ids import Deps, InstanceId, ReplicaId, SessionId, is_kept, session_of
from pydsm.core.messages import Batch


def sessions_of(batch: Batch) -> dict[SessionId, None]:
    """The sessions of a batch whose requests may come twice, each once, in the order of its runs."""
    return dict.fromkeys([session_of(run.first) for run in batch.runs if is_kept(run.first)])


def sessions_conflict(left: Batch, right: Batch) -> bool:
    """Whether one retries requests of a session of which the other has requests as well."""
    if not left.retried and not right.retried:
        return False
    return not sessions_of(right).keys().isdisjoint(left.retried) or not sessions_of(left).keys().isdisjoint(
        right.retried
    )


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
        for session in sessions_of(batch):
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
            found = _highest(found, self._retrying, sessions_of(batch))
        return found


def _highest(found: Deps, latest: list[dict[SessionId, int]], sessions: tuple[SessionId, ...] | dict[SessionId, None]) -> Deps:
    return tuple(
        max(last, *[of_leader.get(session, 0) for session in sessions]) if sessions else last
        for last, of_leader in zip(found, latest, strict=True)
    )


class _SessionBacklog:
    """Per leader and session, who has requests of it, and who retries some."""

    def __init__(self, machine: Backlog, replicas: int) -> None:
        self._machine = machine
        self._naming: list[dict[SessionId, Indexes]] = [{} for _ in range(replicas)]
        self._retrying: list[dict[SessionId, Indexes]] = [{} for _ in range(replicas)]

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._machine.add(id, batch)
        for latest, sessions in self._columns(id.leader, batch):
            for session in sessions:
                latest.setdefault(session, Indexes()).add(id.index)

    def remove(self, id: InstanceId, batch: Batch) -> None:
        self._machine.remove(id, batch)
        for latest, sessions in self._columns(id.leader, batch):
            for session in sessions:
                indexes = latest[session]
                indexes.remove(id.index)
                if not indexes:
                    del latest[session]

    def _columns(
        self, leader: ReplicaId, batch: Batch
    ) -> Iterator[tuple[dict[SessionId, Indexes], dict[SessionId, None]]]:
        yield self._naming[leader], sessions_of(batch)
        yield self._retrying[leader], dict.fromkeys(batch.retried)

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        if not batch.retried and not any(self._retrying):
            yield from self._machine.conflicting(batch, deps)
            return
        found: set[InstanceId] = set()
        for id in self._machine.conflicting(batch, deps):
            found.add(id)
            yield id
        for latest, sessions in ((self._naming, batch.retried), (self._retrying, sessions_of(batch))):
            for leader, last in enumerate(deps):
                for indexes in list(filter(None, map(latest[leader].get, sessions))):
                    for index in indexes.up_to(last):
                        id = InstanceId(ReplicaId(leader), index)
                        if id not in found:
                            found.add(id)
                            yield id
