"""Cases for every command of the key-value machine: its data, and its complexity in Redis's documentation.

Used by `command_growth`, which measures times, and by a test, which counts operations without a clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydsm.machines.kv import KeyValue, encode

NOW_MS = 1_750_000_000_000
_PART = 1000


def _number(place: int) -> bytes:
    return b"%08d" % place


def _collection(
    command: bytes, key: bytes, words: Callable[[int], tuple[bytes, ...]]
) -> Callable[[KeyValue, int], None]:
    def fill(machine: KeyValue, size: int) -> None:
        for first in range(0, size, _PART):
            arguments = [word for place in range(first, min(first + _PART, size)) for word in words(place)]
            machine.apply([encode([command, key, *arguments])], NOW_MS)

    return fill


def _keys(machine: KeyValue, size: int) -> None:
    for first in range(0, size, _PART):
        many = range(first, min(first + _PART, size))
        machine.apply([encode([b"SET", _number(place), b"1"]) for place in many], NOW_MS)


def _string(machine: KeyValue, size: int) -> None:
    machine.apply([encode([b"SETBIT", b"s", b"%d" % (8 * size - 1), b"1"])], NOW_MS)


FILL: dict[str, Callable[[KeyValue, int], None]] = {
    "keys": _keys,
    "string": _string,
    "hash": _collection(b"HSET", b"h", lambda place: (_number(place), b"1")),
    "list": _collection(b"RPUSH", b"l", lambda place: (_number(place),)),
    "set": _collection(b"SADD", b"m", lambda place: (_number(place),)),
    "sorted set": _collection(b"ZADD", b"z", lambda place: (b"%d" % place, _number(place))),
    "names": _collection(b"ZADD", b"y", lambda place: (b"0", _number(place))),
}
"""The quantities that N can count: keys, bytes, or elements, under the key `s`, `h`, `l`, `m`, `z` or `y`."""

SMALL = ("SET a 1", "RPUSH few x y z", "SADD one 00000000", "HSET pair f 1", "ZADD best 1 00000000")
"""Commands that fill every machine, in addition to the N elements."""

CONSTANT, LOGARITHMIC, LINEAR, LINEARITHMIC = "O(1)", "O(log N)", "O(N)", "O(N log N)"


@dataclass(frozen=True, slots=True)
class Case:
    """One use of a command."""

    line: str
    """Its words; `{N}` is N, `{M}` the middle number, `{L}` the last one; with a #, the number as 8 digits."""
    on: str
    """The collection that has N elements."""
    redis: str
    """Its complexity by N in Redis's documentation, with the other numbers of the line constant."""
    prepare: tuple[str, ...] = ()
    """Commands executed before it, and not measured: they restore what the command removes."""

    @property
    def command(self) -> str:
        """The name of the command."""
        return self.line.split(" ", 1)[0]


