"""Measures whether an instance costs more after a long history: `python -m benchmarks.execution_growth`.

Three cores in one process, without codec, disk and sockets, lead, commit and execute batches of one small command. The
cost per instance, summed over all three, is measured with a short and a long history: once without conflicts, and once
with conflicts of all instances on a few keys. Processor time is counted, and each figure is the minimum of several
windows, since other programs can only add to it. The history is created by the same work: a million instances take some
minutes and about 1.5 GB.
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Abort, Execute, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId, RequestId, Tick
from pydsm.core.types.messages import Batch, Footprint, Message, Run
from pydsm.runtime.perform import Performer

REPLICAS = 3
HOT_KEYS = 4
RATIO_MAX = 2.0
"""Maximum ratio of the costs after a long and a short history: above it, executed instances must be walked."""
_ROUNDS_PER_TICK = 10


@dataclass(frozen=True)
class Measured:
    """The cost with a history of this length."""

    history: int
    microseconds: float
    """Seconds per instance, committed and executed at all three replicas."""


class _Member:
    """One replica: its disk completes immediately and stores nothing, its machine does nothing."""

    def __init__(self, group: "Group", me: ReplicaId) -> None:
        self._group = group
        self.me = me
        self.executed = 0
        self.core = Replica(Config(me, REPLICAS))
        self.performer = Performer(me, self.core, self, self, self)

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        done()

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        self._group.packets.append((self.me, to, message))

    def execute(self, execution: Execute) -> None:
        self.executed += 1

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        raise AssertionError(f"this benchmark proposes no checkpoints, but there is {taken}")

    def transfer(self, transfer: Transfer) -> None:
        raise AssertionError(f"no replica is down in this benchmark, but there is {transfer}")

    def abort(self, abort: Abort) -> None:
        raise AssertionError(f"nothing fails in this benchmark, but {abort} was aborted")


class Group:
    """Three members and the packets between them."""

    def __init__(self, *, conflicts: bool) -> None:
        self._conflicts = conflicts
        self.packets: deque[tuple[ReplicaId, tuple[ReplicaId, ...], Message]] = deque()
        self.members = [_Member(self, ReplicaId(number)) for number in range(REPLICAS)]
        self._proposed = 0
        self._rounds = 0

    @property
    def executed(self) -> int:
        """The number of instances executed by every member."""
        return min(member.executed for member in self.members)

    def work(self, instances: int) -> None:
        """Let all members propose at the same time, repeatedly, until this many more are executed everywhere."""
        goal = self.executed + instances
        while self.executed < goal:
            self._rounds += 1
            for member in self.members:
                member.core.propose(self._batch())
                member.performer.pump()
            if self._rounds % _ROUNDS_PER_TICK == 0:
                for member in self.members:
                    member.core.tick(Tick(self._rounds // _ROUNDS_PER_TICK))
                    member.performer.pump()
            self._deliver()

    def _batch(self) -> Batch:
        self._proposed += 1
        number = self._proposed
        key = number // REPLICAS % HOT_KEYS if self._conflicts else number
        return Batch((Run(RequestId(number.to_bytes(16, "big")), 1),), (b"set",), Footprint(writes=(b"%d" % key,)))

    def _deliver(self) -> None:
        while self.packets:
            sender, to, message = self.packets.popleft()
            for peer in to:
                member = self.members[peer]
                member.core.receive(sender, message)
                member.performer.pump()

    def measure(self, window: int, windows: int) -> Measured:
        """Measure the cost of the next instances."""
        history, best = self.executed, float("inf")
        for _ in range(windows):
            begin = time.process_time()
            self.work(window)
            best = min(best, (time.process_time() - begin) / window)
        return Measured(history, best * 1e6)


def growth(*, conflicts: bool, few: int, many: int, window: int, windows: int) -> tuple[Measured, Measured]:
    """The costs after a short and after a long history."""
    group = Group(conflicts=conflicts)
    group.work(few)
    begin = group.measure(window, windows)
    group.work(max(0, many - group.executed))
    return begin, group.measure(window, windows)


def main(arguments: Sequence[str]) -> int:
    """Print one line for each of two workloads. Exit status 1 if the cost of an instance more than doubled."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.execution_growth", description="Cost of an instance as the history grows."
    )
    parser.add_argument("--few", type=int, default=10_000, help="instances of the short history (10000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="instances of the long history (1000000)")
    parser.add_argument("--window", type=int, default=3_000, help="instances measured at a time (3000)")
    parser.add_argument("--windows", type=int, default=10, help="number of measurements; the minimum counts (10)")
    options = parser.parse_args(arguments)
    worst = 0.0
    for share, conflicts in ((0, False), (100, True)):
        short, long = growth(
            conflicts=conflicts, few=options.few, many=options.many, window=options.window, windows=options.windows
        )
        ratio = long.microseconds / short.microseconds
        worst = max(worst, ratio)
        sys.stdout.write(
            f"{share:3} % conflicts: {short.microseconds:6.1f} µs after {short.history:,} instances, "
            f"{long.microseconds:6.1f} µs after {long.history:,}, ratio {ratio:.2f}\n"
        )
        sys.stdout.flush()
    return 1 if worst > RATIO_MAX else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
