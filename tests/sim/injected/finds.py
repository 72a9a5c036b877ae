"""How each bug is found: a seed of the simulator, a seed of its duels, or a story told by hand."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.sim.base.plan import ClockRate, Crash, Death, Fault, Operation, Plan, PutBack, SlowDisk, SlowLinks
from pydsm.sim.base.triggers import CutLinks, DelayMessage, MessageTrigger
from pydsm.sim.tools.search import Search
from tests.sim.stories import MS, ask, calm, cut
from tests.sim.test_recovery_rules import STORIES as RULE_STORIES
from tests.sim.test_recovery_rules import slow_clock

Story = tuple[int, tuple[Fault | Operation, ...]]

STORIES: dict[str, Story] = {
    "an invalidator that commits unordered while its rival waits": RULE_STORIES[Rule.UNORDERED_COMMITTED],
    # The first command commits fast at r0, r1 and r2, and only r0 knows. The second, led by r3, reached r4 alone. r4
    # recovers it, with r3 in its quorum. Going on in spite of r3's answer, it counts r3 as unchanged, so the first
    # command seems to be impossible on the fast path.
    "two rivals, and one leader in the other's quorum": (
        5,
        (
            ask(10, 0, "write k0 1"),
            ask(10, 3, "write k0 2"),
            cut(0, [0], [3, 4]),
            cut(0, [3], [0, 1, 2]),
            cut(0, [2], [4]),
            cut(11.5, [0], [1, 2]),
            slow_clock(0, 1),
            slow_clock(0, 2),
            slow_clock(0, 3),
            Crash(14 * MS, 0, 1500 * MS),
        ),
    ),
}


FORGETFUL_LEADER: tuple[Fault | Operation, ...] = (
    ask(10, 0, "write k1 1"),
    SlowDisk(38 * MS, 8 * MS, 0, 100 * MS),
    ask(40, 0, "write k0 1"),
    Crash(45 * MS, 0, 60 * MS),
    slow_clock(0, 0),
    cut(46, [0], [1], 1400 * MS),
    cut(46, [1], [0], 1400 * MS),
    cut(245.47, [1], [2], 1754 * MS),
    cut(246.67, [2], [1], 1753 * MS),
    cut(464.74, [2], [0], 5 * MS),
    slow_clock(467, 2),
    ask(484.74, 0, "write k0 2"),
    Crash(524 * MS, 2, 2500 * MS),
)
"""Of three. r0 dies before its own first write of 0.2 is on disk, and forgets it. r1 validates 0.2 with r2, accepts it
and is cut off. r2 recovers it with r0, which knows nothing: it accepts nop, alone. r0 then leads a rival, to which r2
must not keep silent about 0.2, because r1 comes back and restores it."""
STORIES["a leader that forgets, and a nop that only one accepted"] = (3, FORGETFUL_LEADER)


LATE_VOTE: tuple[Fault | Operation, ...] = (
    ask(9.4, 1, "write k0 2"),
    ask(10, 0, "write k0 1"),
    cut(0, [1], [0], int(10.6 * MS)),
    cut(0, [3, 4], [0], 215 * MS),
    cut(20, [0], [2, 3, 4], 310 * MS),
    cut(100, [1, 3, 4], [2]),
    SlowLinks(25 * MS, 3000 * MS, ((1, 0),), 1250 * MS),
    slow_clock(0, 1),
    slow_clock(300, 2),
    slow_clock(0, 3),
    slow_clock(0, 4),
    *(SlowDisk(300 * MS, 3000 * MS, replica, 500 * MS) for replica in (1, 3, 4)),
)
"""Of five. r1 votes for 0.1 in round 0, and its answer takes more than a second. r2 begins a recovery that gets
nowhere, r0 one of its own; with r0 and r2, the vote of round 0 makes a quorum that no single ballot has."""
STORIES["a vote that arrives a recovery late"] = (5, LATE_VOTE)


FORGOTTEN_VOTE: tuple[Fault | Operation, ...] = (
    ask(10, 0, "write k0 1"),
    PutBack(200 * MS, 0, 70 * MS, 20 * MS),
    cut(255, [0, 1], [2], 33 * MS),
    ask(260, 0, "write k0 2"),
    cut(310, [1], [0, 2], 1500 * MS),
    cut(310, [0, 2], [1], 1500 * MS),
)
"""Of three. r0 commits 0.2 with r1, its client is answered, and r2 hears nothing of it. Then r0 gets its older disk.
r1 is away a little later, so that r0 and r2, of which neither knows 0.2, decide it as nop: the write is lost."""
STORIES["a disk that was put back, and the only one that remembers is away"] = (3, FORGOTTEN_VOTE)


def links(*groups: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Both ways between all members of a group."""
    return tuple((one, other) for group in groups for one in group for other in group if one != other)


