"""Functions that collections share: scans of small and large ones, random picks, and replies of each kind."""

from collections.abc import Callable

import pytest

from pydsm.machines.base import Result
from pydsm.machines.kv import NO_LIST, KeyValue, Members, encode
from tests.unit.machines.kv.stories import NOW_MS, run

WRONG = "!WRONGTYPE Operation against a key holding the wrong kind of value"
OUT_OF_RANGE = "!ERR value is out of range, must be positive"


def filled(command: str, elements: int) -> KeyValue:
    """A machine with one collection under `a`, whose elements are e0, e1, ..."""
    machine = KeyValue()
    arguments: list[bytes] = []
    for number in range(elements):
        element, value = b"e%d" % number, b"%d" % number
        arguments += {"SADD": [element], "HSET": [element, value], "ZADD": [value, element]}[command]
    machine.apply([encode([command.encode(), b"a", *arguments])], NOW_MS)
    return machine


def scan_all(machine: KeyValue, command: str, between: Callable[[], object] = lambda: None) -> list[bytes]:
    """All elements of a scan, with ten elements per step."""
    found: list[bytes] = []
    cursor = b"0"
    for _ in range(1000):
        (reply,) = run(machine, f"{command} a {cursor.decode()}")
        assert isinstance(reply, list)
        cursor, elements = reply
        found += elements
        if cursor == b"0":
            return found
        between()
    raise AssertionError("the scan does not end")


@pytest.mark.parametrize(("fill", "scan", "width"), [("SADD", "SSCAN", 1), ("HSET", "HSCAN", 2), ("ZADD", "ZSCAN", 2)])
@pytest.mark.parametrize("elements", [1, 128, 129, 3000])
def test_a_scan_returns_every_element_once(fill: str, scan: str, width: int, elements: int) -> None:
    found = scan_all(filled(fill, elements), scan)
    assert sorted(found[::width]) == sorted(b"e%d" % number for number in range(elements))


def test_a_scan_returns_elements_that_stay_while_others_are_added_and_removed() -> None:
    machine = filled("SADD", 3000)
    turn = iter(range(3000))

    def disturb() -> None:
        number = next(turn)
        run(machine, *(f"SREM a e{2 * place}" for place in range(10 * number, 10 * number + 10)), f"SADD a new{number}")

    found = set(scan_all(machine, "SSCAN", disturb))
    assert found >= {b"e%d" % number for number in range(1, 3000, 2)}


