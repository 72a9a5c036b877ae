"""Random interleavings of small groups: loss, doubling, reordering, slow disks, crashes between any two writes.

Whatever happens, no two decisions differ, conflicting commands are ordered against each other and run in one order in
all lives of all replicas; and after everything is healed, everything that anyone heard of is decided and executed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, Relation
from pydsm.core.types.ids import InstanceId
from pydsm.core.types.messages import Batch, PreAccept, PreAcceptOk
from tests.unit.core.helpers import barrier, reading, writing
from tests.worlds import Packet, World

Step = tuple[str, int, int]
WEIGHTS = {
    "propose": 4,
    "deliver": 8,
    "deliver many": 3,
    "double": 1,
    "lose": 1,
    "lose to": 1,
    "lose from": 1,
    "finish write": 3,
    "hold writes": 1,
    "tick": 3,
    "long tick": 2,
    "recover": 2,
    "crash": 1,
    "restart": 1,
    "power cut": 1,
}
kinds = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)])
stories: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(kinds, st.integers(0, 6), st.integers(0, 40)), min_size=40, max_size=160
)


class Story:
    """Plays steps in a world; numbers are taken modulo what there is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.proposals = 0
        self._acts: dict[str, Callable[[int, int], None]] = {
            "propose": self._propose,
            "deliver": lambda a, b: self._deliver(b, 1),
            "deliver many": lambda a, b: self._deliver(b, 2 + a),
            "double": self._double,
            "lose": self._lose,
            "lose to": lambda a, b: world.lose(lambda packet: packet.to == a % world.n),
            "lose from": lambda a, b: world.lose(lambda packet: packet.sender == a % world.n),
            "finish write": lambda a, b: world.hosts[a % world.n].disk.finish(),
            "hold writes": self._hold,
            "tick": lambda a, b: world.tick(1 + b),
            "long tick": lambda a, b: world.tick(1 + 40 * b),
            "recover": self._recover,
            "crash": self._crash,
            "restart": self._restart,
            "power cut": self._power_cut,
        }

    def play(self, steps: list[Step]) -> None:
        for kind, a, b in steps:
            self._acts[kind](a, b)
            self.world.check_agreement()
        self.world.heal()

    def _up(self, a: int) -> int | None:
        host = self.world.hosts[a % self.world.n]
        return host.me if host.up else None

    def _propose(self, a: int, b: int) -> None:
        replica = self._up(a)
        if replica is not None:
            self.proposals += 1
            self.world.propose(replica, self._batch(b))

    def _batch(self, b: int) -> Batch:
        name = str(self.proposals)
        if b % 10 == 9:
            return barrier(name)
        if b % 10 in {7, 8}:
            return reading("xy"[b % 2])
        return writing("xy"[b % 2], name=name) if b % 10 else writing("x", "y", name=name)

    def _deliver(self, b: int, count: int) -> None:
        for _ in range(min(count, len(self.world.packets))):
            self.world.deliver(self.world.packets.pop(b % len(self.world.packets)))

    def _double(self, a: int, b: int) -> None:
        if self.world.packets:
            self.world.deliver(self.world.packets[b % len(self.world.packets)])

    def _lose(self, a: int, b: int) -> None:
        if self.world.packets:
            self.world.packets.pop(b % len(self.world.packets))

    def _hold(self, a: int, b: int) -> None:
        self.world.hosts[a % self.world.n].disk.holding = b % 2 == 0

    def _recover(self, a: int, b: int) -> None:
        replica = self._up(a)
        if replica is None:
            return
        core = self.world.hosts[replica].replica
        open_ids = sorted(id for id, instance in core.instances.items() if not instance.decided)
        if open_ids:
            _recover_if_idle(self.world, replica, open_ids[b % len(open_ids)])

    def _crash(self, a: int, b: int) -> None:
        down = sum(not host.up for host in self.world.hosts)
        replica = self._up(a)
        if replica is not None and down < (self.world.n - 1) // 2:
            self.world.crash(replica, after_write=b % 2 == 0)

    def _restart(self, a: int, b: int) -> None:
        self.world.restart(a % self.world.n)

    def _power_cut(self, a: int, b: int) -> None:
        for host in self.world.hosts:
            self.world.crash(host.me, after_write=(b >> host.me) % 2 == 0)
        for host in self.world.hosts:
            self.world.restart(host.me)


