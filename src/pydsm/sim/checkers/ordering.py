"""Checks that conflicting commands depend on each other and execute in one order (protocol.md, section 10).

For declared keys the cost of a check does not grow with the history. The executions of one process are divided into
blocks per key; the accesses of a block commute. Two processes agree on the order of all conflicting accesses exactly if
they pass the same blocks, whatever the order within a block. For any other relation every conflicting pair is compared,
which suits short runs.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from weakref import WeakSet

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, Relation
from pydsm.core.log.session_conflicts import WithSessions
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers
from pydsm.core.types.messages import Batch
from pydsm.sim.base.violation import Violation


class ExecutionOrder(Protocol):
    """The executions of one process, in their order."""

    def execute(self, id: InstanceId) -> None:
        """Add an execution of a committed instance. Raises Violation if its order differs from another process."""
        ...

    def fork(self, name: str) -> "ExecutionOrder":
        """The order of a new process that starts from a snapshot of this one, with the same executions so far."""
        ...


class Ordering(Protocol):
    """The orders of all processes of all replicas in one run."""

    def commit(self, id: InstanceId, batch: Batch, deps: Deps) -> None:
        """Add an instance that was committed as a batch. Raises Violation if a conflict with it is not ordered."""
        ...

    def begin_process(self, name: str) -> ExecutionOrder:
        """Record that a replica starts a process: it executes everything from the beginning."""
        ...

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Remove instances that every process has executed, and about which no replica sends messages."""
        ...


Excuse = Callable[[InstanceId, InstanceId, Deps], bool]
"""Whether the first instance is ordered before the second, which has these deps, although neither covers the other."""


def never(earlier: InstanceId, later: InstanceId, later_deps: Deps) -> bool:
    """The excuse that excuses nothing: of two conflicting instances, one must cover the other."""
    return False


def make_ordering(relation: Relation, excuse: Excuse = never) -> Ordering:
    """Create the cheapest exact check for a relation."""
    if isinstance(relation, DeclaredKeys):
        return _ByKey(_declared_accesses, excuse)
    if isinstance(relation, WithSessions) and isinstance(relation.machine, DeclaredKeys):
        return _ByKey(_declared_and_session_accesses, excuse)
    if isinstance(relation, EverythingConflicts):
        return _ByKey(_total_accesses, excuse)
    return _ByPair(relation, excuse)


def _unordered(one: InstanceId, other: InstanceId) -> Violation:
    return Violation(
        "visibility", f"{one} and {other} conflict, are committed, and neither covers the other", (one, other)
    )


def _disorder(process: str, first: InstanceId, second: InstanceId) -> Violation:
    return Violation(
        "order", f"{process} executes {first} without having executed {second}, unlike another process", (first, second)
    )


_Key = bytes | None
_Access = bytes
_WRITE: _Access = b"write"
_READ: _Access = b"read"
_ORDINARY: _Access = b"ordinary"
_EVERYTHING: _Key = None
_SESSION = b"session\0"


def _declared_and_session_accesses(batch: Batch) -> dict[_Key, _Access]:
    """The declared accesses and one for each session: a retry writes the session, a first attempt updates it."""
    accesses = _declared_accesses(batch)
    for session in sorted(batch.sessions):
        accesses[_SESSION + session] = _WRITE if session in batch.retried else _ORDINARY
    return accesses


def _declared_accesses(batch: Batch) -> dict[_Key, _Access]:
    """One access per key; a key with two kinds of access counts as written. Barriers write a key that all update."""
    footprint = batch.footprint
    accesses: dict[_Key, _Access] = {_EVERYTHING: _WRITE if footprint.barrier else _ORDINARY}
    for key in footprint.reads:
        accesses[key] = _READ
    for kind, keys in footprint.updates:
        for key in keys:
            accesses[key] = _WRITE if key in accesses else b"update " + kind
    for key in footprint.writes:
        accesses[key] = _WRITE
    return accesses


def _total_accesses(batch: Batch) -> dict[_Key, _Access]:
    return {_EVERYTHING: _WRITE}


def _accesses_conflict(one: _Access, other: _Access) -> bool:
    return _WRITE in (one, other) or one != other


