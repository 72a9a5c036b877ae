"""Ordinary Redis clients against the port: redis-py, asyncio and blocking, both protocols, and redis-cli."""

import asyncio
import shutil
from typing import Any

import pytest
import redis
import redis.asyncio

from pydsm.machines.kv import COMMANDS
from pydsm.server.commands import LOCAL_COMMANDS
from pydsm.server.transactions import TRANSACTION_COMMANDS
from tests.unit.server.local import serving

protocols = pytest.mark.parametrize("protocol", [2, 3])


@protocols
async def test_redis_py_on_asyncio(protocol: int) -> None:
    async with serving() as server:
        client = redis.asyncio.Redis(
            host="127.0.0.1", port=server.port, protocol=protocol, decode_responses=True, client_name="tester"
        )
        async with client:
            assert await client.ping()
            assert await client.set("colour", "blue")
            assert await client.get("colour") == "blue"
            assert await client.get("none") is None
            assert await client.set("colour", "red", nx=True) is None
            assert await client.set("colour", "red", get=True) == "blue"
            assert await client.mset({"a": "1", "b": "2"})
            assert await client.mget("a", "b", "none") == ["1", "2", None]
            assert await client.incrby("a", 41) == 42
            assert await client.exists("a", "b", "c") == 2
            assert await client.delete("a", "none") == 1
            assert await client.type("b") == "string"
            assert await client.client_getname() == "tester"
            assert (await client.info("stats"))["executed"] == 7
            assert await client.config_get("save") == {"save": ""}
            assert (await client.command_count()) == len(COMMANDS) + len(LOCAL_COMMANDS) + len(TRANSACTION_COMMANDS)
            assert (await client.command())["get"]["arity"] == 2
            assert await client.dbsize() == 2
            assert await client.flushall()
            with pytest.raises(redis.ResponseError, match="unknown command 'BLPOP'"):
                await client.blpop("a", 1)


@protocols
async def test_redis_py_transactions(protocol: int) -> None:
    async with (
        serving() as server,
        redis.asyncio.Redis(host="127.0.0.1", port=server.port, protocol=protocol, decode_responses=True) as client,
        redis.asyncio.Redis(host="127.0.0.1", port=server.port, protocol=protocol) as other,
    ):
        pipeline: Any  # its methods give the pipeline back, of which its types know nothing
        async with client.pipeline() as pipeline:  # MULTI and EXEC around it
            assert await pipeline.set("a", "1").incr("a").get("a").execute() == [True, 2, "2"]
            await pipeline.watch("a")
            value = await pipeline.get("a")
            await other.set("a", "7")
            pipeline.multi()
            pipeline.set("a", value)
            with pytest.raises(redis.WatchError):
                await pipeline.execute()
            with pytest.raises(redis.ResponseError, match="not an integer"):
                await pipeline.set("a", "x").incr("a").set("b", "1").execute()
        assert await client.mget("a", "b") == ["x", "1"]

        async def doubling(pipeline: Any) -> None:
            value = int(await pipeline.get("b"))
            pipeline.multi()
            pipeline.set("b", 2 * value)

        assert await client.transaction(doubling, "b") == [True]
        assert await client.get("b") == "2"


@protocols
async def test_redis_py_pipelines(protocol: int) -> None:
    async with (
        serving() as server,
        redis.asyncio.Redis(host="127.0.0.1", port=server.port, protocol=protocol) as client,
        client.pipeline(transaction=False) as pipeline,
    ):
        for number in range(3000):
            pipeline.set(f"key{number}", number)
            pipeline.incr("count")
        results = await pipeline.execute()
    assert results == [result for number in range(1, 3001) for result in (True, number)]


@protocols
async def test_redis_py_blocking(protocol: int) -> None:
    def story(port: int) -> list[object]:
        with (
            redis.Redis(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True) as client,
            client.pipeline(transaction=False) as pipeline,
        ):
            pipeline.set("a", "1").append("a", "2").get("a").strlen("a").getdel("a").get("a")
            return [client.ping(), *pipeline.execute()]

    async with serving() as server:
        assert await asyncio.to_thread(story, server.port) == [True, True, 2, "12", 2, "12", None]


async def redis_cli(port: int, *words: str, said: str = "") -> str:
    """What redis-cli prints."""
    program = shutil.which("redis-cli")
    assert program, "redis-cli is missing: apt-get install redis-tools"
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(port), *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(said.encode())
    return output.decode().strip()


@pytest.mark.redis_cli
async def test_redis_cli_command_by_command() -> None:
    async with serving() as server:
        assert await redis_cli(server.port, "PING") == "PONG"
        assert await redis_cli(server.port, "SET", "colour", "light blue") == "OK"
        assert await redis_cli(server.port, "GET", "colour") == "light blue"
        assert await redis_cli(server.port, "-3", "HELLO") != ""
        assert await redis_cli(server.port, "INCR", "colour") == "ERR value is not an integer or out of range"
        assert "pydsm_version:" in await redis_cli(server.port, "INFO", "server")


@pytest.mark.redis_cli
async def test_redis_cli_in_a_session_and_in_bulk() -> None:
    async with serving() as server:
        lines = "SET a 1\nINCR a\nMGET a b\nNOSUCH\nGET a\n"
        said = await redis_cli(server.port, said=lines)
        assert said.split("\n") == [
            "OK", "2", "2", "", "ERR unknown command 'NOSUCH', with args beginning with: ", "", "2",
        ]  # fmt: skip
        bulk = "".join(f"SET key{number} {number}\r\n" for number in range(2000))
        assert "errors: 0, replies: 2000" in await redis_cli(server.port, "--pipe", said=bulk)