@pytest.mark.parametrize(
    ("story", "results"),
    [
        (
            ("HSET a f 1", "HSCAN a 0", "HSCAN a 0 MATCH g*", "HSCAN a x"),
            [1, [b"0", [b"f", b"1"]], [b"0", []], "!ERR invalid cursor"],
        ),
        (("SSCAN a 0", "SSCAN a 0 COUNT 0"), [[b"0", []]] * 2),
        (("SADD a x", "SSCAN a 0 COUNT 0", "SSCAN a 0 MATCH"), [1, "!ERR syntax error", "!ERR syntax error"]),
        (("ZADD a 1.5 m", "ZSCAN a 0 COUNT 5 MATCH m"), [1, [b"0", [b"m", b"1.5"]]]),
        (
            ("SADD a x", "SRANDMEMBER a", "SRANDMEMBER a -3", "SRANDMEMBER a 3", "SPOP a", "SPOP a", "SRANDMEMBER a"),
            [1, b"x", [b"x"] * 3, [b"x"], b"x", None, None],
        ),
        (
            (
                "SPOP a -1",
                "SPOP a 1",
                "SRANDMEMBER a 5",
                f"SRANDMEMBER a -{2**62}",
                "SADD a x",
                "SRANDMEMBER a -1000001",
            ),
            [OUT_OF_RANGE, [], [], [], 1, "!ERR value is out of range"],
        ),
        (
            (
                "HSET a f 1",
                "HRANDFIELD a",
                "HRANDFIELD a -2 WITHVALUES",
                "HRANDFIELD a 1 NOW",
                "HRANDFIELD b",
                "HRANDFIELD b 1",
            ),
            [1, b"f", [[b"f", b"1"]] * 2, "!ERR syntax error", None, []],
        ),
        (
            ("ZADD a 1 m", "ZRANDMEMBER a", "ZRANDMEMBER a 2 WITHSCORES", "ZRANDMEMBER b"),
            [1, b"m", [[b"m", 1.0]], None],
        ),
        (("LPOP a 2", "LMPOP 1 a LEFT", "ZMPOP 1 a MIN"), [NO_LIST, NO_LIST, NO_LIST]),
        (("SET a 1", "HGET a f", "LPUSH a x", "SADD a x", "ZADD a 1 x", "SUNION a"), ["OK", *[WRONG] * 5]),
        (
            ("LPUSH a x", "GET a", "INCR a", "APPEND a x", "SETRANGE a 0 x", "GETRANGE a 0 1", "MGET a"),
            [1, *[WRONG] * 5, [None]],
        ),
        (
            (
                "RPUSH a 1 2 3",
                "TYPE a",
                "OBJECT ENCODING a",
                "COPY a b",
                "LPUSH b 0",
                "LRANGE a 0 -1",
                "RENAME b c",
                "LLEN c",
            ),
            [3, "list", b"listpack", 1, 4, [b"1", b"2", b"3"], "OK", 4],
        ),
        (("SADD a x", "EXPIRE a 9", "SADD a y", "TTL a", "SUNIONSTORE a a", "TTL a"), [1, 1, 1, 9, 2, -1]),
        (
            ("ZADD a 1 x 2 y", "ZRANK a y WITHSCORE", "ZRANK a z WITHSCORE", "ZADD a INCR 5 x", "ZRANGE a 0 -1 REV"),
            [2, [1, 2.0], NO_LIST, 6.0, [b"x", b"y"]],
        ),
        (
            ("ZADD a inf x", "ZINCRBY a -inf x", "ZSCORE a x"),
            [1, "!ERR resulting score is not a number (NaN)", float("inf")],
        ),
        (("ZADD a -0.0 x", "ZSCORE a x"), [1, 0.0]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_story(story: tuple[str, ...], results: list[Result]) -> None:
    assert run(KeyValue(), *story) == results


def test_replies_of_sets_and_hashes_can_be_told_apart_from_lists() -> None:
    machine = KeyValue()
    run(machine, "SADD s x", "HSET h f 1")
    members, pairs, fields = run(machine, "SMEMBERS s", "HGETALL h", "HKEYS h")
    assert type(members) is Members
    assert type(pairs) is dict
    assert type(fields) is list


@pytest.mark.parametrize("command", ["SRANDMEMBER a 5", "SPOP a 5", "SPOP a", "SRANDMEMBER a -5"])
def test_random_picks_are_equal_at_all_replicas_and_vary_over_time(command: str) -> None:
    one, other = filled("SADD", 200), filled("SADD", 200)
    run(other, "SRANDMEMBER a 7", at_ms=NOW_MS - 1)
    picks = []
    for second in range(5):
        (pick,) = run(one, command, at_ms=NOW_MS + second)
        assert [pick] == run(other, command, at_ms=NOW_MS + second)
        picks.append(pick)
    assert one.digest() == other.digest()
    assert len({str(pick) for pick in picks}) == 5


def test_a_few_picks_of_many_are_all_different() -> None:
    (picks,) = run(filled("SADD", 1000), "SRANDMEMBER a 400")
    assert isinstance(picks, list)
    assert len(set(picks)) == 400


def test_access_by_rank_and_at_both_ends_is_fast_in_long_collections() -> None:
    """Not a measurement: if the cost of each access grew with the length, this test would take minutes."""
    machine = KeyValue()
    count = 100_000
    pushes = [encode([b"LPUSH", b"l", b"x"]), encode([b"RPUSH", b"l", b"y"])] * (count // 2)
    machine.apply(pushes, NOW_MS)
    machine.apply([encode([b"ZADD", b"z", b"%d" % number, b"%d" % number]) for number in range(count)], NOW_MS)
    reads = [encode([b"LRANGE", b"l", b"-3", b"-1"]), encode([b"ZRANK", b"z", b"77777"]), encode([b"RPOP", b"l"])]
    results = machine.apply(reads * 2000, NOW_MS)
    assert results[:3] == [[b"y"] * 3, 77777, b"y"]
