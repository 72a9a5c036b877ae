"""The native client with real replicas that are killed, stopped and restarted."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.client import BlockingClient, Client, ClientLimits
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import encode

LIMITS = ClientLimits(timeout_seconds=20, rediscovery_interval_seconds=0.2)
COUNTS = 2000


def command(line: str) -> bytes:
    return encode([word.encode() for word in line.split()])


async def test_a_client_whose_replica_is_killed_has_every_command_executed_exactly_once(tmp_path: Path) -> None:
    async with (
        LocalGroup(3, tmp_path) as group,
        Client(group.clients, prefer=group.clients[1], limits=LIMITS) as client,
    ):
        singles = [asyncio.create_task(client.execute(command("INCR count"))) for _ in range(COUNTS)]
        together = asyncio.create_task(client.execute_many([command("INCR count")] * COUNTS))
        await asyncio.wait(singles, return_when=asyncio.FIRST_COMPLETED)
        await group.kill(1)
        results = [*await asyncio.gather(*singles), *await together]
        assert client.at != group.clients[1]
        assert sorted(results, key=lambda result: int(str(result))) == list(range(1, 2 * COUNTS + 1))
        assert await client.execute(command("GET count")) == b"%d" % (2 * COUNTS)
        await group.start(1)
        async with asyncio.timeout(20):
            while client.at != group.clients[1]:
                await client.execute(command("INCR turns"))


async def test_a_replica_that_stops_cleanly_leaves_no_command_with_an_unknown_outcome(tmp_path: Path) -> None:
    async with (
        LocalGroup(3, tmp_path) as group,
        Client(group.clients, prefer=group.clients[0], limits=LIMITS) as client,
    ):
        writes = [asyncio.create_task(client.execute(command("INCR count"))) for _ in range(2000)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        assert await group.terminate(0) == 0
        assert sorted(await asyncio.gather(*writes), key=lambda result: int(str(result))) == list(range(1, 2001))


async def test_the_blocking_client_against_a_group(tmp_path: Path) -> None:
    def work(addresses: list[str]) -> None:
        with BlockingClient(addresses) as client:
            assert client.execute(command("SET a 1")) == "OK"
            assert client.execute_many([command("INCR a"), command("GET a")]) == [2, b"2"]
            with pytest.raises(CommandFailed):
                client.execute(command("LPUSH a x"))

    async with LocalGroup(3, tmp_path) as group:
        await asyncio.to_thread(work, [str(address) for address in group.clients])


async def test_the_examples_of_the_guide_run_unchanged(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs/howto/use-the-client.md"
    pattern = r"^```python against a group\n(.*?)^```"
    blocks = re.findall(pattern, guide.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    blocks += re.findall(pattern, (guide.parents[2] / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        for block in blocks:
            program = block
            for number, address in enumerate(group.clients, start=1):
                assert f"127.0.0.1:710{number}" in program
                program = program.replace(f"127.0.0.1:710{number}", str(address))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(30):
                output, _ = await process.communicate()
            assert process.returncode == 0
            assert output in {b"b'apple'\n", b""}
