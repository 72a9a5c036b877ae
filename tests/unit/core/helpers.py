"""Helpers for tests of the core: values, and a replica that a test drives by hand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pydsm.core.log.conflicts import Backlog, ConflictIndex, DeclaredKeys, Relation, footprints_conflict
from pydsm.core.replica import PipelineFull, Replica
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Abort, Execute, InstanceRecord, PurgeRecord, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId, Tick, covers
from pydsm.core.types.messages import Batch, Footprint, Frontier, Message, PrepareOk, Run, Value
from pydsm.core.types.status import Status
from pydsm.core.wire.codec import decode_message, decode_record, encode_message, encode_record
from pydsm.runtime.perform import Performer

AnyMessage = TypeVar("AnyMessage", bound=Message)

P0, P1, P2, P3, P4, P5, P6 = (ReplicaId(number) for number in range(7))


def at(leader: int, index: int) -> InstanceId:
    """The instance `leader.index`."""
    return InstanceId(ReplicaId(leader), index)


def ballot(round: int, replica: int) -> Ballot:
    """The ballot `round.replica`."""
    return Ballot(round, ReplicaId(replica))


def writing(*keys: str, name: str = "") -> Batch:
    """One request that writes these keys; batches with different names differ, and so do their request ids."""
    text = (name or "+".join(keys)).encode()
    return _request(text, Footprint(writes=tuple(key.encode() for key in keys)))


def reading(*keys: str) -> Batch:
    """One request that reads these keys."""
    text = b"read " + "+".join(keys).encode()
    return _request(text, Footprint(reads=tuple(key.encode() for key in keys)))


def barrier(name: str = "barrier") -> Batch:
    """A request that conflicts with everything."""
    return _request(name.encode(), Footprint(barrier=True))


def _request(text: bytes, footprint: Footprint) -> Batch:
    return Batch((Run(RequestId(text[:16].rjust(16, b".")), 1),), (text,), footprint)


def prepare_ok(
    id: InstanceId,
    ballot: Ballot,
    status: Status = Status.UNKNOWN,
    *,
    value: Value | None = None,
    deps: Deps | None = None,
    initial: Batch | None = None,
    initial_deps: Deps | None = None,
    voted: Ballot | None = None,
    n: int = 3,
) -> PrepareOk:
    """An answer to a Prepare; vectors left out are empty ones."""
    none = (0,) * n
    return PrepareOk(id, ballot, status, voted, value, deps or none, initial, initial_deps or none)


def pre_accepted(id: InstanceId, ballot: Ballot, batch: Batch, initial: Deps, deps: Deps | None = None) -> PrepareOk:
    """The answer of a replica that has pre-accepted; unchanged if `deps` is omitted."""
    return PrepareOk(id, ballot, Status.PRE_ACCEPTED, None, batch, deps or initial, batch, initial)


def accepted(id: InstanceId, ballot: Ballot, voted: Ballot, value: Value, deps: Deps) -> PrepareOk:
    """The answer of a replica that has voted."""
    return PrepareOk(id, ballot, Status.ACCEPTED, voted, value, deps, None, (0,) * len(deps))


class MemoryDisk:
    """Stores records as bytes. Writes immediately, or completes each write only when `finish` is called."""

    def __init__(self, replicas: int) -> None:
        self.holding = False
        self.writes = 0
        self._replicas = replicas
        self._kept: dict[InstanceId | type[Record], bytes] = {}
        self._pending: tuple[Sequence[Record], Callable[[], None]] | None = None

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `perform.Disk`."""
        assert self._pending is None, "a write was begun before the last one was done"
        self._pending = (tuple(records), done)
        if not self.holding:
            self.finish()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._pending is not None

    def finish(self) -> None:
        """The write under way, if any, is done."""
        if self._pending is None:
            return
        (records, done), self._pending = self._pending, None
        self._keep(records)
        done()

    def lose_power(self, *, after_write: bool = False) -> None:
        """The write in progress is completed or lost as a whole, and its completion is not reported."""
        if self._pending is not None and after_write:
            self._keep(self._pending[0])
        self._pending = None

    def _keep(self, records: Sequence[Record]) -> None:
        self.writes += 1
        for record in records:
            self._kept[record.id if isinstance(record, InstanceRecord) else type(record)] = encode_record(record)
            if isinstance(record, PurgeRecord):
                for id in [one for one in self._kept if isinstance(one, InstanceId)]:
                    if covers(record.up_to, id) or id in record.exceptions:
                        del self._kept[id]

    def load(self) -> list[Record]:
        """The records after a restart: reservation and frontier, then instances in the order of their ids."""
        records = [decode_record(data, self._replicas) for data in self._kept.values()]
        notes: list[Record] = [one for one in records if not isinstance(one, InstanceRecord)]
        instances = [one for one in records if isinstance(one, InstanceRecord)]
        return notes + sorted(instances, key=lambda one: one.id)

    def record(self, id: InstanceId) -> InstanceRecord | None:
        """The durable record of an instance."""
        return next((one for one in self.load() if isinstance(one, InstanceRecord) and one.id == id), None)


