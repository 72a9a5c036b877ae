"""In which order committed instances reach the state machine (PROTOCOL 5; EPaxos*, execution).

An edge goes from an instance to each one that it covers and conflicts with, and to nothing else: so the graph follows
from what was agreed alone, and every replica finds the same components. Components run in topological order, inside
a component by (index, leader). Guards: the same order of conflicting commands everywhere, nothing executed twice,
nothing executed before what it must follow. How batches reach the machine is left to the performer.

Executed instances are never walked again: cost depends on what is unexecuted, not on the length of history.
"""

from collections.abc import Callable, Iterator

from pydsm.core.ids import InstanceId, ReplicaId
from pydsm.core.instance import Instance
from pydsm.core.log import Log
from pydsm.core.messages import Batch
from pydsm.core.status import Status


class _Blocked(Exception):
    """The component being built reaches an instance that is not decided and may conflict."""

    def __init__(self, by: InstanceId) -> None:
        super().__init__(by)
        self.by = by


class Execution:
    """Runs what can run whenever an instance is decided; `emit` gets each executed batch's instance, in order."""

    def __init__(self, log: Log, emit: Callable[[Instance], None]) -> None:
        self._log = log
        self._emit = emit
        self._waiters: dict[InstanceId, list[Instance]] = {}
        self._blocked_by: dict[InstanceId, InstanceId] = {}

    def blocker(self, id: InstanceId) -> InstanceId | None:
        """The one undecided instance that the committed instance `id` waits for, if it waits."""
        return self._blocked_by.get(id)

    def committed(self, instance: Instance) -> None:
        """Call once for each decided instance. A nop is done at once: no edge ever leads to it."""
        if isinstance(instance.value, Batch):
            self._run(instance)
        else:
            self._log.executed(instance)
            self._emit(instance)
        self.wake(instance.id)

    def wake(self, id: InstanceId) -> None:
        """The instance was decided or its batch became known: try again what waited for it."""
        waiters = self._waiters.pop(id, None)
        if waiters is None:
            return
        for waiter in waiters:
            del self._blocked_by[waiter.id]
        for waiter in waiters:
            self._run(waiter)

    def _run(self, root: Instance) -> None:
        if root.status is Status.EXECUTED:
            return
        try:
            for component in self._components(root):
                for instance in sorted(component, key=lambda one: (one.id.index, one.id.leader)):
                    self._log.executed(instance)
                    self._emit(instance)
        except _Blocked as blocked:
            self._blocked_by[root.id] = blocked.by
            self._waiters.setdefault(blocked.by, []).append(root)

    def _components(self, root: Instance) -> Iterator[list[Instance]]:
        """Tarjan's algorithm without recursion; yields each component after everything it depends on.

        The caller executes a component before asking for the next, so children are looked at afresh.
        """
        low: dict[InstanceId, int] = {root.id: 0}
        pending = [root]
        path = [(root, 0, iter(self._successors(root)))]
        while path:
            instance, order, successors = path[-1]
            child = next((one for one in successors if one.status is not Status.EXECUTED), None)
            if child is not None:
                if child.id in low:
                    low[instance.id] = min(low[instance.id], low[child.id])
                else:
                    low[child.id] = len(low)
                    pending.append(child)
                    path.append((child, low[child.id], iter(self._successors(child))))
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

    def _successors(self, instance: Instance) -> list[Instance]:
        """What must be executed before or together with this one. Raises _Blocked if that cannot be known yet."""
        blocker = self._blocked_by.get(instance.id)
        if blocker is not None:
            raise _Blocked(blocker)
        log = self._log
        batch = instance.value
        assert isinstance(batch, Batch)
        successors: list[Instance] = []
        for leader, unexecuted in enumerate(log.unexecuted):
            last = instance.deps[leader]
            for index in unexecuted:
                if index > last:
                    break
                id = InstanceId(ReplicaId(leader), index)
                if id == instance.id:
                    continue
                other = log.instances.get(id)
                if other is not None and other.decided:
                    if isinstance(other.value, Batch) and log.relation.conflict(other.value, batch):
                        successors.append(other)
                elif other is None or other.known_batch is None or log.relation.conflict(other.known_batch, batch):
                    raise _Blocked(id)
        return successors
