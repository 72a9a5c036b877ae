import msgspec
import pytest

from pydsm.core.log.log import Log
from pydsm.core.types.ids import Deps
from pydsm.sim.base.plan import Crash, Fault, Plan
from pydsm.sim.cluster.world import WorldRun, run_plan
from tests.sim.stories import MS, ask, calm

SECOND = 1000 * MS


def play(*faults: Fault, loss: float = 0.0) -> WorldRun:
    settings = msgspec.structs.replace(calm(3), gossip_ticks=50, horizon_us=3 * SECOND, loss=loss)
    load = tuple(ask(10 + 5 * number, number % 3, f"write k{number % 7} 1") for number in range(590))
    return run_plan(Plan(settings, faults, load))


def never_drop(self: Log, up_to: Deps, instances_max: int) -> None:
    """Replaces Log.drop."""


original_drop = Log.drop


def test_a_group_without_faults_completes_many_cycles() -> None:
    run = play()
    assert run.finding is None
    assert run.counts.cycles > 5


def test_a_replica_that_drops_nothing_is_found_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "drop", never_drop)
    finding = play().finding
    assert finding is not None
    assert finding.invariant == "bounded memory"
    assert finding.at_us < SECOND


def test_a_replica_that_keeps_one_leaders_instances_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "drop", lambda log, up_to, most: original_drop(log, (*up_to[:2], 0), most))
    finding = play().finding
    assert finding is not None
    assert finding.invariant == "bounded memory"


def test_no_bound_is_checked_while_a_replica_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    run = play(Crash(5 * MS, 2, 4 * SECOND))
    assert run.finding is None
    monkeypatch.setattr(Log, "drop", never_drop)
    finding = play(Crash(5 * MS, 2, 4 * SECOND)).finding
    assert finding is not None
    assert finding.at_us > 3 * SECOND


def test_a_lost_report_restarts_the_cycle() -> None:
    assert play(loss=0.9).counts.cycles < play().counts.cycles
