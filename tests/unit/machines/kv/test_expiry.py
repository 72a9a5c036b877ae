"""Expiry depends on the agreed time only; reads ignore expired keys; writes and scheduled commands remove them."""

import pytest

from pydsm.machines.base import Result, SupportsScheduledCommands
from pydsm.machines.kv import KeyValue, encode
from tests.unit.machines.kv.stories import NOW_MS, run

S = 1000


@pytest.mark.parametrize(
    ("story", "results"),
    [
        (("EXPIRE a 9", "TTL a", "SET a 1", "EXPIRE a 9", "TTL a", "PTTL a"), [0, -2, "OK", 1, 9, 9 * S]),
        (("SET a 1", "PEXPIRE a 1501", "TTL a", "PTTL a"), ["OK", 1, 2, 1501]),
        (("SET a 1", f"EXPIREAT a {NOW_MS // S + 5}", "TTL a", "EXPIRETIME a"), ["OK", 1, 5, NOW_MS // S + 5]),
        (("SET a 1", f"PEXPIREAT a {NOW_MS + 5}", "PTTL a", "PEXPIRETIME a"), ["OK", 1, 5, NOW_MS + 5]),
        (("SET a 1", "PERSIST a", "EXPIRE a 9", "PERSIST a", "TTL a", "PERSIST b"), ["OK", 0, 1, 1, -1, 0]),
        (("SET a 1", "EXPIRE a -1", "EXISTS a", "EXPIRETIME a", "PEXPIRETIME a", "PTTL a"), ["OK", 1, 0, -2, -2, -2]),
        (("SET a 1", "EXPIRE a 0", "GET a"), ["OK", 1, None]),
        (
            ("SET a 1", "EXPIRE a 9 XX", "EXPIRE a 9 NX", "EXPIRE a 8 NX", "EXPIRE a 7 XX", "TTL a"),
            ["OK", 0, 1, 0, 1, 7],
        ),
        (
            ("SET a 1", "EXPIRE a 9 GT", "EXPIRE a 9 LT", "EXPIRE a 9 LT", "EXPIRE a 8 lt", "EXPIRE a 7 GT", "TTL a"),
            ["OK", 0, 1, 0, 1, 0, 8],
        ),
        (
            ("EXPIRE a 1 NX GT", "EXPIRE a 1 GT LT", "EXPIRE a 1 ZZ", "EXPIRE a x"),
            [
                "!ERR NX and XX, GT or LT options at the same time are not compatible",
                "!ERR GT and LT options at the same time are not compatible",
                "!ERR Unsupported option ZZ",
                "!ERR value is not an integer or out of range",
            ],
        ),
        (
            (f"EXPIRE a {2**62}", f"PEXPIRE a {2**63 - 1}"),
            ["!ERR invalid expire time in 'expire' command", "!ERR invalid expire time in 'pexpire' command"],
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_story(story: tuple[str, ...], results: list[Result]) -> None:
    assert run(KeyValue(), *story) == results


def test_an_expired_key_is_missing_for_all_commands() -> None:
    machine = KeyValue()
    run(machine, "SET a 1 PX 10", "SET b 2")
    everything = (
        "GET a",
        "MGET a b",
        "EXISTS a b",
        "TYPE a",
        "TTL a",
        "STRLEN a",
        "DBSIZE",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
    )
    assert run(machine, "GET a", "DBSIZE", at_ms=NOW_MS + 9) == [b"1", 2]
    assert run(machine, *everything, at_ms=NOW_MS + 10) == [
        None, [None, b"2"], 1, "none", -2, 0, 1, [b"b"], [b"0", [b"b"]], b"b"
    ]  # fmt: skip


def test_reading_an_expired_key_changes_nothing_so_that_reads_commute() -> None:
    one, other = KeyValue(), KeyValue()
    for machine in (one, other):
        run(machine, "SET a 1 PX 10")
    run(one, "GET a", "EXISTS a", "KEYS *", at_ms=NOW_MS + 10)
    assert one.digest() == other.digest()
    assert run(one, "GET a", at_ms=NOW_MS + 9) == [b"1"]  # a reader whose replica's clock is behind


def test_a_write_removes_an_expired_key_for_all_later_readers() -> None:
    machine = KeyValue()
    run(machine, "SET a 1 PX 10")
    assert run(machine, "APPEND a 2", "PTTL a", at_ms=NOW_MS + 10) == [1, -1]
    assert run(machine, "GET a", at_ms=NOW_MS + 5) == [b"2"]


@pytest.mark.parametrize(
    ("line", "result"), [("SETNX a 2", 1), ("SET a 2 NX", "OK"), ("INCR a", 1), ("GETDEL a", None), ("DEL a", 0)]
)
def test_a_writer_finds_an_expired_key_missing(line: str, result: Result) -> None:
    machine = KeyValue()
    run(machine, "SET a 7 PX 10")
    assert run(machine, line, at_ms=NOW_MS + 10) == [result]


def test_expired_keys_are_due_until_they_are_removed() -> None:
    machine = KeyValue()
    assert isinstance(machine, SupportsScheduledCommands)
    run(machine, "SET a 1 PX 10", "SET b 1 PX 20", "SET c 1 PX 10", "SET c 1", "SET d 1 PX 5", "PEXPIRE d 50")
    assert machine.due_commands(NOW_MS + 9) == []
    assert machine.due_commands(NOW_MS + 10) == machine.due_commands(NOW_MS + 10) == [encode([b"REAP", b"a"])]
    (due,) = machine.due_commands(NOW_MS + 30)
    assert due == encode([b"REAP", b"a", b"b"])
    assert machine.apply([due], NOW_MS + 30) == ["OK"]
    assert machine.due_commands(NOW_MS + 30) == []
    assert run(machine, "GET a", "GET b", "GET c", "GET d", at_ms=NOW_MS) == [None, None, b"1", b"1"]


def test_keys_that_have_not_expired_by_the_agreed_time_are_not_removed() -> None:
    machine = KeyValue()
    run(machine, "SET a 1 PX 10")
    machine.apply(machine.due_commands(NOW_MS + 10), NOW_MS + 9)
    assert run(machine, "GET a", at_ms=NOW_MS + 9) == [b"1"]


def test_a_key_whose_expiry_is_set_again_and_again_costs_no_more_than_once() -> None:
    machine = KeyValue()
    for number in range(3000):
        run(machine, f"SET a {number} EX 1000")
    assert len(machine._space._due) < 100


def test_digests_differ_by_expiry() -> None:
    one, other = KeyValue(), KeyValue()
    run(one, "SET a 1 PX 10")
    run(other, "SET a 1 PX 11")
    assert one.digest() != other.digest()
