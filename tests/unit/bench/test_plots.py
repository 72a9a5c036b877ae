"""The plots that are written for different measurements."""

from pathlib import Path

import pytest

from pydsm.bench.plots import curves, plot
from pydsm.bench.results import BenchmarkRun, Measurement, Setting


def made(setting: Setting, per_second: float = 1000) -> Measurement:
    figures = {"commands_per_second": per_second, "p50_ms": 1.0, "p99_ms": 2.0, "replicas_us_per_command": 3.0}
    timed = setting["load"] != "flood"
    return Measurement(str(setting), setting, [BenchmarkRun(figures, [(900, 98), (2000, 2)] if timed else [])] * 2)


def flood(**changes: float) -> Measurement:
    return made({"load": "flood", "replicas": 3, "storage": "memory", "conflict": 0, **changes})


def rate(per_second: float) -> Measurement:
    return made({"load": "rate", "rate": per_second, "replicas": 3, "storage": "memory"}, per_second)


def test_the_measurements_of_a_curve_differ_in_one_setting_only() -> None:
    parts = [flood(conflict=1), flood(conflict=0), flood(replicas=5)]
    ((label, line),) = curves(parts, "conflict", "flood")
    assert label == "3 replicas, memory"
    assert [one.setting["conflict"] for one in line] == [0, 1]


@pytest.mark.parametrize(
    ("measurements", "drawn"),
    [
        ([flood()], []),
        ([flood(conflict=0), flood(conflict=0.5)], ["throughput-by-conflict.png"]),
        ([flood(replicas=3), flood(replicas=5)], ["throughput-by-replicas.png"]),
        ([flood(batch_commands_max=1), flood(batch_commands_max=1000)], ["throughput-by-batch.png"]),
        ([rate(100), rate(1000)], ["latency-by-throughput.png", "latency-cdf.png"]),
    ],
    ids=["nothing", "conflict", "replicas", "batch", "rates"],
)
def test_each_plot_is_written_if_there_are_data_for_it(
    measurements: list[Measurement], drawn: list[str], tmp_path: Path
) -> None:
    paths = plot(measurements, tmp_path)
    assert [path.name for path in paths] == drawn
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
