"""Compares whole sessions and all patterns with Redis: the replies are byte-identical."""

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from pydsm.machines.kv.glob import matcher
from tests.integration.real_redis import Redis, real_redis
from tests.unit.server.local import LocalAgreement, serving

pytestmark = pytest.mark.redis_cli

TRANSACTIONS = """
EXEC | DISCARD | UNWATCH | MULTI | MULTI | WATCH a | SET a 1 | PING | PING x | ECHO y | SELECT 0 | SELECT 99
CLIENT GETNAME | CONFIG GET save | UNWATCH | INCR a | LPUSH a 1 | GET a | MULTI | EXEC | EXEC
MULTI | NOSUCH | GET a | EXEC | MULTI | GET | DISCARD | MULTI | TIME x | EXEC | MULTI | WATCH | EXEC | WATCH
MULTI | RESET | EXEC | MULTI | SET e 1 | EXPIRE e -1 | EXISTS e | SET e 1 EX 100 | PERSIST e | EXEC
"""
"""What is refused while commands are gathered, and what is answered in its place."""

CHANGES = """
SET a 5 | SETNX new 1 | SETNX a 1 | GET a | GETEX a | GETEX a PERSIST | GETEX a EX 100 | PERSIST a | PERSIST a
EXPIRE a 100 | EXPIRE a 100 NX | EXPIRE a -1 | EXPIRE none 1 | DEL none | DEL h | SET a 1 XX GET | SET none 1 XX
SET a 1 NX | APPEND a | SETRANGE a 0 y | MSETNX a 1 m 1 | INCR s | GETDEL none | RENAME s s | COPY s a
COPY s a REPLACE | COPY s h | FLUSHALL | SADD s 1 | SADD s 2 | SREM s none | SINTERSTORE d none | SINTERSTORE s none
SUNIONSTORE s s | SMOVE s s2 none | SMOVE s s2 1 | LPUSHX none 1 | HSET h f 1 | HSET h f 2 | HDEL h none
HSETNX h f 1 | HINCRBY h f 0 | ZADD z 1 m | ZADD z 2 m | ZADD z NX 5 m | ZREM z none | ZINCRBY z 1 m
LTRIM l 0 -1 | LSET l 0 a | LSET l 9 a | LREM l 0 none | LREM l 0 a | RPOPLPUSH l l | RPOPLPUSH none l | LPOP l 0
INCRBYFLOAT a 0 | RENAMENX a s | RENAMENX a fresh | TYPE a | EXISTS a | TTL a
"""
"""Each of them while all keys are watched: whether it counts as a change."""
FILLED = "SET a 1 | SADD s 1 2 | HSET h f 1 | ZADD z 1 m | RPUSH l a b | EXPIRE h 1000"
WATCHED = "WATCH a s h z l d new none fresh s2 m"

