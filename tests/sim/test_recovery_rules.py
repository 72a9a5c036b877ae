"""Scenarios for every branch of recovery (docs/reference/protocol.md, section 4), independent of random runs.

In each scenario replica 0 leads the command that is recovered, and then sends no more messages. A scenario runs with
several seeds, which differ only in jitter and small delays: each must satisfy every invariant and take the branch.
"""

import pytest

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.sim.base.plan import ClockRate, Crash, Fault, Operation, Pause, SlowLinks
from tests.sim.stories import MS, ask, cut, play_with_many_seeds, reached

FIRST = ask(10, 0, "write k0 1")
DEATH = Crash(14 * MS, 0, 1500 * MS)


def slow_clock(at_ms: int, replica: int) -> ClockRate:
    """From then on, the timers of a replica do not fire: it neither repeats messages nor begins recoveries."""
    return ClockRate(at_ms * MS, replica, 0.02)


RIVALS = (FIRST, ask(10, 1, "write k0 2"), cut(0, [0], [1, 3, 4]), cut(0, [1, 2], [1, 2], 25 * MS))
"""Of five: the first command is known at r2 alone, the second, led by r1, at r3 and r4."""

LATE_ANSWER = (
    FIRST,
    ask(10, 2, "write k0 2"),
    cut(0, [1], [0], 60 * MS),
    cut(0, [2], [1], 60 * MS),
    slow_clock(0, 2),
    slow_clock(45, 0),
    SlowLinks(100 * MS, 3000 * MS, ((1, 0),), 4500),
)
"""Of three: r1 recovers the first command and waits for the rival, led by r2; the first leader answers late."""

Story = tuple[int, tuple[Fault | Operation, ...]]

STORIES: dict[Rule, Story] = {
    # r2 missed the commit and all answers to its questions, and begins a recovery at replicas that have the commit.
    Rule.ALREADY_COMMITTED: (3, (FIRST, cut(12, [0, 1], [2], 500 * MS))),
    # The leader takes the slow path, and crashes after its Accept, before its Commit.
    Rule.VOTED_VALUE: (
        3,
        (FIRST, ask(10, 2, "write k0 2"), cut(0, [1], [0]), cut(20, [2], [0]), Crash(45 * MS, 0, 1500 * MS)),
    ),
    # Only the leader has the command, on its own disk.
    Rule.LEADER_UNDECIDED: (3, (cut(0, [0], [1, 2]), FIRST, Crash(30 * MS, 0, 500 * MS))),
    # Only r1 received it, after a command of its own, so it had to add a dependency.
    Rule.TOO_FEW_UNCHANGED: (3, (FIRST, ask(10, 1, "write k0 2"), cut(0, [0], [2]), cut(0, [1, 2], [0]), DEATH)),
    # Both others received it, but no answer reached the leader: it may have committed.
    Rule.MUST_VALIDATE: (3, (FIRST, cut(0, [1, 2], [0]), DEATH)),
    Rule.NO_INVALIDATORS: (3, (FIRST, cut(0, [1, 2], [0]), DEATH)),
    # The rival commits on the fast path; replicas that have its commit receive Validate.
    Rule.COMMITTED_INVALIDATOR: (5, (*RIVALS, cut(0, [1, 3, 4], [0]), cut(11.5, [1, 3, 4], [2], 120 * MS), DEATH)),
    # The rival's leader crashes as well, and only r2 has the first command.
    Rule.INVALIDATING_LEADER_AWAY: (
        5,
        (*RIVALS, cut(0, [1, 3, 4], [0]), cut(0, [3, 4], [1]), DEATH, Crash(14 * MS, 1, 1500 * MS)),
    ),
    # The rival's leader answers, so its command may still be decided in any way.
    Rule.MUST_WAIT: (5, (*RIVALS, cut(0, [1, 3, 4], [0]), cut(0, [3, 4], [1]), cut(13, [2], [4]), DEATH)),
    Rule.ALL_ORDERED: (5, (*RIVALS, cut(0, [1, 3, 4], [0]), cut(0, [3, 4], [1]), cut(13, [2], [4]), DEATH)),
    # The rival's leader receives its answers when the recovery of the first command already waits.
    Rule.UNORDERED_COMMITTED: (
        5,
        (*RIVALS, cut(0, [1, 3, 4], [0]), cut(0, [3, 4], [1], 240 * MS), cut(13, [2], [4]), DEATH),
    ),
    # The rival is recovered too, and waits for the first with more unchanged answers.
    Rule.INVALIDATOR_WAITS_TOO: (
        5,
        (
            *RIVALS,
            cut(0, [1, 3, 4], [0]),
            cut(0, [3, 4], [1]),
            cut(13, [2], [4]),
            DEATH,
            slow_clock(0, 1),
            slow_clock(0, 4),
        ),
    ),
    # The first leader had begun the slow path: its own vote comes late.
    Rule.LATE_VOTE: (3, (*LATE_ANSWER, cut(20, [0], [1, 2], 60 * MS))),
    # It received no answers: its own late answer states that it did not commit.
    Rule.LATE_LEADER: (3, (*LATE_ANSWER, cut(0, [2], [0], 60 * MS), slow_clock(0, 0))),
}


def test_every_branch_of_recovery_has_a_scenario() -> None:
    assert set(STORIES) == set(Rule)


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_a_scenario_takes_its_branch_of_recovery(rule: Rule) -> None:
    replicas, story = STORIES[rule]
    assert reached(play_with_many_seeds(replicas, *story), rule) >= 1


def test_a_leader_that_resumes_during_the_recovery_of_its_command_is_safe() -> None:
    replicas, story = STORIES[Rule.MUST_WAIT]
    awake = tuple(Pause(14 * MS, 0, 200 * MS, deaf=True) if event is DEATH else event for event in story)
    play_with_many_seeds(replicas, *awake)
