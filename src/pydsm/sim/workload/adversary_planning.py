"""Generates short plans with targeted faults: each fault waits for a critical message of the protocol.

A world is a few rounds. In each round, one to three leaders propose commands on one to three hot keys at about the same
time, and triggers inject faults when chosen messages are sent: the sender crashes before, half-way or after, the fast
quorum is cut off in one or both directions, messages arrive late or twice. Afterwards other replicas access the same
keys. At the end 0 to f replicas stay down, and the rest must decide and execute everything.
"""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from pydsm.core.types.quorums import quorums
from pydsm.sim.base import triggers as t
from pydsm.sim.base.plan import ClockRate, Crash, Cut, Death, Fault, Operation, Plan
from pydsm.sim.base.settings import NEVER, TICK_US, Settings, draw_settings
from pydsm.sim.workload.slow_worlds import make_slower
from pydsm.sim.workload.workload import RegisterWorkload, Workload

SIZES = (2, 3, 3, 4, 5, 5, 5, 6, 7)
"""Sizes of the group if the caller chooses none; a size that is listed more often is more frequent."""

_SLOW_SHARE = 0.1
_SEEDS_PER_REPEATED_QUESTION, _REPEATED_QUESTION = 8, 3
_OWN_KINDS = ("PreAccept", "PreAccept", "Accept", "Commit", "Commit")
"""Messages that a leader sends about its own instance."""
_ANSWERS = ("PreAcceptOk", "AcceptOk", "PrepareOk", "ValidateOk", "Refuse")
_RECOVERY_KINDS = ("Prepare", "Prepare", "Validate", "Accept", "Waiting", "Commit")


def make_adversary(
    seed: int, replicas: int, steps: int = 10_000, workload: Callable[[Random], Workload] = RegisterWorkload
) -> Plan:
    """The plan of a seed with targeted faults: the same arguments always give the same plan."""
    random = Random(f"adversary {seed} {replicas}")
    settings = _draw(random, seed, replicas, steps)
    return _AdversaryPlanner(random, settings, workload(random)).plan()


def _draw(random: Random, seed: int, replicas: int, steps: int) -> Settings:
    """Timers are short, and most messages take equally long, so that the triggers decide the order of events."""
    choice = random.choice
    drawn = draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0)
    if random.random() < _SLOW_SHARE:
        return make_slower(drawn, random)
    way_us = choice([150, 1000, 1000, 3000])
    latencies_us = tuple(
        tuple(0 if one == other else int(way_us * choice([0.8, 1, 1, 1.3])) for other in range(replicas))
        for one in range(replicas)
    )
    retrying = seed % 4 == 1
    if retrying:  # clients would wait for results that are dropped
        drawn = msgspec.structs.replace(drawn, session_results_bytes_max=16 << 20, results_bytes_max=128 << 20)
    return msgspec.structs.replace(
        drawn,
        thrifty=random.random() < 0.2,
        fast_timer_ticks=choice([5, 20]),
        retry_ticks=choice([10, 30]),
        recovery_timeout_ticks=choice([15, 30, 60]),
        recovery_jitter_ticks=choice([1, 5, 20]),
        backoff_ticks_max=choice([50, 300]),
        scan_ticks=5,
        gossip_ticks=choice([30, 100]),
        pipeline_instances_max=choice([2, 16, 64]),
        reservation_block=choice([1, 2, 2, 8]),
        checkpoint_instances=choice([3, NEVER, NEVER]),
        checkpoint_ticks=NEVER,
        tick_period_us=2000,
        sync_us=choice([0, 200, 1000, 1000, 5000]),
        latencies_us=latencies_us,
        spread=choice(["steady", "steady", "uniform"]),
        batch_requests_max=choice([1, 1, 2]),
        gather_us=0,
        patience_us=choice([100_000, 2_000_000]),
        retrying=retrying,
        doubling=seed % 8 == 5,
    )


