"""`pydsm demo` as users and programs run it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually

DEMO = [sys.executable, "-m", "pydsm", "demo", "--replicas", "3", "--clients", "3"]


async def run_demo(*options: str) -> tuple[int, str]:
    """Exit status and output."""
    process = await asyncio.create_subprocess_exec(*DEMO, *options, stdout=subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def is_alive(pid: int) -> bool:
    """Whether a process that is not our child still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_demo_with_a_kill_loses_nothing_and_reports_it_as_json() -> None:
    status, output = await run_demo("--seconds", "4", "--kill", "--json")
    report = json.loads(output)
    assert status == 0
    assert (report["lost"], report["wrong"]) == (0, 0)
    assert report["commands"] > 100
    assert report["keys_verified"] > 100
    assert report["killed"]


async def test_demo_prints_plain_lines_and_a_histogram_without_a_terminal() -> None:
    status, output = await run_demo("--seconds", "1", "--storage", "memory", "--conflict", "0.5")
    assert status == 0
    assert "commands/s" in output
    assert " ms │█" in output
    assert output.endswith("lost: 0   wrong: 0\n")
    assert "\x1b" not in output


async def test_demo_writes_a_plot_if_requested(tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    status, output = await run_demo("--seconds", "1", "--storage", "memory", "--png", str(picture))
    assert status == 0
    assert output.endswith(f"plot: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


async def started_demo(directory: Path) -> tuple[asyncio.subprocess.Process, list[int]]:
    """A demo with a minute of load, and the process ids of its replicas.

    It handles SIGINT even if the tests run in the background of a shell, whose children ignore SIGINT.
    """
    environment = {**os.environ, "TMPDIR": str(directory)}
    line = (
        f"import os, signal, sys; signal.signal({signal.SIGINT:d}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", line, *DEMO, "--seconds", "60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while b"commands/s" not in await process.stdout.readline():
            pass
    parent = str(process.pid)
    listing = await asyncio.create_subprocess_exec("ps", "-o", "pid=", "--ppid", parent, stdout=subprocess.PIPE)
    children = [int(pid) for pid in (await listing.communicate())[0].split()]
    assert len(children) == 3
    return process, children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_that_is_interrupted_leaves_no_process_and_no_directory(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, children = await started_demo(tmp_path)
    process.send_signal(number)
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode == 130
    assert said == b"pydsm: interrupted\n"
    await eventually(lambda: not any(map(is_alive, children)), "all replicas have ended")
    assert os.listdir(tmp_path) == []


async def test_replicas_of_a_killed_demo_end_automatically(tmp_path: Path) -> None:
    process, children = await started_demo(tmp_path)
    process.kill()
    await process.communicate()
    await eventually(lambda: not any(map(is_alive, children)), "all replicas have ended")
