"""`pydsm pause`, `resume` and `snapshot` of real replicas under load lose nothing."""

import asyncio
import subprocess
import sys
from pathlib import Path

from pydsm.bench.resp import ErrorReply, ask, encode_command
from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from tests.integration.groups import load
from tests.integration.test_http import status_of
from tests.integration.test_trace import WatchedGroup


async def pydsm(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pydsm", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode().strip()


async def executed(group: LocalGroup, *words: bytes, replica: int) -> object:
    """The answer to one command of the Redis port."""
    (answer,) = await ask(group.redis[replica], encode_command(*words))
    return answer


async def test_replica_is_paused_and_resumed_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    group = WatchedGroup(3, tmp_path)
    async with group, load(group) as clients:
        await clients.more_answers(500)
        status, said = await pydsm("pause", group.http[2])
        assert (status, said.startswith(f"{group.http[2]} is paused")) == (0, True)
        await clients.more_answers(500, through=(0, 1))
        report = await status_of(group.http[2])
        assert (report.ready, report.machine, report.apply_queue_batches > 0) == (False, "paused", True)
        assert isinstance(await executed(group, b"GET", b"x", replica=2), ErrorReply)
        await group.kill(0)  # the one that is paused still votes
        await clients.more_answers(300, through=(1,))
        await group.start(0)
        status, said = await pydsm("resume", group.http[2])
        assert status == 0, said
        assert f"{group.http[2]} is running again; " in said
        report = await status_of(group.http[2])
        assert (report.machine, report.apply_queue_batches) == ("running", 0)
        await clients.check()


async def test_a_replica_killed_while_paused_restarts_unpaused_with_all_data(tmp_path: Path) -> None:
    group = WatchedGroup(3, tmp_path)
    async with group, load(group) as clients:
        await clients.more_answers(300)
        await pydsm("pause", group.http[2])
        await clients.more_answers(500, through=(0, 1))
        await group.kill(2)
        await group.start(2)
        assert (await status_of(group.http[2])).machine == "running"
        await clients.more_answers(300)
        await clients.check()


async def test_a_requested_snapshot_is_taken_and_used_at_the_next_start(tmp_path: Path) -> None:
    group = WatchedGroup(3, tmp_path)
    async with group:
        assert await executed(group, b"SET", b"colour", b"blue", replica=0) == b"OK"
        status, said = await pydsm("snapshot", group.http[1])
        assert status == 0, said
        words = said.split()
        assert said.startswith(f"snapshot {words[1]} of {group.http[1]} is durable: position ")
        assert said.endswith(str(tmp_path / "r2" / "snapshots" / f"{int(words[1]):012d}.snapshot"))
        await group.kill(1)
        await group.start(1)
        assert await executed(group, b"GET", b"colour", replica=1) == b"blue"


async def test_a_snapshot_with_memory_storage_is_refused_in_one_line(tmp_path: Path) -> None:
    group = WatchedGroup(1, tmp_path, Storage.MEMORY)
    async with group:
        status, said = await pydsm("snapshot", group.http[0])
        assert (status, "this replica takes no snapshots" in said, said.count("\n")) == (1, True, 0)


async def test_a_snapshot_without_a_majority_fails_at_its_time_limit(tmp_path: Path) -> None:
    group = WatchedGroup(3, tmp_path)
    async with group:
        await group.kill(0)
        await group.kill(1)
        status, said = await pydsm("snapshot", group.http[2], "--timeout", "0.5")
        assert (status, "no snapshot was durable within 0.5 s" in said) == (1, True)