ENDLESS_WAITS: tuple[Fault | Operation, ...] = (
    SlowLinks(0, 1000 * MS, links((1, 2, 3)), 5 * MS),
    SlowLinks(0, 1000 * MS, tuple(one for one in links(range(5)) if {0, 4} & set(one)), 80 * MS),
    slow_clock(1095, 0),
    slow_clock(1095, 2),
    slow_clock(1110, 4),
    cut(1095, [4], [0, 1, 2], 55 * MS),
    cut(1095, [3], [4], 55 * MS),
    ask(1100, 4, "write k0 1"),
    cut(1595, [0], [2, 3, 4], 55 * MS),
    cut(1595, [1], [0], 55 * MS),
    ask(1600, 0, "write k0 2"),
    cut(1700, [2], [1], 700 * MS),
    MessageTrigger(1100 * MS, "Prepare", 1, 4, 0, 0, DelayMessage((4,), 9000 * MS)),
    MessageTrigger(1100 * MS, "Waiting", 1, 4, 0, 0, CutLinks(((1, 0),), 2000 * MS)),
    MessageTrigger(1100 * MS, "Waiting", 1, 0, 0, 0, CutLinks(((1, 4),), 2000 * MS)),
    Death(2400 * MS, 0),
    Death(2400 * MS, 4),
    ClockRate(2400 * MS, 2, 1.0),
)
"""Of five, r0 and r4 were far away. 4.1 reaches only r3, 0.1 only r1. r1 recovers 4.1 with r0 and r3, and waits for
0.1; it recovers 0.1 with r3 and r4, and waits for 4.1. Then r0 and r4 die for ever. r2 and r3 leave both to r1,
because its Waiting comes again before their patience ends, which is as long as the two were far away."""
STORIES["two waits for each other, and both leaders die"] = (5, ENDLESS_WAITS)


@dataclass(frozen=True, slots=True)
class Find:
    """A run that breaks `invariant` with the bug and nothing without it."""

    bug: str
    invariant: str
    seed: int
    duels: bool = False
    laggards: bool = False
    pipelines: bool = False
    adversary: bool = False
    slow: bool = False
    put_backs: bool = False
    story: str = ""
    steps: int = 4000
    replicas: int | None = None
    """Size of the group; by seed unless given."""

    @property
    def kind(self) -> str:
        """Of the world."""
        kinds = {
            "duel": self.duels,
            "laggard": self.laggards,
            "pipeline": self.pipelines,
            "adversary": self.adversary,
            "slow": self.slow,
            "put-backs": self.put_backs,
        }
        return next((kind for kind, chosen in kinds.items() if chosen), "seed")

    @property
    def search(self) -> Search:
        """What plays runs of this kind."""
        return Search(
            replicas=self.replicas,
            steps=self.steps,
            duels_only=self.duels,
            laggards_only=self.laggards,
            pipelines_only=self.pipelines,
            adversary_only=self.adversary,
            slow_only=self.slow,
            put_backs_only=self.put_backs,
        )

    def play(self) -> str | None:
        """Play the run; the invariant that it breaks, if any."""
        plan = self._told() if self.story else self.search.plan(self.seed)
        finding = self.search.play(plan).finding
        return None if finding is None else finding.invariant

    def _told(self) -> Plan:
        replicas, story = STORIES[self.story]
        faults = tuple(sorted((one for one in story if not isinstance(one, Operation)), key=lambda one: one.at_us))
        operations = tuple(sorted((one for one in story if isinstance(one, Operation)), key=lambda one: one.at_us))
        put_back = any(isinstance(one, PutBack) for one in faults)
        settings = msgspec.structs.replace(calm(replicas, self.seed), horizon_us=3000 * MS, starts_checked=put_back)
        return Plan(settings, faults, operations)


