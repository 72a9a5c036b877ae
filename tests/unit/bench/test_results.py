"""Result files are written and read; other files are refused with advice."""

import json
from pathlib import Path

import pytest

from pydsm.bench.machine import describe
from pydsm.bench.recording import Recording
from pydsm.bench.results import BenchmarkRun, Measurement, better, read, write
from pydsm.core.types.errors import OperationalError, UsageError
from tests.documents import ROOT
from tests.unit.bench.made import measurement, results


def test_a_written_file_can_be_read(tmp_path: Path) -> None:
    made = results(Measurement("m", {"load": "flood"}, [BenchmarkRun({"p50_ms": 1.5}, [(1500, 3)], ["a note"])]))
    write(tmp_path / "r.json", made)
    assert read(tmp_path / "r.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_file_states_its_format_and_version(tmp_path: Path) -> None:
    write(tmp_path / "r.json", results())
    told = json.loads((tmp_path / "r.json").read_text())
    assert (told["format"], told["version"]) == ("pydsm-bench", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a result file"),
        ("[1]", "is not a result file"),
        ("{}", "is not a result file: give one made with --out"),
        ('{"format": "pydsm-bench", "version": 1}', "this PyDSM reads version 2: measure again"),
        ('{"format": "pydsm-bench", "version": 2}', "is not a result file"),
    ],
)
def test_a_file_that_is_not_a_result_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read(tmp_path / "r.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a file made with --out"):
        read(tmp_path / "none.json")


def test_a_path_that_is_not_writable_is_found_before_the_measurements(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        Recording("pydsm bench", tmp_path / "none" / "r.json")
    with pytest.raises(OperationalError, match="cannot write the results"):
        write(tmp_path / "none" / "r.json", results())


def test_a_recording_is_in_its_file_from_the_first_measurement_on(tmp_path: Path) -> None:
    recording = Recording("pydsm bench", tmp_path / "r.json")
    recording.add(measurement("m", "p50_ms", [1, 2, 3]))
    assert [one.name for one in read(tmp_path / "r.json").measurements] == ["m"]
    recording.finish()
    assert len(read(tmp_path / "r.json").calibrations) == 2


def test_medians_and_notes_cover_all_runs() -> None:
    one = Measurement(
        "m", {}, [BenchmarkRun({"p50_ms": 1}, [(10, 1)], ["n"]), BenchmarkRun({"p50_ms": 3}, [(10, 2)], ["n"])]
    )
    assert one.median("p50_ms") == 2
    assert one.median("none") is None
    assert one.notes == ["n"]
    assert one.latencies.counts == [(10, 3)]


@pytest.mark.parametrize(("figure", "way"), [("commands_per_second", 1), ("p99_ms", -1), ("commands", 0)])
def test_each_figure_has_a_better_direction(figure: str, way: int) -> None:
    assert better(figure) == way


def test_the_machine_is_described() -> None:
    machine = describe()
    assert machine.cores >= 1
    assert machine.python.startswith(("CPython", "PyPy"))
    assert machine.cpu


def test_the_reference_describes_every_field() -> None:
    document = (ROOT / "docs/reference/results.md").read_text("utf-8")
    fields = {*results().__struct_fields__, *describe().__struct_fields__, *BenchmarkRun({}).__struct_fields__}
    assert [name for name in sorted(fields) if f"`{name}`" not in document] == []
