"""Batches whose results are not used: reads are skipped, and the state is the same."""

from random import Random

import pytest

from pydsm.machines.kv import KeyValue, encode, transaction
from tests.unit.machines.kv.arguments import DETERMINISTIC, random_command
from tests.unit.machines.kv.stories import NOW_MS, run
from tests.unit.machines.test_snapshots import some_values

DRAWING = ("SPOP a 2", "SRANDMEMBER b 2", "HRANDFIELD c", "RANDOMKEY", "SPOP d")


@pytest.mark.parametrize("seed", range(30))
def test_the_state_does_not_depend_on_whether_results_are_used(seed: int) -> None:
    random, looked_at, unread = Random(seed), KeyValue(), KeyValue()
    for now in range(100):
        batch = [some_values(random) for _ in range(4)] + [encode(random.choice(DRAWING).encode().split(b" "))]
        batch += [encode(random_command(random, random.choice(DETERMINISTIC)))] * random.randrange(3)
        expected = looked_at.apply(batch, NOW_MS + now)
        assert len(unread.apply_unread(batch, NOW_MS + now)) == len(expected)
        assert unread.digest() == looked_at.digest()
    assert run(unread, "SCAN 0") == run(looked_at, "SCAN 0")


def test_a_scan_of_all_keys_is_skipped_if_its_result_is_not_used() -> None:
    machine = KeyValue()
    run(machine, "SET a 1", "LPUSH l x")
    scans = [
        encode([b"KEYS", b"*a*a*"]),
        encode([b"SCAN", b"0", b"MATCH", b"*a"]),
        encode([b"LRANGE", b"l", b"0", b"-1"]),
    ]
    inside = encode(transaction(b"watch", (), [*scans, encode([b"INCR", b"a"])]))
    assert machine.apply_unread([*scans, inside], NOW_MS) == [None, None, None, [None, None, None, 2]]
    assert run(machine, "GET a", "KEYS a*") == [b"2", [b"a"]]
