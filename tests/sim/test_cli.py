"""The verbs `simulate` and `replay`."""

from functools import partial
from pathlib import Path

import msgspec
import pytest

from pydsm.cli import main
from pydsm.sim.base.counts import BRANCHES
from pydsm.sim.tools import failure_report, search
from pydsm.sim.tools.search import Search
from tests.unit.sim.worlds import forgetful_replica


def test_simulate_reports_its_counts_and_that_every_invariant_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--seed", "3", "--seeds", "2", "--replicas", "3", "--steps", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "recoveries that validated" in shown
    assert "every invariant held" in shown


def test_simulate_prints_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--seed", "3", "--replicas", "3", "--steps", "1000", "--json", "--trace-digest"]) == 0
    data = msgspec.json.decode(capsys.readouterr().out)
    assert data["exercised"]["seeds"] == 1
    assert set(data["exercised"]["branches"]) == set(BRANCHES)
    assert len(data["trace_digests"]["3"]) == 64
    assert data["violation"] is None


@pytest.mark.parametrize(
    "wrong", [["--faults", "earthquake"], ["--seeds", "0"], ["--replicas", "0"], ["--steps", "0"], ["--seed", "x"]]
)
def test_wrong_usage_is_one_line_and_exit_status_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.fixture
def broken_file(tmp_path: Path) -> Path:
    """A file that `simulate` wrote for a core that loses its promises."""
    broken = Search(replicas=3, steps=2000, make_replica=forgetful_replica)
    run = next(run for run in broken.runs(range(20)) if run.finding is not None)
    return search.report(broken, run, tmp_path, seconds_max=5).path


def test_replay_prints_the_trace_and_reports_if_the_run_does_not_fail_any_more(
    broken_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["replay", str(broken_file)]) == 0
    shown = capsys.readouterr().out
    assert "HEAL" in shown
    assert "every invariant held" in shown


def test_replay_shows_only_lines_with_the_requested_text(broken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["replay", str(broken_file), "--grep", "proposes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("proposes" in line for line in lines[:-1])


def test_replay_as_json(broken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["replay", str(broken_file), "--json"]) == 0
    data = msgspec.json.decode(capsys.readouterr().out)
    assert data["lines"]
    assert data["violation"] is None


def test_a_violation_is_exit_status_1_with_trace_lines_and_a_file_to_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("simulate", "replay"):
        monkeypatch.setattr(f"pydsm.cli.{verb}.Search", partial(Search, make_replica=forgetful_replica))
    arguments = ["simulate", "--seeds", "20", "--replicas", "3", "--steps", "2000", "--out", str(tmp_path)]
    assert main.run([*arguments, "--shrink-seconds", "5"]) == 1
    shown = capsys.readouterr().out
    assert "VIOLATION in seed" in shown
    (path,) = tmp_path.glob("pydsm-seed-*.json")
    assert str(path) in shown.replace("\n", "")
    assert main.run(["replay", str(path)]) == 1
    assert "VIOLATION" in capsys.readouterr().out


def test_a_run_of_a_users_machine_is_replayed_by_its_test_only(
    broken_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = msgspec.structs.replace(failure_report.load(broken_file), machine="Inventory")
    broken_file.write_bytes(msgspec.json.encode(saved))
    assert main.run(["replay", str(broken_file)]) == 2
    assert "Inventory" in capsys.readouterr().err
