"""Groups of real processes: every replica serves, crashes lose nothing, invalid input does no harm."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as redis

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.transport.address import Address
from tests.integration.groups import Load, counter, load

FILE_BYTES_MAX = 1 << 20


@asynccontextmanager
async def connections(group: LocalGroup) -> AsyncIterator[list[redis.Redis]]:
    """A standard Redis client for each replica."""
    clients = [redis.Redis(host=one.host, port=one.port, decode_responses=True) for one in group.redis]
    try:
        yield clients
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))


async def send_garbage(address: Address, data: bytes) -> None:
    """Send bytes, and read until the other end closes the connection."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(1):
            await reader.read()
    writer.transport.abort()


async def test_every_replica_accepts_writes_and_all_return_the_same(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, connections(group) as clients:
        assert await clients[0].set("colour", "blue")
        assert [await client.get("colour") for client in clients] == ["blue"] * 3
        assert [await client.incr("visits") for client in clients] == [1, 2, 3]
        assert await clients[1].mset({"a": "1", "b": "2"})
        assert await clients[2].mget("a", "b", "none") == ["1", "2", None]
        assert await clients[2].delete("a", "none") == 1
        assert await clients[0].get("a") is None
        assert int((await clients[0].info())["executed"]) > 0


@pytest.mark.redis_cli
async def test_redis_cli_works_as_people_use_it(tmp_path: Path) -> None:
    program = shutil.which("redis-cli")
    assert program, "redis-cli is missing: apt-get install redis-tools"
    async with LocalGroup(3, tmp_path) as group:

        async def cli(replica: int, *words: str) -> str:
            port = str(group.redis[replica].port)
            process = await asyncio.create_subprocess_exec(program, "-p", port, *words, stdout=subprocess.PIPE)
            output, _ = await process.communicate()
            return output.decode().strip()

        assert await cli(0, "PING") == "PONG"
        assert await cli(0, "SET", "colour", "blue") == "OK"
        assert await cli(1, "GET", "colour") == "blue"
        assert await cli(2, "INCR", "visits") == "1"
        assert "executed:" in await cli(2, "INFO")


async def test_a_replica_killed_under_load_rejoins_with_its_data_while_the_group_continues(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await clients.more_answers(1000)
        await group.kill(2)
        await clients.more_answers(1000, through=(0, 1))
        await group.start(2)
        await clients.more_answers(300, through=(2,))
        await clients.check()


async def test_power_cut_of_all_replicas_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await clients.more_answers(1000)
        await asyncio.gather(*(group.kill(replica) for replica in range(3)))
        await asyncio.gather(*(group.start(replica) for replica in range(3)))
        await clients.more_answers(500)
        await clients.check()


@pytest.mark.parametrize("options", [(), ("--thrifty",)], ids=["plain", "thrifty"])
async def test_a_group_in_memory_continues_without_a_minority(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY, *options) as group, load(group) as clients:
        await clients.more_answers(500)
        await group.kill(0)
        await clients.more_answers(500, through=(1, 2))
        await clients.stop()
        assert (clients.ledger.lost, clients.ledger.wrong) == (0, 0)


async def test_garbage_at_any_port_does_no_harm(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await clients.more_answers(100)
        garbage = (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), b"\xff" * 16, b"PyDSM\0\0\1" + b"\xff" * 8)
        for data in garbage:
            await asyncio.gather(*(send_garbage(member.listen, data) for member in group.members))
            await asyncio.gather(*(send_garbage(member.redis, data) for member in group.members))
            await asyncio.gather(*(send_garbage(member.clients, data) for member in group.members))
        await clients.more_answers(500)
        assert "does not speak this protocol" in group.members[0].log.read_text()
        await clients.check()


async def test_a_stopping_replica_answers_accepted_requests_and_exits_cleanly(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await clients.more_answers(500)
        assert await group.terminate(1) == 0
        await clients.more_answers(500, through=(0, 2))
        await group.start(1)
        await clients.check()


async def test_a_replica_with_a_full_disk_stops_with_a_message_and_restarts_when_space_is_free(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await clients.more_answers(200)
        process = group.members[2].process
        assert process is not None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
        async with asyncio.timeout(30):
            assert await process.wait() == 1
        assert "r3 stops: cannot write to" in group.members[2].log.read_text()
        await clients.more_answers(500, through=(0, 1))
        await group.start(2)
        await clients.check()


async def paused_until_others_have_recovered_its_instances(group: LocalGroup, replica: int, clients: Load) -> None:
    """Pause a busy replica until the others have recovered its open instances; again, if there were none."""
    process = group.members[replica].process
    assert process is not None
    others = [other for other in range(len(group.members)) if other != replica]
    for _ in range(10):
        await clients.more_answers(100, through=(replica,))
        process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(50):
                await clients.more_answers(200, through=others)
                if any([await counter(group, other, "recovered") for other in others]):
                    return
        finally:
            process.send_signal(signal.SIGCONT)
    raise AssertionError("in ten pauses the replica had nothing open")


async def test_a_replica_paused_under_load_loses_nothing_although_peers_recover_its_instances(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        await paused_until_others_have_recovered_its_instances(group, 2, clients)
        await clients.more_answers(200, through=(2,))
        await clients.check()


async def test_memory_does_not_grow_under_load(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group, load(group) as clients:
        kept = []
        for _ in range(5):
            await clients.more_answers(4000)
            kept += [await counter(group, replica, "instances") for replica in range(3)]
        executed = min([await counter(group, replica, "executed") for replica in range(3)])
        assert executed > 2 * max(kept), f"of {executed} executed instances, up to {max(kept)} were in memory"
        await clients.stop()
        for replica in range(3):
            await forgets_all(group, replica)
        await clients.check()


async def forgets_all(group: LocalGroup, replica: int, tries: int = 200) -> None:
    for _ in range(tries):
        if await counter(group, replica, "instances") == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"replica {replica} keeps instances in memory")


async def test_disk_usage_does_not_grow_and_a_killed_replica_restarts_from_its_snapshot(tmp_path: Path) -> None:
    options = ("--checkpoint-instances", "60")
    async with LocalGroup(3, tmp_path, Storage.SQLITE, *options) as group, load(group) as clients:
        records = []
        for _ in range(4):
            await clients.more_answers(4000)
            records.append(await counter(group, 0, "known_instances") - await counter(group, 0, "purged_instances"))
        executed = await counter(group, 0, "executed")
        assert executed > 2 * max(records), f"of {executed} executed instances, up to {max(records)} had records"
        await group.kill(2)
        await clients.more_answers(1000, through=(0, 1))
        await group.start(2)
        assert await counter(group, 2, "executed") < executed / 2
        await clients.more_answers(1000)
        await clients.check()
        assert len(list((tmp_path / "r1" / "snapshots").iterdir())) == 2
