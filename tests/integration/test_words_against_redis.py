"""Compares parsing with Redis: numbers, cursors, patterns, inline commands, values that are too long."""

import re
import time
from itertools import product
from pathlib import Path
from random import Random

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import KeyValue, encode
from pydsm.server.limits import RespLimits
from pydsm.server.parser import split_line
from pydsm.server.replies import encode_reply
from tests.integration.real_redis import Redis, real_redis

MANTISSAS = (b"0", b"1", b"10", b"007", b"1.5", b".5", b"5.", b".", b"", b"0x10", b"0X.8", b"0x1p3", b"0x", b"0x1.8p-1")
EXPONENTS = (b"", b"e5", b"E+0000005", b"e-0000002", b"e", b"e+", b"e400", b"e-400", b"p4")
NUMBERS = (
    *(mantissa + exponent for mantissa, exponent in product(MANTISSAS, EXPONENTS)),
    b"inf", b"INF", b"Infinity", b"infinit", b"nan", b"nan(1)", b"1_0", b"1,5", b"1f", b"1d", b"1\x00",
    b"1\x002", b"\x00",
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551615", b"18446744073709551616",
    b"99999999999999999999", b"9007199254740993", b"0" * 50 + b"1", b"1" + b"0" * 50, b"0." + b"0" * 400 + b"1",
    b"0x1p99999999999999999999", b"0x1p-99999999999999999999", b"0x0p99999999999999999999", b"0e99999999999999999999",
)  # fmt: skip
"""Without a sign and without spaces."""

PLACES = tuple(
    tuple(line.split(b" "))
    for line in (
        b"SET k ?", b"INCR k", b"DEL k", b"INCRBY i ?", b"DECRBY i ?", b"HINCRBY hi f ?", b"DEL i hi",
        b"ZADD z ? m", b"ZINCRBY z ? m", b"ZRANGE z 0 -1 WITHSCORES", b"DEL z",
        b"ZADD z -inf a -1 b 0 c 1 d 100000 e inf f", b"ZCOUNT z ? +inf", b"ZCOUNT z -inf (?",
        b"ZRANGEBYSCORE z (? inf",
        b"ZREVRANGEBYSCORE z inf ? LIMIT 0 ?", b"ZRANGE z ? -1", b"ZUNION 1 z WEIGHTS ?", b"ZINTERCARD ? z",
        b"ZPOPMIN none ?", b"DEL z", b"SET s value", b"GETRANGE s ? -1", b"SETRANGE none ? ", b"BITCOUNT s ? -1",
        b"GETBIT s ?", b"SETBIT s 0 ?", b"LINDEX none ?", b"LPOP none ?", b"EXPIREAT none ?", b"SRANDMEMBER none ?",
        b"HSCAN none ?", b"SSCAN none 0 COUNT ?", b"HSET hash f 1", b"HSCAN hash 0 COUNT ?",
        b"HRANDFIELD none ? WITHVALUES", b"ZRANDMEMBER none ?",
    )
)  # fmt: skip
"""Commands that read a number where the question mark is, and what shows afterwards what became of it."""

ADDED = (
    b"1.5", b".5", b"5.", b"1e+0000005", b"1e-400", b"0x10", b"0x.8", b"0x1p3", b"-0x10", b"inf", b"-inf", b"nan",
    b"e5", b"1e", b" 1", b"1 ", b"+1", b"-1.25", b"007", b"", b"1\x00", b"\x00", b"0e9999999", b"0" * 5118 + b"1",
    b"0" * 5119 + b"1",
)  # fmt: skip
"""What may be added with INCRBYFLOAT and HINCRBYFLOAT; only numbers whose sum is the same in decimal and in binary."""


_FRACTION = re.compile(rb"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")