REFUSALS = """
OBJECT FOO a | OBJECT | OBJECT ENCODING none | CLIENT FOO | CLIENT | CONFIG | CONFIG FOO x | CONFIG GET | COMMAND FOO
COMMAND GETKEYS NOSUCH a | COMMAND GETKEYS MSET a 1 b 2 | COMMAND GETKEYS SUNIONSTORE d a b | COMMAND GETKEYS COPY a b
COMMAND GETKEYS ZUNIONSTORE d 2 a b | COMMAND GETKEYS ZINTERCARD 2 a b | COMMAND GETKEYS LMPOP 2 a b LEFT
COMMAND GETKEYS SCAN 0 | COMMAND GETKEYS GET a b c | CLIENT SETNAME | SELECT x | SELECT 99 | AUTH x | AUTH x y
AUTH a b c | AUTH | HELLO x | HELLO 4 | HELLO 2 FOO | SCAN x | SCAN 0 COUNT 0 | SCAN 0 COUNT x | SCAN 0 MATCH
SCAN 0 FOO x | SCAN 99999999999999999999 | KEYS | KEYS a b | RANDOMKEY x | SET a 1 EX 0 | SET a 1 EX x
SET a 1 EX -1 | SET a 1 EX 99999999999999999 | SET a 1 PX 0 | SET a 1 EX 10 PX 10 | SET a 1 KEEPTTL EX 10
SET a 1 NX XX | SET a 1 NX GET | SET a 2 XX GET | SET a 1 EXAT 1 | GET a | SET a 1 | SET a 1 FOO | SETEX a 0 1
SETEX a x 1 | PSETEX a -1 x | GETEX a EX 0 | GETEX a FOO | GETEX a EX | GETEX a PERSIST EX | GETEX none EX 0
EXPIRE a x | EXPIRE a 10 FOO | EXPIRE a 10 NX XX | EXPIRE a 10 GT LT | EXPIRE a 9999999999999999 | EXPIRE a 10 XX
EXPIREAT a 9223372036854775807 | PEXPIREAT a 9223372036854775807 | PEXPIRE a 9223372036854775807 | EXPIRE none x
COPY a b DB 0 | COPY a b DB x | COPY a b DB 99 | COPY a a | COPY a b FOO | FLUSHALL FOO | FLUSHALL SYNC
FLUSHDB ASYNC | FLUSHDB a b | TIME x | DBSIZE x | SET a abc | BITCOUNT a 0 | BITCOUNT a 0 0 BYTE | BITCOUNT a 0 0 FOO
BITCOUNT a x y | SETBIT a 0 2 | SETBIT a 4294967296 1 | GETBIT a -1 | SETRANGE a -1 x | SETRANGE a 536870912 x
DECRBY a -9223372036854775808 | INCRBYFLOAT a 1 | INCRBYFLOAT f nan | INCRBYFLOAT f inf | INCRBYFLOAT f 5.0e3
INCRBYFLOAT f -5000 | INCRBYFLOAT f 0.1 | INCRBYFLOAT f 0.2 | INCRBYFLOAT f -0.3 | INCRBYFLOAT f 1e17
INCRBYFLOAT f 3 | INCRBYFLOAT f x | RENAME none x | RENAMENX none x | NOSUCH a b
"""


def lines(story: str) -> list[str]:
    return [line.strip() for line in story.replace("\n", "|").split("|") if line.strip()]


async def compare(session: list[str], directory: Path) -> None:
    """Run one session on both servers, command by command."""
    agreement = LocalAgreement()
    agreement.now_ms = lambda: time.time_ns() // 1_000_000
    async with real_redis(directory) as redis, serving(agreement) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            port = Redis(reader, writer)
            for place, line in enumerate(session):
                words = [word.encode() for word in line.split(" ")]
                expected, got = await redis.ask(words), await port.ask(words)
                assert got == expected, f"after {session[max(0, place - 12) : place]}: {line}"
        finally:
            writer.close()


@pytest.mark.parametrize("story", [TRANSACTIONS, REFUSALS], ids=["transactions", "refusals"])
async def test_a_session_gets_the_same_answers_as_from_redis(story: str, tmp_path: Path) -> None:
    await compare(lines(story), tmp_path)


async def test_the_same_commands_count_as_a_change_of_what_is_watched(tmp_path: Path) -> None:
    session = []
    for change in lines(CHANGES):
        session += ["FLUSHALL", *lines(FILLED), WATCHED, change, "MULTI", "EXISTS a", "EXEC"]
    await compare(session, tmp_path)


async def test_the_same_keys_match_a_pattern(tmp_path: Path) -> None:
    random = Random(11)
    async with real_redis(tmp_path) as redis:
        for _ in range(1500):
            pattern = bytes(random.choices(b"ab*?[]^-\\", k=random.randrange(1, 7)))
            keys = {bytes(random.choices(b"abc^-]\\[", k=random.randrange(5))) for _ in range(8)}
            await redis.ask([b"FLUSHALL"])
            await redis.ask([b"MSET", *(word for key in keys for word in (key, b"1"))])
            found = set((await redis.ask([b"KEYS", pattern])).split(b"\r\n")[2::2])
            assert {key for key in keys if matcher(pattern)(key)} == found, (pattern, keys)
