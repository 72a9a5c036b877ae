"""Which batches conflict, and the dependency vector of a new batch.

A relation decides conflicts exactly and symmetrically (`conflict`). Its index over-approximates: a vector that covers
too much is always safe; a vector that misses a conflict breaks agreement. An index therefore keeps only the highest
conflicting index per leader, and keeps instances that became nop. Vectors are computed by bulk operations on the keys
of a batch. When entries may be removed is decided by `log`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Protocol

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers
from pydsm.core.types.messages import Access, Batch, Footprint


class ConflictIndex(Protocol):
    """All instances whose batch is known, by the keys that they touch."""

    def add(self, id: InstanceId, batch: Batch) -> None:
        """Add an instance that may be decided as `batch`. Idempotent."""
        ...

    def conflicts(self, batch: Batch) -> Deps:
        """Per leader, the highest index that conflicts with `batch`, or a higher one; 0 for none."""
        ...

    def discard(self, entries_max: int) -> bool:
        """Free about `entries_max` entries of an index that is no longer used. True when none is left."""
        ...


class Backlog(Protocol):
    """The batches of some instances, to find those that conflict with a batch exactly, without comparing all."""

    def add(self, id: InstanceId, batch: Batch) -> None:
        """Add an instance. Idempotent."""
        ...

    def remove(self, id: InstanceId, batch: Batch) -> None:
        """Remove an instance, which must have been added with this batch."""
        ...

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        """All instances that `deps` covers and that conflict with `batch`, each once, roughly the oldest first.

        Lazy: instances removed during the iteration may still be returned.
        """
        ...


class Relation(Protocol):
    """Which batches do not commute, so that all replicas must execute them in one order.

    An exception raised here stops every replica that has the batch, and stops it again after each restart. See
    `UserRelation` for a relation that may raise.
    """

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Exact and symmetric; depends on the two batches alone, so that all replicas agree."""
        ...

    def index(self, replicas: int) -> ConflictIndex:
        """An empty index for a group of this size."""
        ...

    def backlog(self, replicas: int) -> Backlog:
        """An empty backlog for a group of this size."""
        ...


_FEW_KEYS = 128


def _accesses_conflict(left: Access, right: Access) -> bool:
    """Writes conflict with every access. Reads do not conflict with reads, nor updates with updates of their kind."""
    return left is True or right is True or left != right


def footprints_conflict(left: Footprint, right: Footprint) -> bool:
    """Whether both touch some key with accesses that do not commute, or either is a barrier."""
    if left.barrier or right.barrier:
        return True
    for number, (access, _) in enumerate(left.columns):
        for other_access, other_keys in right.columns:
            # A tuple against a set: the search goes in the order of the tuple and ends early at a frequently used key.
            if _accesses_conflict(access, other_access) and not left.key_sets[number].isdisjoint(other_keys):
                return True
    return False


