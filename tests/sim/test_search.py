"""A faulty core is found; its run is shrunk, saved, explained and replayed."""

from pathlib import Path

import pytest

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.sim.cluster.world import WorldRun
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search, SearchReport, report
from tests.unit.sim.worlds import forgetful_replica

SEARCH = Search(replicas=3, steps=3000, make_replica=forgetful_replica)


@pytest.fixture(scope="module")
def broken() -> WorldRun:
    return next(run for run in SEARCH.runs(range(20)) if run.finding is not None)


@pytest.fixture(scope="module")
def found(broken: WorldRun, tmp_path_factory: pytest.TempPathFactory) -> SearchReport:
    return report(SEARCH, broken, tmp_path_factory.mktemp("runs"), seconds_max=20)


def test_a_core_that_does_not_store_promises_is_found(broken: WorldRun) -> None:
    assert broken.finding is not None
    assert broken.finding.invariant in {"durable", "promise", "agreement", "visibility"}
    assert broken.finding.instances


def test_a_failed_run_is_shrunk_and_violates_the_same_invariant(broken: WorldRun, found: SearchReport) -> None:
    assert broken.finding is not None
    assert found.finding.invariant == broken.finding.invariant
    assert len(found.plan) * 4 < len(broken.plan)
    assert SEARCH.play(found.plan).finding == found.finding


def test_every_element_of_the_shrunk_plan_is_needed(found: SearchReport) -> None:
    for place in range(len(found.plan.operations)):
        operations = found.plan.operations[:place] + found.plan.operations[place + 1 :]
        again = SEARCH.play(type(found.plan)(found.plan.settings, found.plan.faults, operations)).finding
        assert again is None or again.invariant != found.finding.invariant


def test_the_explanation_has_the_planned_elements_and_ends_with_the_violation(found: SearchReport) -> None:
    assert found.lines[0].startswith("group of")
    assert any("asks r" in line for line in found.lines)
    assert "VIOLATION" in found.lines[-1]
    assert len(found.lines) < 120


def test_the_file_contains_the_run(found: SearchReport) -> None:
    saved = failure_report.load(found.path)
    assert saved.plan == found.plan
    assert (saved.invariant, saved.what) == (found.finding.invariant, found.finding.what)
    assert SEARCH.play(saved.plan).finding == found.finding


def test_the_real_core_holds_in_the_same_run(found: SearchReport) -> None:
    assert Search().play(failure_report.load(found.path).plan).finding is None


def test_a_file_that_is_not_a_saved_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    with pytest.raises(UsageError, match=r"other\.json cannot be read"):
        failure_report.load(path)
    path.write_text('{"format": 1}')
    with pytest.raises(UsageError, match="is not a run"):
        failure_report.load(path)


def test_a_file_of_another_format_is_refused(found: SearchReport, tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_text(found.path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(UsageError, match="format 9"):
        failure_report.load(path)


def test_a_file_that_cannot_be_written_is_an_operational_error(found: SearchReport, tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="cannot be written"):
        failure_report.save(tmp_path / "missing" / "run.json", found.plan, found.finding)
