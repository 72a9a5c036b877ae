"""The demo's plot, and the errors if it cannot be written."""

from pathlib import Path

import pytest

from pydsm.cli import demo_plot
from pydsm.core.types.errors import OperationalError, UsageError
from tests.unit.cli.test_demo_view import MOMENT, REPORT


def test_a_plot_is_written_even_for_a_run_without_intervals(tmp_path: Path) -> None:
    for name, moments in (("full.png", [MOMENT, MOMENT]), ("empty.png", [])):
        demo_plot.plot(tmp_path / name, moments, REPORT, [(1.5, "r2 killed")])
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match=r"cannot write the plot to .*No such file or directory"):
        demo_plot.plot(tmp_path / "nowhere" / "run.png", [MOMENT], REPORT, [])


def test_a_missing_extra_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_plot, "can_plot", lambda: False)
    with pytest.raises(UsageError, match="pip install 'pydsm-epaxos"):
        demo_plot.plot(tmp_path / "run.png", [MOMENT], REPORT, [])
