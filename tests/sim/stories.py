"""Helpers for scenarios: a group without random faults, and plans as lists of events."""

from collections.abc import Iterable, Sequence

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.plan import Cut, Fault, Operation, Plan
from pydsm.sim.base.settings import BEGAN_MS, Settings
from pydsm.sim.tools.search import Search

MS = 1000
FOR_LONG = 4000 * MS
SEEDS = range(10)
"""Seeds that a story is played with: they differ in jitter and in small delays only."""


def calm(replicas: int, seed: int = 0) -> Settings:
    """Settings with one millisecond between replicas, no loss, and recovery after 0.1 s."""
    return Settings(
        seed=seed,
        replicas=replicas,
        steps_max=100_000,
        horizon_us=1000 * MS,
        fast_timer_ticks=20,
        retry_ticks=30,
        recovery_timeout_ticks=100,
        recovery_jitter_ticks=40,
        backoff_ticks_max=300,
        scan_ticks=10,
        gossip_ticks=250,
        reservation_block=2,
        clock_rates=(1.0,) * replicas,
        sync_us=200,
        latencies_us=tuple(tuple(0 if one == other else MS for other in range(replicas)) for one in range(replicas)),
        spread="steady",
        batch_requests_max=1,
        patience_us=5000 * MS,
        agreed_ms=BEGAN_MS,
    )


def ask(at_ms: float, replica: int, command: str) -> Operation:
    """A new client sends a command to a replica."""
    at_us = int(at_ms * MS)
    return Operation(at_us, at_us * 10 + replica, replica, command.encode())


def cut(at_ms: float, senders: Iterable[int], receivers: Sequence[int], lasting_us: int = FOR_LONG) -> Cut:
    """Messages from these senders to these receivers are lost."""
    links = tuple((one, other) for one in senders for other in receivers if one != other)
    return Cut(int(at_ms * MS), lasting_us, links)


def play(settings: Settings, *story: Fault | Operation) -> Counts:
    """Run a scenario once. Returns its counts, and fails with the violation if there is one."""
    faults = tuple(sorted((one for one in story if not isinstance(one, Operation)), key=lambda one: one.at_us))
    operations = tuple(sorted((one for one in story if isinstance(one, Operation)), key=lambda one: one.at_us))
    run = Search().play(Plan(settings, faults, operations))
    assert run.finding is None
    return run.counts


def play_with_many_seeds(replicas: int, *story: Fault | Operation) -> Counts:
    """Run a scenario with each of `SEEDS`. Returns the sum of their counts."""
    totals = Counts()
    for seed in SEEDS:
        totals.add(play(calm(replicas, seed), *story))
    return totals


def reached(counts: Counts, rule: Rule) -> int:
    """How often a branch of the recovery rules was taken."""
    return counts.branches.get(rule.value, 0)
