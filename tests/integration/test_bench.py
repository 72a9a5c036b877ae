"""`pydsm bench` and the table of goals, with minimal sizes."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import table
from pydsm.bench.results import read
from pydsm.cli.bench_group import GroupShape, local_target


async def run_python(*words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), said.decode()


async def test_bench_measures_a_new_group_and_writes_every_run(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    words = ("pydsm", "bench", "--requests", "600", "--conflict", "0,0.5", "--runs", "2", "--out", str(file))
    status, output, said = await run_python(*words)
    assert status == 0, said
    assert "3 replicas, memory, flood of 600, 50 % on one key" in output
    assert "run 2 of 2" in said
    results = read(file)
    assert [len(one.runs) for one in results.measurements] == [2, 2]
    for run in (run for one in results.measurements for run in one.runs):
        assert run.figures["commands"] == 600
        assert run.figures["commands_per_second"] > 0
        assert run.figures["fast_share"] <= 1
    status, output, _ = await run_python("benchmarks.compare", str(file), str(file))
    assert status == 0
    assert "0 figures changed" in output


async def test_bench_measures_a_running_group(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    async with local_target(GroupShape(3)) as target:
        at = ",".join(map(str, target.clients))
        rate = ("--load", "rate", "--rate", "200", "--seconds", "0.2", "--runs", "1", "--out", str(file))
        status, output, said = await run_python("pydsm", "bench", "--at", at, *rate)
        assert status == 0, said
        closed = ("--load", "closed", "--clients", "2", "--pipeline", "3", "--seconds", "0.1", "--runs", "1")
        status, output, said = await run_python("pydsm", "bench", "--at", at, *closed)
        assert status == 0, said
        assert "2 clients x 3" in output
    told = json.loads(file.read_text())
    (run,) = told["measurements"][0]["runs"]
    assert run["figures"]["commands"] == 40
    assert sum(count for _, count in run["latency_us"]) == 40
    assert run["figures"]["late_p50_ms"] <= run["figures"]["max_ms"]


async def test_table_prints_minimum_goal_and_measured_value_for_a_row() -> None:
    words = ("benchmarks.table", "conflicts-memory-3", "--runs", "1", "--commands", "300")
    status, output, said = await run_python(*words)
    assert status in {0, 1}, said
    assert "25 % on one key, of no conflicts" in output
    assert ">= 0.5" in output


def test_table_names_its_rows_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["--list"]) == 0
    rows = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"memory-3", "etcd", "long-run"} <= rows
    with pytest.raises(SystemExit):
        table.main(["nonsense"])
    assert "'nonsense' is not a row; --list prints the names" in capsys.readouterr().err
