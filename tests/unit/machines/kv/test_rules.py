"""Rules for every command: a failure changes nothing, and a command changes only its declared keys."""

from random import Random

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import COMMANDS, KeyValue, encode
from tests.unit.machines.kv.arguments import DETERMINISTIC, SHAPES, random_command
from tests.unit.machines.kv.stories import NOW_MS

NOT_HERE = {
    "KEYS", "SCAN", "RANDOMKEY", "TIME", "OBJECT", "MEMORY", "FLUSHALL", "FLUSHDB",
    "HSCAN", "HRANDFIELD", "SPOP", "SRANDMEMBER", "SSCAN", "ZSCAN", "ZRANDMEMBER",
}  # fmt: skip
"""Commands whose replies Redis draws, orders or times in its own way; they have tests of their own."""


def test_every_command_has_random_arguments_or_is_named_as_having_none() -> None:
    assert {name.decode() for name in COMMANDS} == set(SHAPES) | NOT_HERE
    assert not set(SHAPES) & NOT_HERE


@pytest.mark.parametrize("seed", range(30))
def test_a_command_changes_only_what_it_declares_and_nothing_when_it_fails(seed: int) -> None:
    random, machine = Random(seed), KeyValue()
    for _ in range(150):
        words = random_command(random, random.choice(DETERMINISTIC))
        command = encode(words)
        try:
            footprint = machine.footprint([command])
        except UsageError:
            continue
        before, digest = snapshot(machine), machine.digest()
        (result,) = machine.apply([command], NOW_MS)
        after = snapshot(machine)
        changed = {key for key in {**before, **after} if before.get(key) != after.get(key)}
        assert changed <= set(footprint.writes) or footprint.barrier, words
        if isinstance(result, CommandFailed):
            assert machine.digest() == digest, words
            assert not result.message.startswith("ERR internal"), words


@pytest.mark.parametrize("seed", range(10))
def test_the_result_of_a_command_depends_only_on_its_declared_keys(seed: int) -> None:
    """The result is the same if every other key is removed."""
    random, machine = Random(seed), KeyValue()
    for _ in range(100):
        words = random_command(random, random.choice(DETERMINISTIC))
        command = encode(words)
        try:
            footprint = machine.footprint([command])
        except UsageError:
            continue
        declared = {*footprint.reads, *footprint.writes}
        alone = KeyValue()
        alone._space.data = {key: value for key, value in machine._space.data.items() if key in declared}
        alone._space.expiries = {key: at for key, at in machine._space.expiries.items() if key in declared}
        if not footprint.barrier and not footprint.writes:
            assert alone.apply([command], NOW_MS) == machine.apply([command], NOW_MS), words
        machine.apply([command], NOW_MS)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_has_the_same_results_as_its_commands_one_by_one(seed: int) -> None:
    """Consecutive commands of one name are executed together if possible; the results are the same."""
    random, together, alone = Random(seed), KeyValue(), KeyValue()
    names = random.choice([["GET", "SET"], ["GET", "SET", "INCR", "EXPIRE"], list(DETERMINISTIC)])
    for _ in range(30):
        batch = []
        for _ in range(random.randrange(1, 8)):
            name = random.choice(names)
            batch += [encode(random_command(random, name)) for _ in range(random.choice([1, 1, 2, 5]))]
        assert together.apply(batch, NOW_MS) == [alone.apply([command], NOW_MS)[0] for command in batch]
        assert together.digest() == alone.digest()


@pytest.mark.parametrize("seed", range(20))
def test_the_footprint_of_a_batch_is_that_of_its_commands_together(seed: int) -> None:
    random, machine = Random(seed), KeyValue()
    names = random.sample(DETERMINISTIC, random.choice([1, 2, 4, 5, 20]))
    batch, reads, writes, barrier = list[bytes](), set[bytes](), set[bytes](), False
    for _ in range(40):
        command = encode(random_command(random, random.choice(names)))
        try:
            footprint = machine.footprint([command])
        except UsageError:
            with pytest.raises(UsageError):
                machine.footprint([*batch, command])
            continue
        batch.append(command)
        reads.update(footprint.reads)
        writes.update(footprint.writes)
        barrier = barrier or footprint.barrier
    footprint = machine.footprint(batch)
    assert (set(footprint.writes), footprint.barrier) == (writes, barrier)
    assert set(footprint.reads) == reads - writes
    assert len(footprint.reads) + len(footprint.writes) == len(reads | writes)


def test_an_empty_collection_is_removed_with_its_key() -> None:
    stories = (
        ("HSET a x 1", "HDEL a x"), ("RPUSH a x", "LPOP a"), ("RPUSH a x", "LTRIM a 5 6"), ("RPUSH a x", "LREM a 0 x"),
        ("RPUSH a x", "RPOPLPUSH a b", "DEL b"), ("SADD a x", "SREM a x"), ("SADD a x", "SPOP a"),
        ("SADD a x", "SMOVE a b x", "DEL b"), ("ZADD a 1 x", "ZREM a x"), ("ZADD a 1 x", "ZPOPMIN a"),
        ("ZADD a 1 x", "ZREMRANGEBYRANK a 0 -1"), ("SADD a x", "SINTERSTORE a a none"),
        ("ZADD a 1 x", "ZRANGESTORE a none 0 1"),
        ("LPUSH a x", "LMPOP 1 a LEFT"), ("ZADD a 1 x", "ZMPOP 1 a MAX"), ("ZADD a XX 1 x",),
    )  # fmt: skip
    for story in stories:
        machine = KeyValue()
        machine.apply([encode([word.encode() for word in line.split()]) for line in story], NOW_MS)
        assert machine.digest() == KeyValue().digest(), story


def snapshot(machine: KeyValue) -> dict[bytes, str]:
    """The values of all keys, as text."""
    space = machine._space
    return {key: f"{getattr(value, 'order', value)!r} {space.expiries.get(key)}" for key, value in space.data.items()}