class DeclaredKeys:
    """The default relation: batches conflict when their footprints do."""

    def conflict(self, left: Batch, right: Batch) -> bool:
        """See `footprints_conflict`."""
        return footprints_conflict(left.footprint, right.footprint)

    def index(self, replicas: int) -> ConflictIndex:
        """An index by key."""
        return _KeyIndex(replicas)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog by key."""
        return _KeyBacklog(replicas)


class _KeyIndex:
    """Per access, leader and key, the highest index that touches the key."""

    def __init__(self, replicas: int) -> None:
        self._latest: dict[Access, list[dict[bytes, int]]] = {}
        self._newest = [0] * replicas
        self._newest_barrier = [0] * replicas
        self._newest_footprints = [Footprint()] * replicas
        self._newest_conflicted = [False] * replicas
        """Per leader, whether its newest instance conflicted with the batch looked up last."""

    def add(self, id: InstanceId, batch: Batch) -> None:
        leader, index = id
        in_order = index > self._newest[leader]
        if in_order:
            self._newest[leader] = index
            self._newest_footprints[leader] = batch.footprint
        if batch.footprint.barrier:
            self._newest_barrier[leader] = max(self._newest_barrier[leader], index)
        for access, keys in batch.footprint.columns:
            latest = self._latest.get(access)
            if latest is None:
                latest = self._latest[access] = [{} for _ in self._newest]
            of_leader = latest[leader]
            newer = keys if in_order else tuple(key for key in keys if of_leader.get(key, 0) < index)
            of_leader.update(dict.fromkeys(newer, index))

    def conflicts(self, batch: Batch) -> Deps:
        if batch.footprint.barrier:
            return tuple(self._newest)
        return tuple(self._highest(leader, batch.footprint) for leader in range(len(self._newest)))

    def _highest(self, leader: int, footprint: Footprint) -> int:
        """The highest conflicting index of one leader; 0 for none.

        Under contention this is nearly always the newest index, and comparing a few keys shows it. So if the newest one
        conflicted last time, a few of its keys are compared first.
        """
        newest = self._newest[leader]
        if self._newest_conflicted[leader] and _surely_conflict(self._newest_footprints[leader], footprint):
            return newest
        highest = self._newest_barrier[leader]
        for access, keys in footprint.columns:
            for other_access, latest in self._latest.items():
                if _accesses_conflict(access, other_access):
                    of_leader = latest[leader]
                    if of_leader and not of_leader.keys().isdisjoint(keys):
                        of_keys = max(map(of_leader.get, keys, repeat(0)))
                        highest = max(highest, of_keys)
        self._newest_conflicted[leader] = highest == newest > 0
        return highest

    def discard(self, entries_max: int) -> bool:
        for latest in self._latest.values():
            for of_leader in latest:
                for _ in range(min(entries_max, len(of_leader))):
                    of_leader.popitem()
                    entries_max -= 1
        return entries_max > 0


def _surely_conflict(left: Footprint, right: Footprint) -> bool:
    """Whether comparing only a few keys shows a conflict. False means unknown."""
    if left.barrier:
        return True
    for number, (access, _) in enumerate(left.columns):
        for other_access, other_keys in right.columns:
            few = other_keys[:_FEW_KEYS]
            if _accesses_conflict(access, other_access) and not left.key_sets[number].isdisjoint(few):
                return True
    return False


class _Indexes:
    """Indexes of one leader, ascending. Usually the lowest are removed first."""

    __slots__ = ("_sorted",)

    def __init__(self) -> None:
        self._sorted: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def add(self, index: int) -> None:
        if not self._sorted or index > self._sorted[-1]:
            self._sorted.append(index)
        elif self._sorted[place := bisect_left(self._sorted, index)] != index:
            self._sorted.insert(place, index)

    def remove(self, index: int) -> None:
        del self._sorted[bisect_left(self._sorted, index)]

    def up_to(self, last: int) -> list[int]:
        return self._sorted[: bisect_right(self._sorted, last)]


class _KeyBacklog:
    """Per access, leader and key, the indexes that touch the key; and the barriers, which have no keys."""

    def __init__(self, replicas: int) -> None:
        self._all = [_Indexes() for _ in range(replicas)]
        self._barriers = [_Indexes() for _ in range(replicas)]
        self._by_key: dict[Access, list[dict[bytes, _Indexes]]] = {}

    def add(self, id: InstanceId, batch: Batch) -> None:
        leader, index = id
        self._all[leader].add(index)
        if batch.footprint.barrier:
            self._barriers[leader].add(index)
        for access, keys in batch.footprint.columns:
            by_leader = self._by_key.get(access)
            if by_leader is None:
                by_leader = self._by_key[access] = [{} for _ in self._all]
            by_key = by_leader[leader]
            for key in keys:
                by_key.setdefault(key, _Indexes()).add(index)

    def remove(self, id: InstanceId, batch: Batch) -> None:
        leader, index = id
        self._all[leader].remove(index)
        if batch.footprint.barrier:
            self._barriers[leader].remove(index)
        for access, keys in batch.footprint.columns:
            by_key = self._by_key[access][leader]
            for key in dict.fromkeys(keys):
                indexes = by_key[key]
                indexes.remove(index)
                if not indexes:
                    del by_key[key]

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        for number, last in enumerate(deps):
            leader, found = ReplicaId(number), set[int]()
            for indexes in self._conflicting(batch, leader):
                for index in indexes.up_to(last):
                    if index not in found:
                        found.add(index)
                        yield InstanceId(leader, index)

    def _conflicting(self, batch: Batch, leader: ReplicaId) -> Iterator[_Indexes]:
        if batch.footprint.barrier:
            yield self._all[leader]
            return
        yield self._barriers[leader]
        for by_key, keys in self._conflicting_columns(batch, leader):
            yield from filter(None, map(by_key.get, keys))

    def _conflicting_columns(
        self, batch: Batch, leader: int
    ) -> Iterator[tuple[dict[bytes, _Indexes], tuple[bytes, ...]]]:
        """Pairs of a column of the batch and the indexes by key of one leader's conflicting accesses."""
        for access, keys in batch.footprint.columns:
            for other_access, by_leader in tuple(self._by_key.items()):
                if _accesses_conflict(access, other_access):
                    yield by_leader[leader], keys


