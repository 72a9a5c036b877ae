"""Which batches commute, and the dependency vector of a new one.

A relation is exact and symmetric (`conflict`), and gives an index that over-approximates it: naming too much in a
vector is always safe, naming too little breaks agreement. Vectors come from bulk dict operations over a batch's keys.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Protocol

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers
from pydsm.core.types.messages import Access, Batch, Footprint


class ConflictIndex(Protocol):
    """Every instance whose batch is known, by what it touches."""

    def add(self, id: InstanceId, batch: Batch) -> None:
        """Remember that `id` may be decided to be `batch`. Adding the same again changes nothing."""
        ...

    def conflicts(self, batch: Batch) -> Deps:
        """Per leader, the highest known index that conflicts with `batch`, or a higher one; 0 for none."""
        ...

    def discard(self, entries_max: int) -> bool:
        """Let go of about so many entries of an index that is used no more; True when none is left."""
        ...


class Backlog(Protocol):
    """The batches of some instances, to find those that conflict with another one exactly, without comparing all."""

    def add(self, id: InstanceId, batch: Batch) -> None:
        """Remember it. Adding the same again changes nothing."""
        ...

    def remove(self, id: InstanceId, batch: Batch) -> None:
        """Forget it; it must be there."""
        ...

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        """Of those that `deps` covers, all that conflict with `batch`, each once; old ones early.

        Found as they are asked for. Those that are removed meanwhile may still come.
        """
        ...


class Relation(Protocol):
    """Which batches may not be executed in either order.

    What raises here ends every replica that knows the batch, each again after a restart: see `UserRelation` for one
    that may raise.
    """

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Exact and symmetric; depends on nothing but the two batches, so that every replica agrees."""
        ...

    def index(self, replicas: int) -> ConflictIndex:
        """An empty index for a group of this size."""
        ...

    def backlog(self, replicas: int) -> Backlog:
        """An empty backlog for a group of this size."""
        ...


_FEW_KEYS = 128


def _accesses_conflict(left: Access, right: Access) -> bool:
    """Writes conflict with all; reads with reads, and updates with updates of their own kind, do not."""
    return left is True or right is True or left != right


def footprints_conflict(left: Footprint, right: Footprint) -> bool:
    """Whether some key is touched by both in ways that do not commute, or either is a barrier."""
    if left.barrier or right.barrier:
        return True
    for place, (access, _) in enumerate(left.columns):
        for other_access, other_keys in right.columns:
            # A tuple against a set: in the order of the tuple, a key that is in many commands soon ends the search.
            if _accesses_conflict(access, other_access) and not left.key_sets[place].isdisjoint(other_keys):
                return True
    return False


class DeclaredKeys:
    """The default: batches conflict when their footprints do."""

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
    """Per kind of access and leader, the highest index that touched each key."""

    def __init__(self, replicas: int) -> None:
        self._latest: dict[Access, list[dict[bytes, int]]] = {}
        self._newest = [0] * replicas
        self._newest_barrier = [0] * replicas
        self._newest_footprints = [Footprint()] * replicas
        self._newest_conflicted = [False] * replicas
        """Whether the newest instance of a leader conflicted with the last batch that was looked up."""

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
        """The highest index of one leader that conflicts.

        Under contention that is the newest one nearly always, and a few keys show it; so where it was the last time,
        it is looked at before all keys are.
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
    """Whether a few keys are enough to see that they conflict."""
    if left.barrier:
        return True
    for place, (access, _) in enumerate(left.columns):
        for other_access, other_keys in right.columns:
            few = other_keys[:_FEW_KEYS]
            if _accesses_conflict(access, other_access) and not left.key_sets[place].isdisjoint(few):
                return True
    return False


class _Indexes:
    """Indexes of one leader, ascending: the oldest come first, and are the first to go."""

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
    """Per kind of access, leader and key, who touches it; and the barriers, which no key tells of."""

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
        for by_key, keys in self._facing(batch, leader):
            yield from filter(None, map(by_key.get, keys))

    def _facing(self, batch: Batch, leader: int) -> Iterator[tuple[dict[bytes, _Indexes], tuple[bytes, ...]]]:
        """Each column of the batch with what one leader's instances do to keys in a way that conflicts with it."""
        for access, keys in batch.footprint.columns:
            for other_access, by_leader in tuple(self._by_key.items()):
                if _accesses_conflict(access, other_access):
                    yield by_leader[leader], keys


class EverythingConflicts:
    """A total order: state machine replication as leaders do it, for machines that cannot name their keys."""

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Always."""
        return True

    def index(self, replicas: int) -> ConflictIndex:
        """Remembers only the newest instance of each leader."""
        return _NewestIndex(replicas)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that asks the relation itself."""
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
    """No order at all but that of barriers: for machines whose commands all commute."""

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Only where one is a barrier."""
        return left.footprint.barrier or right.footprint.barrier

    def index(self, replicas: int) -> ConflictIndex:
        """Remembers only barriers."""
        return _PairIndex(replicas, self.conflict)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that asks the relation itself."""
        return _PairBacklog(self.conflict)


class UserRelation:
    """A user's own relation over single commands; batches conflict when any two of their commands do.

    `conflict` must depend on its arguments alone. It is asked once for each pair, the smaller command first, so it need
    not be symmetric. Where it raises, the two conflict, at every replica alike: naming too much is safe, and the batch
    is agreed on already. The index compares with every known batch from the newest down, so this suits small histories
    and odd machines; declared keys are the fast way.
    """

    def __init__(self, conflict: Callable[[bytes, bytes], bool]) -> None:
        self._relation = conflict

    def check(self, commands: Sequence[bytes]) -> None:
        """Before commands are proposed. Raises UsageError for one that the relation cannot compare with itself."""
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
            raise  # says nothing about the commands
        except Exception:
            return True

    def conflict(self, left: Batch, right: Batch) -> bool:
        """Whether any pair of commands conflicts, or either batch is a barrier."""
        if left.footprint.barrier or right.footprint.barrier:
            return True
        return any(self._conflict(one, other) for one in left.commands for other in right.commands)

    def index(self, replicas: int) -> ConflictIndex:
        """An index that asks the relation itself."""
        return _PairIndex(replicas, self.conflict)

    def backlog(self, replicas: int) -> Backlog:
        """A backlog that asks the relation itself."""
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
