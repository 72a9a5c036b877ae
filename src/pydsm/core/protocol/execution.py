"""The order in which committed instances are executed (EPaxos*, execution protocol).

The rules are in docs/reference/protocol.md#5-execution. An edge leads from an instance to each instance that it covers
and conflicts with, and to no other. So the graph depends only on agreed values, and every replica finds the same
strongly connected components. Components are executed in topological order, and inside a component by (index, leader).
Guarantees: the same order of conflicting commands at every replica, nothing executed twice, nothing executed before an
instance that it depends on. Applying the batches to the state machine is left to the performer of effects.

Executed instances are not visited again: the cost depends on the unexecuted instances, not on the length of the log.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import takewhile
from typing import NamedTuple

from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.types.checkpoint import is_checkpoint
from pydsm.core.types.ids import InstanceId, ReplicaId, covers
from pydsm.core.types.messages import Batch
from pydsm.core.types.status import Status


class _Wait(NamedTuple):
    """Why an instance waits: until `by` is decided or known, or until all of `by.leader` up to `by` are known."""

    by: InstanceId
    whole_prefix: bool


class _Blocked(Exception):
    """The component being built depends on an undecided instance that may conflict."""

    def __init__(self, wait: _Wait) -> None:
        super().__init__(wait)
        self.wait = wait


class Execution:
    """Executes every instance that can be executed whenever an instance is decided.

    `emit` is called with each executed instance, in order. `checkpoint` is called with the whole component after the
    last instance of a component that contains a checkpoint.
    """

    def __init__(
        self,
        log: Log,
        emit: Callable[[Instance], None],
        checkpoint: Callable[[list[Instance]], None] = lambda component: None,
    ) -> None:
        self._log = log
        self._emit = emit
        self._checkpoint = checkpoint
        self._waits: dict[InstanceId, _Wait] = {}
        self._waiters: dict[InstanceId, list[Instance]] = {}
        self._prefix_waiters: list[list[tuple[int, InstanceId]]] = [[] for _ in log.no_deps]
        """Per leader a heap of (index, waiter): the waiter needs the known prefix to reach the index. So each waiter is
        woken once per leader, however many batches are missing, in about the order in which they can be executed."""
        self._known_prefix = [0] * len(log.no_deps)
        """Per leader, the index up to which every batch was known when this was last computed."""

    def blocker(self, id: InstanceId) -> InstanceId | None:
        """The undecided or unknown instance that the committed instance `id` waits for; None if it does not wait."""
        wait = self._waits.get(id)
        if wait is None or not wait.whole_prefix:
            return wait and wait.by
        return InstanceId(wait.by.leader, self._known_prefix[wait.by.leader] + 1)

    def blockers(self, leader: ReplicaId) -> Iterator[InstanceId]:
        """The undecided or unknown instances of one leader for which committed instances wait."""
        yield from (id for id in self._waiters if id.leader == leader)
        if self._prefix_waiters[leader]:
            yield InstanceId(leader, self._known_prefix[leader] + 1)

    def committed(self, instance: Instance) -> None:
        """Call once for each decided instance. A nop is executed immediately, because no edge leads to it."""
        if isinstance(instance.value, Batch):
            self._run(instance)
        else:
            self._log.executed(instance)
            self._emit(instance)
        self.wake(instance.id)

    def wake(self, id: InstanceId) -> None:
        """Try again the instances that waited for `id`, which was decided or whose batch became known."""
        ready = self._waiters.pop(id, [])
        ready += self._reached_by_prefix(id)
        for waiter in ready:
            del self._waits[waiter.id]
        for waiter in ready:
            self._run(waiter)

    def _reached_by_prefix(self, id: InstanceId) -> list[Instance]:
        """Remove and return the waiters for which the known prefix of this leader is now long enough."""
        waiters = self._prefix_waiters[id.leader]
        if not waiters or (id.index > self._known_prefix[id.leader] + 1 and not self._log.absent):
            return []  # `<= prefix + 1`, not equal: running this instance may already have extended the prefix past it
        prefix = self._extended_prefix(id.leader)
        ready = []
        while waiters and waiters[0][0] <= prefix:
            ready.append(self._log.instances[heappop(waiters)[1]])
        return ready

    def _extended_prefix(self, leader: ReplicaId) -> int:
        """Update and return the index up to which every batch of this leader is or was known."""
        prefix = max(self._known_prefix[leader], self._log.dropped[leader])
        while self._is_batch_known(InstanceId(leader, prefix + 1)):
            prefix += 1
        self._known_prefix[leader] = prefix
        return prefix

    def _is_batch_known(self, id: InstanceId) -> bool:
        one = self._log.instances.get(id)
        return self._log.is_dropped(id) if one is None else one.decided or one.known_batch is not None

    def _run(self, root: Instance) -> None:
        """Execute everything that `root` depends on, and `root`; or note what blocks it."""
        if root.status is Status.EXECUTED:
            return
        try:
            for component in self._components(root):
                # Members of a component depend on each other, so the graph gives no order. Any order that every replica
                # computes from agreed data is correct; by index, one leader's instances run in the order of proposal.
                component.sort(key=lambda one: (one.id.index, one.id.leader))
                for instance in component:
                    self._log.executed(instance)
                    self._emit(instance)
                # A checkpoint is taken only behind its whole component. A state in the middle of one could not be
                # continued: without the members executed already, the others would form other components, in another
                # order. Behind the component, the executed set is the same at every replica.
                if any(is_checkpoint(instance.value) for instance in component):
                    self._checkpoint(component)
        except _Blocked as blocked:
            wait = self._waits[root.id] = blocked.wait
            if wait.whole_prefix:
                heappush(self._prefix_waiters[wait.by.leader], (wait.by.index, root.id))
            else:
                self._waiters.setdefault(wait.by, []).append(root)

    def _components(self, root: Instance) -> Iterator[list[Instance]]:
        """Yield each component after all components that it depends on (Tarjan's algorithm without recursion).

        The caller must execute a component before it requests the next one: executed successors are skipped here, and
        a `low` entry of an executed instance would otherwise still count as being on the path.
        """
        low: dict[InstanceId, int] = {root.id: 0}
        pending = [root]
        path = [(root, 0, self._successors(root, low))]
        while path:
            instance, order, successors = path[-1]
            child = next((one for one in successors if one.status is not Status.EXECUTED), None)
            if child is not None:
                if child.id in low:
                    low[instance.id] = min(low[instance.id], low[child.id])
                else:
                    low[child.id] = len(low)
                    pending.append(child)
                    path.append((child, low[child.id], self._successors(child, low)))
                continue
            path.pop()
            if path:
                parent = path[-1][0].id
                low[parent] = min(low[parent], low[instance.id])
            if low[instance.id] == order:
                component = [pending.pop()]
                while component[-1] is not instance:
                    component.append(pending.pop())
                yield component

    def _successors(self, instance: Instance, low: dict[InstanceId, int]) -> Iterator[Instance]:
        """Instances that must be executed before or together with this one. Raises _Blocked if some is undecided.

        They are found lazily and oldest first: the oldest is the most likely to block, and then the others need not be
        compared. Instances on the path whose `low` entry would change nothing are left out.
        """
        wait = self._waits.get(instance.id)
        if wait is not None:
            raise _Blocked(wait)
        log = self._log
        for leader, last in enumerate(instance.deps):
            if last > self._known_prefix[leader] and last > self._extended_prefix(ReplicaId(leader)):
                raise _Blocked(_Wait(InstanceId(ReplicaId(leader), last), whole_prefix=True))
        batch = instance.value
        assert isinstance(batch, Batch)
        backlog = log.backlog()
        if backlog is None:
            yield from self._compared(instance, batch, low)
        else:
            yield from self._indexed_successors(instance, backlog.conflicting(batch, instance.deps))

    def _compared(self, instance: Instance, batch: Batch, low: dict[InstanceId, int]) -> Iterator[Instance]:
        """Successors, found by comparing every covered instance that is not executed."""
        log = self._log
        for leader, last in enumerate(instance.deps):
            for index in list(takewhile(last.__ge__, log.unexecuted[leader])):
                id = InstanceId(ReplicaId(leader), index)
                if low.get(id, -1) >= low[instance.id]:
                    continue  # on the path, or the instance itself
                other = log.instances[id]
                if other.decided:
                    if isinstance(other.value, Batch) and log.relation.conflict(other.value, batch):
                        yield other
                elif other.known_batch is None or log.relation.conflict(other.known_batch, batch):
                    raise _Blocked(_Wait(id, whole_prefix=False))

    def _indexed_successors(self, instance: Instance, conflicting: Iterable[InstanceId]) -> Iterator[Instance]:
        """Successors, from `conflicting`: the covered, unexecuted, conflicting instances whose batch is known."""
        for id in self._log.opaque_nops:
            if covers(instance.deps, id) and id != instance.id:
                raise _Blocked(_Wait(id, whole_prefix=False))
        for id in conflicting:
            other = self._log.instances[id]
            if other is instance:
                continue
            if not other.decided:
                raise _Blocked(_Wait(id, whole_prefix=False))
            if isinstance(other.value, Batch):
                yield other
