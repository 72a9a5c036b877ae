"""`python -m pydsm.sim.tools.soak --minutes N`: runs new seeds on all cores until the time is over or one fails.

Seeds are consecutive, from `--first-seed`; the default comes from the clock, so that no two soaks run the same seeds.
Group sizes are mostly 3, 5 and 7, sometimes 1, 2, 4, 6 and 9. Some runs are long; some have only duels, lagging
members, pipelines, networks slower than every timer, disks that are replaced by older copies, or targeted faults.
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
_SEED_DISTANCE = 1 << 40
"""Distance between consecutive seeds and those that a task adds."""


@dataclass(frozen=True, slots=True)
class Task:
    """Consecutive seeds of one soak."""

    first: int
    count: int
    steps: int


def search_for(task: Task, seed: int) -> Search:
    """The search for one seed. One of ten seeds is a long run.

    Of sixteen seeds, three have only duels, three lagging members, two pipelines, two a slow network, one older
    copies of disks, and two targeted faults.
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
    """The seeds of a task; and for each with targeted faults, whose runs are short, some more of the same kind."""
    for seed in range(task.first, task.first + task.count):
        yield seed
        if seed % _KINDS in _ADVERSARY:
            yield from (seed + _KINDS * _SEED_DISTANCE * number for number in range(1, _WORLDS_PER_ADVERSARY))


def play(task: Task) -> tuple[bytes, int | None]:
    """Run the seeds of a task. Returns its counts, encoded, and the first seed that failed, or None."""
    totals = Counts()
    for seed in seeds_of(task):
        search = search_for(task, seed)
        run = search.play(search.plan(seed))
        totals.add(run.counts)
        if run.finding is not None:
            return msgspec.msgpack.encode(totals), seed
    return msgspec.msgpack.encode(totals), None


class Soak:
    """Keeps all processes busy, and sums up their counts."""

    def __init__(self, first_seed: int, seconds: float, jobs: int, steps: int, write: Callable[[str], None]) -> None:
        self._next_seed = first_seed
        self._deadline = time.monotonic() + seconds
        self._jobs = jobs
        self._steps = steps
        self._write = write
        self._began = time.monotonic()
        self._next_report = self._began + _REPORT_SECONDS
        self.totals = Counts()
        self.broken: tuple[Search, int] | None = None

    def run(self) -> None:
        """Run until the time is over or a seed fails."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self._jobs, mp_context=context) as pool:
            tasks: dict[Future[tuple[bytes, int | None]], Task] = {}
            while self.broken is None and time.monotonic() < self._deadline:
                while len(tasks) < 2 * self._jobs:
                    task = self._next_task()
                    tasks[pool.submit(play, task)] = task
                ended, _ = wait(tasks, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._add_result(tasks.pop(future), future.result())
                self._report_progress()
            for future, task in tasks.items():
                if not future.cancel():
                    self._add_result(task, future.result())

    def _next_task(self) -> Task:
        task = Task(self._next_seed, _SEEDS_PER_TASK, self._steps)
        self._next_seed += _SEEDS_PER_TASK
        return task

    def _add_result(self, task: Task, result: tuple[bytes, int | None]) -> None:
        counts, broken = result
        self.totals.add(msgspec.msgpack.decode(counts, type=Counts))
        if broken is not None and self.broken is None:
            self.broken = (search_for(task, broken), broken)

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT_SECONDS
        totals, seconds = self.totals, now - self._began
        self._write(
            f"{seconds:7.0f} s  {totals.seeds:,} seeds  {totals.steps:,} steps  {totals.messages:,} messages  "
            f"{totals.steps / seconds:,.0f} steps/s  branches not reached yet: {len(totals.missing_branches())}"
        )


def main(arguments: Sequence[str]) -> int:
    """Run a soak. Returns exit status 1 if a seed failed."""
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
    console.print(f"VIOLATION in seed {seed}; shrinking its plan")
    found = report(search, search.play(search.plan(seed)), out)
    console.print("\n".join(found.lines))
    console.print(f"{found.finding.invariant}: {found.finding.what}\nstep through it: pydsm replay {found.path}")
    return found


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pydsm.sim.tools.soak", description="Run new seeds for a while.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--first-seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"events per phase of faults (default: {STEPS})")
    parser.add_argument("--out", type=Path, default=Path(), help="directory for the file of a failed run")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.minutes <= 0 or options.steps < 1:
        parser.error("--jobs, --minutes and --steps must be positive")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
