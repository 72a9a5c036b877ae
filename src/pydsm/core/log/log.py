"""What one replica knows: its instances, what they conflict with, and which are not executed yet.

Guards the rule that the conflict index covers every instance whose batch is known, whichever message brought it
(PROTOCOL 2), and answers Validate exactly (PROTOCOL 4). Deciding anything is left to the rooms that call it.
"""

from collections.abc import Iterable, Iterator

from pydsm.core.log.conflicts import Backlog, ConflictIndex, Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.observer import InstanceObserver
from pydsm.core.log.unexecuted import Unexecuted
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import FarAhead, InvariantViolation, PeerProtocolError
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers, merge, with_instance
from pydsm.core.types.messages import NOP, Batch, Invalidator, Nop, Value
from pydsm.core.types.status import Status

_OVERHEAD_BYTES = 1000
"""About what an instance takes besides its batch."""


class Log:
    """Instances of all leaders at one replica.

    `unexecuted[r]` maps the indexes of leader r that are heard of but not executed to the tick at which they were
    first heard of, in ascending order; what is below its first entry is never looked at again.
    """

    def __init__(
        self, replicas: int, relation: Relation, gap_instances_max: int, backlog_instances_min: int = 256
    ) -> None:
        self.relation = relation
        self.instances: dict[InstanceId, Instance] = {}
        self.unexecuted = [Unexecuted() for _ in range(replicas)]
        self.no_deps: Deps = (0,) * replicas
        self.now = Tick(0)
        self._known = [0] * replicas
        self._index = relation.index(replicas)
        self._floor = self.no_deps
        self._former = self.no_deps
        self._discarded: list[ConflictIndex] = []
        self.opaque_nops: dict[InstanceId, None] = {}
        """Accepted as nop, not decided, and what their leaders proposed is not known."""
        self.watch: InstanceObserver | None = None
        self.dropped: Deps = self.no_deps
        """Per leader, the prefix that has left memory: executed here, and by all, unless the horizon has it."""
        self.absent: frozenset[InstanceId] = frozenset()
        """Executed beyond `dropped` and not in memory: they came with the snapshot of a peer."""
        self.compaction_checkpoint: Checkpoint | None = None
        """What has left memory though not every member has executed it is in this checkpoint."""
        self.kept_bytes = 0
        """About how much memory executed instances take that have not left it."""
        self.own: tuple[ReplicaId, int] | None = None
        """This replica, and the highest of its indexes that it may have used; None if any may be heard of."""
        self._gap_instances_max = gap_instances_max
        self._backlog: Backlog | None = None
        self._backlog_instances_min = backlog_instances_min

    @property
    def known(self) -> Deps:
        """Per leader, the highest index heard of in any message or vector."""
        return tuple(self._known)

    @property
    def frontier(self) -> Deps:
        """Per leader, the contiguous prefix that is executed."""
        return tuple(
            next(iter(unexecuted), known + 1) - 1
            for unexecuted, known in zip(self.unexecuted, self._known, strict=True)
        )

    def note_exists(self, deps: Deps) -> None:
        """Note that these instances and all before them exist.

        Raises FarAhead for one absurdly far away, PeerProtocolError for one of this replica that it cannot have used.
        """
        for leader, index in enumerate(deps):
            if index > self._known[leader]:
                self._hear_of(leader, index)

    def hear_of_restored(self, deps: Deps) -> None:
        """The same for what the own disk says, which may be any distance away."""
        for leader, index in enumerate(deps):
            if index > self._known[leader]:
                self._extend(leader, index)

    def forgot(self, id: InstanceId) -> None:
        """An earlier life may have proposed up to here what others know and this one does not: every vector covers it.

        Recovery takes a leader that let an instance pass unordered for one that proposed its own after that
        (docs/decisions/former-proposals-are-covered).
        """
        self._former = with_instance(self._former, id)

    def _hear_of(self, leader: int, index: int) -> None:
        known = self._known[leader]
        if self.own is not None and leader == self.own[0] and index > self.own[1]:
            raise PeerProtocolError(
                f"it names instance {leader}.{index} of this replica, which has used {self.own[1]} indexes at most: a "
                "wrong peer, or this replica's data directory was put back to an older copy"
            )
        if index - known > self._gap_instances_max:
            raise FarAhead(
                f"instance {leader}.{index} is {index - known} beyond what is known, more than "
                f"{self._gap_instances_max}: a wrong peer, or this replica is far behind, and needs a snapshot"
            )
        self._extend(leader, index)

    def _extend(self, leader: int, index: int) -> None:
        self.unexecuted[leader].extend(self._known[leader] + 1, index, self.now)
        self._known[leader] = index

    def _in_memory(self, leader: int, first: int, last: int) -> Iterator[Instance]:
        """Instances of a leader in this range, in order, at the cost of what is there: a peer may choose the range."""
        if last - first < len(self.instances):
            ids: Iterable[InstanceId] = (InstanceId(ReplicaId(leader), index) for index in range(first, last + 1))
        else:
            ids = sorted(id for id in self.instances if id.leader == leader and first <= id.index <= last)
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None:
                yield instance

    def is_dropped(self, id: InstanceId) -> bool:
        """Whether the instance was executed and has left memory: it never comes back."""
        return id.index <= self.dropped[id.leader] or id in self.absent

    def drop(self, up_to: Deps, instances_max: int) -> None:
        """Let executed instances leave memory, the oldest first, so many of each leader at once.

        The conflict index keeps them, or two conflicting instances could end up in no order.
        """
        dropped = []
        for number, (done, wanted) in enumerate(zip(self.dropped, up_to, strict=True)):
            last = min(wanted, done + instances_max)
            for index in range(done + 1, last + 1):
                id = InstanceId(ReplicaId(number), index)
                if id in self.absent:
                    continue
                instance = self.instances.pop(id)
                if instance.status is not Status.EXECUTED:
                    raise InvariantViolation(
                        f"instance {instance.id} leaves memory before it is executed: {instance!r}"
                    )
                self.kept_bytes -= _weight(instance)
            dropped.append(max(done, last))
        self.dropped = tuple(dropped)

    def instance(self, id: InstanceId) -> Instance:
        """The instance, made if this is the first that is heard of it. Raises InvariantViolation for a dropped one."""
        instance = self.instances.get(id)
        if instance is None:
            if self.is_dropped(id):
                raise InvariantViolation(f"instance {id} was executed and dropped: it must not be made again")
            if id.index > self._known[id.leader]:
                self._hear_of(id.leader, id.index)
            instance = self.instances[id] = Instance(id, self.no_deps)
        return instance

    def restore(self, instance: Instance) -> None:
        """Take an instance from disk into memory and the index."""
        self.hear_of_restored(with_instance(instance.deps, instance.id))
        self.instances[instance.id] = instance
        if instance.id.index not in self.unexecuted[instance.id.leader]:
            instance.advance(Status.EXECUTED)  # the checkpoint that was begun at has it
            self.kept_bytes += _weight(instance)
        if instance.initial_batch is not None:
            self._index.add(instance.id, instance.initial_batch)
        self._note_value(instance)

    def begin_at(self, checkpoint: Checkpoint, purged: Deps, absent: Iterable[InstanceId] = ()) -> None:
        """Begin with all of a checkpoint executed, and nothing up to `purged` in memory. Before any `restore`.

        Nor are those that are `absent`. This replica may have told others what they conflict with; it does not know
        that any more, so everything new is ordered behind them, as behind the floor.
        """
        position = checkpoint.position
        self._floor = checkpoint.floor
        self.dropped = purged
        self.absent = frozenset(absent)
        for id in self.absent:
            self._floor = with_instance(self._floor, id)
        self.compaction_checkpoint = checkpoint
        self._known = list(position.up_to)
        for id in position.exceptions:
            self.hear_of_restored(with_instance(self.no_deps, id))
        for id in position.exceptions:
            del self.unexecuted[id.leader][id.index]

    @property
    def floor(self) -> Deps:
        """What every later vector covers: the last executed barrier, and what that covers."""
        return self._floor

    def begin_index(self) -> None:
        """A barrier was executed: what is up to the floor needs no place in the index any more.

        Later vectors cover the floor, whatever they conflict with. What is above it keeps its place; that is what is
        under way.
        """
        index = self.relation.index(len(self.no_deps))
        for number, (floor, known) in enumerate(zip(self._floor, self._known, strict=True)):
            for instance in self._in_memory(number, floor + 1, known):
                if instance.known_batch is not None:
                    index.add(instance.id, instance.known_batch)
        self._discarded.append(self._index)
        self._index = index

    def discard(self, entries_max: int) -> None:
        """Let go of some of what was in earlier indexes: all at once would stop the loop for long."""
        if self._discarded and self._discarded[0].discard(entries_max):
            del self._discarded[0]

    def conflicts(self, batch: Batch) -> Deps:
        """Everything that a new instance with this batch must be ordered after (PROTOCOL 3)."""
        deps = merge(merge(self._index.conflicts(batch), self._floor), self._former)
        for id in self.opaque_nops:
            deps = with_instance(deps, id)
        return deps

    def pre_accept(self, instance: Instance, batch: Batch, initial: Deps, deps: Deps) -> None:
        """First sight of a batch, from its leader, with the vector that results here."""
        instance.advance(Status.PRE_ACCEPTED)
        instance.value = instance.initial_batch = batch
        instance.initial_deps = initial
        instance.deps = deps
        self.note_exists(deps)
        self._note_value(instance)
        self._changed(instance)

    def accept(self, instance: Instance, ballot: Ballot, value: Value, deps: Deps) -> None:
        """Vote for a value; the caller has compared the ballot with the promise."""
        known = self._forget_value(instance)
        instance.promise(ballot)
        instance.advance(Status.ACCEPTED)
        instance.voted = ballot
        instance.value = value
        instance.deps = deps
        self.note_exists(deps)
        self._note_value(instance, known_before=known)
        self._changed(instance)

    def validate(self, instance: Instance, batch: Batch, initial: Deps) -> None:
        """Learn what the leader first proposed, from a recoverer; `deps` and status stay."""
        instance.value = instance.initial_batch = batch
        instance.initial_deps = initial
        self.note_exists(initial)
        self._note_value(instance)
        self._changed(instance)

    def commit(self, instance: Instance, value: Value, deps: Deps) -> None:
        """The final value; the caller has seen that the instance was not decided before."""
        known = self._forget_value(instance)
        instance.advance(Status.COMMITTED)
        instance.value = value
        instance.deps = deps
        self.note_exists(deps)
        self._note_value(instance, known_before=known)
        self._changed(instance)

    def executed(self, instance: Instance) -> None:
        """The instance is done with; a barrier raises the floor under all later vectors."""
        instance.advance(Status.EXECUTED)
        del self.unexecuted[instance.id.leader][instance.id.index]
        self.kept_bytes += _weight(instance)
        self._forget_value(instance)
        if isinstance(instance.value, Batch) and instance.value.footprint.barrier:
            self._floor = merge(self._floor, with_instance(instance.deps, instance.id))
        self._changed(instance)

    def _changed(self, instance: Instance) -> None:
        if self.watch is not None:
            self.watch.changed(instance)

    def backlog(self) -> Backlog | None:
        """Every instance that is not executed and whose batch is known; None while there are few instances to compare.

        Kept only while a replica is behind, when comparing every pair would take it longer than the others need to
        agree on more. What is short enough to be compared costs less than keeping it in order by key.
        """
        waiting = sum(map(len, self.unexecuted))
        if waiting < self._backlog_instances_min:
            if self._backlog is not None and 2 * waiting < self._backlog_instances_min:
                self._backlog = None
        elif self._backlog is None:
            self._backlog = self.relation.backlog(len(self.no_deps))
            for leader, indexes in enumerate(self.unexecuted):
                for instance in self._in_memory(leader, next(iter(indexes), 1), self._known[leader]):
                    if instance.id.index in indexes and instance.known_batch is not None:
                        self._backlog.add(instance.id, instance.known_batch)
        return self._backlog

    def _forget_value(self, instance: Instance) -> bool:
        """Before a value changes, since a vote for nop may hide the batch that another vote told of: was one known?"""
        batch = instance.known_batch
        if self._backlog is not None and batch is not None:
            self._backlog.remove(instance.id, batch)
        return batch is not None

    def _note_value(self, instance: Instance, *, known_before: bool = False) -> None:
        """An accepted nop still conflicts: as its first batch where that is known, with everything where not.

        An instance has but one batch, whoever tells of it, so the index knows it already if it was known before.
        """
        if isinstance(instance.value, Batch) and not known_before:
            self._index.add(instance.id, instance.value)
        if self._backlog is not None and instance.known_batch is not None:
            self._backlog.add(instance.id, instance.known_batch)
        if instance.status is Status.ACCEPTED and instance.known_batch is None:
            self.opaque_nops[instance.id] = None
        else:
            self.opaque_nops.pop(instance.id, None)

    def invalidators(self, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        """Every known instance that would not be ordered against `(batch, deps)` of `id`, exactly (PROTOCOL 4).

        The index names, per leader, a bound above which nothing conflicts, so only what lies between the vector and
        that bound is looked at. Of what is up to the floor the index may know nothing, so all of that is looked at.

        What has left memory without having been executed by all comes before the horizon's barrier. So does `id` not:
        it is undecided. Behind the barrier, it is behind all of that; else the barrier speaks for all of it.
        """
        found = []
        if self.compaction_checkpoint is not None and not covers(deps, self.compaction_checkpoint.barrier):
            found.append(Invalidator(self.compaction_checkpoint.barrier, True))
        bound = merge(self._index.conflicts(batch), self._floor)
        for leader, (covered, last) in enumerate(zip(deps, bound, strict=True)):
            found += [
                Invalidator(other.id, other.decided)
                for other in self._in_memory(leader, max(covered, self.dropped[leader]) + 1, last)
                if other.id != id and self._invalidates(other, id, batch)
            ]
        return tuple(sorted(dict.fromkeys(found), key=lambda one: one.id))

    def _invalidates(self, other: Instance, id: InstanceId, batch: Batch) -> bool:
        if other.decided:
            value, deps = other.value, other.deps
        else:
            value, deps = other.initial_batch, other.initial_deps
        return isinstance(value, Batch) and not covers(deps, id) and self.relation.conflict(value, batch)

    def check_same(self, instance: Instance, value: Value, deps: Deps) -> None:
        """Agreement, seen from here: raises InvariantViolation if a decided instance is decided otherwise."""
        same = isinstance(value, Nop) if instance.value == NOP else instance.value == value and instance.deps == deps
        if not same:
            raise InvariantViolation(f"instance {instance.id} was decided twice: {instance!r} and {value!r} {deps}")


def _weight(instance: Instance) -> int:
    """About how many bytes of memory an executed instance takes."""
    return _OVERHEAD_BYTES + (len(instance.value.encoded) if isinstance(instance.value, Batch) else 0)
