"""A soak of a few seconds, like `make soak`."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pydsm.sim.base.counts import Counts
from pydsm.sim.tools import soak


def test_a_short_soak_runs_new_seeds_and_sums_their_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pydsm.sim.tools.soak", "--minutes", "0.05", "--jobs", "2", "--steps", "400"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every invariant held" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    data = msgspec.json.decode(line)
    assert data["violation"] is None
    assert data["exercised"]["seeds"] >= 8
    assert list(tmp_path.iterdir()) == []


def test_a_task_returns_the_counts_of_its_seeds() -> None:
    counts, broken = soak.play(soak.Task(first=1, count=2, steps=400))
    assert broken is None
    assert msgspec.msgpack.decode(counts, type=Counts).seeds == 2


@pytest.mark.parametrize("wrong", [["--jobs", "0"], ["--minutes", "0"], ["--minutes", "x"]])
def test_wrong_usage_is_exit_status_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        soak.main(wrong)
    assert stopped.value.code == 2
