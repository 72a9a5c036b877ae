"""Commands on keys of any kind, and on all keys."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.types.messages import Footprint
from pydsm.machines.base import Result
from pydsm.machines.kv import KeyValue, encode
from pydsm.machines.kv.glob import matcher
from pydsm.machines.kv.keyspace import key_hash
from tests.unit.machines.kv.stories import NOW_MS, parse, run


@pytest.mark.parametrize(
    ("story", "results"),
    [
        (("SET a 1 EX 9", "RENAME a b", "EXISTS a", "TTL b"), ["OK", "OK", 0, 9]),
        (("SET a 1", "SET b 2 EX 9", "RENAME a b", "TTL b", "GET b"), ["OK", "OK", "OK", -1, b"1"]),
        (("RENAME a b", "RENAMENX a b"), ["!ERR no such key"] * 2),
        (("SET a 1", "RENAME a a", "GET a", "RENAMENX a a"), ["OK", "OK", b"1", 0]),
        (("SET a 1", "SET b 2", "RENAMENX a b", "RENAMENX a c", "MGET a b c"), ["OK", "OK", 0, 1, [None, b"2", b"1"]]),
        (
            ("SET a 1 EX 9", "COPY a b", "TTL b", "COPY a b", "SET a 2", "COPY a b REPLACE DB 0", "GET b"),
            ["OK", 1, 9, 0, "OK", 1, b"2"],
        ),
        (
            ("COPY a b", "COPY a a", "COPY a b DB 1", "COPY a b LATER"),
            [
                0,
                "!ERR source and destination objects are the same",
                "!ERR DB index is out of range",
                "!ERR syntax error",
            ],
        ),
        (("MSET a 1 b 2", "EXISTS a a c", "TOUCH a b", "DEL a a c", "UNLINK b"), ["OK", 2, 2, 1, 1]),
        (
            (
                "SET a 12",
                "SET b word",
                f"SET c {'x' * 45}",
                "OBJECT ENCODING a",
                "OBJECT encoding b",
                "OBJECT ENCODING c",
            ),
            ["OK", "OK", "OK", b"int", b"embstr", b"raw"],
        ),
        (("OBJECT ENCODING a", "SET a 1", "OBJECT REFCOUNT a"), [None, "OK", 1]),
        (
            ("OBJECT FREQ a", "OBJECT ENCODING"),
            [
                "!ERR unknown subcommand 'FREQ'. Try OBJECT HELP.",
                "!ERR wrong number of arguments for 'object|encoding' command",
            ],
        ),
        (
            ("MSET one 1 two 2 three 3", "KEYS t*", "KEYS *", "KEYS [^o]?o"),
            ["OK", [b"three", b"two"], [b"one", b"three", b"two"], [b"two"]],
        ),
        (("RANDOMKEY", "SET a 1", "RANDOMKEY"), [None, "OK", b"a"]),
        (("SET a 1", "FLUSHDB", "DBSIZE"), ["OK", "OK", 0]),
        (("TIME",), [[b"%d" % (NOW_MS // 1000), b"0"]]),
        (
            ("SCAN x", "SCAN 1x", "SCAN 0 COUNT 0", "SCAN 0 MATCH", "SCAN 0 SIZE 3"),
            ["!ERR invalid cursor", "!ERR invalid cursor", *["!ERR syntax error"] * 3],
        ),
        (
            ("SET a 1", "SCAN 0 TYPE string", "SCAN 0 TYPE hash", "SCAN 0 MATCH b*"),
            ["OK", [b"0", [b"a"]], [b"0", []], [b"0", []]],
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_story(story: tuple[str, ...], results: list[Result]) -> None:
    assert run(KeyValue(), *story) == results


def test_copy_reads_one_key_and_writes_the_other() -> None:
    assert KeyValue().footprint([parse("COPY a b")]) == Footprint(reads=(b"a",), writes=(b"b",))


def scan_all(machine: KeyValue, count: int, between: object = None) -> list[bytes]:
    """All keys of a complete scan."""
    found: list[bytes] = []
    cursor = b"0"
    for _ in range(10_000):
        (reply,) = run(machine, f"SCAN {cursor.decode()} COUNT {count}")
        assert isinstance(reply, list)
        cursor, keys = reply
        found += keys
        if cursor == b"0":
            return found
        if callable(between):
            between()
    raise AssertionError("the scan does not end")


@given(st.sets(st.binary(max_size=4), max_size=60), st.integers(1, 20))
def test_scan_returns_every_key_once(keys: set[bytes], count: int) -> None:
    machine = KeyValue()
    machine.apply([encode([b"SET", key, b""]) for key in keys], NOW_MS)
    assert sorted(scan_all(machine, count)) == sorted(keys)


def test_scan_returns_keys_that_stay_while_others_are_added_and_removed() -> None:
    machine = KeyValue()
    run(machine, *(f"SET stays{number} x" for number in range(50)), *(f"SET goes{number} x" for number in range(50)))
    turn = iter(range(10_000))

    def disturb() -> None:
        number = next(turn)
        run(machine, f"DEL goes{number}", f"SET comes{number} x")

    assert {key for key in scan_all(machine, 3, disturb) if key.startswith(b"stays")} == {
        b"stays%d" % number for number in range(50)
    }


def test_a_cursor_means_the_same_at_a_replica_that_was_filled_in_another_order() -> None:
    one, other = KeyValue(), KeyValue()
    keys = [f"SET k{number} x" for number in range(30)]
    run(one, *keys)
    run(other, *reversed(keys))
    (first,) = run(one, "SCAN 0 COUNT 7")
    assert [first] == run(other, "SCAN 0 COUNT 7")
    assert isinstance(first, list)
    assert run(one, f"SCAN {first[0].decode()} COUNT 7") == run(other, f"SCAN {first[0].decode()} COUNT 7")


def test_random_keys_are_equal_at_all_replicas_and_vary_over_time() -> None:
    one, other = KeyValue(), KeyValue()
    keys = [f"SET k{number} x" for number in range(30)]
    run(one, *keys)
    run(other, *reversed(keys))
    run(other, "RANDOMKEY", "RANDOMKEY", at_ms=NOW_MS - 5)
    drawn = run(one, *["RANDOMKEY"] * 20)
    assert drawn == run(other, *["RANDOMKEY"] * 20)
    assert len(set(map(str, drawn))) > 5


def test_the_order_of_scan_never_changes_between_versions() -> None:
    assert key_hash(b"key") == 0x37B1B2E85A59


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"", [b""], [b"a"]),
        (b"*", [b"", b"anything"], []),
        (b"**", [b"anything"], [b""]),
        (b"a*c", [b"ac", b"abc", b"abcc"], [b"ab", b"bac"]),
        (b"a?c", [b"abc"], [b"ac", b"abbc"]),
        (b"[abc]x", [b"ax", b"cx"], [b"dx", b"x"]),
        (b"[^abc]x", [b"dx"], [b"ax"]),
        (b"[a-c]", [b"b"], [b"d", b"-"]),
        (b"[c-a]", [b"b"], [b"d"]),
        (b"[a\\]]", [b"]", b"a"], [b"\\"]),
        (b"[ab", [b"a", b"b"], [b"[", b"c"]),
        (b"\\*a", [b"*a"], [b"aa", b"\\*a"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"*a*b*", [b"ab", b"xaxbx"], [b"ba"]),
    ],
)
def test_patterns_mean_what_they_mean_in_redis(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    matches = matcher(pattern)
    assert all(map(matches, yes))
    assert not any(map(matches, no))


@given(st.text("ab*?", max_size=8), st.text("ab", min_size=1, max_size=10))
def test_patterns_of_stars_and_question_marks_are_as_in_the_shell(pattern: str, text: str) -> None:
    assert matcher(pattern.encode())(text.encode()) == fnmatch.fnmatchcase(text, pattern)


def test_a_pattern_of_many_stars_takes_no_exponential_time() -> None:
    assert not matcher(b"*a" * 200 + b"b")(b"a" * 2000)
