"""Redis's own programs with a group of three: redis-cli with most commands, redis-benchmark with its defaults."""

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage

pytestmark = pytest.mark.redis_cli

DEFAULT_TESTS = (
    "PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "LPUSH", "RPUSH", "LPOP", "RPOP", "SADD", "HSET", "SPOP", "ZADD",
    "ZPOPMIN", "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)", "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)", "LRANGE_600 (first 600 elements)", "MSET (10 keys)",
)  # fmt: skip


async def call(name: str, *words: str, said: str = "") -> str:
    """Run a program that must succeed. Returns its output."""
    program = shutil.which(name)
    assert program, f"{name} is missing: apt-get install redis-tools"
    process = await asyncio.create_subprocess_exec(
        program, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate(said.encode())
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("pipeline", [1, 16])
async def test_redis_benchmark_runs_its_default_list(pipeline: int, tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        port = str(group.redis[1].port)
        output = await call("redis-benchmark", "-p", port, "-q", "-n", "1000", "-c", "20", "-P", str(pipeline))
        finished = [
            line.split(":")[0].strip()
            for line in output.replace("\r", "\n").splitlines()
            if "requests per second" in line
        ]
        assert tuple(dict.fromkeys(finished)) == DEFAULT_TESTS
        assert "rror" not in output


async def test_redis_cli_writes_through_one_replica_and_reads_through_another(tmp_path: Path) -> None:
    session = {
        "HSET h f 1 g 2": "2", "HGETALL h": "f\n1\ng\n2", "RPUSH l a b c": "3", "LRANGE l 0 -1": "a\nb\nc",
        "SADD s x y": "2", "SCARD s": "2", "ZADD z 1 one 2 two": "2", "ZRANGE z 0 -1 WITHSCORES": "one\n1\ntwo\n2",
        "SET k v EX 100": "OK", "TTL k": "100", "INCRBYFLOAT n 0.1": "0.1", "GETRANGE k 0 0": "v",
        "KEYS ?": "h\nk\nl\nn\ns\nz",
        "MSETNX k 1 j 2": "0", "RENAME k kk": "OK", "TYPE z": "zset", "LPUSH k x": "1", "DBSIZE": "7",
        "GET k": "WRONGTYPE Operation against a key holding the wrong kind of value\n",
        "DEBUG x": "ERR unknown command 'DEBUG', with args beginning with: 'x' \n",
    }  # fmt: skip
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        for place, (line, expected) in enumerate(session.items()):
            port = str(group.redis[place % 3].port)
            assert (await call("redis-cli", "-p", port, *line.split())).removesuffix("\n") == expected, line
        port = str(group.redis[2].port)
        said = await call("redis-cli", "-p", port, said="MULTI\nINCR a\nINCR a\nEXEC\nWATCH a\nMULTI\nGET a\nEXEC\n")
        assert said.split() == ["OK", "QUEUED", "QUEUED", "1", "2", "OK", "OK", "QUEUED", "2"]


async def test_a_watch_detects_a_write_through_another_replica(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        one, other = (
            redis.asyncio.Redis(host="127.0.0.1", port=group.redis[place].port, decode_responses=True)
            for place in (0, 2)
        )
        pipeline: Any  # its methods give the pipeline back, of which its types know nothing
        async with one, other, one.pipeline() as pipeline:
            await pipeline.watch("k", "none")
            await other.set("k", "theirs")
            pipeline.multi()
            pipeline.set("k", "ours")
            with pytest.raises(redis.WatchError):
                await pipeline.execute()
            assert await other.get("k") == "theirs"
            await pipeline.watch("k", "none")
            pipeline.multi()
            pipeline.set("k", "ours")
            assert await pipeline.execute() == [True]
            assert await other.get("k") == "ours"
            assert (await other.info("keyspace"))["db0"] == {"keys": 1, "expires": 0, "avg_ttl": 0}


async def test_an_expired_key_is_removed_without_an_access(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        client = redis.asyncio.Redis(host="127.0.0.1", port=group.redis[1].port)
        async with client:
            await client.set("short", "1", px=20)
            await client.set("long", "1", ex=1000)
            async with asyncio.timeout(60):
                while (await client.info("keyspace"))["db0"]["keys"] != 1:  # keys() would hide it at once
                    pass
            assert await client.keys() == [b"long"]


async def test_redis_cli_finds_the_keys_that_need_most_memory(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY) as group:
        port = str(group.redis[0].port)
        await call("redis-cli", "-p", port, "MSET", "small", "1", "large", "x" * 5000)
        await call("redis-cli", "-p", port, "RPUSH", "list", *["element"] * 100)
        output = await call("redis-cli", "-p", port, "--memkeys")
        assert re.search(r'Biggest string found .*"large".* has 5\d\d\d bytes', output), output
        assert re.search(r'Biggest\s+list found .*"list".* has [1-9]\d{3} bytes', output), output


async def test_a_limit_on_values_set_at_one_replica_applies_to_all(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.MEMORY, "--value-bytes-max", "2000000") as group:
        client = redis.asyncio.Redis(host="127.0.0.1", port=group.redis[2].port)
        async with client:
            async with asyncio.timeout(60):
                while (await client.info("memory"))["value_bytes_max"] != 2_000_000:
                    pass
            assert await client.setbit("k", 8 * 2_000_000 - 1, 1) == 0
            with pytest.raises(redis.ResponseError, match="bit offset is not an integer or out of range"):
                await client.setbit("k", 8 * 2_000_000, 1)
