"""Every writing command respects the agreed limit on the size of values."""

from collections.abc import Iterator

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import COMMANDS, KeyValue, encode, transaction
from pydsm.machines.kv.keyspace import VALUE_BYTES_LEAST, VALUE_BYTES_MAX, VALUE_BYTES_MOST
from tests.unit.machines.kv.arguments import SHAPES
from tests.unit.machines.kv.stories import NOW_MS, run

LONG = b"x" * (VALUE_BYTES_LEAST + 1)
REFUSED = CommandFailed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
NO_BIT = CommandFailed("ERR bit offset is not an integer or out of range")


def small_machine() -> KeyValue:
    machine = KeyValue()
    assert run(machine, f"VALUE-LIMIT {VALUE_BYTES_LEAST}") == ["OK"]
    return machine


def execute(machine: KeyValue, *words: bytes) -> Result:
    (result,) = machine.apply([encode(words)], NOW_MS)
    return result


def places_of_values() -> Iterator[tuple[bytes, ...]]:
    """Every writing command, with a word that is too long in place of each value, element, field or member."""
    letters = {"k": b"key", "i": b"1", "s": b"1", "r": b"1", "l": b"-", "n": b"1"}
    for name, shape in SHAPES.items():
        if not COMMANDS[name.encode()].writes:
            continue
        plain = "".join(part.split("]")[-1] for part in shape.replace("*", "").split("["))
        plain = plain.split("{")[0] + "".join(part.partition("}")[2] for part in plain.split("{")[1:])
        words = [letters.get(letter, b"v") for letter in plain]
        for place, letter in enumerate(plain):
            if letter == "m":
                yield (name.encode(), *words[:place], LONG, *words[place + 1 :])


@pytest.mark.parametrize("words", [*places_of_values()], ids=lambda words: f"{words[0].decode()}-{words.index(LONG)}")
def test_a_word_over_the_limit_is_refused_wherever_it_would_be_stored(words: tuple[bytes, ...]) -> None:
    machine = small_machine()
    before = machine.digest()
    command = COMMANDS[words[0]]
    while not command.takes(len(words)):
        words += (b"1",)
    assert execute(machine, *words) == REFUSED
    assert execute(machine, *transaction(b"watch", (), [encode(words)])) == [REFUSED]
    assert machine.digest() == before


def test_a_value_grows_up_to_the_limit_and_not_beyond() -> None:
    machine, limit = small_machine(), VALUE_BYTES_LEAST
    half = b"x" * (limit // 2)
    results = [execute(machine, b"APPEND", b"a", part) for part in (half, half, b"x", b"")]
    assert results == [limit // 2, limit, REFUSED, limit]
    assert execute(machine, b"SETRANGE", b"a", b"%d" % limit, b"x") == REFUSED
    assert execute(machine, b"SETRANGE", b"b", b"%d" % (limit - 1), b"x") == limit
    assert execute(machine, b"SETBIT", b"c", b"%d" % (8 * limit), b"1") == NO_BIT
    assert execute(machine, b"SETBIT", b"c", b"%d" % (8 * limit - 1), b"1") == 0
    assert execute(machine, b"STRLEN", b"c") == limit


def test_a_transaction_grows_a_value_no_further_than_single_commands() -> None:
    machine = small_machine()
    half = b"x" * (VALUE_BYTES_LEAST // 2)
    three = [encode([b"APPEND", b"a", half])] * 3
    assert execute(machine, *transaction(b"watch", (), three)) == [len(half), 2 * len(half), REFUSED]


def test_setbit_writes_up_to_the_limit_and_is_refused_beyond() -> None:
    assert execute(KeyValue(), b"SETBIT", b"k", b"4294967295", b"1") == NO_BIT
    assert run(KeyValue(), f"SETBIT k {8 * VALUE_BYTES_MAX - 1} 1", "STRLEN k") == [0, VALUE_BYTES_MAX]


def test_the_limit_belongs_to_the_state() -> None:
    machine, other = small_machine(), KeyValue()
    assert machine.digest() != other.digest()
    other.restore(list(machine.snapshot()))
    assert other.value_bytes_max == VALUE_BYTES_LEAST
    assert machine.digest() == other.digest()
    assert run(machine, "FLUSHALL", f"VALUE-LIMIT {VALUE_BYTES_LEAST - 1}", f"VALUE-LIMIT {VALUE_BYTES_MOST + 1}") == [
        "OK", *[f"!ERR the limit must be between {VALUE_BYTES_LEAST} and {VALUE_BYTES_MOST} bytes"] * 2
    ]  # fmt: skip
    assert machine.value_bytes_max == VALUE_BYTES_LEAST


def test_a_replica_proposes_its_configured_limit_until_a_limit_is_agreed() -> None:
    machine = KeyValue(2 << 20)
    command = encode([b"VALUE-LIMIT", b"%d" % (2 << 20)])
    assert machine.due_commands(NOW_MS) == machine.due_commands(NOW_MS) == [command]
    other = encode([b"VALUE-LIMIT", b"%d" % (3 << 20)])
    machine.apply([other], NOW_MS)
    assert machine.value_bytes_max == 3 << 20
    assert machine.due_commands(NOW_MS) == []  # two replicas that were told differently do not alternate for ever


def test_a_replica_without_a_limit_or_with_the_agreed_one_proposes_none() -> None:
    assert KeyValue().due_commands(NOW_MS) == KeyValue(VALUE_BYTES_MAX).due_commands(NOW_MS) == []
    with pytest.raises(UsageError, match="must be between 1048576 and 536870912, not 5"):
        KeyValue(5)
