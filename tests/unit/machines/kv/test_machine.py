"""The key-value machine: results and effects of commands, footprints of batches, and digests."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import footprints_conflict
from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, Command, KeyAccess, KeyValue, Words, encode, transaction
from pydsm.machines.kv.keyspace import Keyspace
from pydsm.machines.kv.table import EVERY_COMMAND
from tests.unit.machines.kv.stories import parse, run

NOT_AN_INTEGER = "ERR value is not an integer or out of range"
OVERFLOW = "ERR increment or decrement would overflow"
MOST, LEAST = str(2**63 - 1), str(-(2**63))


def footprint(*lines: str) -> Footprint:
    return KeyValue().footprint([parse(line) for line in lines])


@pytest.mark.parametrize(
    ("story", "results"),
    [
        (("GET a", "SET a 1", "GET a"), [None, "OK", b"1"]),
        (("SET a _", "GET a", "STRLEN a", "EXISTS a"), ["OK", b"", 0, 1]),
        (("SET a 1 NX", "SET a 2 nx", "GET a"), ["OK", None, b"1"]),
        (("SET a 1 XX", "SET a 1", "SET a 2 xx", "GET a"), [None, "OK", "OK", b"2"]),
        (("SET a 1 GET", "SET a 2 GET", "GET a"), [None, b"1", b"2"]),
        (("SET a 1 NX GET", "SET a 2 NX GET", "GET a"), [None, b"1", b"1"]),
        (("SET a 1 XX GET", "GET a", "SET a 1", "SET a 2 GET XX", "GET a"), [None, None, "OK", b"1", b"2"]),
        (("SET a 1 NX XX", "GET a"), ["!ERR syntax error", None]),
        (("SET a 1 MAYBE", "GET a"), ["!ERR syntax error", None]),
        (("SETNX a 1", "SETNX a 2", "GET a"), [1, 0, b"1"]),
        (("GETSET a 1", "GETSET a 2", "GET a"), [None, b"1", b"2"]),
        (("GETDEL a", "SET a 1", "GETDEL a", "EXISTS a"), [None, "OK", b"1", 0]),
        (("MSET a 1 b 2 a 3", "MGET a b c a"), ["OK", [b"3", b"2", None, b"3"]]),
        (("MSET a 1 b", "EXISTS a"), ["!ERR wrong number of arguments for 'mset' command", 0]),
        (("MSET a 1 b 2", "DEL a c a", "UNLINK b", "DBSIZE"), ["OK", 1, 1, 0]),
        (("SET a 1", "EXISTS a a b"), ["OK", 2]),
        (("INCR a", "INCRBY a 41", "DECR a", "DECRBY a 50", "GET a"), [1, 42, 41, -9, b"-9"]),
        (("SET a one", "INCR a", "GET a"), ["OK", f"!{NOT_AN_INTEGER}", b"one"]),
        ((f"SET a {MOST}", "INCR a", "GET a"), ["OK", f"!{OVERFLOW}", MOST.encode()]),
        ((f"SET a {LEAST}", "DECR a", "GET a"), ["OK", f"!{OVERFLOW}", LEAST.encode()]),
        ((f"INCRBY a {LEAST}", f"DECRBY a {LEAST}"), [int(LEAST), "!ERR decrement would overflow"]),
        (("APPEND a x", "APPEND a yz", "GET a"), [1, 3, b"xyz"]),
        (("STRLEN a", "SET a four", "STRLEN a"), [0, "OK", 4]),
        (("TYPE a", "SET a 1", "TYPE a"), ["none", "OK", "string"]),
        (("SET a 1", "SET b 1", "DBSIZE", "FLUSHALL", "DBSIZE"), ["OK", "OK", 2, "OK", 0]),
        (("SET a 1", "FLUSHALL ASYNC", "DBSIZE"), ["OK", "OK", 0]),
        (("SET a 1", "FLUSHALL NOW", "DBSIZE"), ["OK", "!ERR syntax error", 1]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_story(story: tuple[str, ...], results: list[Result]) -> None:
    assert run(KeyValue(), *story) == results


@pytest.mark.parametrize(
    "word", ["x", "_", "+1", "01", "-0", "1.0", "0x1", "9" * 19, str(2**63), f"-{2**63 + 1}", "\u0661"]
)
def test_words_that_redis_does_not_accept_as_numbers_are_refused(word: str) -> None:
    assert run(KeyValue(), f"INCRBY a {word}", "EXISTS a") == [f"!{NOT_AN_INTEGER}", 0]


@given(st.dictionaries(st.binary(), st.binary(), min_size=1))
def test_get_returns_the_value_that_was_set(pairs: dict[bytes, bytes]) -> None:
    machine = KeyValue()
    words = [word for pair in pairs.items() for word in pair]
    assert machine.apply([encode([b"MSET", *words]), encode([b"MGET", *pairs])], 0) == ["OK", list(pairs.values())]


# Failures


def _breaks(space: Keyspace, words: Words) -> Result:
    raise ZeroDivisionError(id(space))


def _eats_memory(space: Keyspace, words: Words) -> Result:
    raise MemoryError


def with_command(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    row = Command(b"BOOM", function, KeyAccess.WRITE, 2, 2, slice(1, 2), "")  # type: ignore[arg-type]
    monkeypatch.setitem(EVERY_COMMAND, b"BOOM", row)


def test_command_that_raises_is_a_result_and_the_batch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, _breaks)
    text = "!ERR internal error: ZeroDivisionError"
    assert run(KeyValue(), "SET a 1", "BOOM a", "INCR a") == ["OK", text, 2]


def test_a_memory_error_is_raised_because_other_replicas_may_have_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_command(monkeypatch, _eats_memory)
    with pytest.raises(MemoryError):
        run(KeyValue(), "BOOM a")


def test_agreed_command_that_does_not_parse_is_a_result_too() -> None:
    results = KeyValue().apply([b"\xff", encode([b"NOSUCH"]), encode([b"SET", b"a", b"1"])], 0)
    assert [type(result) for result in results] == [CommandFailed, CommandFailed, str]


# Footprints


def test_footprint_has_each_key_once_and_writes_hide_reads() -> None:
    assert footprint("GET a", "MGET a b c", "INCR b", "MSET d 1 e 2", "DEL d f") == Footprint(
        reads=(b"a", b"c"), writes=(b"b", b"d", b"e", b"f")
    )


@pytest.mark.parametrize("line", ["DBSIZE", "FLUSHALL"])
def test_command_over_all_keys_is_a_barrier(line: str) -> None:
    assert footprint("GET a", line) == Footprint(reads=(b"a",), barrier=True)


def _sample(command: Command) -> str:
    """The shortest valid command on key a with number 1."""
    words = [command.name.decode(), "a", *["1"] * 9]
    return " ".join(words[: max(command.words_min, 1)])


@pytest.mark.parametrize("left", COMMANDS.values(), ids=lambda command: command.name.decode())
def test_commands_that_do_not_conflict_give_the_same_in_either_order(left: Command) -> None:
    one = _sample(left)
    for right in COMMANDS.values():
        other = _sample(right)
        if footprints_conflict(footprint(one), footprint(other)):
            continue
        for before in ((), ("SET a 7",)):
            forwards, backwards = KeyValue(), KeyValue()
            run(forwards, *before)
            run(backwards, *before)
            first, second = run(forwards, one), run(forwards, other)
            assert (second, first) == (run(backwards, other), run(backwards, one)), other
            assert forwards.digest() == backwards.digest(), other


def test_two_increments_of_a_key_conflict_because_each_returns_the_sum() -> None:
    assert footprints_conflict(footprint("INCR a"), footprint("INCR a"))
    assert not footprints_conflict(footprint("INCR a"), footprint("INCR b"))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (encode([b"NOSUCH"]), "ERR unknown command 'NOSUCH'"),
        (encode([b"get", b"a"]), "ERR unknown command 'get'"),
        (encode([]), "ERR unknown command ''"),
        (encode([b"GET"]), "ERR wrong number of arguments for 'get' command"),
        (encode([b"GET", b"a", b"b"]), "ERR wrong number of arguments for 'get' command"),
        (b"", "ERR not an encoded command"),
        (b"\x93\x01\x02\x03", "ERR not an encoded command"),
        (encode([b"DBSIZE"]) * 2, "ERR not an encoded command"),
        (encode(transaction(b"w", (), [b"\xc1"])), "ERR not an encoded command in a transaction"),
        (encode(transaction(b"w", (), [encode([b"NOSUCH"])])), "ERR a transaction with a command that is unknown"),
        (encode(transaction(b"w", (), [encode([b"GET"])])), "ERR a transaction with a command that is unknown"),
        (encode(transaction(b"w", (), [encode([])])), "ERR a transaction with a command that is unknown"),
    ],
)
def test_unknown_command_is_refused_before_agreement(command: bytes, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        KeyValue().footprint([command])
    assert str(raised.value).startswith(text)


@given(st.binary())
def test_random_bytes_are_a_usage_error_or_a_valid_command(garbage: bytes) -> None:
    try:
        KeyValue().footprint([garbage])
    except UsageError:
        assert isinstance(KeyValue().apply([garbage], 0)[0], CommandFailed)


# Digests


def test_digest_depends_on_every_bit_of_the_state_but_not_on_the_order_of_writes() -> None:
    stories = (("MSET a 1 b 2",), ("SET b 2", "SET c 3", "SET a 1", "DEL c"), ("SET a 1", "SET b 1", "INCR b"))
    digests: set[bytes] = set()
    for story in stories:
        machine = KeyValue()
        run(machine, *story)
        digests.add(machine.digest())
    assert len(digests) == 1
    assert {len(digest) for digest in digests} == {32}


@given(
    st.dictionaries(st.binary(max_size=3), st.binary(max_size=3)),
    st.dictionaries(st.binary(max_size=3), st.binary(max_size=3)),
)
def test_digests_are_equal_exactly_when_states_are(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    assert (_digest_of(one) == _digest_of(other)) == (one == other)


def test_digest_differs_by_one_key_in_a_thousand() -> None:
    numbers = {b"%d" % number: b"" for number in range(2000)}
    assert _digest_of(numbers) != _digest_of({**numbers, b"1999": b"x"})


def _digest_of(pairs: dict[bytes, bytes]) -> bytes:
    machine = KeyValue()
    machine.apply([encode([b"SET", key, value]) for key, value in pairs.items()], 0)
    return machine.digest()


def test_digest_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from pydsm.machines.kv import KeyValue, encode; machine = KeyValue(); "
        "machine.apply([encode([b'SET', b'%d' % n, b'v']) for n in range(100)], 0); print(machine.digest().hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
