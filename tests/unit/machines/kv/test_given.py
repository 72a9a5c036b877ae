"""The limit on the results of one batch is the same at every replica."""

import pytest

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import KeyValue, encode, given


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten values of ten thousand bytes."""
    monkeypatch.setattr(given, "RESULTS_BYTES_MAX", 100_000)


def machine(*, changed_in_place: bool) -> KeyValue:
    """A machine with a long string, a short one and a list. The changed string has another form, without effect."""
    made = KeyValue()
    made.apply([encode([b"SET", b"long", b"x" * 9_999]), encode([b"SET", b"short", b"s"])], 0)
    made.apply([encode([b"APPEND", b"long", b"y"])], 0)
    made.apply([encode([b"RPUSH", b"list", *[b"%d" % number for number in range(200)]])], 0)
    if not changed_in_place:
        again = KeyValue()
        again.restore(list(made.snapshot()))
        return again
    return made


def failures(results: list[object]) -> list[bool]:
    return [isinstance(result, CommandFailed) for result in results]


BIG = {
    "GET": [b"GET", b"long"],
    "GETRANGE": [b"GETRANGE", b"long", b"0", b"-1"],
    "GETEX": [b"GETEX", b"long", b"PERSIST"],
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("changed_in_place", [True, False])
def test_results_over_the_limit_are_errors_and_small_results_are_not(name: str, changed_in_place: bool) -> None:
    commands = [encode(BIG[name])] * 12 + [encode([b"STRLEN", b"long"]), encode([b"GET", b"short"])]
    results = machine(changed_in_place=changed_in_place).apply(commands, 0)
    assert failures(results) == [False] * 10 + [True] * 2 + [False] * 2
    assert "over 100000 bytes" in str(results[10])
    assert results[12:] == [10_000, b"s"]


@pytest.mark.parametrize("changed_in_place", [True, False])
def test_commands_of_one_name_in_a_row_count_like_others(changed_in_place: bool) -> None:
    commands = [encode([b"GET", b"short"])] * 3 + [encode([b"GET", b"long"])] * 11
    results = machine(changed_in_place=changed_in_place).apply(commands, 0)
    assert failures(results) == [False] * 12 + [True] * 2


def test_the_limit_is_reset_for_the_next_batch() -> None:
    made = machine(changed_in_place=True)
    for _ in range(3):
        assert failures(made.apply([encode([b"GET", b"long"])] * 10, 0)) == [False] * 10


def test_elements_of_an_array_count() -> None:
    results = machine(changed_in_place=True).apply([encode([b"LRANGE", b"list", b"0", b"-1"])] * 9, 0)
    assert failures(results) == [False] * 7 + [True] * 2


def test_one_value_that_is_named_many_times_is_copied_once() -> None:
    (values,) = machine(changed_in_place=True).apply([encode([b"MGET", *[b"long"] * 1000, b"none", b"list"])], 0)
    assert isinstance(values, list)
    assert values[1000:] == [None, None]
    assert len({*map(id, values[:1000])}) == 1


def test_a_transaction_has_the_same_limit_and_still_executes_its_writes() -> None:
    made = machine(changed_in_place=True)
    get, push = encode([b"GETRANGE", b"long", b"0", b"-1"]), encode([b"RPUSH", b"list", b"x"])
    (results,) = made.apply([encode([b"EXEC", b"watch", b"0", *[get] * 12, push])], 0)
    assert isinstance(results, list)
    assert failures(results) == [False] * 10 + [True] * 2 + [False]
    assert results[12] == 201
