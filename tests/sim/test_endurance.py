"""Hours of simulated time: sizes do not grow, and a size that grows is named."""

import msgspec
import pytest

from pydsm.cli import main
from pydsm.core.log.log import Log
from pydsm.core.sessions.sessions import Sessions
from pydsm.sim.tools.endurance import Endurance, EnduranceSample, endurance_settings

ROW_US = 120_000_000


def day(hours: float) -> tuple[Endurance, list[EnduranceSample]]:
    rows: list[EnduranceSample] = []
    made = Endurance(endurance_settings(seed=1, replicas=3, hours=hours), 4.0, ROW_US, rows.append)
    assert made.run().finding is None
    return made, rows


def test_twenty_minutes_do_not_increase_memory_and_disk_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--hours", "0.34", "--seed", "2", "--json"]) == 0
    data = msgspec.json.decode(capsys.readouterr().out)
    assert data["flat"]
    assert data["violation"] is None
    assert len(data["rows"]) == 12
    assert data["rows"][-1]["checkpoints"] > 20
    assert data["rows"][-1]["restarts"] > 0


def test_the_checkers_discard_old_instances() -> None:
    made, rows = day(0.3)
    assert rows[-1].executed > 4000
    assert rows[-1].oracle < 2 * rows[1].oracle
    assert all(made._invariants.forgotten)


def test_sessions_that_never_expire_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "expire", lambda self, clocks: self.time.advance(clocks))
    made, _ = day(0.3)
    assert any("sessions" in line for line in made.samples.grown())


def test_a_container_that_grows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "discard", lambda self, entries_max: None)
    made, _ = day(0.3)
    grown = made.samples.grown()
    assert any(line.startswith("index") for line in grown)
    assert any("replaced_indexes" in line for line in grown), grown


@pytest.mark.parametrize(
    "wrong", [["--hours", "0.1"], ["--hours", "1", "--seeds", "2"], ["--hours", "1", "--rate", "0"]]
)
def test_wrong_usage_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