def ours(machine: KeyValue, words: tuple[bytes, ...]) -> bytes:
    """The reply of the Redis port in RESP2."""
    result: Result
    try:
        machine.footprint([encode(words)])
    except UsageError as fault:
        result = CommandFailed(str(fault))
    else:
        (result,) = machine.apply([encode(words)], time.time_ns() // 1_000_000)
    return encode_reply(result, 2, RespLimits())


async def compare(redis: Redis, machine: KeyValue, words: tuple[bytes, ...], about: object = "") -> None:
    expected, got = await redis.ask(list(words)), ours(machine, words)
    assert values(got) == values(expected), f"{words} gave {got!r}, not {expected!r} {about}"


def values(reply: bytes) -> list[bytes | float]:
    """The parts of a reply. Fractions by value: Redis shows them in their shortest form only since version 7.2."""
    parts = reply.split(b"\r\n")
    if len(parts) < 3 or not any(map(_FRACTION.fullmatch, parts)):
        return list(parts)
    return [float(part) if _FRACTION.fullmatch(part) else part for part in parts if not part.startswith(b"$")]


def written(words: tuple[bytes, ...], number: bytes) -> tuple[bytes, ...]:
    return tuple(word.replace(b"?", number) if word in {b"?", b"(?"} else word for word in words)


@pytest.mark.redis_cli
@pytest.mark.parametrize("before", [b"", b"+", b"-", b" ", b"\v", b"+-", b"0"])
@pytest.mark.parametrize("after", [b"", b" "])
async def test_numbers_are_parsed_as_in_redis(before: bytes, after: bytes, tmp_path: Path) -> None:
    async with real_redis(tmp_path) as redis:
        machine = KeyValue()
        for number in NUMBERS:
            for words in PLACES:
                await compare(redis, machine, written(words, before + number + after), number)


@pytest.mark.redis_cli
async def test_added_numbers_are_parsed_as_in_redis(tmp_path: Path) -> None:
    async with real_redis(tmp_path) as redis:
        machine = KeyValue()
        for number in ADDED:
            await compare(redis, machine, (b"INCRBYFLOAT", b"k", number))
            await compare(redis, machine, (b"HINCRBYFLOAT", b"h", b"f", number))
            await compare(redis, machine, (b"SET", b"given", number))
            await compare(redis, machine, (b"INCRBYFLOAT", b"given", b"1"))
            await compare(redis, machine, (b"HSET", b"h", number, number))
            await compare(redis, machine, (b"HINCRBYFLOAT", b"h", number, b"1"))


@pytest.mark.redis_cli
async def test_encodings_of_numbers_have_the_names_of_redis(tmp_path: Path) -> None:
    async with real_redis(tmp_path) as redis:
        machine = KeyValue()
        for value in (
            *NUMBERS,
            b"-0",
            b"-1",
            b"+1",
            b"x" * 44,
            b"x" * 45,
            b"9" * 19,
            b"-9223372036854775808",
            b"9" * 20,
        ):
            await compare(redis, machine, (b"SET", b"k", value))
            await compare(redis, machine, (b"OBJECT", b"ENCODING", b"k"))


PATTERN_PARTS = (
    b"*", b"**", b"?", b"a", b"b", b"ab", b"[ab]", b"[^a]", b"[a-b]", b"[b-a]", b"[\\a]", b"[", b"[]", b"[^]", b"[^",
    b"\\", b"\\*", b"\\[", b"]", b"-", b"[a-", b"[-a]", b"[a-]", b"[\x01-\xff]", b"[\x80-a]", b"\xff", b"\x00",
)  # fmt: skip


@pytest.mark.redis_cli
@pytest.mark.parametrize("seed", range(4))
async def test_patterns_match_as_in_redis(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    alphabet = (b"a", b"b", b"ab", b"*", b"-", b"]", b"[", b"\\", b"^", b"\xff", b"\x80", b"\x01", b"\x00")
    async with real_redis(tmp_path) as redis:
        machine = KeyValue()
        names = {b"".join(random.choice(alphabet) for _ in range(random.randrange(7))) for _ in range(100)}
        for name in sorted(names):
            await compare(redis, machine, (b"SADD", b"names", name))
        for _ in range(1000):
            pattern = b"".join(random.choice(PATTERN_PARTS) for _ in range(random.randrange(8)))
            words = (b"SSCAN", b"names", b"0", b"MATCH", pattern, b"COUNT", b"1000")
            expected, got = await redis.ask(list(words)), ours(machine, words)
            assert sorted(got.split(b"\r\n")) == sorted(expected.split(b"\r\n")), words


@pytest.mark.redis_cli
@pytest.mark.parametrize("seed", range(2))
async def test_inline_commands_are_split_as_in_redis(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    parts = (
        b" ",
        b"  ",
        b"\t",
        b"\v",
        b"\f",
        b"\r",
        b"a",
        b"bc",
        b'"x y"',
        b"'x y'",
        b'"\\x41\\n"',
        b"'it\\'s'",
        b'""',
        b"''",
    )
    async with real_redis(tmp_path) as redis:
        for _ in range(1500):
            line = b"RPUSH list " + b"".join(random.choice(parts) for _ in range(random.randrange(1, 9)))
            await redis.ask([b"DEL", b"list"])
            reply = await redis.ask_line(line) if balanced(line) else b"-"
            if reply.startswith(b":"):
                _, _, *elements = split_line(line)
                got = encode_reply(list(elements), 2, RespLimits())
                assert got == await redis.ask([b"LRANGE", b"list", b"0", b"-1"]), line


def balanced(line: bytes) -> bool:
    """Whether the line has balanced quotes; otherwise the server closes the connection."""
    try:
        return len(split_line(line)) > 2
    except Exception:
        return False


@pytest.mark.redis_cli
async def test_values_are_limited_as_with_proto_max_bulk_len(tmp_path: Path) -> None:
    limit = 1 << 20
    async with real_redis(tmp_path, "--proto-max-bulk-len", "1mb") as redis:
        machine = KeyValue()
        machine.apply([encode([b"VALUE-LIMIT", b"%d" % limit])], 0)
        for line in (
            "SETBIT k 4294967295 1", f"SETBIT k {8 * limit} 1", f"GETBIT k {8 * limit}", f"SETBIT k {8 * limit - 1} 1",
            "STRLEN k", "APPEND k x", "APPEND k ", f"SETRANGE k {limit} x", f"SETRANGE k {limit - 1} xy",
            f"SETRANGE k {limit - 1} x", f"SETRANGE none {limit} x", "SETRANGE k 9223372036854775807 x", "STRLEN k",
        ):  # fmt: skip
            await compare(redis, machine, tuple(line.encode().split(b" ")))
