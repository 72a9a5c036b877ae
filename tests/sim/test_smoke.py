"""A fixed set of seeds in every test run: all kinds of faults, groups of one to seven."""

import pytest

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.sim.base.counts import Counts
from pydsm.sim.tools.search import Search

STEPS = 4000
SEEDS_PER_TEST = 10
CHUNKS = [(replicas, first) for replicas in (3, 5, 7) for first in (0, 10, 20)]
CHUNKS += [(1, 0), (2, 10), (4, 0), (6, 0)]


def play(replicas: int, first: int, count: int = SEEDS_PER_TEST) -> Counts:
    search = Search(replicas=replicas, steps=STEPS)
    totals = Counts()
    for run in search.runs(range(first, first + count)):
        assert run.finding is None, (
            f"pydsm simulate --seed {run.plan.settings.seed} --replicas {replicas}: {run.finding}"
        )
        totals.add(run.counts)
    return totals


@pytest.mark.parametrize(("replicas", "first"), CHUNKS)
def test_seeds_violate_no_invariant_and_execute_commands(replicas: int, first: int) -> None:
    totals = play(replicas, first)
    assert totals.calls_done > 100
    assert totals.linearizability_undecided == 0
    assert totals.heal_share_max < 0.8
    assert min(totals.crashes, totals.crashes_inside, totals.restarts, totals.pauses) > 0
    assert totals.writes_lost_in_crash + totals.writes_kept_in_crash > 0
    assert totals.branches[Rule.LEADER_UNDECIDED.value] > 0


@pytest.mark.parametrize("replicas", [3, 5, 7])
def test_random_seeds_reach_the_branches_of_recovery(replicas: int) -> None:
    """Each branch has a scenario in `test_recovery_rules`; these are also reached by random seeds."""
    totals = play(replicas, 100, 24)
    for rule in (
        Rule.ALREADY_COMMITTED,
        Rule.VOTED_VALUE,
        Rule.TOO_FEW_UNCHANGED,
        Rule.MUST_VALIDATE,
        Rule.NO_INVALIDATORS,
    ):
        assert totals.branches.get(rule.value, 0) > 0, rule


@pytest.mark.parametrize("replicas", [3, 5, 7])
def test_duels_one_by_one_make_recoveries_validate_and_wait(replicas: int) -> None:
    totals = Counts()
    for run in Search(replicas=replicas, steps=STEPS, duels_only=True).runs(range(20)):
        assert run.finding is None, f"seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert totals.replicas["validated"] >= 5
    assert totals.replicas["waited"] >= 1


@pytest.mark.parametrize(("replicas", "first"), [(3, 0), (3, 12), (4, 0), (5, 0), (5, 12), (7, 0)])
def test_members_that_were_down_for_long_rejoin_with_a_snapshot_of_a_peer(replicas: int, first: int) -> None:
    totals = Counts()
    for run in Search(replicas=replicas, steps=STEPS, laggards_only=True).runs(range(first, first + 12)):
        assert run.finding is None, f"seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert min(totals.snapshots_installed, totals.checkpoints, totals.calls_done) > 0
    assert totals.pieces > totals.snapshots_installed
    assert totals.heal_share_max < 0.8
    assert totals.linearizability_undecided == 0


@pytest.mark.parametrize(("replicas", "first"), [(3, 0), (3, 12), (5, 0)])
def test_commands_that_clients_send_in_a_row_take_effect_in_order(replicas: int, first: int) -> None:
    totals = Counts()
    for run in Search(replicas=replicas, steps=STEPS, pipelines_only=True).runs(range(first, first + 12)):
        assert run.finding is None, f"seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert min(totals.postponed, totals.sent_again, totals.crashes, totals.checkpoints, totals.calls_done) > 0
    assert totals.replicas["nops"] > 0
    assert totals.linearizability_undecided == 0


@pytest.mark.parametrize("first", [0, 40, 80])
def test_faults_at_chosen_messages_break_no_invariant(first: int) -> None:
    totals = Counts()
    for run in Search(steps=STEPS, adversary_only=True).runs(range(first, first + 40)):
        assert run.finding is None, f"pydsm simulate --adversary --seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert totals.strikes > 80
    assert min(totals.deaths, totals.crashes, totals.replicas["validated"]) > 0
    assert totals.linearizability_undecided == 0
    assert totals.heal_share_max < 0.8


@pytest.mark.parametrize("first", [0, 12, 24])
def test_networks_slower_than_every_timer_decide_and_execute_everything(first: int) -> None:
    totals = Counts()
    for run in Search(steps=STEPS, slow_only=True).runs(range(first, first + 12)):
        assert run.finding is None, f"pydsm simulate --slow --seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert min(totals.deaths, totals.calls_done) > 0
    assert totals.heal_share_max < 0.8


@pytest.mark.parametrize(("replicas", "first"), [(2, 0), (3, 0), (3, 15), (4, 0), (5, 0), (7, 0)])
def test_only_an_older_copy_of_a_disk_is_refused(replicas: int, first: int) -> None:
    totals = Counts()
    for run in Search(replicas=replicas, steps=STEPS, put_backs_only=True).runs(range(first, first + 15)):
        assert run.finding is None, f"seed {run.plan.settings.seed}: {run.finding}"
        totals.add(run.counts)
    assert totals.restarts > totals.put_backs_refused >= totals.put_backs - totals.put_backs_undetectable - 5
    assert totals.put_backs_undetectable < 5
    assert replicas == 2 or totals.put_backs > 10


def test_a_world_without_faults_recovers_nothing_and_loses_nothing() -> None:
    totals = Counts()
    for run in Search(replicas=3, steps=STEPS, kinds=()).runs(range(6)):
        assert run.finding is None
        totals.add(run.counts)
    assert totals.calls_unknown == totals.calls_failed == totals.lost == totals.cut == totals.crashes == 0
    assert totals.calls_done == totals.calls
