"""A small world in memory: replicas with their disks, and every packet under way in one list.

Whoever uses it decides what is delivered, doubled, lost or late, and who loses power when. Messages and records
pass through their bytes. `check` compares everything that was ever decided or executed, in all lives.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydsm.core.log.conflicts import Relation
from pydsm.core.replica import PipelineFull
from pydsm.core.types.effects import Execute, ReservationRecord
from pydsm.core.types.errors import FarAhead
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers
from pydsm.core.types.messages import Batch, Commit, Message, Value
from pydsm.core.wire.codec import decode_message, encode_message
from tests.unit.core.helpers import Driven

_ROUNDS_MAX = 1000
"""No event in these small worlds has so long a train of messages behind it."""


@dataclass(frozen=True)
class Packet:
    """One message to one replica."""

    sender: ReplicaId
    to: ReplicaId
    message: Message

    def is_a(self, *kinds: type[Message]) -> bool:
        """Whether the message is of one of these kinds."""
        return isinstance(self.message, kinds)

    def about(self, id: InstanceId) -> bool:
        """Whether the message is about this instance."""
        return getattr(self.message, "id", None) == id

    def among(self, *replicas: int) -> bool:
        """Whether sender and receiver are both of these."""
        return self.sender in replicas and self.to in replicas


class Host(Driven):
    """A replica in a world: what it sends becomes packets, and while it is down nothing reaches it."""

    def __init__(self, world: "World", me: int, n: int, relation: Relation | None, config: dict[str, Any]) -> None:
        self.world = world
        self.up = True
        super().__init__(me, n, relation=relation, **config)

    def begin(self) -> None:
        """A new life, at the world's time."""
        super().begin()
        self.world.lives.append(Life(self.me, self.executed))
        self.tick(self.world.now)

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """See `perform.Network`."""
        assert self.me not in to
        if isinstance(message, Commit):
            self.world.note_decision(message.id, message.value, message.deps)
        data = encode_message(message)
        self.world.packets += [Packet(self.me, peer, decode_message(data, self.n)) for peer in to]

    def execute(self, execution: Execute) -> None:
        """See `perform.Application`."""
        super().execute(execution)
        self.world.note_decision(execution.id, execution.batch, self.replica.instances[execution.id].deps)


@dataclass(frozen=True)
class Life:
    """What a replica executed between two crashes."""

    replica: ReplicaId
    executed: list[Execute]