def world_of(n: int, relation: Relation | None = None, **config: Any) -> World:
    return World(n, relation, {"reservation_block": 2, **config})


@given(stories)
@settings(max_examples=120)
def test_three_replicas_agree_whatever_happens(steps: list[Step]) -> None:
    Story(world_of(3)).play(steps)


@given(stories)
@settings(max_examples=80)
def test_five_replicas_agree_whatever_happens(steps: list[Step]) -> None:
    Story(world_of(5)).play(steps)


@given(stories)
@settings(max_examples=40)
def test_thrifty_replicas_agree_whatever_happens(steps: list[Step]) -> None:
    Story(world_of(5, thrifty=True, pipeline_instances_max=2)).play(steps)


@pytest.mark.parametrize("n", [1, 2, 4])
@given(steps=stories)
@settings(max_examples=20)
def test_groups_of_odd_sizes_agree_whatever_happens(n: int, steps: list[Step]) -> None:
    Story(world_of(n)).play(steps)


@given(stories, st.sampled_from([DeclaredKeys(), EverythingConflicts()]))
@settings(max_examples=30)
def test_other_relations_agree_whatever_happens(steps: list[Step], relation: Relation) -> None:
    Story(world_of(3, relation)).play(steps)


# Recovery under a magnifying glass: instances that reached only some replicas, whose leaders are gone or slow

REPLICAS = 5
replica_numbers = st.integers(0, REPLICAS - 1)


@dataclass(frozen=True)
class Proposal:
    """A leader's instance of the one key: whom its PreAccept reaches, and whether the answers get back."""

    leader: int
    reaches: frozenset[int]
    is_answered: bool


@dataclass(frozen=True)
class Turn:
    """A replica begins to recover one of the instances; then, for some rounds, only these hear each other."""

    replica: int
    which: int
    hear: frozenset[int]
    rounds: int


some_proposals = st.lists(
    st.builds(Proposal, replica_numbers, st.frozensets(replica_numbers), st.booleans()),
    min_size=2,
    max_size=4,
    unique_by=lambda proposal: proposal.leader,
)
some_turns = st.lists(
    st.builds(Turn, replica_numbers, st.integers(0, 3), st.frozensets(replica_numbers, min_size=3), st.integers(1, 6)),
    min_size=3,
    max_size=10,
)


@given(some_proposals, st.permutations(range(REPLICAS)), some_turns, st.frozensets(replica_numbers, max_size=2))
@settings(max_examples=600)
def test_a_fast_commit_survives_whoever_recovers_whatever_in_whatever_turn(
    proposals: list[Proposal], order: list[int], turns: list[Turn], crashed: frozenset[int]
) -> None:
    world = World(REPLICAS, config={"reservation_block": 2})
    ids = [_proposed(world, proposal) for proposal in proposals]
    for leader in order:
        world.deliver_all(_pre_accepts_of(leader))
    answered = {proposal.leader for proposal in proposals if proposal.is_answered}
    world.deliver_all(lambda packet: packet.is_a(PreAcceptOk) and packet.to in answered)
    world.lose()
    for replica in crashed:
        world.crash(replica)
    for turn in turns:
        _recover_if_idle(world, turn.replica, ids[turn.which % len(ids)])
        for _ in range(turn.rounds):
            world.deliver_round(_among(turn.hear))
        world.check_agreement()
    world.heal()


def _proposed(world: World, proposal: Proposal) -> InstanceId:
    id = world.propose(proposal.leader, writing("key", name=str(proposal.leader)))
    assert id is not None
    world.lose(lambda packet: packet.sender == proposal.leader and packet.to not in proposal.reaches)
    return id


def _recover_if_idle(world: World, replica: int, id: InstanceId) -> None:
    host = world.hosts[replica]
    instance = host.replica.instances.get(id)
    decided = instance is not None and instance.decided
    if host.up and not decided and id not in host.replica._state.leading:
        world.recover(replica, id)


def _pre_accepts_of(leader: int) -> Callable[[Packet], bool]:
    return lambda packet: packet.is_a(PreAccept) and packet.sender == leader


def _among(replicas: frozenset[int]) -> Callable[[Packet], bool]:
    return lambda packet: packet.among(*replicas)
