"""What one instance costs while history grows: `python -m benchmarks.execution_growth`.

A replica learns commits of its two peers, as it would from the network, and executes them. Reported is the mean time
of an instance in windows that end at 10 thousand, 100 thousand and 1 million executed instances: all of learning,
ordering and executing, without disk and network. If execution walked its history, the last window would be a hundred
times slower than the first.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence

from pydsm.core.config import Config
from pydsm.core.conflicts import DeclaredKeys
from pydsm.core.ids import InstanceId, ReplicaId
from pydsm.core.messages import Batch, Commit, Footprint
from pydsm.core.replica import Replica

REPLICAS = 3
KEYS = 64
WINDOW_INSTANCES = 5_000
MEASURED_AT = (10_000, 100_000, 1_000_000)


def commits() -> Iterator[Commit]:
    """Commits of replicas 1 and 2 in turn, each with a batch that writes one of a few keys, for ever."""
    index = DeclaredKeys().index(REPLICAS)
    batches = [Batch((), (b"command",), Footprint(writes=(b"key %d" % key,))) for key in range(KEYS)]
    place = 0
    while True:
        id = InstanceId(ReplicaId(1 + place % 2), 1 + place // 2)
        batch = batches[place * 7 % KEYS]
        deps = index.conflicts(batch)
        index.add(id, batch)
        yield Commit(id, batch, deps)
        place += 1


def learn(replica: Replica, news: Sequence[Commit]) -> int:
    """Give the replica these commits; how many batches it executed."""
    executed = 0
    for commit in news:
        replica.receive(commit.id.leader, commit)
        executed += len(replica.take_effects().executions)
    return executed


def measure(instances_max: int) -> Iterator[tuple[int, float]]:
    """Instances executed so far, and microseconds an instance took in the window that ended there."""
    replica = Replica(Config(ReplicaId(0), REPLICAS))
    source = commits()
    executed = 0
    while executed < instances_max:
        news = [next(source) for _ in range(WINDOW_INSTANCES)]
        began = time.perf_counter()
        executed += learn(replica, news)
        yield executed, (time.perf_counter() - began) / WINDOW_INSTANCES * 1e6


def main(arguments: Sequence[str]) -> int:
    """Prints a line per measured length of history. Exit status 1 if an instance became more than twice as dear."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.execution_growth", description="Cost as history grows.")
    parser.add_argument("--instances", type=int, default=MEASURED_AT[-1], help="longest history (default: a million)")
    options = parser.parse_args(arguments)
    gc.disable()  # what is measured is the protocol; nothing here is cyclic
    measured: list[float] = []
    recent: list[float] = []
    for executed, microseconds in measure(options.instances):
        recent = [*recent[-1:], microseconds]
        if executed in MEASURED_AT or executed >= options.instances:
            measured.append(sum(recent) / len(recent))
            print(f"{executed:>9,} instances executed: {measured[-1]:6.1f} microseconds each", flush=True)
    grown = measured[-1] / measured[0]
    print(f"the last ones cost {grown:.2f} times what the first ones did")
    return 1 if grown > 2 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