def words_of(line: str, size: int) -> list[bytes]:
    """The words of a line for this number of elements."""
    line = line.replace("{N}", str(size)).replace("{8N}", str(8 * size))
    for name, place in (("M", size // 2), ("L", size - 1), ("F", 0), ("G", 9)):
        line = line.replace(f"{{{name}}}", str(place)).replace(f"{{#{name}}}", f"{place:08d}")
    return line.encode().split(b" ")


def _cases(on: str, redis: str, *lines: str) -> tuple[Case, ...]:
    return tuple(Case(line, on, redis) for line in lines)


CASES: tuple[Case, ...] = (
    # The cost of a command on one key does not depend on the number of keys.
    *_cases("keys", CONSTANT, "GET {#M}", "MGET {#M} {#L}", "SET {#M} 1", "SETNX {#M} 1", "SETEX {#M} 100 1",
            "PSETEX {#M} 100000 1", "GETSET {#M} 1", "GETEX {#M} EX 100", "MSET {#M} 1 {#L} 1", "MSETNX {#M} 1 new 1",
            "INCR {#M}", "DECR {#M}", "INCRBY {#M} 2", "DECRBY {#M} 2", "INCRBYFLOAT {#M} 0.5", "EXISTS {#M}",
            "TOUCH {#M}", "TYPE {#M}", "EXPIRE {#M} 100", "PEXPIRE {#M} 100000", "EXPIREAT {#M} 9999999999",
            "PEXPIREAT {#M} 9999999999999", "TTL {#M}", "PTTL {#M}", "EXPIRETIME {#M}", "PEXPIRETIME {#M}",
            "PERSIST {#M}", "DBSIZE", "TIME", "RENAMENX {#M} {#L}", "COPY {#M} {#L} REPLACE"),
    Case("RANDOMKEY", "keys", CONSTANT, ("SCAN 0",)),
    Case("SCAN 0 MATCH *0*0*", "keys", CONSTANT, ("SCAN 0",)),
    Case("GETDEL {#M}", "keys", CONSTANT, ("SET {#M} 1",)),
    Case("DEL {#M}", "keys", CONSTANT, ("SET {#M} 1",)),
    Case("UNLINK {#M}", "keys", CONSTANT, ("SET {#M} 1",)),
    *_cases("keys", LINEAR, "KEYS *99*9"),
    *(Case(f"{name}", "keys", LINEAR) for name in ("FLUSHALL", "FLUSHDB")),
    # A string of N bytes
    *_cases("string", CONSTANT, "STRLEN s", "GETBIT s {N}", "SETBIT s {N} 1", "APPEND s x", "SETRANGE s {M} xyz",
            "GETRANGE s 10 19", "OBJECT ENCODING s", "MEMORY USAGE s"),
    *_cases("string", LINEAR, "GET s", "SUBSTR s 0 -1", "BITCOUNT s", "COPY s s2 REPLACE"),
    Case("RENAME s s3", "string", CONSTANT, ("RENAMENX s3 s",)),
    # A hash of N fields
    *_cases("hash", CONSTANT, "HSET h {#M} 2", "HMSET h {#M} 2", "HSETNX h {#M} 2", "HGET h {#M}", "HMGET h {#M} {#L}",
            "HEXISTS h {#M}", "HLEN h", "HSTRLEN h {#M}", "HINCRBY h {#M} 1", "HINCRBYFLOAT h {#M} 0.5", "HSCAN h 0",
            "HSCAN h {M} COUNT 20", "HRANDFIELD h", "HRANDFIELD h 10", "HRANDFIELD h -10 WITHVALUES", "MEMORY USAGE h"),
    Case("HDEL h {#M}", "hash", CONSTANT, ("HSET h {#M} 1",)),
    *_cases("hash", LINEAR, "HGETALL h", "HKEYS h", "HVALS h", "COPY h h2 REPLACE"),
    # A list of N elements
    *_cases("list", CONSTANT, "LPUSH l x", "RPUSH l x", "LPUSHX l x", "RPUSHX l x", "LPOP l", "RPOP l 3", "LLEN l",
            "LMPOP 1 l LEFT COUNT 3", "LRANGE l 0 9", "LRANGE l -10 -1", "LINDEX l 0", "LINDEX l -1", "LSET l 0 x",
            "LSET l -1 x", "LTRIM l 1 -2", "LPOS l y MAXLEN 10", "RPOPLPUSH l l", "LMOVE l l LEFT RIGHT",
            "LMOVE l few RIGHT LEFT"),
    *_cases("list", LINEAR, "LINDEX l {M}", "LSET l {M} x", "LRANGE l {M} {M}", "LPOS l nothing", "LREM l 1 nothing",
            "LINSERT l BEFORE {#M} x", "LRANGE l 0 -1"),
    # A set of N members
    *_cases("set", CONSTANT, "SADD m {#M}", "SISMEMBER m {#M}", "SMISMEMBER m {#M} x", "SCARD m", "SSCAN m 0",
            "SSCAN m {M} COUNT 20", "SRANDMEMBER m", "SRANDMEMBER m 10", "SRANDMEMBER m -10", "SINTER m one",
            "SINTERSTORE to m one", "SINTERCARD 2 one m", "SDIFF one m", "SDIFFSTORE to one m",
            "SINTERCARD 1 m LIMIT 5"),
    Case("SREM m {#M}", "set", CONSTANT, ("SADD m {#M}",)),
    Case("SMOVE m one {#M}", "set", CONSTANT, ("SADD m {#M}",)),
    Case("SPOP m", "set", CONSTANT),
    Case("SPOP m 10", "set", CONSTANT),
    *_cases("set", LINEAR, "SMEMBERS m", "SUNION m one", "SDIFF m one", "SUNIONSTORE to m one", "SINTER m m"),
    # A sorted set of N members
    *_cases("sorted set", CONSTANT, "ZSCORE z {#M}", "ZMSCORE z {#M} x", "ZCARD z", "ZSCAN z 0", "ZSCAN z {M} COUNT 20",
            "ZRANDMEMBER z", "ZRANDMEMBER z 10", "ZRANDMEMBER z -10 WITHSCORES", "ZINTER 2 z best",
            "ZINTERCARD 2 best z", "ZINTERSTORE to 2 best z", "ZDIFF 2 best z", "ZDIFFSTORE to 2 best z",
            "ZINTERCARD 1 z LIMIT 5"),
    *_cases("sorted set", LOGARITHMIC, "ZADD z 7 {#M}", "ZINCRBY z 1 {#M}", "ZCOUNT z {F} {M}", "ZRANK z {#M}",
            "ZREVRANK z {#M}", "ZRANGE z {M} {M}", "ZREVRANGE z {M} {M}", "ZRANGEBYSCORE z {M} inf LIMIT 0 10",
            "ZREVRANGEBYSCORE z {M} 0 LIMIT 0 10", "ZRANGE z (5 +inf BYSCORE LIMIT 0 10", "ZPOPMIN z", "ZPOPMAX z 3",
            "ZMPOP 1 z MIN COUNT 3", "ZREMRANGEBYRANK z 0 2", "ZRANGESTORE to z 0 9"),
    Case("ZREM z {#M}", "sorted set", LOGARITHMIC, ("ZADD z {M} {#M}",)),
    Case("ZREMRANGEBYSCORE z {M} {M}", "sorted set", LOGARITHMIC, ("ZADD z {M} {#M}",)),
    *_cases("names", LOGARITHMIC, "ZLEXCOUNT y [{#M} +", "ZRANGEBYLEX y [{#M} + LIMIT 0 10",
            "ZREVRANGEBYLEX y [{#M} - LIMIT 0 10"),
    Case("ZREMRANGEBYLEX y [{#M} [{#M}", "names", LOGARITHMIC, ("ZADD y 0 {#M}",)),
    *_cases("sorted set", LINEAR, "ZRANGE z 0 -1", "ZDIFF 2 z best"),
    *_cases("sorted set", LINEARITHMIC, "ZUNION 2 z best", "ZUNIONSTORE to 2 z best", "ZINTER 1 z"),
)  # fmt: skip


def machine_for(case: Case, size: int) -> KeyValue:
    """A machine with this number of elements."""
    machine = KeyValue()
    FILL[case.on](machine, size)
    machine.apply([encode(words_of(line, size)) for line in SMALL], NOW_MS)
    return machine
