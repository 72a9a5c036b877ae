"""Checks that conflicting commands depend on each other and execute in one order (protocol.md, section 10).

For declared keys the cost of a check does not grow with the history. Per key, the executions of one process are
divided into blocks of accesses that commute. Two processes agree on the order of all conflicting accesses exactly when
they pass the same blocks, whatever the order within a block. For any other relation every conflicting pair is
compared, which suits short runs.
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
    """One process of one replica, as a sequence of executions."""

    def execute(self, id: InstanceId) -> None:
        """Raises Violation if this comes in another order than elsewhere. The instance was given to `commit` before."""
        ...

    def fork(self, name: str) -> "ExecutionOrder":
        """Another process, which has executed the same as this one by now: it begins with a snapshot of it."""
        ...


class Ordering(Protocol):
    """All processes of all replicas in one run."""

    def commit(self, id: InstanceId, batch: Batch, deps: Deps) -> None:
        """Call once for each instance committed as a batch. Raises Violation if another one is not ordered with it."""
        ...

    def begin_process(self, name: str) -> ExecutionOrder:
        """A replica starts: it will execute everything from the beginning."""
        ...

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Every process has executed these, and no replica sends messages about them: remove them."""
        ...


Excuse = Callable[[InstanceId, InstanceId, Deps], bool]
"""Whether the first instance comes before the second, which has these deps, though neither covers the other."""


def never(earlier: InstanceId, later: InstanceId, later_deps: Deps) -> bool:
    """Of two that conflict, one must cover the other."""
    return False


def make_ordering(relation: Relation, excuse: Excuse = never) -> Ordering:
    """The cheapest exact check for a relation."""
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
    """Besides the declared ones, one for each session: a retry writes it, a first attempt only touches it."""
    accesses = _declared_accesses(batch)
    for session in sorted(batch.sessions):
        accesses[_SESSION + session] = _WRITE if session in batch.retried else _ORDINARY
    return accesses


def _declared_accesses(batch: Batch) -> dict[_Key, _Access]:
    """One access per key; a key touched in two ways counts as written. Barriers write a key that all others touch."""
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
    """Accesses of one key that commute and that every process executes between the same two other blocks."""

    access: _Access
    members: dict[InstanceId, None]
    closed: bool = False
    gone: int = 0
    """How many more there were, that every process has executed."""

    def __len__(self) -> int:
        return len(self.members) + self.gone


class _Place(NamedTuple):
    """How far one process has come in one key's blocks. Never changed, so that a fork of the process can share it."""

    block: int = -1
    executed: int = 0


_START = _Place()


@dataclass(slots=True)
class _KeyState:
    number: int
    key: _Key
    blocks: list[_Block] = field(default_factory=list)
    passed: int = 0
    """How many more there were, that every process is beyond."""
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
        """Committed conflicting instances that a vector does not cover, few in a healthy run."""
        for other_access, leaders in state.committed.items():
            if _accesses_conflict(access, other_access):
                for leader, indexes in leaders.items():
                    if indexes[-1] > deps[leader]:
                        for index in indexes[bisect_right(indexes, deps[leader]) :]:
                            yield InstanceId(leader, index)  # type: ignore[arg-type]

    def begin_process(self, name: str) -> ExecutionOrder:
        return _KeyOrder(self, name)

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Of each key, access and leader the newest index stays: whatever comes later must cover it."""
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
            passed = min(process.places.get(state.number, _START).block for process in processes)
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
        """Remove a session whose requests were all executed and compacted, since new sessions keep coming."""
        left = any(
            InstanceId(ReplicaId(leader), index) in self._deps
            for leaders in state.committed.values()
            for leader, indexes in leaders.items()
            for index in indexes
        )
        if not left and len(state.blocks) == 1 and not state.blocks[0].members:
            self._keys.pop(state.key, None)
            for process in processes:
                process.places.pop(state.number, None)


class _AccessesOf(Protocol):
    def __call__(self, batch: Batch) -> dict[_Key, _Access]: ...


class _KeyOrder:
    def __init__(self, order: _ByKey, name: str) -> None:
        self._order = order
        self._name = name
        self.places: dict[int, _Place] = {}
        self.executed: set[InstanceId] = set()
        order.processes.add(self)

    def execute(self, id: InstanceId) -> None:
        places = self.places
        for state, access in self._order.accesses[id]:
            places[state.number] = self._enter(state, places.get(state.number, _START), access, id)
        self.executed.add(id)

    def fork(self, name: str) -> "ExecutionOrder":
        process = _KeyOrder(self._order, name)
        process.places = dict(self.places)
        process.executed = set(self.executed)
        return process

    def _enter(self, state: _KeyState, place: _Place, access: _Access, id: InstanceId) -> _Place:
        blocks, passed = state.blocks, state.passed
        if place.block >= 0:
            block = blocks[place.block - passed]
            if block.access == access and access != _WRITE:
                self._join(block, id)
                return _Place(place.block, place.executed + 1)
            if place.executed < len(block):
                missing = next(one for one in block.members if one not in self.executed)
                raise _disorder(self._name, id, missing)
            block.closed = True
        number = place.block + 1
        if number - passed == len(blocks):
            blocks.append(_Block(access, {}))
        block = blocks[number - passed]
        if block.access != access or (access == _WRITE and block.members and id not in block.members):
            raise _disorder(self._name, id, next(iter(block.members), id))
        self._join(block, id)
        return _Place(number, 1)

    def _join(self, block: _Block, id: InstanceId) -> None:
        if id not in block.members:
            if block.closed:
                raise _disorder(self._name, id, next(iter(block.members), id))
            block.members[id] = None


class _ByPair:
    """Sets of instances are integers, one bit for each in the order of commits: pairs grow with the square of a run."""

    def __init__(self, relation: Relation, excuse: Excuse = never) -> None:
        self._relation = relation
        self._excuse = excuse
        self._committed: dict[InstanceId, tuple[Batch, Deps]] = {}
        self._ids: list[InstanceId] = []
        self.bits: dict[InstanceId, int] = {}
        self.conflicts: dict[InstanceId, int] = {}
        self.before: dict[InstanceId, int] = {}
        """Per executed instance, the conflicting instances that the first process to execute it had executed before."""

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
        """The one that was committed first."""
        return self._ids[(instances & -instances).bit_length() - 1]

    def begin_process(self, name: str) -> ExecutionOrder:
        return _PairOrder(self, name)

    def forget(self, gone: Sequence[InstanceId]) -> None:
        """Keeps everything: only short runs have such a relation."""


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
