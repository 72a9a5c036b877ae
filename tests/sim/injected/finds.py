"""How each bug is found: a seed of the simulator, a seed of its duels, or a story told by hand."""

from dataclasses import dataclass

import msgspec

from pydsm.core.recovery import Rule
from pydsm.sim.plan import Crash, Fault, Operation, Plan, SlowDisk, SlowLinks
from pydsm.sim.search import Search
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
    cut(46, [0], [1], 1954 * MS),
    cut(46, [1], [0], 1954 * MS),
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


@dataclass(frozen=True, slots=True)
class Find:
    """A run that breaks `invariant` with the bug and nothing without it."""

    bug: str
    invariant: str
    seed: int
    duels: bool = False
    laggards: bool = False
    story: str = ""
    steps: int = 4000
    replicas: int | None = None
    """Size of the group; by seed unless given."""

    def play(self) -> str | None:
        """Play the run; the invariant that it breaks, if any."""
        search = Search(replicas=self.replicas, steps=self.steps, duels_only=self.duels, laggards_only=self.laggards)
        plan = self._told() if self.story else search.plan(self.seed)
        finding = search.play(plan).finding
        return None if finding is None else finding.invariant

    def _told(self) -> Plan:
        replicas, story = STORIES[self.story]
        faults = tuple(sorted((one for one in story if not isinstance(one, Operation)), key=lambda one: one.at_us))
        operations = tuple(sorted((one for one in story if isinstance(one, Operation)), key=lambda one: one.at_us))
        settings = msgspec.structs.replace(calm(replicas, self.seed), horizon_us=3000 * MS)
        return Plan(settings, faults, operations)


FINDS: tuple[Find, ...] = (
    Find("promise not stored", "durable", 0),
    Find("one ballot for promise and vote", "vote", 1),
    Find("duplicate answers counted", "quorum", 6),
    Find("fast quorum one too small", "quorum", 0),
    Find("slow quorum one too small", "quorum", 0),
    Find("fast commit not durable first", "durable", 0),
    Find("pre accept answered before it is durable", "durable", 0),
    Find("leader commits after a promise", "agreement", 579),
    Find("validate left out", "visibility", 44),
    Find("possible fast commit abandoned", "stopped by BrokenInvariant", 36, duels=True),
    Find("invalidators ignored", "visibility", 3, duels=True),
    Find("execution passes over an accepted nop", "order", 98, duels=True, replicas=5),
    Find("committed nop taken for a command", "exactness", 10),
    Find("deps taken for initial deps", "exactness", 9),
    Find("execution ignores one edge", "order", 0),
    Find("execution does not wait for commit", "order", 0),
    Find("index used again after a restart", "stopped by BrokenInvariant", 0),
    Find("restarted leader goes on in round 0", "durable", 94),
    Find("late validate overwrites a vote", "vote", 136, duels=True),
    Find("accepted deps lost in recovery", "agreement", 1),
    Find("dependency that nobody recovers", "liveness", 0),
    Find("acceptor answers with the leaders vector", "visibility", 0),
    Find("one replica has edges to what does not conflict", "order", 219),
    Find("dropped on own execution only", "purge", 0),
    Find("nothing dropped while something is under way", "bounded memory", 21),
    Find("dropped as soon as all have executed", "exactness", 399),
    Find("frontier told before it is durable", "durable", 0),
    Find("dropped nop taken for a command", "exactness", 24),
    Find("late message makes a dropped instance again", "memory", 13),
    Find("index dropped as a whole at a checkpoint", "visibility", 0),
    Find("validate does not look behind the floor", "exactness", 89),
    Find("floor not raised by a checkpoint", "visibility", 0),
    Find("checkpoint taken inside its component", "checkpoint", 4),
    Find("snapshot taken before its commits are durable", "stopped by WorldFault", 0),
    Find("records purged before a snapshot is durable", "purge", 0),
    Find("records purged up to the newest snapshot", "purge", 0),
    Find("records purged that a member has not executed", "purge", 0),
    Find("snapshot executed again after a restart", "executed twice", 0),
    Find("floor forgotten in a restart", "visibility", 89),
    Find("window forgotten at a restart", "digest", 0),
    Find("retry does not conflict with the first attempt", "visibility", 5),
    Find("retry taken for a first attempt", "results", 37),
    Find("second execution not skipped", "first result", 2),
    Find("answer of a skipped request is the latest result", "first result", 23),
    Find("window pruned before the acknowledgement", "first result", 5),
    Find("acknowledged requests taken for executed", "executed twice", 1),
    Find("sessions forgotten at every batch", "executed twice", 0),
    Find("forgotten beyond the snapshot", "liveness", 8, laggards=True),
    Find("purged is not told", "liveness", 1, laggards=True),
    Find("member of the barriers component executed again", "liveness", 1, laggards=True),
    Find("snapshot of the past installed", "bounded memory", 5, laggards=True),
    Find("records older than the snapshot taken", "disk", 5),
    Find("damaged piece is not asked for again", "liveness", 1, laggards=True),
    Find("late source asked for ever", "liveness", 3, laggards=True),
    Find("records stay behind a fetched snapshot", "stopped by WorldFault", 1, laggards=True),
    Find("one behind taken for up to date", "liveness", 1, laggards=True),
    Find("what came with a snapshot is in no vector", "checkpoint", 56, laggards=True),
    Find("barrier silent about what was forgotten", "exactness", 1, laggards=True, replicas=5),
    Find("rule 3 left out", "agreement", 0, story="two rivals, and one leader in the other's quorum"),
    Find(
        "accepted nop conflicts with nothing",
        "visibility",
        0,
        story="a leader that forgets, and a nop that only one accepted",
    ),
    Find("votes of an old ballot counted", "quorum", 0, story="a vote that arrives a recovery late"),
    Find(
        "unordered invalidator taken for ordered",
        "visibility",
        0,
        story="an invalidator that commits unordered while its rival waits",
    ),
)

NOT_BY_CHANCE: dict[str, str] = {
    "validated batch not in the index": "tests/unit/core/test_log.py::test_one_known_only_from_a_validate_counts",
    "forgotten proposals not covered": "tests/protocol/test_recovery_rules.py::"
    "test_a_leader_that_forgot_what_it_proposed_orders_everything_after_it",
    "lowest vote taken": "tests/unit/core/test_recovery.py::test_of_two_late_votes_the_higher_is_taken",
}
"""What 300 ordinary seeds and 500 duels did not find, and the test of the rule itself that fails with the bug."""
