"""Random commands on few keys; many of them are invalid."""

from random import Random

from pydsm.machines.kv import COMMANDS

KEYS = (b"a", b"b", b"c", b"d")
MEMBERS = (b"x", b"y", b"z", b"10", b"-3", b"")
INTEGERS = (b"0", b"1", b"2", b"-1", b"-2", b"5", b"100", b"-100")
SCORES = (b"0", b"1", b"-1", b"2.5", b"3", b"inf", b"-inf", b"-0.5")
WRONG = (b"", b"x", b"1.5x", b"NaN", b"12345678901234567890123", b"LIMIT")
SCORE_ENDS = (*SCORES, b"(1", b"(2.5", b"(-inf", b"+inf", b"(x")
MEMBER_ENDS = (b"-", b"+", b"[x", b"(x", b"[z", b"(y", b"[", b"(", b"x")

SHAPES = {
    # k a key, m a member, element or value, i an integer, s a score, l an end of a range by member, r one by score,
    # n a count of keys and so many keys, [..] these words or nothing, {..} one of these, * the last word or not
    "GET": "k", "MGET": "kk*", "STRLEN": "k", "GETRANGE": "kii", "SUBSTR": "kii", "GETBIT": "ki", "BITCOUNT": "k[ii]",
    "SET": "km[NX][XX][GET][KEEPTTL][EX 1000][PXAT 9999999999999]", "SETNX": "km", "GETSET": "km", "GETDEL": "k",
    "GETEX": "k[PERSIST][PX 9000000][EXAT 9999999999]", "SETEX": "k{1000,100000,0}m", "PSETEX": "k{1000000,-1}m",
    "MSET": "kmkm", "MSETNX": "kmkm", "INCR": "k", "DECR": "k", "INCRBY": "ki", "DECRBY": "ki", "INCRBYFLOAT": "ks",
    "APPEND": "km", "SETRANGE": "kim", "SETBIT": "ki{0,1}", "EXISTS": "kk*", "TOUCH": "kk*", "TYPE": "k", "DEL": "kk*",
    "UNLINK": "kk*", "RENAME": "kk", "RENAMENX": "kk", "COPY": "kk[REPLACE]", "PERSIST": "k", "DBSIZE": "",
    # GT and LT only for moments that are named: those that are reckoned differ from server to server
    "EXPIRE": "k{1000,100000,-1}[NX][XX]", "PEXPIRE": "k{1000000,90000000,-1}[NX][XX]",
    "EXPIREAT": "k{9999999999,9999999000,1}[NX][XX][GT][LT]", "PEXPIREAT": "k{9999999999500,1}[NX][XX][GT][LT]",
    "TTL": "k", "PTTL": "k", "EXPIRETIME": "k", "PEXPIRETIME": "k",
    "HSET": "kmmmm*", "HMSET": "kmm", "HSETNX": "kmm", "HGET": "km", "HMGET": "kmm*", "HGETALL": "k", "HDEL": "kmm*",
    "HEXISTS": "km", "HLEN": "k", "HSTRLEN": "km", "HKEYS": "k", "HVALS": "k", "HINCRBY": "kmi", "HINCRBYFLOAT": "kms",
    "LPUSH": "kmm*", "RPUSH": "kmm*", "LPUSHX": "km", "RPUSHX": "kmm*", "LPOP": "k[i]", "RPOP": "k[i]",
    "LMPOP": "n{LEFT,RIGHT,UP}[COUNT i]", "LLEN": "k", "LRANGE": "kii", "LINDEX": "ki", "LSET": "kim",
    "LINSERT": "k{BEFORE,AFTER,NEAR}mm", "LREM": "kim", "LTRIM": "kii", "LPOS": "km[RANK i][COUNT i][MAXLEN i]",
    "LMOVE": "kk{LEFT,RIGHT,UP}{LEFT,RIGHT}", "RPOPLPUSH": "kk",
    "SADD": "kmm*", "SREM": "kmm*", "SISMEMBER": "km", "SMISMEMBER": "kmm*", "SMEMBERS": "k", "SCARD": "k",
    "SMOVE": "kkm", "SINTER": "kk*", "SUNION": "kk*", "SDIFF": "kk*", "SINTERSTORE": "kkk*", "SUNIONSTORE": "kkk*",
    "SDIFFSTORE": "kkk*", "SINTERCARD": "n[LIMIT i]",
    "ZADD": "k[NX][XX][GT][LT][CH][INCR]smsm*", "ZINCRBY": "ksm", "ZREM": "kmm*",
    "ZREMRANGEBYRANK": "kii",
    "ZREMRANGEBYSCORE": "krr", "ZREMRANGEBYLEX": "kll", "ZPOPMIN": "k[i]", "ZPOPMAX": "k[i]",
    "ZMPOP": "n{MIN,MAX,MID}[COUNT i]", "ZSCORE": "km", "ZMSCORE": "kmm*", "ZCARD": "k",
    "ZCOUNT": "krr", "ZLEXCOUNT": "kll",
    "ZRANK": "km", "ZREVRANK": "km", "ZRANGE": "kii[REV][WITHSCORES]", "ZREVRANGE": "kii[WITHSCORES]",
    "ZRANGEBYSCORE": "krr[WITHSCORES][LIMIT i i]", "ZREVRANGEBYSCORE": "krr[WITHSCORES][LIMIT i i]",
    "ZRANGEBYLEX": "kll[LIMIT i i]", "ZREVRANGEBYLEX": "kll[LIMIT i i]",
    "ZRANGESTORE": "kkii[REV]", "ZUNION": "n[WEIGHTS s s][AGGREGATE MAX][WITHSCORES]",
    "ZINTER": "n[AGGREGATE MIN][WITHSCORES]",
    "ZDIFF": "n[WITHSCORES]", "ZUNIONSTORE": "kn[WEIGHTS s s][AGGREGATE SUM]", "ZINTERSTORE": "kn[WEIGHTS s s]",
    "ZDIFFSTORE": "kn", "ZINTERCARD": "n[LIMIT i]",
}  # fmt: skip
"""What follows each name. Commands that draw at random, list in an order of their own or tell the time are not here."""