@dataclass
class World:
    """A group of `n`; settings of all replicas as in `Config`."""

    n: int
    relation: Relation | None = None
    config: dict[str, Any] = field(default_factory=dict)
    now: int = 0
    packets: list[Packet] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    decided: dict[InstanceId, tuple[Value, Deps]] = field(default_factory=dict)
    proposed: dict[InstanceId, Batch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hosts = [Host(self, replica, self.n, self.relation, self.config) for replica in range(self.n)]

    # What happens

    def propose(self, replica: int, batch: Batch) -> InstanceId | None:
        """Lead an instance at a replica; None when its pipeline is full."""
        host = self.hosts[replica]
        proposed = host.replica.propose(batch)
        if not isinstance(proposed, PipelineFull):
            self.proposed[proposed] = batch
            host.performer.pump()
            return proposed
        return None

    def reserve(self, replica: int, up_to: int) -> None:
        """A life before has reserved own indexes, and perhaps used them."""
        host = self.hosts[replica]
        host.disk.write([ReservationRecord(up_to)], lambda: None)
        host.restart()

    def recover(self, replica: int, id: InstanceId) -> None:
        """Let a replica begin to recover an instance now, without waiting for its patience to end."""
        host = self.hosts[replica]
        host.replica._recoverer.recover(id)
        host.performer.pump()

    def deliver(self, packet: Packet) -> None:
        """The packet arrives; it is lost where nobody is up, and dropped where it names too distant an instance."""
        host = self.hosts[packet.to]
        if host.up:
            with suppress(FarAhead):
                host.replica.receive(packet.sender, packet.message)
            host.performer.pump()

    def deliver_round(self, wanted: Callable[[Packet], bool] = lambda packet: True) -> bool:
        """Deliver what is under way, and not yet what follows from it; False if there was nothing to deliver."""
        due = [packet for packet in self.packets if wanted(packet)]
        self.packets = [packet for packet in self.packets if not wanted(packet)]
        for packet in due:
            self.deliver(packet)
        return bool(due)

    def deliver_all(self, wanted: Callable[[Packet], bool] = lambda packet: True) -> None:
        """Deliver what is under way and what follows from it, until only unwanted packets are left."""
        for _ in range(_ROUNDS_MAX):
            if not self.deliver_round(wanted):
                return
        raise AssertionError(f"after {_ROUNDS_MAX} rounds replicas still talk: {self.packets[:5]}")

    def lose(self, unwanted: Callable[[Packet], bool] = lambda packet: True) -> None:
        """These packets never arrive."""
        self.packets = [packet for packet in self.packets if not unwanted(packet)]

    def tick(self, ticks: int = 10) -> None:
        """Time goes on for everyone."""
        self.now += ticks
        for host in self.hosts:
            if host.up:
                host.tick(self.now)

    def run(
        self,
        ticks: int,
        step: int = 10,
        wanted: Callable[[Packet], bool] = lambda packet: True,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Deliver and let time go on, until the condition holds or the time is over; unwanted packets are lost."""
        end = self.now + ticks
        while self.now < end and not until():
            self.deliver_all(wanted)
            self.lose()
            self.tick(step)

    def crash(self, replica: int, *, after_write: bool = False) -> None:
        """Power fails: a write under way happens or not, all else is forgotten."""
        host = self.hosts[replica]
        host.up = False
        host.disk.lose_power(after_write=after_write)

    def restart(self, replica: int) -> None:
        """Begin again from what the disk kept."""
        host = self.hosts[replica]
        if host.up:
            self.crash(replica)
        host.up = True
        host.begin()

    # What must hold

    def quiet(self) -> bool:
        """Whether everyone has executed everything that anyone has heard of."""
        known = self.hosts[0].replica.known
        return all(host.replica.frontier == host.replica.known == known for host in self.hosts)

    def heal(self, ticks: int = 60_000) -> None:
        """Everyone is up, disks and network work: within this time everything must be decided and executed."""
        for host in self.hosts:
            host.disk.holding = False
            if host.up:
                host.disk.finish()
            else:
                self.restart(host.me)
        self.run(1000, step=50)
        self.run(ticks, step=50, until=self.quiet)
        assert self.quiet(), "\n".join(
            f"{host.me}: {host.replica.frontier} {host.replica.known}" for host in self.hosts
        )
        for host in self.hosts:
            for id, instance in host.replica.instances.items():
                assert instance.value is not None
                self.note_decision(id, instance.value, instance.deps)
        self.check()
        for host in self.hosts:
            assert host.replica.in_flight == 0
            assert set(host.executed_ids) == {id for id, (value, _) in self.decided.items() if isinstance(value, Batch)}

    def check(self) -> None:
        """Agreement, visibility, and the order of execution, over all lives so far."""
        self.check_agreement()
        self._check_visibility()
        for life in self.lives:
            self._check_order(life)

    def note_decision(self, id: InstanceId, value: Value, deps: Deps) -> None:
        """A decision became visible: there must never be another for this instance."""
        known = self.decided.setdefault(id, (value, deps))
        same = known == (value, deps) if isinstance(value, Batch) else known[0] == value
        assert same, f"{id} is {known} and {(value, deps)}"
        if isinstance(value, Batch):
            assert self.proposed[id] == value, f"{id} is decided to be what nobody proposed"

    def check_agreement(self) -> None:
        """No replica that is up holds a decision against one that is visible."""
        for host in self.hosts:
            for id, instance in host.replica.instances.items():
                if host.up and instance.decided and instance.value is not None and id in self.decided:
                    self.note_decision(id, instance.value, instance.deps)

    def _check_visibility(self) -> None:
        relation = self.hosts[0].relation
        commands = [(id, value, deps) for id, (value, deps) in self.decided.items() if isinstance(value, Batch)]
        for position, (id, batch, deps) in enumerate(commands):
            for other, other_batch, other_deps in commands[:position]:
                if not covers(deps, other) and not covers(other_deps, id):
                    assert not relation.conflict(batch, other_batch), f"{id} and {other} conflict in no order"

    def _check_order(self, life: Life) -> None:
        relation = self.hosts[0].relation
        places: dict[InstanceId, int] = {}
        for execution in life.executed:
            assert execution.id not in places, f"{execution.id} was executed twice at {life.replica}"
            assert self.decided[execution.id][0] == execution.batch
            places[execution.id] = len(places)
        for earlier in self.lives:
            if earlier is life:
                return
            common = [one for one in earlier.executed if one.id in places]
            for position, later in enumerate(common):
                for before in common[:position]:
                    if places[before.id] > places[later.id]:
                        assert not relation.conflict(before.batch, later.batch), (
                            f"{before.id} and {later.id} in two orders at {earlier.replica} and {life.replica}"
                        )
