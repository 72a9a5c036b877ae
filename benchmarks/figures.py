"""Computes the figures in the documents that depend on the code only, and writes them into the pages.

    python -m benchmarks.figures            # compute all (a quarter of an hour), and write them to the pages
    python -m benchmarks.figures --quick    # only those that take seconds
    python -m benchmarks.figures --check    # write nothing; exit status 1 if a quick figure differs from its page

A test checks the quick ones. If it fails, the core has changed, so the slow ones have changed too.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydsm.sim.tools.exhaustive import SmallWorld, StateOutcome, StateSearch
from tests.sim.injected.finds import FINDS, NOT_BY_CHANCE
from tests.sim.injected.registry import BUGS

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Figure:
    """The text of a page between `before` and `after`, which are on one line."""

    page: str
    before: str
    after: str
    compute: Callable[[], str]
    quick: bool

    def find(self, text: str) -> re.Match[str]:
        """The position in the page. Raises LookupError unless it occurs exactly once."""
        found = list(re.finditer(f"(?<={re.escape(self.before)})[^\n]*?(?={re.escape(self.after)})", text))
        if len(found) != 1:
            raise LookupError(f"{self.page} has {len(found)} texts like {self.before!r} ... {self.after!r}, not one")
        return found[0]


def _explored(world: SmallWorld) -> StateOutcome:
    outcome = StateSearch(world).run()
    if outcome.violation is not None or not outcome.complete:
        raise AssertionError(f"{world}: {outcome}")
    return outcome


def _states(world: SmallWorld) -> str:
    outcome = _explored(world)
    return f"{outcome.states:,} states, {outcome.transitions:,} events"


_COUNTED = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


def _bugs() -> str:
    found = len({find.bug for find in FINDS} - set(NOT_BY_CHANCE))
    others = len(NOT_BY_CHANCE)
    return f"{found} of {len(BUGS)}; the other {_COUNTED.get(others, others)}"


FIGURES = (
    Figure("README.md", "known bugs put back, and found by a run | ", " fail the test", _bugs, quick=True),
    Figure(
        "docs/howto/simulate.md",
        "pydsm exhaustive --recoveries 0    # no recovery: ",
        "\n",
        lambda: _states(SmallWorld(recoveries=0)),
        quick=True,
    ),
    Figure(
        "docs/howto/simulate.md",
        "pydsm exhaustive --proposers 1     # one instance: ",
        "\n",
        lambda: _states(SmallWorld(proposers=(0,), recoveries=1)),
        quick=True,
    ),
    Figure(
        "README.md",
        "every order of events of 3 replicas, 2 conflicting instances, 1 recovery | ",
        ", no invariant violated",
        lambda: _states(SmallWorld()),
        quick=False,
    ),
)


def differences(figures: Iterable[Figure]) -> list[str]:
    """The figures that differ from their pages, one line each."""
    found = []
    for figure in figures:
        written = figure.find((ROOT / figure.page).read_text("utf-8")).group()
        computed = figure.compute()
        if written != computed:
            found.append(f"{figure.page} states {written!r}, but it is {computed!r}: run python -m benchmarks.figures")
    return found


def write(figures: Iterable[Figure]) -> None:
    """Write each figure to its page."""
    for figure in figures:
        path = ROOT / figure.page
        computed = figure.compute()
        text = path.read_text("utf-8")
        place = figure.find(text)
        path.write_text(text[: place.start()] + computed + text[place.end() :], "utf-8")
        print(f"{figure.page}: {figure.before}{computed}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, and write or check. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only figures that take seconds")
    parser.add_argument("--check", action="store_true", help="compare the quick figures, and write nothing")
    given = parser.parse_args(arguments)
    quick = [figure for figure in FIGURES if figure.quick]
    if given.check:
        found = differences(quick)
        print("\n".join(found) or f"{len(quick)} figures match their pages")
        return 1 if found else 0
    write(quick if given.quick else FIGURES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
