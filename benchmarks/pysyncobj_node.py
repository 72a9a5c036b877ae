"""One node of PySyncObj with a replicated dictionary, and a load on it.

Started by `benchmarks.comparison`, not by hand.

PySyncObj is a library, so its clients are in its nodes: no socket and no codec is between them, which is to its
advantage. The node keeps this number of commands in flight; each callback sends the next command. This process drives
the ticks without another thread, and waits for sockets while no command is to be sent, which is faster than PySyncObj's
own thread.

Standard input: `COMMANDS IN_FLIGHT` starts a run, the end of input ends the node. Standard output: `leader` or
`follower` when a leader is elected, then a line of JSON for each run.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

_READY_SECONDS_MAX = 60.0
_RUN_SECONDS_MAX = 40.0
_WAIT_SECONDS = 0.005
_SUCCESS = 0
_CONFIGURATION = SyncObjConf(
    autoTick=False,
    appendEntriesPeriod=0.05,  # the best of those between 5 ms and its default, 100 ms
    commandsQueueSize=2_000_000,
    raftMinTimeout=10,  # with its defaults, a busy leader loses elections, and requests fail
    raftMaxTimeout=12,
    connectionTimeout=60,
)


class Store(SyncObj):  # type: ignore[misc]  # it has no types
    """The replicated dictionary."""

    def __init__(self, me: str, others: list[str]) -> None:
        super().__init__(me, others, _CONFIGURATION)
        self.values: dict[bytes, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def set(self, key: bytes, value: bytes) -> None:
        """Write one key."""
        self.values[key] = value


class Load:
    """One run."""

    def __init__(self, store: Store, commands: int, in_flight: int) -> None:
        self._store = store
        self._commands = commands
        self._sent = self.answered = self.failed = 0
        for _ in range(min(in_flight, commands)):
            self._send()

    @property
    def is_done(self) -> bool:
        """Whether every command has an outcome."""
        return self.answered + self.failed >= self._commands

    def _send(self) -> None:
        number, self._sent = self._sent, self._sent + 1
        self._store.set(b"%08d" % number, b"%08d" % number, callback=self._settled)

    def _settled(self, result: Any, error: int) -> None:
        if error == _SUCCESS:
            self.answered += 1
        else:
            self.failed += 1
        if self._sent < self._commands:
            self._send()


def tick_until(store: Store, condition: Callable[[], bool], seconds_max: float) -> bool:
    """Tick until the condition holds. Returns False if that takes too long."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            return False
        store.doTick(_WAIT_SECONDS)
    return True


def run(store: Store, commands: int, in_flight: int) -> dict[str, float]:
    """Run a load. Returns its figures."""
    before, cpu = time.perf_counter(), time.process_time()
    load = Load(store, commands, in_flight)
    tick_until(store, lambda: load.is_done, _RUN_SECONDS_MAX)
    return {
        "answered": load.answered,
        "failed": load.failed + (0 if load.is_done else 1),
        "seconds": time.perf_counter() - before,
        "cpu_seconds": time.process_time() - cpu,
    }


def main(me: str, others: list[str]) -> int:
    """Run a node until standard input ends."""
    store = Store(me, others)
    if not tick_until(store, lambda: store.isReady() and store._getLeader() is not None, _READY_SECONDS_MAX):
        print("no leader was elected", flush=True)
        return 1
    print("leader" if str(store._getLeader()) == me else "follower", flush=True)
    os.set_blocking(sys.stdin.fileno(), False)
    while (line := sys.stdin.buffer.read()) != b"":
        if line:
            commands, in_flight = map(int, line.split())
            print(json.dumps(run(store, commands, in_flight)), flush=True)
        store.doTick(_WAIT_SECONDS)
    store.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
