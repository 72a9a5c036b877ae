"""Compares the key-value machine with Redis: the same commands have byte-identical replies."""

import time
from pathlib import Path
from random import Random

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import KeyValue, Pairs, encode
from pydsm.server.limits import RespLimits
from pydsm.server.replies import encode_reply
from tests.integration.real_redis import real_redis
from tests.unit.machines.kv.arguments import DETERMINISTIC, KEYS, random_command

COMMANDS_EACH = 150
WITHOUT_ORDER = frozenset(("SMEMBERS", "SINTER", "SUNION", "SDIFF", "HGETALL", "HKEYS", "HVALS"))
"""Redis lists these in an order of its own."""

TIMES = {"TTL": 5, "EXPIRETIME": 5, "PTTL": 5000, "PEXPIRETIME": 5000}
"""Commands that tell times, and by how much theirs may differ: the same command reaches the two at two moments."""


def ours(machine: KeyValue, words: list[bytes], protocol: int) -> bytes:
    """The reply of the Redis port."""
    result: Result
    try:
        machine.footprint([encode(words)])
    except UsageError as fault:
        result = CommandFailed(str(fault))
    else:
        (result,) = machine.apply([encode(words)], time.time_ns() // 1_000_000)
    return encode_reply(result, protocol, RespLimits())


def comparable(machine: KeyValue, words: list[bytes]) -> bool:
    """Whether Redis defines the result of this command.

    Ranges by name are left open for sets with more than one score. ZINCRBY takes the options of ZADD by accident.
    """
    if words[0] == b"ZINCRBY":
        return not {b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"} & set(words)
    if b"LEX" not in words[0] and b"BYLEX" not in words:
        return True
    (entries,) = machine.apply([encode([b"ZRANGE", *words[1:2], b"0", b"-1", b"WITHSCORES"])], 0)
    return not isinstance(entries, Pairs) or len({score for _, score in entries}) < 2


def same(name: str, one: bytes, other: bytes) -> bool:
    """Whether replies are equal, except for meaningless order and for the times of both replies."""
    if name in TIMES and one.startswith(b":") and other.startswith(b":"):
        mine, theirs = int(one[1:]), int(other[1:])
        return mine == theirs if min(mine, theirs) < 0 else abs(mine - theirs) <= TIMES[name]
    if name in WITHOUT_ORDER:
        return sorted(one.split(b"\r\n")) == sorted(other.split(b"\r\n"))
    return one == other


@pytest.mark.redis_cli
@pytest.mark.parametrize(("protocol", "first_seed"), [(2, 0), (2, 40), (3, 80), (3, 120)])
async def test_replies_are_those_of_redis(protocol: int, first_seed: int, tmp_path: Path) -> None:
    async with real_redis(tmp_path) as redis:
        await redis.ask([b"HELLO", b"%d" % protocol])
        for seed in range(first_seed, first_seed + 40):
            random, machine = Random(seed), KeyValue()
            await redis.ask([b"FLUSHALL"])
            for place in range(COMMANDS_EACH):
                name = random.choice(DETERMINISTIC)
                words = random_command(random, name)
                if comparable(machine, words):
                    expected, got = await redis.ask(words), ours(machine, words, protocol)
                    assert same(name, got, expected), (
                        f"seed {seed}, command {place}: {words} gave {got!r}, not {expected!r}"
                    )


@pytest.mark.redis_cli
async def test_every_deterministic_command_is_compared_when_it_succeeds(tmp_path: Path) -> None:
    """Ensures that each command is also compared when it succeeds."""
    async with real_redis(tmp_path) as redis:
        missing, random = set(DETERMINISTIC), Random(7)
        for _ in range(20_000):
            name = random.choice(sorted(missing))
            reply = await redis.ask(random_command(random, name))
            if not reply.startswith(b"-"):
                missing.discard(name)
            else:
                await redis.ask([b"DEL", random.choice(KEYS)])
                await redis.ask(random_command(random, random.choice(["RPUSH", "HSET", "ZADD", "SADD", "INCR"])))
            if not missing:
                return
        raise AssertionError(f"never without an error: {sorted(missing)}")
