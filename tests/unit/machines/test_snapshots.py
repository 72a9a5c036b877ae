"""Snapshots of machines contain the state at one time, whatever is executed meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Protocol

import pytest

from pydsm.core.sessions.sessions import Sessions
from pydsm.machines.base import Result, SupportsSnapshots
from pydsm.machines.counters import Add, CountersMachine
from pydsm.machines.counters import encode as encode_counter
from pydsm.machines.kv import KeyValue, encode
from pydsm.machines.kv.transactions import transaction
from pydsm.machines.partitions import partition_keys
from pydsm.runtime.replicated import ReplicatedState
from tests.unit.machines.kv.arguments import DETERMINISTIC, random_command
from tests.unit.machines.kv.stories import NOW_MS, run


class Machine(Protocol):
    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]: ...
    def digest(self) -> bytes: ...
    def snapshot(self) -> Iterator[bytes]: ...
    def restore(self, chunks: Iterable[bytes]) -> None: ...


def some_values(random: Random) -> bytes:
    if random.random() < 0.02:
        return encode([b"FLUSHALL"])
    if random.random() < 0.1:
        inner = [encode(random_command(random, random.choice(DETERMINISTIC))) for _ in range(2)]
        return encode(transaction(b"watch", [b"a"], inner))
    if random.random() < 0.1:
        return encode([b"WATCH", b"%d" % random.randrange(3), random.choice([b"a", b"none"])])
    return encode(random_command(random, random.choice(DETERMINISTIC)))


def some_sums(random: Random) -> bytes:
    return encode_counter(Add(b"%d" % random.randrange(2000), random.randrange(-2, 3)))


Draw = Callable[[Random], bytes]
MACHINES: list[tuple[type[Machine], Draw]] = [(KeyValue, some_values), (CountersMachine, some_sums)]


def both(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("make", name), MACHINES, ids=["KeyValue", "CountersMachine"])


def worked(make: type[Machine], draw: Draw, random: Random, commands: int = 400) -> Machine:
    machine = make()
    for now in range(commands // 4):
        machine.apply([draw(random) for _ in range(4)], NOW_MS + now)
    return machine


@both("draw")
@pytest.mark.parametrize("seed", range(20))
def test_a_snapshot_has_the_state_at_the_time_of_the_call(make: type[Machine], draw: Draw, seed: int) -> None:
    random = Random(seed)
    machine, copy = worked(make, draw, random), make()
    assert isinstance(machine, SupportsSnapshots)
    before = machine.digest()
    chunks = []
    for chunk in machine.snapshot():
        chunks.append(chunk)
        machine.apply([draw(random) for _ in range(30)], NOW_MS + 200)
    copy.restore(chunks)
    assert copy.digest() == before


@both("draw")
def test_a_restored_machine_behaves_like_the_original(make: type[Machine], draw: Draw) -> None:
    random = Random(7)
    machine, copy = worked(make, draw, random), make()
    copy.restore(machine.snapshot())
    for now in range(100):
        commands = [draw(random) for _ in range(4)]
        assert machine.apply(commands, NOW_MS + 500 + now) == copy.apply(commands, NOW_MS + 500 + now)
    assert machine.digest() == copy.digest()


@both("draw")
def test_restoring_replaces_what_was_there(make: type[Machine], draw: Draw) -> None:
    empty, machine = make(), worked(make, draw, Random(3))
    machine.restore(make().snapshot())
    assert machine.digest() == empty.digest()


@both("draw")
def test_equal_states_have_equal_chunks_whatever_their_history(make: type[Machine], draw: Draw) -> None:
    machine, copy = worked(make, draw, Random(5)), make()
    copy.restore(list(machine.snapshot())[::-1])
    assert list(copy.snapshot()) == list(machine.snapshot())


def test_a_snapshot_abandoned_before_its_first_step_copies_nothing_afterwards() -> None:
    machine = KeyValue()
    machine.snapshot().close()  # type: ignore[attr-defined]  # a generator's
    assert machine._frozen is None
    ReplicatedState(machine, Sessions()).snapshot().close()  # type: ignore[attr-defined]
    assert machine._frozen is None


def test_a_snapshot_abandoned_before_its_first_step_closes_its_resources() -> None:
    """As for a machine that reads from a file: a generator that has not been started."""
    closed: list[bool] = []

    class Reading(KeyValue):
        def snapshot(self) -> Iterator[bytes]:
            try:
                yield b"chunk"
            finally:
                closed.append(True)

    ReplicatedState(Reading(), Sessions()).snapshot().close()  # type: ignore[attr-defined]
    assert closed == [True]


@both("draw")
def test_an_abandoned_snapshot_costs_nothing_afterwards(make: type[Machine], draw: Draw) -> None:
    machine = worked(make, draw, Random(6))
    steps = machine.snapshot()
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator's
    before = machine.digest()
    copy = make()
    copy.restore(machine.snapshot())
    assert copy.digest() == before


def test_invalid_chunks_are_refused() -> None:
    for machine in (KeyValue(), CountersMachine()):
        for wrong in (b"\xc1", b"\x93\x01\x02\x03", b"\x91\x94\xc4\x01a\x92\xa4what\x90\xc0\x90"):
            with pytest.raises(ValueError, match=r"."):
                machine.restore([wrong])


def test_a_different_value_changes_one_chunk_only() -> None:
    machines = [KeyValue(), KeyValue()]
    for machine in machines:
        machine.apply([encode([b"SET", b"key %d" % one, b"value"]) for one in range(5000)], NOW_MS)
    machines[1].apply([encode([b"SET", b"key 777", b"other"])], NOW_MS)
    one, other = ([chunk for chunk in machine.snapshot() if chunk] for machine in machines)
    different = [left for left, right in zip(one, other, strict=True) if left != right]
    assert len(one) == 16
    assert len(different) == 1
    assert b"key 777" in different[0]


def test_a_key_that_expired_before_the_snapshot_stays_expired() -> None:
    machine, copy = KeyValue(), KeyValue()
    run(machine, "SET a 1 PX 10", "SET b 2 PX 1000")
    copy.restore(machine.snapshot())
    assert run(copy, "GET a", "GET b", at_ms=NOW_MS + 20) == [None, b"2"]
    assert copy.due_commands(NOW_MS + 20) == machine.due_commands(NOW_MS + 20) != []


def test_parts_have_every_key_once_and_in_order() -> None:
    keys = [b"%d" % one for one in range(10_000)]
    parts = [part for part in partition_keys(list(keys)) if part is not None]
    assert len(parts) == 32
    assert all(part == sorted(part) for part in parts)
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert [part for part in partition_keys(keys[::-1]) if part is not None] == parts
