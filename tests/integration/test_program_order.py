"""Commands that one client sends in a row take effect in order, while real replicas are killed and paused.

While one stands still, the others decide what it had under way, mostly as nothing, so that it is proposed again.
"""

import asyncio
import os
import signal
from pathlib import Path

import redis
import redis.asyncio

from pydsm.cli.local_group import LocalGroup
from pydsm.client import Client, ClientLimits
from pydsm.machines.kv import encode

LIMITS = ClientLimits(timeout_seconds=30, rediscovery_interval_seconds=0.2, silence_seconds_max=1)
ROUNDS, STILL_SECONDS = 400, 1.0


def command(line: str) -> bytes:
    return encode([word.encode() for word in line.split()])


def round_of(number: int) -> list[str]:
    """The commands of a round: first the data, then a log entry, then a flag that the data exist."""
    return [f"SET data {number}", f"RPUSH log {number}", f"SET ready {number}"]


async def stand_still(group: LocalGroup, replica: int) -> None:
    """Pause a replica for a while with SIGSTOP."""
    process = group.members[replica].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(STILL_SECONDS)
    os.kill(process.pid, signal.SIGCONT)


async def disturb(group: LocalGroup, replica: int) -> None:
    await stand_still(group, replica)
    await group.kill(replica)
    await group.start(replica)


async def watch(group: LocalGroup, replica: int, over: asyncio.Event) -> int:
    """A third client, which never reads the flag of a round before its data. Returns how often it read."""
    looks = 0
    async with Client([group.clients[replica]], limits=LIMITS) as client:
        while not over.is_set():
            ready = await client.execute(command("GET ready"))
            data = await client.execute(command("GET data"))
            assert _number(data) >= _number(ready)
            looks += 1
    return looks


def _number(value: object) -> int:
    return int(value) if isinstance(value, bytes) else 0


async def logged(group: LocalGroup) -> list[int]:
    async with Client(group.clients, limits=LIMITS) as client:
        log = await client.execute(command("LRANGE log 0 -1"))
    assert isinstance(log, list)
    return [int(entry) for entry in log]


async def test_requests_of_a_native_client_keep_their_order_despite_kills_and_retries(
    tmp_path: Path,
) -> None:
    async with (
        LocalGroup(3, tmp_path) as group,
        Client(group.clients, prefer=group.clients[1], limits=LIMITS) as client,
    ):
        over = asyncio.Event()
        looking = asyncio.create_task(watch(group, 0, over))
        disturbing = asyncio.create_task(disturb(group, 1))
        sent = []
        for number in range(1, ROUNDS + 1):
            sent += [asyncio.create_task(client.execute(command(line))) for line in round_of(number)]
            await asyncio.sleep(0.005)
        await asyncio.gather(*sent, disturbing)
        over.set()
        assert await looking > 0
        assert await logged(group) == list(range(1, ROUNDS + 1))


async def test_pipelines_of_a_redis_client_keep_their_order_while_their_replica_is_paused(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path) as group:
        over = asyncio.Event()
        looking = asyncio.create_task(watch(group, 0, over))
        disturbing = [asyncio.create_task(stand_still(group, 1))]
        refused: set[int] = set()
        connection = redis.asyncio.Redis(host="127.0.0.1", port=group.redis[1].port)
        for first in range(1, ROUNDS, 20):
            async with connection.pipeline(transaction=False) as pipeline:
                for number in range(first, first + 20):
                    for line in round_of(number):
                        pipeline.execute_command(*line.split())
                answers = await pipeline.execute(raise_on_error=False)
            failed = [isinstance(answer, redis.ResponseError) for answer in answers]
            assert failed == sorted(failed), "a command was executed behind one that was refused"
            refused.update(first + place // 3 for place, no in enumerate(failed) if no and place % 3 == 1)
            if first == ROUNDS // 2 + 1:
                disturbing.append(asyncio.create_task(stand_still(group, 1)))
        await asyncio.gather(*disturbing)
        await connection.aclose()
        over.set()
        assert await looking > 0
        assert await logged(group) == [number for number in range(1, ROUNDS + 1) if number not in refused]


async def test_a_pipeline_of_redis_cli_takes_effect_in_order_when_its_replica_is_killed(tmp_path: Path) -> None:
    """The connection breaks, so the outcome is unknown; the executed commands are a prefix of the sent ones."""
    async with LocalGroup(3, tmp_path) as group:
        other = await asyncio.create_subprocess_exec(
            *("redis-cli", "-p", str(group.redis[1].port), "--pipe"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert other.stdin is not None
        words = "".join(
            "".join(f"${len(word)}\r\n{word}\r\n" for word in ["RPUSH", "log", str(number)]).join(["*3\r\n", ""])
            for number in range(1, 20_001)
        )
        other.stdin.write(words.encode())
        async with Client([group.clients[0]], limits=LIMITS) as client:
            async with asyncio.timeout(20):
                while not await client.execute(command("LLEN log")):
                    pass
            await group.kill(1)
            other.kill()
            await other.wait()
        log = await logged(group)
        assert log == list(range(1, len(log) + 1))
