"""The instances of all leaders at one replica, their conflict index, and the list of unexecuted ones.

Guarantees that the conflict index covers every instance whose batch is known, whichever message brought the batch
(docs/reference/protocol.md, section 2), and that Validate is answered exactly (section 4). Decisions are made by the
modules of `core/protocol` that call this one. The vectors used here are listed in docs/reference/glossary.md, "Table of
watermarks". Two meanings of "known" are kept apart: an *index is known* when any message or vector names it; a *batch
is known* when this replica has the batch of the instance.
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
"""Estimated memory of an instance without its batch."""


class Log:
    """Instances of all leaders at one replica.

    `unexecuted[r]` maps each known but unexecuted index of leader r to the tick at which it became known, in ascending
    order. Everything below its first entry is executed.

    Args:
        replicas: size of the group.
        relation: which batches conflict.
        gap_instances_max: see `Config.gap_instances_max`.
        backlog_instances_min: see `Config.backlog_instances_min`.
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
        self._required = self.no_deps
        """Own indexes that an earlier incarnation may have proposed: every vector covers them, see `require_after`."""
        self._replaced_indexes: list[ConflictIndex] = []
        """Old conflict indexes whose entries are not all freed yet, see `discard`."""
        self.opaque_nops: dict[InstanceId, None] = {}
        """Undecided instances accepted as nop here whose initial batch is not known: they conflict with everything."""
        self.observer: InstanceObserver | None = None
        self.dropped: Deps = self.no_deps
        """Per leader, the prefix removed from memory. Executed here, and by all members unless it is in
        `compaction_checkpoint`."""
        self.absent: frozenset[InstanceId] = frozenset()
        """Instances above `dropped` that are executed but not in memory: they were part of a snapshot from a peer."""
        self.compaction_checkpoint: Checkpoint | None = None
        """Contains every instance that was removed from memory before all members had executed it."""
        self.kept_bytes = 0
        """Estimated memory of the executed instances that are still in memory."""
        self.own: tuple[ReplicaId, int] | None = None
        """This replica and the highest index that it may have used; None disables the check in `note_exists`."""
        self._gap_instances_max = gap_instances_max
        self._backlog: Backlog | None = None
        self._backlog_instances_min = backlog_instances_min

    @property
    def known(self) -> Deps:
        """Per leader, the highest index known: named by any message, vector or record."""
        return tuple(self._known)

    @property
    def frontier(self) -> Deps:
        """Per leader, the last index of the contiguous executed prefix."""
        return tuple(
            next(iter(unexecuted), known + 1) - 1
            for unexecuted, known in zip(self.unexecuted, self._known, strict=True)
        )

    def note_exists(self, deps: Deps) -> None:
        """Raise `known` to at least `deps`: these instances and all before them exist, and must be decided.

        Raises:
            FarAhead: an index is more than `gap_instances_max` above the highest known one of its leader.
            PeerProtocolError: an index of this replica is above those that it can have used.
        """
        for leader, index in enumerate(deps):
            if index > self._known[leader]:
                self._extend_checked(leader, index)

    def note_gossiped(self, known: Deps) -> None:
        """Raise `known` to what a peer knows, or to `gap_instances_max` above the executed prefix if that is less.

        Raises PeerProtocolError for an index of this replica above those that it can have used.
        """
        # A replica that was away for long cannot take in one step what the others have agreed on meanwhile. It follows
        # in steps, each when the one before is executed. Without them it would learn of nothing at all, because every
        # message names an instance too far away, unless peers have compacted and offer a snapshot.
        frontier = self.frontier
        for leader, index in enumerate(known):
            far = index - self._known[leader] > self._gap_instances_max and not self._is_own(leader)
            last = frontier[leader] + self._gap_instances_max if far else index
            if last > self._known[leader]:
                self._extend_checked(leader, last)

    def _is_own(self, leader: int) -> bool:
        return self.own is not None and leader == self.own[0]

    def note_restored(self, deps: Deps) -> None:
        """Raise `known` to at least `deps`, which come from the own disk: no limit applies."""
        for leader, index in enumerate(deps):
            if index > self._known[leader]:
                self._extend(leader, index)

    def require_after(self, id: InstanceId) -> None:
        """Make every later vector of this replica cover `id`, an own index that it may have proposed before a restart.

        See docs/decisions/earlier-proposals-are-dependencies.md.
        """
        # A PreAccept may be sent before its record is durable, so a crash can lose a proposal that peers have. Recovery
        # concludes from an unchanged pre-acceptance by leader L that L's invalidator was proposed later and would cover
        # the validated instance. That is true only if L's earlier proposals are in every vector that L gives. Without
        # this line an instance committed on the fast path can be recovered as nop.
        self._required = with_instance(self._required, id)

    def _extend_checked(self, leader: int, index: int) -> None:
        known = self._known[leader]
        if self.own is not None and self._is_own(leader) and index > self.own[1]:
            raise PeerProtocolError(
                f"the message names instance {leader}.{index} of this replica, which has used at most {self.own[1]} "
                "indexes: the peer is faulty, or this replica's data directory was replaced by an older copy"
            )
        if index - known > self._gap_instances_max:
            raise FarAhead(
                f"instance {leader}.{index} is {index - known} beyond the highest known index, more than "
                f"{self._gap_instances_max}: the peer is faulty, or this replica is far behind, and catches up in "
                "steps or with a snapshot"
            )
        self._extend(leader, index)

    def _extend(self, leader: int, index: int) -> None:
        self.unexecuted[leader].extend(self._known[leader] + 1, index, self.now)
        self._known[leader] = index

    def _in_memory(self, leader: int, first: int, last: int) -> Iterator[Instance]:
        """The instances of a leader in memory from `first` to `last`, ascending.

        The cost is bounded by the number of instances in memory, because a peer may choose the range.
        """
        if last - first < len(self.instances):
            ids: Iterable[InstanceId] = (InstanceId(ReplicaId(leader), index) for index in range(first, last + 1))
        else:
            ids = sorted(id for id in self.instances if id.leader == leader and first <= id.index <= last)
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None:
                yield instance

    def is_dropped(self, id: InstanceId) -> bool:
        """Whether the instance was executed and removed from memory: it must never be created again."""
        return id.index <= self.dropped[id.leader] or id in self.absent

    def drop(self, up_to: Deps, instances_max: int) -> None:
        """Remove executed instances up to `up_to` from memory, the oldest first, at most `instances_max` per leader.

        Raises InvariantViolation for an instance that is not executed.
        """
        # The caller bounds `up_to` by `Window.settled` (nothing undecided can have the instance as invalidator) or by
        # the position of `compaction_checkpoint` (its barrier is reported by `invalidators` instead). Any other bound
        # makes an answer to Validate incomplete, and two conflicting batches could be committed in no order.
        # The conflict index keeps its entries: later batches must still be ordered after the removed instances.
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
                        f"instance {instance.id} would be removed from memory before it is executed: {instance!r}"
                    )
                self.kept_bytes -= _weight(instance)
            dropped.append(max(done, last))
        self.dropped = tuple(dropped)

    def instance(self, id: InstanceId) -> Instance:
        """The instance with this id; created if it is not in memory.

        Raises InvariantViolation for a dropped one, and what `note_exists` raises.
        """
        instance = self.instances.get(id)
        if instance is None:
            if self.is_dropped(id):
                raise InvariantViolation(f"instance {id} was executed and dropped: it must not be created again")
            if id.index > self._known[id.leader]:
                self._extend_checked(id.leader, id.index)
            instance = self.instances[id] = Instance(id, self.no_deps)
        return instance

    def restore(self, instance: Instance) -> None:
        """Add an instance from disk to memory and to the conflict index. After `begin_at`, if there is a checkpoint."""
        self.note_restored(with_instance(instance.deps, instance.id))
        self.instances[instance.id] = instance
        if instance.id.index not in self.unexecuted[instance.id.leader]:
            instance.advance(Status.EXECUTED)  # it is in the checkpoint given to `begin_at`
            self.kept_bytes += _weight(instance)
        if instance.initial_batch is not None:
            self._index.add(instance.id, instance.initial_batch)
        self._index_value(instance)

    def begin_at(self, checkpoint: Checkpoint, purged: Deps, absent: Iterable[InstanceId] = ()) -> None:
        """Start with every instance of a checkpoint executed. Call before any `restore`.

        Args:
            checkpoint: the checkpoint whose state the machine has.
            purged: per leader, the prefix whose records are not on the disk.
            absent: executed instances above `purged` without a decided record on this disk; see `PurgeRecord`.
        """
        # Before it installed the snapshot, this replica may have answered peers with vectors that name the absent
        # instances as conflicts. Their batches are lost here, so the index cannot name them again: the floor covers
        # them instead, until an executed barrier raises the floor above them.
        position = checkpoint.position
        self._floor = checkpoint.floor
        self.dropped = purged
        self.absent = frozenset(absent)
        for id in self.absent:
            self._floor = with_instance(self._floor, id)
        self.compaction_checkpoint = checkpoint
        self._known = list(position.up_to)
        for id in position.exceptions:
            self.note_restored(with_instance(self.no_deps, id))
        for id in position.exceptions:
            del self.unexecuted[id.leader][id.index]

    @property
    def floor(self) -> Deps:
        """Covered by every later vector: the executed barriers, their vectors, and the absent instances."""
        return self._floor

    def begin_index(self) -> None:
        """Start a new conflict index after a checkpoint: it has only the instances above the floor."""
        # Entries up to the floor add nothing, because `conflicts` always covers the floor. Nothing above the floor is
        # lost although only instances in memory are added: a batch above the floor is either unexecuted or in the
        # component of the barrier just executed, so it is still in memory. (An executed batch outside that component
        # either is covered by the barrier, or covers it and is executed after it.)
        index = self.relation.index(len(self.no_deps))
        for number, (floor, known) in enumerate(zip(self._floor, self._known, strict=True)):
            for instance in self._in_memory(number, floor + 1, known):
                if instance.known_batch is not None:
                    index.add(instance.id, instance.known_batch)
        self._replaced_indexes.append(self._index)
        self._index = index

    def discard(self, entries_max: int) -> None:
        """Free about `entries_max` entries of replaced indexes: freeing all in one call would block the loop."""
        if self._replaced_indexes and self._replaced_indexes[0].discard(entries_max):
            del self._replaced_indexes[0]

    def conflicts(self, batch: Batch) -> Deps:
        """The vector of all that a new instance with this batch must be ordered after (protocol.md, section 3)."""
        # The index may have been emptied up to the floor, at different times at different replicas. Because the floor
        # is agreed and always included, all of them give the same vector, which the fast path needs.
        deps = merge(merge(self._index.conflicts(batch), self._floor), self._required)
        for id in self.opaque_nops:
            deps = with_instance(deps, id)
        return deps

    def pre_accept(self, instance: Instance, batch: Batch, initial: Deps, deps: Deps) -> None:
        """Store the leader's PreAccept: its batch and `initial` vector, and the vector `deps` that results here."""
        instance.advance(Status.PRE_ACCEPTED)
        instance.value = instance.initial_batch = batch
        instance.initial_deps = initial
        instance.deps = deps
        self.note_exists(deps)
        self._index_value(instance)
        self._changed(instance)

    def accept(self, instance: Instance, ballot: Ballot, value: Value, deps: Deps) -> None:
        """Vote for a value. The caller has compared the ballot with the promise."""
        batch_known = self._remove_value(instance)
        instance.promise(ballot)
        instance.advance(Status.ACCEPTED)
        instance.voted = ballot
        instance.value = value
        instance.deps = deps
        self.note_exists(deps)
        self._index_value(instance, batch_was_known=batch_known)
        self._changed(instance)

    def validate(self, instance: Instance, batch: Batch, initial: Deps) -> None:
        """Store the leader's first proposal as sent by a recoverer. `deps` and status stay."""
        instance.value = instance.initial_batch = batch
        instance.initial_deps = initial
        self.note_exists(initial)
        self._index_value(instance)
        self._changed(instance)

    def commit(self, instance: Instance, value: Value, deps: Deps) -> None:
        """Store the final value. The caller has checked that the instance was not decided before."""
        batch_known = self._remove_value(instance)
        instance.advance(Status.COMMITTED)
        instance.value = value
        instance.deps = deps
        self.note_exists(deps)
        self._index_value(instance, batch_was_known=batch_known)
        self._changed(instance)

    def executed(self, instance: Instance) -> None:
        """Mark the instance as executed; a barrier raises the floor."""
        instance.advance(Status.EXECUTED)
        del self.unexecuted[instance.id.leader][instance.id.index]
        self.kept_bytes += _weight(instance)
        self._remove_value(instance)
        if isinstance(instance.value, Batch) and instance.value.footprint.barrier:
            # Everything new conflicts with the barrier and is ordered after it. Covering the barrier's vector as well
            # lets the conflict index drop all entries up to the floor. Both are agreed with the decision, so replicas
            # that have executed the same barriers have the same floor.
            self._floor = merge(self._floor, with_instance(instance.deps, instance.id))
        self._changed(instance)

    def _changed(self, instance: Instance) -> None:
        if self.observer is not None:
            self.observer.changed(instance)

    def backlog(self) -> Backlog | None:
        """All unexecuted instances whose batch is known, by key; None while there are fewer than the limit.

        Maintained only while a replica is behind: then comparing every pair would take longer than the other replicas
        need to agree on more. For few instances, comparing pairs is cheaper than maintaining the index.
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

    def _remove_value(self, instance: Instance) -> bool:
        """Call before the value changes: removes the batch from the backlog. Returns whether the batch was known.

        Before, because a vote for nop may replace a batch that only an earlier vote carried.
        """
        batch = instance.known_batch
        if self._backlog is not None and batch is not None:
            self._backlog.remove(instance.id, batch)
        return batch is not None

    def _index_value(self, instance: Instance, *, batch_was_known: bool = False) -> None:
        """Call after the value changed: adds the batch to the conflict index and to the backlog.

        An accepted but undecided nop still conflicts: as its initial batch if that is known, else with everything. An
        instance can have only one batch, so nothing is added to the index if the batch was known before.
        """
        if isinstance(instance.value, Batch) and not batch_was_known:
            self._index.add(instance.id, instance.value)
        if self._backlog is not None and instance.known_batch is not None:
            self._backlog.add(instance.id, instance.known_batch)
        if instance.status is Status.ACCEPTED and instance.known_batch is None:
            self.opaque_nops[instance.id] = None
        else:
            self.opaque_nops.pop(instance.id, None)

    def invalidators(self, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        """The exact invalidators of `(batch, deps)` of instance `id` (protocol.md, section 4), ascending by id.

        An invalidator is a known instance with a conflicting batch such that neither covers the other.
        """
        # Exact in both directions: a missing invalidator lets recovery commit two conflicting batches in no order, a
        # wrong one turns an instance that was committed on the fast path into a nop.
        #
        # Instances removed from memory are not looked at. If all members had executed them, they cannot invalidate
        # anything undecided (proof: docs/explanation/log-compaction.md). If they left earlier, they are in the
        # compaction checkpoint. `id` is undecided, so it is not reachable from the executed barrier of that checkpoint.
        # If `deps` cover the barrier, `id` is executed after all of them; if not, the barrier is a committed
        # invalidator.
        found = []
        if self.compaction_checkpoint is not None and not covers(deps, self.compaction_checkpoint.barrier):
            found.append(Invalidator(self.compaction_checkpoint.barrier, True))
        # No conflict is above the bound of the index, but the index may have no entries up to the floor. So everything
        # in memory between `deps` and the higher of the two is compared.
        bound = merge(self._index.conflicts(batch), self._floor)
        for leader, (covered, last) in enumerate(zip(deps, bound, strict=True)):
            found += [
                Invalidator(other.id, other.decided)
                for other in self._in_memory(leader, max(covered, self.dropped[leader]) + 1, last)
                if other.id != id and self._invalidates(other, id, batch)
            ]
        return tuple(sorted(dict.fromkeys(found), key=lambda one: one.id))

    def _invalidates(self, other: Instance, id: InstanceId, batch: Batch) -> bool:
        # A decided instance counts with its decision, so a nop never counts. An undecided one counts with its leader's
        # first proposal, never with a later vote; one whose initial batch is not known here does not count.
        if other.decided:
            value, deps = other.value, other.deps
        else:
            value, deps = other.initial_batch, other.initial_deps
        return isinstance(value, Batch) and not covers(deps, id) and self.relation.conflict(value, batch)

    def check_same(self, instance: Instance, value: Value, deps: Deps) -> None:
        """Compare a second decision with the first. Raises InvariantViolation if they differ."""
        same = isinstance(value, Nop) if instance.value == NOP else instance.value == value and instance.deps == deps
        if not same:
            raise InvariantViolation(f"instance {instance.id} was decided twice: {instance!r} and {value!r} {deps}")


def _weight(instance: Instance) -> int:
    """Estimated memory of an executed instance, in bytes."""
    return _OVERHEAD_BYTES + (len(instance.value.encoded) if isinstance(instance.value, Batch) else 0)