class Driven:
    """One replica with a performer and a disk in memory, without peers: a test passes messages in and out."""

    def __init__(
        self,
        me: int = 0,
        n: int = 3,
        *,
        relation: Relation | None = None,
        disk: MemoryDisk | None = None,
        snapshots: Sequence[Checkpoint] = (),
        **config: Any,
    ) -> None:
        self.me = ReplicaId(me)
        self.n = n
        self.config = Config(self.me, n, **config)
        self.relation = relation or DeclaredKeys()
        self.disk = disk or MemoryDisk(n)
        self.snapshots = snapshots
        self.begin()

    def begin(self) -> None:
        """Restart with the records on disk and the last two of `snapshots`."""
        self.now = 0
        self.sent: list[tuple[ReplicaId, Message]] = []
        self.executed: list[Execute] = []
        self.aborted: list[Abort] = []
        self.checkpoints: list[Checkpoint] = []
        self.transfers: list[Transfer] = []
        self.replica = Replica(self.config, self.relation)
        self.performer = Performer(self.me, self.replica, self.disk, self, self)
        self.replica.restore(self.disk.load(), self.snapshots[-2:])
        self.performer.pump()

    def restart(self) -> None:
        """Lose power, with the write under way, and begin again."""
        self.disk.lose_power()
        self.begin()

    # Events

    def propose(self, batch: Batch) -> InstanceId:
        """Lead an instance; fails when the pipeline is full."""
        proposed = self.replica.propose(batch)
        assert not isinstance(proposed, PipelineFull)
        self.performer.pump()
        return proposed

    def receive(self, sender: int, *messages: Message) -> None:
        """Take messages of a peer, by way of their bytes."""
        for message in messages:
            self.replica.receive(ReplicaId(sender), decode_message(encode_message(message), self.n))
            self.performer.pump()

    def tick(self, now: int) -> None:
        """Advance the time to `now` in one step."""
        self.now = now
        self.replica.tick(Tick(now))
        self.performer.pump()

    def run(self, until: int, step: int = 10) -> None:
        """Advance the time to `until` in small steps."""
        while self.now < until:
            self.tick(min(self.now + step, until))

    # Effects

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `perform.Network`."""
        assert self.me not in to
        self.sent += [(peer, message) for peer in to]

    def execute(self, execution: Execute) -> None:
        """See `perform.Application`."""
        self.executed.append(execution)

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        """See `perform.Application`."""
        self.checkpoints.append(taken.checkpoint)

    def transfer(self, transfer: Transfer) -> None:
        """See `perform.Application`."""
        self.transfers.append(transfer)

    def abort(self, abort: Abort) -> None:
        """See `perform.Application`."""
        self.aborted.append(abort)

    def take(self) -> list[tuple[ReplicaId, Message]]:
        """The messages sent since the last call, without gossip."""
        taken, self.sent = self.sent, []
        return [(to, message) for to, message in taken if not isinstance(message, Frontier)]

    def take_only(self, kind: type[AnyMessage]) -> list[tuple[ReplicaId, AnyMessage]]:
        """The messages of this kind sent since the last call; all others are discarded."""
        taken, self.sent = self.sent, []
        return [(to, message) for to, message in taken if isinstance(message, kind)]

    @property
    def executed_ids(self) -> list[InstanceId]:
        """Which instances were executed, in order."""
        return [one.id for one in self.executed]


def to_all(message: Message, replicas: Iterable[int]) -> list[tuple[ReplicaId, Message]]:
    """The same message for several replicas, as `Driven.take` lists it."""
    return [(ReplicaId(replica), message) for replica in replicas]


class CountingBacklog:
    """A backlog, and how much it found."""

    def __init__(self, relation: "CountingKeys", replicas: int) -> None:
        self._relation = relation
        self._backlog = DeclaredKeys().backlog(replicas)

    def add(self, id: InstanceId, batch: Batch) -> None:
        self._backlog.add(id, batch)

    def remove(self, id: InstanceId, batch: Batch) -> None:
        self._backlog.remove(id, batch)

    def conflicting(self, batch: Batch, deps: Deps) -> Iterator[InstanceId]:
        for id in self._backlog.conflicting(batch, deps):
            self._relation.compared += 1
            yield id


class CountingKeys:
    """Declared keys, and how often two batches were compared or one was looked up for another."""

    def __init__(self) -> None:
        self.compared = 0

    def conflict(self, left: Batch, right: Batch) -> bool:
        self.compared += 1
        return footprints_conflict(left.footprint, right.footprint)

    def index(self, replicas: int) -> ConflictIndex:
        return DeclaredKeys().index(replicas)

    def backlog(self, replicas: int) -> Backlog:
        return CountingBacklog(self, replicas)
