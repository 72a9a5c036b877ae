"""`python -m pydsm.sim.tools.soak --minutes N`: fresh seeds on all cores until the time is over or something breaks.

Seeds follow each other from `--first-seed`, which is the clock's unless given, so that no two soaks play the same
ones. Group sizes are mostly 3, 5 and 7, sometimes 1, 2, 4, 6 and 9; some runs are long, some play duels alone, some
laggards, some pipelines, some networks slower than every timer, some disks that are put back, and some are worlds of an
adversary.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from pydsm.sim.base.counts import Counts
from pydsm.sim.tools.search import Search, SearchReport, report
from pydsm.sim.tools.tables import exercised, plain
from pydsm.sim.workload.planning import STEPS

_SEEDS_PER_TASK = 8
_REPORT_SECONDS = 30.0
_LONG_EVERY, _LONG_FACTOR = 10, 5
_KINDS = 16
_ADVERSARY = (6, 14)
_WORLDS_PER_ADVERSARY = 16
_FAR_APART = 1 << 40
"""Between seeds that follow each other and those that a task adds."""


@dataclass(frozen=True, slots=True)
class Task:
    """Some seeds of one soak."""

    first: int
    count: int
    steps: int


def search_for(task: Task, seed: int) -> Search:
    """Every tenth seed or so is a long run.

    Of sixteen seeds three play duels alone, three laggards, two pipelines, two a slow network,
    one disks that are put back, and two an adversary.
    """
    steps = task.steps * (_LONG_FACTOR if seed % _LONG_EVERY == 0 else 1)
    kind = seed % _KINDS
    return Search(
        steps=steps,
        duels_only=kind in (1, 5, 9),
        laggards_only=kind in (3, 7, 11),
        pipelines_only=kind in (4, 12),
        slow_only=kind in (2, 10),
        put_backs_only=kind == 8,
        adversary_only=kind in _ADVERSARY,
    )


def seeds_of(task: Task) -> Iterator[int]:
    """The seeds of a task, and for each of an adversary, whose worlds are short, some more of the same kind."""
    for seed in range(task.first, task.first + task.count):
        yield seed
        if seed % _KINDS in _ADVERSARY:
            yield from (seed + _KINDS * _FAR_APART * place for place in range(1, _WORLDS_PER_ADVERSARY))


def play(task: Task) -> tuple[bytes, int | None]:
    """Play the seeds of a task: its counts, encoded, and the first seed that broke something."""
    totals = Counts()
    for seed in seeds_of(task):
        search = search_for(task, seed)
        run = search.play(search.plan(seed))
        totals.add(run.counts)
        if run.finding is not None:
            return msgspec.msgpack.encode(totals), seed
    return msgspec.msgpack.encode(totals), None


class Soak:
    """Keeps all processes busy, and adds up what they have done."""

    def __init__(self, first_seed: int, seconds: float, jobs: int, steps: int, say: Callable[[str], None]) -> None:
        self._next_seed = first_seed
        self._deadline = time.monotonic() + seconds
        self._jobs = jobs
        self._steps = steps
        self._say = say
        self._began = time.monotonic()
        self._next_report = self._began + _REPORT_SECONDS
        self.totals = Counts()
        self.broken: tuple[Search, int] | None = None

    def run(self) -> None:
        """Until the time is over or something is broken."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self._jobs, mp_context=context) as pool:
            tasks: dict[Future[tuple[bytes, int | None]], Task] = {}
            while self.broken is None and time.monotonic() < self._deadline:
                while len(tasks) < 2 * self._jobs:
                    task = self._task()
                    tasks[pool.submit(play, task)] = task
                ended, _ = wait(tasks, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._take(tasks.pop(future), future.result())
                self._say_progress()
            for future, task in tasks.items():
                if not future.cancel():
                    self._take(task, future.result())

    def _task(self) -> Task:
        task = Task(self._next_seed, _SEEDS_PER_TASK, self._steps)
        self._next_seed += _SEEDS_PER_TASK
        return task

    def _take(self, task: Task, result: tuple[bytes, int | None]) -> None:
        counts, broken = result
        self.totals.add(msgspec.msgpack.decode(counts, type=Counts))
        if broken is not None and self.broken is None:
            self.broken = (search_for(task, broken), broken)

    def _say_progress(self) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT_SECONDS
        totals, seconds = self.totals, now - self._began
        self._say(
            f"{seconds:7.0f} s  {totals.seeds:,} seeds  {totals.steps:,} steps  {totals.messages:,} messages  "
            f"{totals.steps / seconds:,.0f} steps/s  branches not reached yet: {len(totals.missing_branches())}"
        )


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 if something broke."""
    options = _parse(arguments)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    first_seed = options.first_seed if options.first_seed is not None else time.time_ns() // 1_000_000_000 * 1000
    console.print(f"seeds from {first_seed}, for {options.minutes:g} minutes, on {options.jobs} processes")
    soak = Soak(first_seed, options.minutes * 60, options.jobs, options.steps, console.print)
    soak.run()
    console.print(exercised(soak.totals))
    found = _report(soak, options.out, console)
    data = {"first_seed": first_seed, "exercised": plain(soak.totals), "violation": found and str(found.path)}
    console.print(msgspec.json.encode(data).decode())
    if found is None:
        console.print(f"{soak.totals.seeds:,} seeds, {soak.totals.steps:,} steps: every invariant held")
        return 0
    return 1


def _report(soak: Soak, out: Path, console: Console) -> SearchReport | None:
    if soak.broken is None:
        return None
    search, seed = soak.broken
    console.print(f"VIOLATION in seed {seed}; making it smaller")
    found = report(search, search.play(search.plan(seed)), out)
    console.print("\n".join(found.lines))
    console.print(f"{found.finding.invariant}: {found.finding.what}\nplay it step by step: pydsm replay {found.path}")
    return found


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pydsm.sim.tools.soak", description="Play fresh seeds for a while.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--first-seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"events per phase of faults (default: {STEPS})")
    parser.add_argument("--out", type=Path, default=Path(), help="directory for the file of a broken run")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.minutes <= 0 or options.steps < 1:
        parser.error("--jobs, --minutes and --steps must be positive")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
