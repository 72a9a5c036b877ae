"""The cost of decorated commands: a declared class against the raw `apply(batch)` of the same machine, in a flood.

    python -m benchmarks.declared_cost

prints microseconds per command: at a replica where nobody waits for the results, at the one where clients wait, and
for the footprint, which the leader of a batch computes once. Both machines are measured in turn, several times, and
the fastest run of each counts.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from pydsm.core.types.messages import Footprint
from pydsm.machines.base import Result, StateMachine
from pydsm.machines.declared.declaration import StateMachine as DeclaredStateMachine
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.machines.declared.methods import command

_BATCH_COMMANDS = 1000
_BATCHES = 100
_ROUNDS = 7
_KEYS = 10_000
_encode = msgspec.msgpack.Encoder().encode
_decode_many = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode


class OutOfStock(Exception):
    """There is less than was asked for."""


class Inventory(DeclaredStateMachine):
    """The machine with decorators."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        """Put something into the stock."""
        self.stock[sku] = self.stock.get(sku, 0) + n

    @command(writes="sku")
    def take(self, sku: str, n: int) -> int:
        """Take something out of it."""
        left = self.stock.get(sku, 0) - n
        if left < 0:
            raise OutOfStock(sku)
        self.stock[sku] = left
        return left


class RawInventory:
    """The same machine, written for the low-level interface."""

    handles_failures = True

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`."""
        added: dict[bytes, None] = {}
        taken: dict[bytes, None] = {}
        for name, sku, _ in _decoded(commands):
            (added if name == "add" else taken)[sku.encode()] = None
        return Footprint(writes=tuple(taken), updates=((b"add", tuple(added)),) if added else ())

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine`."""
        results: list[Result] = []
        stock = self.stock
        for name, sku, n in _decoded(commands):
            if name == "add":
                stock[sku] = stock.get(sku, 0) + n
                results.append(None)
            else:
                left = stock.get(sku, 0) - n
                if left >= 0:
                    stock[sku] = left
                results.append(left)
        return results

    def digest(self) -> bytes:
        """Not measured."""
        return bytes(32)


def _decoded(commands: Sequence[bytes]) -> list[tuple[str, str, int]]:
    return _decode_many(b"\xdd%b%b" % (len(commands).to_bytes(4, "big"), b"".join(commands)))


def microseconds(run: Callable[[Sequence[bytes]], object], batches: Sequence[Sequence[bytes]]) -> float:
    """The time for one command."""
    began = time.perf_counter()
    for batch in batches:
        run(batch)
    return (time.perf_counter() - began) * 1e6 / sum(map(len, batches))


def measure(name: str) -> dict[str, tuple[float, float]]:
    """For one command: raw and declared microseconds at each place."""
    batches = [
        [_encode([name, f"key-{(batch * _BATCH_COMMANDS + one) % _KEYS}", 1]) for one in range(_BATCH_COMMANDS)]
        for batch in range(_BATCHES)
    ]
    fill = [[_encode(["add", f"key-{one}", 1 << 40]) for one in range(_KEYS)]]
    raw, declared = RawInventory(), DeclaredMachine(Inventory)
    for machine in (raw, declared):
        machine.apply(fill[0], 1)
    runs: dict[str, tuple[Callable[[Sequence[bytes]], object], Callable[[Sequence[bytes]], object]]] = {
        "execution, results not wanted": (_apply(raw), lambda batch: declared.apply_unread(batch, 1)),
        "execution with results": (_apply(raw), _apply(declared)),
        "footprint": (raw.footprint, declared.footprint),
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(_ROUNDS):
        for what, (one, other) in runs.items():
            times = microseconds(one, batches), microseconds(other, batches)
            before = best.get(what, times)
            best[what] = (min(before[0], times[0]), min(before[1], times[1]))
    return best


def _apply(machine: StateMachine) -> Callable[[Sequence[bytes]], object]:
    return lambda batch: machine.apply(batch, 1)


def main() -> None:
    """Measure both commands, and print a table."""
    print(f"{'microseconds per command':<42}{'raw':>8}{'declared':>10}{'more':>8}")
    for name in ("add", "take"):
        for what, (raw, declared) in measure(name).items():
            print(f"{name + ': ' + what:<42}{raw:>8.2f}{declared:>10.2f}{declared - raw:>8.2f}")


if __name__ == "__main__":
    main()
