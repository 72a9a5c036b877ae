"""Faults that are injected when a chosen message is sent."""

import msgspec
import pytest

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Commit, Message, Prepare, Waiting
from pydsm.sim.base import triggers as t
from pydsm.sim.cluster.adversary import Adversary
from pydsm.sim.cluster.process import Died
from pydsm.sim.devices.network import SimulatedNetwork
from pydsm.sim.tools.search import Search
from pydsm.sim.tools.shrink import _with_fewer_replicas
from tests.unit.sim.worlds import batch, context, i, run

R0, R1, R2 = ReplicaId(0), ReplicaId(1), ReplicaId(2)
COMMIT = Commit(i(0, 1), batch(writes=[b"x"]), (0, 0, 0))


class Sender:
    def __init__(self) -> None:
        self.id = 0
        self.done: list[object] = []

    def die(self, down_us: int | None) -> None:
        self.done.append(("dies", down_us))
        raise Died

    def pause(self, deaf: bool) -> None:
        self.done.append(("pauses", deaf))

    def resume(self) -> None:
        self.done.append("goes on")


class Bench:
    def __init__(self, action: t.Action, skip: int = 0) -> None:
        self.world = context(codec_every=0)
        self.arrived: list[tuple[int, int]] = []
        self.disturbances: list[int] = []
        self.stamps: list[object] = []
        self.start = 1
        self.network = SimulatedNetwork(self.world, self._take, lambda: None, stamp_of=lambda sender: (self.start, 0))
        self.adversary = Adversary(self.world, self.network, self.disturbances.append)
        self.adversary.arm(t.MessageTrigger(0, "Commit", 0, 0, 0, skip, action))
        self.sender = Sender()

    def _take(self, to: ReplicaId, sender: ReplicaId, message: Message, stamp: tuple[int, int] | None) -> None:
        self.arrived.append((self.world.schedule.now // 1000, to))
        self.stamps.append(stamp)

    def send(self, message: Message = COMMIT) -> list[int]:
        """The receivers, in order."""
        self.arrived.clear()
        try:
            self.adversary.send(self.sender, (R1, R2), message)
        finally:
            run(self.world)
        return [to for _, to in self.arrived]


@pytest.mark.parametrize(("when", "receivers"), [(t.BEFORE, []), (t.HALF_WAY, [2]), (t.AFTER, [1, 2])])
def test_a_sender_crashes_before_half_way_or_after(when: str, receivers: list[int]) -> None:
    bench = Bench(t.CrashSender(when, (2,), 70))
    with pytest.raises(Died):
        bench.send()
    assert sorted(to for _, to in bench.arrived) == receivers
    assert bench.sender.done == [("dies", 70)]
    assert bench.world.counts.strikes == 1


def test_a_trigger_injects_one_fault_after_the_messages_that_it_skips() -> None:
    bench = Bench(t.CrashSender(t.BEFORE, (), None), skip=1)
    assert sorted(bench.send()) == [1, 2]
    with pytest.raises(Died):
        bench.send()
    assert sorted(bench.send()) == [1, 2]


def test_links_are_cut_from_the_triggering_message_on_and_restored_later() -> None:
    bench = Bench(t.CutLinks(((0, 1),), 5000))
    assert bench.send() == [2]
    bench.world.schedule.now += 5000
    assert sorted(bench.send()) == [1, 2]


def test_a_delayed_message_is_late_at_its_receivers_only() -> None:
    bench = Bench(t.DelayMessage((1,), 40_000))
    assert bench.send() == [2, 1]
    assert bench.arrived[1][0] >= 40


def test_a_repeated_message_arrives_twice() -> None:
    bench = Bench(t.RepeatMessage((2,), 40_000))
    assert sorted(bench.send()) == [1, 2, 2]


@pytest.mark.parametrize("action", [t.DelayMessage((1, 2), 40_000), t.RepeatMessage((1, 2), 40_000)])
def test_a_late_message_has_the_stamp_of_its_senders_start_when_it_was_sent(action: t.Action) -> None:
    bench = Bench(action)
    bench.world.schedule.after(20_000, setattr, bench, "start", 2)
    bench.send()
    assert set(bench.stamps) == {(1, 0)}


def test_a_sender_pauses_after_its_message_was_sent() -> None:
    bench = Bench(t.PauseSender(3000, deaf=True))
    assert sorted(bench.send()) == [1, 2]
    assert bench.sender.done == [("pauses", True), "goes on"]


@pytest.mark.parametrize(
    ("action", "lasting_us"),
    [
        (t.PauseSender(70_000, deaf=False), 70_000),
        (t.CutLinks(((0, 1),), 70_000), 70_000),
        (t.DelayMessage((1,), 70_000), 70_000),
        (t.RepeatMessage((1,), 70_000), 70_000),
    ],
)
def test_an_injected_fault_reports_its_duration(action: t.Action, lasting_us: int) -> None:
    bench = Bench(action)
    bench.send()
    assert bench.disturbances == [lasting_us]


def test_no_fault_is_injected_after_the_heal() -> None:
    bench = Bench(t.CrashSender(t.BEFORE, (), None))
    bench.adversary.disarm()
    assert sorted(bench.send()) == [1, 2]


@pytest.mark.parametrize(
    ("trigger", "fits"),
    [
        (t.MessageTrigger(0, "Prepare", t.ANY, t.ANY, 0, 0, t.PauseSender(1, True)), True),
        (t.MessageTrigger(0, "Prepare", 1, 2, 3, 0, t.PauseSender(1, True)), True),
        (t.MessageTrigger(0, "Prepare", 1, 2, 4, 0, t.PauseSender(1, True)), False),
        (t.MessageTrigger(0, "Prepare", 1, 0, 0, 0, t.PauseSender(1, True)), False),
        (t.MessageTrigger(0, "Prepare", 2, 2, 0, 0, t.PauseSender(1, True)), False),
        (t.MessageTrigger(0, "PrepareOk", t.ANY, t.ANY, 0, 0, t.PauseSender(1, True)), False),
    ],
)
def test_a_trigger_chooses_by_kind_sender_leader_and_round(trigger: t.MessageTrigger, fits: bool) -> None:
    assert trigger.fits(1, Prepare(i(2, 5), Ballot(3, R1))) is fits


def test_a_message_without_a_ballot_has_round_0() -> None:
    trigger = t.MessageTrigger(0, "Waiting", t.ANY, t.ANY, 1, 0, t.PauseSender(1, True))
    assert not trigger.fits(1, Waiting(i(0, 1), 2))


# Whole worlds


def test_a_seed_always_gives_the_same_adversary_plan_and_it_can_be_saved() -> None:
    search = Search(adversary_only=True)
    for seed in range(10):
        plan = search.plan(seed)
        assert search.plan(seed) == plan
        assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan


def test_groups_of_two_to_seven_run_and_triggers_inject_faults() -> None:
    search = Search(adversary_only=True)
    plans = [search.plan(seed) for seed in range(60)]
    assert {plan.settings.replicas for plan in plans} == {2, 3, 4, 5, 6, 7}
    assert sum(search.play(plan).counts.strikes for plan in plans[:10]) > 10


def test_a_smaller_group_has_no_trigger_about_removed_replicas() -> None:
    plan = next(plan for plan in map(Search(replicas=7, adversary_only=True).plan, range(50)) if len(plan.faults) > 8)
    less = _with_fewer_replicas(plan, 3)
    for fault in less.faults:
        if isinstance(fault, t.MessageTrigger):
            assert max(fault.sender, fault.leader, *getattr(fault.action, "receivers", ()), -1) < 3
            assert all(max(link) < 3 for link in getattr(fault.action, "links", ()))