_WORDS = {"k": KEYS, "m": MEMBERS, "i": INTEGERS, "s": SCORES, "r": SCORE_ENDS, "l": MEMBER_ENDS}

DETERMINISTIC = tuple(name for name in SHAPES if name.encode() in COMMANDS)


def random_command(random: Random, name: str) -> list[bytes]:
    """The words of one command; about one in twelve has an invalid word, or one word too few."""
    words = [name.encode(), *_fill(random, SHAPES[name])]
    if name == "ZRANGE" and random.random() < 0.5:
        by, ends = random.choice([(b"BYSCORE", SCORE_ENDS), (b"BYLEX", MEMBER_ENDS)])
        words = [b"ZRANGE", random.choice(KEYS), random.choice(ends), random.choice(ends), by]
        words += random.choice([[], [b"REV"], [b"WITHSCORES"], [b"LIMIT", b"1", b"2"], [b"REV", b"LIMIT", b"0", b"-1"]])
    if len(words) > 1 and random.random() < 0.08:
        place = random.randrange(1, len(words))
        if random.random() < 0.7:
            words[place] = random.choice(WRONG[:4] if "FLOAT" in name else WRONG)
        else:
            del words[place]
    return words


def _fill(random: Random, shape: str) -> list[bytes]:
    words: list[bytes] = []
    place = 0
    while place < len(shape):
        character = shape[place]
        if character in "[{":
            end = shape.index("]" if character == "[" else "}", place)
            inside = shape[place + 1 : end]
            if character == "{":
                words.append(random.choice(inside.split(",")).encode())
            elif random.random() < 0.3:
                for part in inside.split(" "):
                    words += _fill(random, part) if part.islower() else [part.encode()]
            place = end
        elif character == "*":
            if random.random() < 0.5:
                del words[-1]
        elif character == "n":
            number = random.choice([1, 2, 2, 3])
            words += [b"%d" % number, *(random.choice(KEYS) for _ in range(number))]
        else:
            words.append(random.choice(_WORDS[character]))
        place += 1
    return words
