"""Measures the cost of each command with 1,000 to 1,000,000 elements: `python -m benchmarks.command_growth [--write]`.

Executes every command of the key-value machine on keys, strings and collections of growing size, fits the growth of its
cost, and prints it beside the complexity in Redis's documentation. `--write` writes the table to
docs/reference/command-growth.md. Measures the processor time of `KeyValue.apply` alone, without agreement, sockets and
disk. Takes a few minutes.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log
from pathlib import Path
from statistics import median

from benchmarks.growth_cases import CASES, CONSTANT, LOGARITHMIC, NOW_MS, Case, machine_for, words_of
from pydsm.machines.kv import KeyValue, encode

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PAGE = Path("docs/reference/command-growth.md")
BEGIN, END = "<!-- begin of what python -m benchmarks.command_growth --write writes -->", "<!-- end -->"

_ROUNDS, _SECONDS_MAX = 31, 0.5
_SLOPE_MAX = 0.4
"""Maximum power of N for constant and logarithmic cost, which include effects of processor caches. Commands that copy
or walk N elements have a power near 1."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one case."""

    case: Case
    seconds: tuple[float, ...]
    """Seconds per execution, for each size."""

    @property
    def slope(self) -> float:
        """The power of N with which the cost grows from 10,000 elements on: least squares of logarithms."""
        points = [(log(size), log(seconds)) for size, seconds in zip(SIZES, self.seconds, strict=True)][1:]
        mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
        return float(sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points))

    @property
    def grows(self) -> bool:
        """Whether the cost grows about linearly."""
        return self.slope > _SLOPE_MAX

    @property
    def may_grow(self) -> bool:
        """Whether the cost in Redis grows with N."""
        return self.case.redis not in {CONSTANT, LOGARITHMIC}


def measure(sizes: Sequence[int] = SIZES) -> list[Measured]:
    """Measure every case with every size."""
    seconds: dict[Case, list[float]] = {case: [] for case in CASES}
    for size in sizes:
        for _, group in groupby(CASES, lambda case: case.on):
            machine: KeyValue | None = None
            for case in group:
                if machine is None or case.command in {"FLUSHALL", "FLUSHDB"}:
                    machine = machine_for(case, size)
                    gc.collect()
                    gc.freeze()
                seconds[case].append(_seconds(machine, case, size))
            print(f"{size:,} elements: {case.on}", file=sys.stderr)
    return [Measured(case, tuple(found)) for case, found in seconds.items()]


def _seconds(machine: KeyValue, case: Case, size: int) -> float:
    command = [encode(words_of(case.line, size))]
    prepare = [encode(words_of(line, size)) for line in case.prepare]
    rounds = 1 if case.command in {"FLUSHALL", "FLUSHDB"} else _ROUNDS
    taken: list[float] = []
    while len(taken) < rounds and sum(taken) < _SECONDS_MAX:
        if prepare:
            machine.apply(prepare, NOW_MS)
        began = time.thread_time()
        machine.apply(command, NOW_MS)
        taken.append(time.thread_time() - began)
    return median(taken)


def table(found: Sequence[Measured]) -> Iterator[str]:
    """The table, as lines of Markdown."""
    yield "| command | N counts | " + " | ".join(f"{size:,}" for size in SIZES) + " | grows as | Redis |"
    yield "| --- | --- |" + " ---: |" * len(SIZES) + " --- | --- |"
    for one in found:
        figures = " | ".join(_microseconds(seconds) for seconds in one.seconds)
        line = one.case.line.replace("|", "\\|")
        yield f"| `{line}` | {one.case.on} | {figures} | N^{max(one.slope, 0.0):.1f} | {one.case.redis} |"


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 0.01 else f"{seconds * 1e3:,.0f} ms"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write if requested. Fails if a cost grows that does not grow in Redis."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.command_growth", description="Measures how the cost of each command grows."
    )
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE}")
    options = parser.parse_args(arguments)
    found = measure()
    lines = "\n".join(table(found))
    print(lines)
    if options.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}")
    worse = [one for one in found if one.grows and not one.may_grow]
    for one in worse:
        print(f"{one.case.line} grows as N^{one.slope:.1f}, Redis's as {one.case.redis}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
