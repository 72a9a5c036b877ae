"""Errors for which `pydsm serve` does not start or stops: one line with the reason, and an exit status."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

from pydsm.cli.local_group import LocalGroup
from pydsm.storage.examination import LOG_NAME
from tests.integration.groups import load


async def outcome(command: list[str]) -> tuple[int, str]:
    """Exit status and standard error without log lines."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode is not None
    lines = [line for line in said.decode().splitlines() if " INFO " not in line and " WARNING " not in line]
    assert len(lines) == 1, said.decode()
    return process.returncode, lines[0]


async def test_second_process_is_refused_by_data_directory_then_by_port(tmp_path: Path) -> None:
    async with LocalGroup(1, tmp_path) as group:
        command = group.command(0)
        status, said = await outcome(command)
        assert status == 1
        assert "is in use by another process" in said

        elsewhere = command.index("--data-dir") + 1
        command[elsewhere] = str(tmp_path / "elsewhere")
        status, said = await outcome(command)
        assert status == 1
        assert f"cannot listen for replicas on {group.members[0].listen}" in said


async def test_redis_port_in_use_is_named(tmp_path: Path) -> None:
    async with LocalGroup(1, tmp_path / "first") as first:
        second = LocalGroup(1, tmp_path / "second")
        second.choose_members()
        command = second.command(0)
        command[command.index("--redis") + 1] = str(first.members[0].redis)
        status, said = await outcome(command)
        assert status == 1
        assert f"cannot listen for Redis clients on {first.members[0].redis}" in said


async def test_data_of_another_replica_are_refused(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group:
        await group.stop()
        command = group.command(0)
        command[command.index("--data-dir") + 1] = str(group.members[1].data)
        status, said = await outcome(command)
        assert status == 1
        assert "belongs to another replica" in said


async def test_an_older_copy_of_a_data_directory_is_refused_and_the_others_keep_every_write(tmp_path: Path) -> None:
    """Under load, a replica starts from an earlier copy of its directory, like a rolled-back virtual disk."""
    async with LocalGroup(3, tmp_path) as group, load(group) as work:
        await work.more_answers(300)
        data, copy, newest = group.members[0].data, tmp_path / "copy", tmp_path / "newest"
        shutil.copytree(data, copy)
        await work.more_answers(300)
        await group.kill(0)
        shutil.move(data, newest)
        shutil.copytree(copy, data)
        status, said = await outcome(group.command(0))
        assert status == 1
        assert "has a record of data that is missing here" in said
        assert "Restore the newest copy of the directory" in said
        await work.more_answers(100, through=(1, 2))
        shutil.rmtree(data)
        shutil.move(newest, data)
        await group.start(0)
        await work.more_answers(100)
        await work.check()


async def test_a_damaged_log_is_one_line_that_names_frame_and_offset(tmp_path: Path) -> None:
    async with LocalGroup(1, tmp_path) as group:
        async with load(group) as clients:
            await clients.more_answers(500)
            await group.kill(0)
        log = group.members[0].data / LOG_NAME
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)
        status, said = await outcome(group.command(0))
        assert status == 1
        assert re.search(r"replica\.sqlite-wal: frame \d+, at byte \d+, is damaged", said)
        assert "keep the directory as evidence" in said


async def test_a_replica_whose_directory_is_removed_stops_with_a_message(tmp_path: Path) -> None:
    async with LocalGroup(1, tmp_path) as group:
        member = group.members[0]
        shutil.rmtree(member.data)
        assert member.process is not None
        async with asyncio.timeout(20):
            assert await member.process.wait() == 1
        assert "was removed or replaced while the replica ran" in member.log.read_text()
        assert "Traceback" not in member.log.read_text()