@dataclass(slots=True)
class _Block:
    """Accesses of one key that commute, and that every process executes between the same two other blocks."""

    access: _Access
    members: dict[InstanceId, None]
    closed: bool = False
    gone: int = 0
    """The number of accesses that were removed, since every process has executed them."""

    def __len__(self) -> int:
        return len(self.members) + self.gone


class _Position(NamedTuple):
    """The position of one process in the blocks of one key. Immutable, so that forks of the process can share it."""

    block: int = -1
    executed: int = 0


_START = _Position()


@dataclass(slots=True)
class _KeyState:
    number: int
    key: _Key
    blocks: list[_Block] = field(default_factory=list)
    passed: int = 0
    """The number of blocks that were removed, since every process has passed them."""
    committed: dict[_Access, dict[int, list[int]]] = field(default_factory=dict)


class _ByKey:
    def __init__(self, accesses_of: "_AccessesOf", excuse: Excuse) -> None:
        self._accesses_of = accesses_of
        self._excuse = excuse
        self._keys: dict[_Key, _KeyState] = {}
        self._keys_made = 0
        self._deps: dict[InstanceId, Deps] = {}
        self.accesses: dict[InstanceId, list[tuple[_KeyState, _Access]]] = {}
        self.processes: WeakSet[_KeyOrder] = WeakSet()

    def commit(self, id: InstanceId, batch: Batch, deps: Deps) -> None:
        self._deps[id] = deps
        accesses = []
        for key, access in self._accesses_of(batch).items():
            state = self._keys.get(key)
            if state is None:
                state = self._keys[key] = _KeyState(self._keys_made, key)
                self._keys_made += 1
            for other in self._uncovered(state, access, deps):
                known = self._deps.get(other)
                if other == id or (known is not None and covers(known, id)):
                    continue
                if not (self._excuse(other, id, deps) or (known is not None and self._excuse(id, other, known))):
                    raise _unordered(id, other)
            insort(state.committed.setdefault(access, {}).setdefault(id.leader, []), id.index)
            accesses.append((state, access))
        self.accesses[id] = accesses

    @staticmethod
    def _uncovered(state: _KeyState, access: _Access, deps: Deps) -> Iterator[InstanceId]:
        """Committed conflicting instances that the vector does not cover; few in a correct run."""
        for other_access, leaders in state.committed.items():
            if _accesses_conflict(access, other_access):
                for leader, indexes in leaders.items():
                    if indexes[-1] > deps[leader]:
                        for index in indexes[bisect_right(indexes, deps[leader]) :]:
                            yield InstanceId(leader, index)  # type: ignore[arg-type]

    def begin_process(self, name: str) -> ExecutionOrder:
        return _KeyOrder(self, name)

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Keep the newest index of each key, access and leader: every later vector must cover it."""
        touched: dict[int, _KeyState] = {}
        for id in gone:
            self._deps.pop(id, None)
            for state, _ in self.accesses.pop(id, ()):
                touched[state.number] = state
        leaving = set(gone)
        processes = list(self.processes)
        for process in processes:
            process.executed.difference_update(leaving)
        for state in touched.values():
            for leaders in state.committed.values():
                for leader, indexes in leaders.items():
                    leaders[leader] = [
                        *(one for one in indexes[:-1] if InstanceId(ReplicaId(leader), one) not in leaving),
                        indexes[-1],
                    ]
            passed = min(process.positions.get(state.number, _START).block for process in processes)
            if passed > state.passed:
                del state.blocks[: passed - state.passed]
                state.passed = passed
            for block in state.blocks:
                for id in leaving.intersection(block.members):
                    del block.members[id]
                    block.gone += 1
            if state.key is not None and state.key.startswith(_SESSION):
                self._drop_if_over(state, processes)

    def _drop_if_over(self, state: _KeyState, processes: "list[_KeyOrder]") -> None:
        """Remove a session whose requests were all executed and compacted: the number of sessions is unlimited."""
        left = any(
            InstanceId(ReplicaId(leader), index) in self._deps
            for leaders in state.committed.values()
            for leader, indexes in leaders.items()
            for index in indexes
        )
        if not left and len(state.blocks) == 1 and not state.blocks[0].members:
            self._keys.pop(state.key, None)
            for process in processes:
                process.positions.pop(state.number, None)


class _AccessesOf(Protocol):
    def __call__(self, batch: Batch) -> dict[_Key, _Access]: ...


class _KeyOrder:
    def __init__(self, order: _ByKey, name: str) -> None:
        self._order = order
        self._name = name
        self.positions: dict[int, _Position] = {}
        self.executed: set[InstanceId] = set()
        order.processes.add(self)

    def execute(self, id: InstanceId) -> None:
        positions = self.positions
        for state, access in self._order.accesses[id]:
            positions[state.number] = self._enter(state, positions.get(state.number, _START), access, id)
        self.executed.add(id)

    def fork(self, name: str) -> "ExecutionOrder":
        process = _KeyOrder(self._order, name)
        process.positions = dict(self.positions)
        process.executed = set(self.executed)
        return process

    def _enter(self, state: _KeyState, position: _Position, access: _Access, id: InstanceId) -> _Position:
        blocks, passed = state.blocks, state.passed
        if position.block >= 0:
            block = blocks[position.block - passed]
            if block.access == access and access != _WRITE:
                self._join(block, id)
                return _Position(position.block, position.executed + 1)
            if position.executed < len(block):
                missing = next(one for one in block.members if one not in self.executed)
                raise _disorder(self._name, id, missing)
            block.closed = True
        number = position.block + 1
        if number - passed == len(blocks):
            blocks.append(_Block(access, {}))
        block = blocks[number - passed]
        if block.access != access or (access == _WRITE and block.members and id not in block.members):
            raise _disorder(self._name, id, next(iter(block.members), id))
        self._join(block, id)
        return _Position(number, 1)

    def _join(self, block: _Block, id: InstanceId) -> None:
        if id not in block.members:
            if block.closed:
                raise _disorder(self._name, id, next(iter(block.members), id))
            block.members[id] = None


class _ByPair:
    """Sets of instances are integers, one bit per instance in the order of commits. The cost is quadratic."""

    def __init__(self, relation: Relation, excuse: Excuse = never) -> None:
        self._relation = relation
        self._excuse = excuse
        self._committed: dict[InstanceId, tuple[Batch, Deps]] = {}
        self._ids: list[InstanceId] = []
        self.bits: dict[InstanceId, int] = {}
        self.conflicts: dict[InstanceId, int] = {}
        self.before: dict[InstanceId, int] = {}
        """Per executed instance, the conflicting instances that the first process had executed before it."""

    def commit(self, id: InstanceId, batch: Batch, deps: Deps) -> None:
        bit = self.bits[id] = 1 << len(self._ids)
        mine = 0
        for other, (other_batch, other_deps) in self._committed.items():
            if self._relation.conflict(batch, other_batch):
                covered = covers(deps, other) or covers(other_deps, id)
                if not (covered or self._excuse(other, id, deps) or self._excuse(id, other, other_deps)):
                    raise _unordered(id, other)
                mine |= self.bits[other]
                self.conflicts[other] |= bit
        self._ids.append(id)
        self._committed[id] = (batch, deps)
        self.conflicts[id] = mine

    def lowest(self, instances: int) -> InstanceId:
        """The instance of the set that was committed first."""
        return self._ids[(instances & -instances).bit_length() - 1]

    def begin_process(self, name: str) -> ExecutionOrder:
        return _PairOrder(self, name)

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Keeps everything: only short runs use such a relation."""


class _PairOrder:
    def __init__(self, order: _ByPair, name: str) -> None:
        self._order = order
        self._name = name
        self._executed = 0

    def execute(self, id: InstanceId) -> None:
        order = self._order
        done = order.conflicts[id] & self._executed
        before = order.before.setdefault(id, done)
        if missing := before & ~done:
            raise _disorder(self._name, id, order.lowest(missing))
        if early := done & ~before:
            raise _disorder(self._name, order.lowest(early), id)
        self._executed |= order.bits[id]

    def fork(self, name: str) -> "ExecutionOrder":
        process = _PairOrder(self._order, name)
        process._executed = self._executed
        return process