class EverythingConflicts:
    """A total order, as in leader-based replication: for machines that cannot name their keys."""

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Always."""
        return True

    def index(self, replicas: int) -> ConflictIndex:
        """An index of only the newest instance of each leader."""
        return _NewestIndex(replicas)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that calls the relation for every instance."""
        return _PairBacklog(self.conflict)


class _NewestIndex:
    def __init__(self, replicas: int) -> None:
        self._newest = [0] * replicas

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._newest[id.leader] = max(self._newest[id.leader], id.index)

    def conflicts(self, batch: Batch) -> Deps:
        return tuple(self._newest)

    def discard(self, entries_max: int) -> bool:
        return True


class NothingConflicts:
    """Only barriers conflict: for machines whose commands all commute."""

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Whether either is a barrier."""
        return left.footprint.barrier or right.footprint.barrier

    def index(self, replicas: int) -> ConflictIndex:
        """An index that calls the relation for every instance."""
        return _PairIndex(replicas, self.conflict)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that calls the relation for every instance."""
        return _PairBacklog(self.conflict)


class UserRelation:
    """A user's own relation over single commands; batches conflict when any two of their commands do.

    `conflict` must depend on its arguments alone. It is called once per pair, the smaller command first, so it need not
    be symmetric. If it raises, the two commands conflict: that is safe, equal at every replica, and the batch may be
    agreed already. The index compares a batch with all others, from the newest to the oldest, so this relation suits
    small histories and special machines; declared keys are faster.
    """

    def __init__(self, conflict: Callable[[bytes, bytes], bool]) -> None:
        self._relation = conflict

    def check(self, commands: Sequence[bytes]) -> None:
        """Call before commands are proposed. Raises UsageError if the relation raises for a command and itself."""
        for command in commands:
            try:
                bool(self._relation(command, command))
            except MemoryError:
                raise
            except Exception as error:
                raise UsageError(f"the conflict relation raised {type(error).__name__} for the command") from error

    def _conflict(self, one: bytes, other: bytes) -> bool:
        try:
            return bool(self._relation(one, other) if one <= other else self._relation(other, one))
        except MemoryError:
            raise  # the cause is the machine, not the commands
        except Exception:
            return True

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Whether any pair of commands conflicts, or either batch is a barrier."""
        if left.footprint.barrier or right.footprint.barrier:
            return True
        return any(self._conflict(one, other) for one in left.commands for other in right.commands)

    def index(self, replicas: int) -> ConflictIndex:
        """An index that calls the relation for every instance."""
        return _PairIndex(replicas, self.conflict)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that calls the relation for every instance."""
        return _PairBacklog(self.conflict)


class _PairIndex:
    def __init__(self, replicas: int, conflict: Callable[[Batch, Batch], bool]) -> None:
        self._conflict = conflict
        self._batches: list[dict[int, Batch]] = [{} for _ in range(replicas)]

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._batches[id.leader][id.index] = batch

    def conflicts(self, batch: Batch) -> Deps:
        return tuple(self._newest_conflict(of_leader, batch) for of_leader in self._batches)

    def discard(self, entries_max: int) -> bool:
        return True

    def _newest_conflict(self, of_leader: dict[int, Batch], batch: Batch) -> int:
        for index in sorted(of_leader, reverse=True):
            if self._conflict(of_leader[index], batch):
                return index
        return 0


class _PairBacklog:
    def __init__(self, conflict: Callable[[Batch, Batch], bool]) -> None:
        self._conflict = conflict
        self._batches: dict[InstanceId, Batch] = {}

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._batches[id] = batch

    def remove(self, id: InstanceId, batch: Batch) -> None:
        del self._batches[id]

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        for id, other in tuple(self._batches.items()):
            if covers(deps, id) and self._conflict(other, batch):
                yield id