FINDS: tuple[Find, ...] = (
    Find("promise not stored", "durable", 0),
    Find("one ballot for promise and vote", "vote", 1),
    Find("duplicate answers counted", "quorum", 3),
    Find("fast quorum one too small", "quorum", 0),
    Find("slow quorum one too small", "quorum", 0),
    Find("fast commit not durable first", "durable", 0),
    Find("pre accept answered before it is durable", "durable", 0),
    Find("leader commits after a promise", "durable", 5),
    Find("validate left out", "visibility", 18),
    Find("possible fast commit abandoned", "stopped by InvariantViolation", 36, duels=True),
    Find("invalidators ignored", "visibility", 3, duels=True),
    Find("execution passes over an accepted nop", "durable", 5, duels=True, replicas=5),
    Find("committed nop taken for a command", "exactness", 10),
    Find("deps taken for initial deps", "exactness", 10),
    Find("execution ignores one edge", "order", 0),
    Find("execution does not wait for commit", "order", 0),
    Find("index used again after a restart", "stopped by InvariantViolation", 0),
    Find("restarted leader goes on in round 0", "ballot", 94),
    Find("late validate overwrites a vote", "vote", 251, adversary=True),
    Find("accepted deps lost in recovery", "agreement", 1),
    Find("dependency that nobody recovers", "liveness", 0),
    Find("acceptor answers with the leaders vector", "visibility", 0),
    Find("one replica has edges to what does not conflict", "order", 133),
    Find("dropped on own execution only", "early drop", 0),
    Find("nothing dropped while something is under way", "bounded memory", 23),
    Find("dropped as soon as all have executed", "exactness", 399),
    Find("frontier told before it is durable", "durable", 0),
    Find("dropped nop taken for a command", "exactness", 16, duels=True),
    Find("late message makes a dropped instance again", "stopped by KeyError", 8),
    Find("index dropped as a whole at a checkpoint", "visibility", 0),
    Find("validate does not look behind the floor", "exactness", 5, adversary=True),
    Find("floor not raised by a checkpoint", "visibility", 0),
    Find("checkpoint taken inside its component", "checkpoint", 4),
    Find("snapshot taken before its commits are durable", "stopped by OperationalError", 0),
    Find("records purged before a snapshot is durable", "purge", 0),
    Find("records purged up to the newest snapshot", "purge", 0),
    Find("records purged that a member has not executed", "purge", 0),
    Find("snapshot executed again after a restart", "executed twice", 0),
    Find("floor forgotten in a restart", "visibility", 4),
    Find("window forgotten at a restart", "digest", 0),
    Find("retry does not conflict with the first attempt", "visibility", 5),
    Find("retry taken for a first attempt", "results", 37),
    Find("second execution not skipped", "first result", 2),
    Find("answer of a skipped request is the latest result", "first result", 23),
    Find("window pruned before the acknowledgement", "first result", 5),
    Find("acknowledged requests taken for executed", "executed twice", 0),
    Find("sessions forgotten at every batch", "digest", 0),
    Find("forgotten beyond the snapshot", "early drop", 8, laggards=True),
    Find("purged is not told", "liveness", 1, laggards=True),
    Find("member of the barriers component executed again", "liveness", 1, laggards=True),
    Find("snapshot of the past installed", "bounded memory", 65, laggards=True),
    Find("results of all sessions limited at every batch", "digest", 84),
    Find("sessions expire by the clock of one replica", "session expired early", 20),
    Find("batches stamped with the own clock", "time of a batch", 5),
    Find("the clock that is most ahead is believed", "agreed time", 5),
    Find("a clock that is behind sets time back", "session expired early", 5),
    Find("time alone tells what was forgotten", "first result", 42),
    Find("records older than the snapshot taken", "disk", 5),
    Find("damaged piece is not asked for again", "liveness", 1, laggards=True),
    Find("late source asked for ever", "liveness", 56, laggards=True),
    Find("records stay behind a fetched snapshot", "stopped by OperationalError", 1, laggards=True),
    Find("one behind taken for up to date", "early drop", 1, laggards=True),
    Find("validated batch not in the index", "stopped by KeyError", 0, adversary=True),
    Find("forgotten proposals not covered", "agreement", 0, adversary=True),
    Find("lowest vote taken", "agreement", 29, adversary=True),
    Find("prepare leaves before its promise is durable", "ballot", 55, adversary=True),
    Find("recovery begins with the same ballot again", "ballot", 1, adversary=True),
    Find("unbounded purge", "purge", 0),
    Find("checkpoint with commands", "agreement", 15),
    Find("retry ordered against one leader only", "visibility", 13),
    Find("early drop beyond the last durable checkpoint", "early drop", 1, laggards=True),
    Find("waits do not know the distance", "liveness", 11, slow=True),
    Find("repetition fills the links", "liveness", 70842, adversary=True, replicas=3),
    Find("batches proposed before any agreed time", "time of a batch", 6),
    Find("later commands of a connection wait in front", "program order", 3, pipelines=True),
    Find("time stands still between ticks", "liveness", 20053, adversary=True),
    Find("validate given up after a fixed time", "liveness", 11, slow=True),
    Find("what came with a snapshot is in no vector", "checkpoint", 140, laggards=True),
    Find("barrier silent about what was forgotten", "exactness", 74, laggards=True, replicas=5),
    Find("exception of a command ends the replica", "stopped by Broken", 1),
    Find("effects of a raising command kept", "linearizability", 2),
    Find("batch executed again on top of itself", "linearizability", 5),
    Find("whole batch fails with one command", "linearizability", 5),
    Find("text of an exception kept", "first result", 2),
    Find("no order in sessions", "program order", 1, pipelines=True),
    Find("no order on connections", "program order", 6, pipelines=True),
    Find("flag instead of after", "executed twice", 1, pipelines=True),
    Find("after dropped on a retry", "program order", 1, pipelines=True),
    Find("left out and recorded", "first result", 1, pipelines=True),
    Find("ordered run that names no session", "results", 1, pipelines=True),
    Find("proposed again behind later commands", "program order", 45, pipelines=True),
    Find("given up request executed late", "executed twice", 5, pipelines=True),
    Find(
        "older disk not noticed",
        "agreement",
        0,
        story="a disk that was put back, and the only one that remembers is away",
    ),
    Find("lower position taken", "frontier", 0, put_backs=True),
    Find("takes part before peers have answered", "start", 0, put_backs=True),
    Find("rule 3 left out", "agreement", 0, story="two rivals, and one leader in the other's quorum"),
    Find(
        "accepted nop conflicts with nothing",
        "visibility",
        0,
        story="a leader that forgets, and a nop that only one accepted",
    ),
    Find("wait for invalidators without end", "liveness", 2, story="two waits for each other, and both leaders die"),
    Find("votes of an old ballot counted", "quorum", 0, story="a vote that arrives a recovery late"),
    Find(
        "unordered invalidator taken for ordered",
        "visibility",
        0,
        story="an invalidator that commits unordered while its rival waits",
    ),
)

NOT_BY_CHANCE: dict[str, str] = {
    "refuse of any ballot counted": "tests/unit/core/protocol/test_recoverer.py::"
    "test_a_second_refusal_of_one_replica_counts_once_and_one_of_another_ballot_not_at_all",
    "validate ok of an old ballot counted": "tests/unit/core/protocol/test_recoverer.py::"
    "test_every_member_of_the_quorum_must_have_answered_and_counts_once",
    "minority of digests stops a replica": "tests/unit/core/protocol/test_divergence.py::"
    "test_one_different_state_stops_no_replica_while_a_member_has_not_reported",
    "own waiting unheard": "tests/protocol/test_recovery_rules.py::"
    "test_a_wait_of_the_replica_itself_counts_as_one_that_arrives",
    "distant gossip dropped": "tests/protocol/test_recovery_rules.py::"
    "test_a_member_that_is_farther_behind_than_one_message_may_name_catches_up",
}
"""What no run shows; and the test of the rule that fails with the bug."""
