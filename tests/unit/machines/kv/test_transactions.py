"""Transactions in the machine: executed atomically, or not at all if a watched key was changed."""

import pytest

from pydsm.core.types.messages import Footprint
from pydsm.machines.base import Result
from pydsm.machines.kv import NO_LIST, KeyValue, encode, keyspace, transaction
from pydsm.machines.kv.keyspace import WATCH_MS_MAX
from tests.unit.machines.kv.stories import NOW_MS, parse, plain, run

ME, YOU = b"me", b"you"


def watch(*keys: str, who: bytes = ME) -> bytes:
    return encode([b"WATCH", who, *(key.encode() for key in keys)])


def unwatch(*keys: str, who: bytes = ME) -> bytes:
    return encode([b"UNWATCH", who, *(key.encode() for key in keys)])


def execute(watched: str, *lines: str, who: bytes = ME) -> bytes:
    return encode(transaction(who, [key.encode() for key in watched.split()], [parse(line) for line in lines]))


def test_a_transaction_gives_the_results_of_its_commands() -> None:
    machine = KeyValue()
    assert plain(machine, [execute("", "SET a 1", "INCR a", "GET a", "MGET a b")]) == [["OK", 2, b"2", [b"2", None]]]


def test_a_command_that_fails_does_not_undo_the_others() -> None:
    machine = KeyValue()
    failed = "!ERR value is not an integer or out of range"
    assert plain(machine, [execute("", "SET a x", "INCR a", "SET b 1")]) == [["OK", failed, "OK"]]
    assert run(machine, "MGET a b") == [[b"x", b"1"]]


def test_its_footprint_has_the_keys_of_its_commands_and_writes_the_watched_ones() -> None:
    machine = KeyValue()
    assert machine.footprint([execute("w", "GET r", "SET s 1")]) == Footprint(reads=(b"r",), writes=(b"w", b"s"))
    assert machine.footprint([execute("", "DBSIZE")]).barrier
    assert (
        machine.footprint([watch("a", "b")]) == machine.footprint([unwatch("a", "b")]) == Footprint(writes=(b"a", b"b"))
    )


@pytest.mark.parametrize(
    "change",
    [
        "SET a 2",
        "SET a 1",
        "DEL a",
        "APPEND a x",
        "INCR a",
        "EXPIRE a 9",
        "RENAME a b",
        "FLUSHALL",
        "GETDEL a",
        "MSET a 1",
    ],
)
def test_nothing_is_executed_when_a_watched_key_was_changed(change: str) -> None:
    machine = KeyValue()
    run(machine, "SET a 1")
    plain(machine, [watch("a")])
    run(machine, change)
    assert plain(machine, [execute("a", "SET b 1")]) == [NO_LIST]
    assert run(machine, "SETNX b 0") != [None]


@pytest.mark.parametrize("harmless", ["GET a", "SET b 2", "SET a 2 NX", "SETNX a 2", "TTL a", "DEL b", "PERSIST a"])
def test_a_transaction_is_executed_if_no_watched_key_was_changed(harmless: str) -> None:
    machine = KeyValue()
    run(machine, "SET a 1")
    plain(machine, [watch("a")])
    run(machine, harmless)
    assert plain(machine, [execute("a", "SET c 1")]) == [["OK"]]


def test_a_watched_key_that_was_missing_must_stay_missing() -> None:
    machine = KeyValue()
    plain(machine, [watch("a")])
    assert plain(machine, [execute("a", "SET a 1")]) == [["OK"]]
    plain(machine, [unwatch("b"), watch("b")])
    run(machine, "SET b 1", "DEL b")
    assert plain(machine, [execute("b", "SET a 2")]) == [NO_LIST]


def test_a_watched_key_that_expires_was_changed() -> None:
    machine = KeyValue()
    run(machine, "SET a 1 PX 10")
    plain(machine, [watch("a")])
    assert plain(machine, [execute("a", "SET b 1")], NOW_MS + 10) == [NO_LIST]


def test_a_key_that_had_expired_before_it_was_watched_is_missing() -> None:
    machine = KeyValue()
    run(machine, "SET a 1 PX 10")
    plain(machine, [watch("a")], NOW_MS + 10)
    assert plain(machine, [execute("a", "SET b 1")], NOW_MS + 11) == [["OK"]]


def test_every_watched_key_counts_and_all_watches_end_with_the_transaction() -> None:
    machine = KeyValue()
    plain(machine, [watch("a", "b")])
    run(machine, "SET b 1")
    assert plain(machine, [execute("a b", "SET c 1"), execute("a", "SET c 1")]) == [NO_LIST, NO_LIST]


def test_watches_of_other_clients_are_kept() -> None:
    machine = KeyValue()
    plain(machine, [watch("a"), watch("a", who=YOU), unwatch("a")])
    assert plain(machine, [execute("a", "SET b 1", who=YOU)]) == [["OK"]]
    plain(machine, [watch("a", who=YOU)])
    assert plain(machine, [execute("a", "SET b 1")]) == [NO_LIST]


def test_watches_are_part_of_the_state_and_leave_nothing_behind() -> None:
    machine, other = KeyValue(), KeyValue()
    plain(machine, [watch("a")])
    assert machine.digest() != other.digest()
    plain(machine, [unwatch("a")])
    assert machine.digest() == other.digest()
    plain(machine, [watch("a"), execute("a")])
    assert machine.digest() == other.digest()


def test_the_oldest_watch_of_a_key_is_removed_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyspace, "WATCHES_PER_KEY_MAX", 2)
    machine = KeyValue()
    plain(machine, [watch("a", who=b"%d" % number) for number in range(3)])
    results: list[Result] = plain(machine, [execute("a", "GET b", who=b"%d" % number) for number in range(3)])
    assert results == [NO_LIST, [None], [None]]


def test_old_watches_are_removed_by_a_scheduled_command() -> None:
    machine = KeyValue()
    plain(machine, [watch("a", "b")])
    plain(machine, [watch("b", who=YOU)], NOW_MS + 1)
    assert machine.due_commands(NOW_MS + WATCH_MS_MAX - 1) == []
    (due,) = machine.due_commands(NOW_MS + WATCH_MS_MAX)
    assert due == encode([b"REAP", b"a"])
    plain(machine, [due], NOW_MS + WATCH_MS_MAX)
    assert machine.due_commands(NOW_MS + WATCH_MS_MAX) == []
    plain(machine, machine.due_commands(NOW_MS + WATCH_MS_MAX + 1) * 1, NOW_MS + WATCH_MS_MAX + 1)
    assert machine.digest() == KeyValue().digest()
