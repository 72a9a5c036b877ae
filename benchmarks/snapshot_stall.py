"""Measures how long a snapshot of the key-value machine blocks the event loop: `python -m benchmarks.snapshot_stall`.

Takes a snapshot as a running replica does, with batches of writes executed between its steps, and prints the longest
processor time of a single operation: freezing, a step, a batch.
"""

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TypeVar

from pydsm.machines.kv import KeyValue, encode

_BATCH = 1000


T = TypeVar("T")


def _timed(act: Callable[[], T]) -> tuple[float, T]:
    """The processor time of a call, which excludes other programs on the machine, and its result."""
    began = time.thread_time()
    given = act()
    return time.thread_time() - began, given


def _batch(random: Random, keys: int) -> list[bytes]:
    return [encode([b"SET", b"key:%d" % random.randrange(keys), b"%d" % random.getrandbits(64)]) for _ in range(_BATCH)]


def main() -> None:
    """Fill a machine, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    keys = parser.parse_args().keys
    machine, random = KeyValue(), Random(1)
    for first in range(0, keys, _BATCH):
        machine.apply([encode([b"SET", b"key:%d" % (first + one), b"x" * 32]) for one in range(_BATCH)], 1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    quiet = max(_timed(lambda: machine.apply(_batch(random, keys), 1))[0] for _ in range(50))
    freeze, steps = _timed(machine.snapshot)
    longest_step = longest_batch = total = 0.0
    size = count = 0
    while True:
        taken, chunk = _timed(lambda: next(steps, None))
        total += taken
        longest_step = max(longest_step, taken)
        if chunk is None:
            break
        size += len(chunk)
        count += bool(chunk)
        commands = _batch(random, keys)
        longest_batch = max(longest_batch, _timed(partial(machine.apply, commands, 1))[0])
    print(f"{keys:,} keys, {size / 1e6:.0f} MB in {count} chunks, {total:.2f} s of work")
    print(f"freezing {freeze * 1000:.1f} ms, longest step {longest_step * 1000:.1f} ms")
    print(f"longest batch of {_BATCH} writes {longest_batch * 1000:.1f} ms meanwhile, {quiet * 1000:.1f} ms otherwise")


if __name__ == "__main__":
    main()