class _AdversaryPlanner:
    def __init__(self, random: Random, settings: Settings, workload: Workload) -> None:
        self._random = random
        self._settings = settings
        self._workload = workload
        self._members = range(settings.replicas)
        self._keys = [f"k{number}" for number in range(random.randint(1, 3))]
        ticks = settings.recovery_timeout_ticks + settings.recovery_jitter_ticks + settings.retry_ticks + 5
        self._propagation_us = settings.one_way_us + 300
        self._recovery_us = ticks * TICK_US + 6 * self._propagation_us
        self._operations: list[Operation] = []
        self._faults: list[Fault] = []

    def plan(self) -> Plan:
        """One to three rounds, and at the end some replicas stay down."""
        random = self._random
        at_us = 0
        for _ in range(random.randint(1, 3)):
            at_us += random.randrange(1, 1 + self._recovery_us // 4)
            add_round = random.choice(
                [
                    self._add_round,
                    self._add_round,
                    self._add_round,
                    self._add_lost_proposal,
                    self._add_votes_in_two_ballots,
                ]
            )
            if self._settings.seed % _SEEDS_PER_REPEATED_QUESTION == _REPEATED_QUESTION:
                add_round = self._add_repeated_question
            add_round(at_us)
            at_us += int(random.choice([0.5, 1.5, 3, 5]) * self._recovery_us)
        settings = msgspec.structs.replace(self._settings, horizon_us=at_us + 1)
        for replica in random.sample(self._members, random.randint(0, quorums(len(self._members)).f)):
            self._faults.append(Death(random.choice([at_us, random.randrange(at_us)]), replica))
        return Plan(
            settings,
            tuple(sorted(self._faults, key=lambda fault: fault.at_us)),
            tuple(sorted(self._operations, key=lambda operation: operation.at_us)),
        )

    def _add_round(self, start_us: int) -> None:
        random = self._random
        leaders = random.sample(self._members, min(len(self._members), random.choice([1, 2, 2, 3])))
        for leader in leaders:
            for _ in range(random.choice([1, 1, 2])):
                self._add_operation(start_us + random.randrange(1 + 2 * self._propagation_us), leader)
        for leader in leaders:
            if random.random() < 0.7:
                self._add_cut_of_fast_quorum(start_us, leader)
        for _ in range(random.choice([1, 2, 3, 5])):
            self._add_random_trigger(start_us, leaders)
        for _ in range(random.choice([0, 1, 2, 4])):
            later_us = start_us + random.randrange(1, 2 * self._recovery_us)
            self._add_operation(later_us, random.choice(self._members))
        for replica in self._members:
            if random.random() < 0.15:
                self._faults += [
                    ClockRate(start_us, replica, 0.1),
                    ClockRate(start_us + random.randrange(1, 3 * self._recovery_us), replica, 1.0),
                ]
            elif random.random() < 0.07:
                self._faults.append(
                    Crash(start_us + random.randrange(self._recovery_us), replica, self._draw_duration_us())
                )

    def _add_lost_proposal(self, start_us: int) -> None:
        """A leader loses a proposal that few received, votes for a rival, and is down when the rival is recovered.

        The rival commits with exactly a fast quorum, and its Commit reaches no replica.
        """
        random, sizes = self._random, quorums(len(self._members))
        first, second, *others = random.sample(self._members, len(self._members))
        reached = others[: max(0, sizes.fast - 2)]
        rest = others[len(reached) :]
        few = tuple(one for one in rest if random.random() < 0.7)
        key = random.choice(self._keys)
        down_us = random.randrange(1, 4 * self._propagation_us)
        long_us = 4 * self._recovery_us
        self._add_operation(start_us, first, key)
        crash = t.CrashSender(t.HALF_WAY, few, down_us)
        self._faults.append(t.MessageTrigger(start_us, "PreAccept", first, first, 0, 0, crash))
        self._add_operation(
            start_us + down_us + random.randrange(2 * self._propagation_us, 6 * self._propagation_us), second, key
        )
        self._faults.append(Cut(start_us, long_us, self._between([second], rest)))
        self._crash_sender_of(start_us, "PreAcceptOk", first, second, t.AFTER)
        self._crash_sender_of(start_us, "Commit", second, second, t.BEFORE)

    def _add_votes_in_two_ballots(self, start_us: int) -> None:
        """Few replicas accept an instance, then others accept it in a higher ballot, whose proposer crashes."""
        random = self._random
        leader, rival = random.sample(self._members, 2)
        key = random.choice(self._keys)
        for one in (leader, rival):
            self._add_operation(start_us + random.randrange(1 + self._propagation_us // 2), one, key)
        few = self._draw_members(0.3)
        down_us = int((1 + random.random()) * self._recovery_us)
        cut = t.CutLinks(self._between([leader], self._members) + self._between(self._members, [leader]), down_us)
        actions: list[t.Action] = [t.CrashSender(t.HALF_WAY, few, down_us), t.CrashSender(t.BEFORE, (), down_us), cut]
        away = random.choice(actions)
        self._faults.append(t.MessageTrigger(start_us, "Accept", leader, leader, 0, 0, away))
        kind = random.choice(["Commit", "Commit", "Accept", "AcceptOk"])
        self._crash_sender_of(start_us, kind, t.ANY, leader, random.choice([t.BEFORE, t.HALF_WAY]))
        if random.random() < 0.5:
            self._add_random_trigger(start_us, [leader])

    def _add_repeated_question(self, start_us: int) -> None:
        """Questions and answers of a recovery arrive a second time, a few steps later, when no Commit has arrived."""
        random = self._random
        leader, rival = random.sample(self._members, 2)
        key = random.choice(self._keys)
        self._add_operation(start_us, leader, key)
        if random.random() < 0.5:
            self._add_operation(start_us + random.randrange(1 + 2 * self._propagation_us), rival, key)
        away_us = int((2 + 3 * random.random()) * self._recovery_us)
        crash = t.CrashSender(t.HALF_WAY, self._draw_members(0.7), random.choice([None, away_us]))
        self._faults.append(t.MessageTrigger(start_us, "PreAccept", leader, leader, 0, 0, crash))
        for kind in random.sample(["Validate", "Validate", "ValidateOk", "PrepareOk"], random.choice([1, 2])):
            again = t.RepeatMessage(self._draw_members(0.8), random.randrange(1, 8 * self._propagation_us))
            self._faults.append(t.MessageTrigger(start_us, kind, t.ANY, leader, 0, 0, again))
        self._crash_sender_of(start_us, "Commit", t.ANY, leader, random.choice([t.BEFORE, t.HALF_WAY]))

    def _crash_sender_of(self, at_us: int, kind: str, sender: int, leader: int, when: str) -> None:
        """The sender of the next such message crashes and stays down for long."""
        random = self._random
        down_us = None if random.random() < 0.5 else int((2 + 2 * random.random()) * self._recovery_us)
        round_min = 1 if sender == t.ANY and kind in ("Accept", "AcceptOk") else 0
        crash = t.CrashSender(when, self._draw_members(0.3), down_us)
        self._faults.append(t.MessageTrigger(at_us, kind, sender, leader, round_min, 0, crash))

    def _add_operation(self, at_us: int, replica: int, key: str | None = None) -> None:
        """Adds a command of a new client, so that it is sent immediately; on one of the hot keys if there are some."""
        workload, random = self._workload, self._random
        if isinstance(workload, RegisterWorkload):
            command = workload.command_for(random, key or random.choice(self._keys))
        else:
            command = workload.command(random, hot=True)
        self._operations.append(Operation(at_us, len(self._operations), replica, command))

    def _draw_members(self, share: float = 0.5) -> tuple[int, ...]:
        return tuple(one for one in self._members if self._random.random() < share)

    def _draw_duration_us(self) -> int:
        """A duration from almost nothing to several recoveries."""
        return 1 + int(self._recovery_us * self._random.choice([0.05, 0.3, 1, 2, 4]) * (0.5 + self._random.random()))

    def _between(self, senders: Sequence[int], receivers: Sequence[int]) -> t.Links:
        return tuple((one, other) for one in senders for other in receivers if one != other)

    def _add_cut_of_fast_quorum(self, start_us: int, leader: int) -> None:
        """Cuts some links from the leader, and some links to it."""
        random = self._random
        deaf, mute = self._draw_members(), self._draw_members(0.4)
        links: t.Links = ()
        if random.random() < 0.8:
            links += self._between([leader], deaf)
        if random.random() < 0.6:
            links += self._between(mute, [leader])
        if not links:
            return
        if random.random() < 0.5:
            self._faults.append(Cut(start_us, self._draw_duration_us(), links))
        else:
            self._add_trigger(
                start_us, random.choice(_OWN_KINDS), leader, leader, 0, t.CutLinks(links, self._draw_duration_us())
            )

    def _add_random_trigger(self, start_us: int, leaders: Sequence[int]) -> None:
        """Adds one trigger: at a leader, at a replica that answers, or at a replica that recovers."""
        random = self._random
        leader = random.choice(leaders)
        target = random.random()
        if target < 0.4:
            self._add_trigger(start_us, random.choice(_OWN_KINDS), leader, leader, 0, self._draw_action(leader))
        elif target < 0.7:
            sender = random.choice([t.ANY, random.choice(self._members)])
            round_min = random.choice([0, 0, 1])
            self._add_trigger(start_us, random.choice(_ANSWERS), sender, leader, round_min, self._draw_action(sender))
        else:
            sender = random.choice([t.ANY, t.ANY, random.choice(self._members)])
            self._add_trigger(start_us, random.choice(_RECOVERY_KINDS), sender, leader, 0, self._draw_action(sender))

    def _add_trigger(self, at_us: int, kind: str, sender: int, leader: int, round_min: int, action: t.Action) -> None:
        skip = self._random.choice([0, 0, 0, 1, 2, 4])
        self._faults.append(t.MessageTrigger(at_us, kind, sender, leader, round_min, skip, action))

    def _draw_action(self, sender: int) -> t.Action:
        random = self._random
        match random.choice(["crash", "crash", "crash", "pause", "cut", "delay", "repeat"]):
            case "crash":
                when = random.choice([t.BEFORE, t.HALF_WAY, t.HALF_WAY, t.AFTER])
                down_us = None if random.random() < 0.3 else self._draw_duration_us()
                return t.CrashSender(when, self._draw_members(0.4), down_us)
            case "pause":
                return t.PauseSender(self._draw_duration_us(), deaf=random.random() < 0.5)
            case "cut":
                one = random.choice(self._members) if sender == t.ANY else sender
                others = self._draw_members()
                links = self._between([one], others)
                if random.random() < 0.5:
                    links += self._between(others, [one])
                return t.CutLinks(links, self._draw_duration_us())
            case "delay":
                return t.DelayMessage(self._draw_members(0.6), self._draw_duration_us())
            case _:
                return t.RepeatMessage(self._draw_members(0.8), self._draw_duration_us())
