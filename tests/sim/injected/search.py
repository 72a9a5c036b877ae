"""`python -m tests.sim.injected.search [--bug NAME] [--seeds N]`: search for seeds that find the bugs."""

import argparse
import sys
import time

import pytest

from pydsm.sim.tools.search import Search
from tests.sim.injected.registry import BUGS, Bug


def first_find(bug: Bug, search: Search, seeds: range) -> tuple[int, str] | None:
    """The first seed whose run violates an invariant with the bug and none without it, and the invariant."""
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            bug.put_back(patch)
            finding = search.play(search.plan(seed)).finding
        if finding is not None and search.play(search.plan(seed)).finding is None:
            return seed, finding.invariant
    return None


def main() -> None:
    """Search for each bug, and print each line of the table immediately."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bug", help="only this one")
    parser.add_argument("--seeds", type=int, default=300, help="give up after so many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--replicas", type=int, default=None, help="size of the group; by seed unless given")
    parser.add_argument("--steps", type=int, default=4000, help="length of a run in events")
    parser.add_argument(
        "--contending-leaders", action="store_true", help="only conflicts between two leaders at a time"
    )
    parser.add_argument("--lagging-members", action="store_true", help="members that are away for long")
    parser.add_argument("--pipelines", action="store_true", help="clients that send many commands in a row")
    parser.add_argument("--adversary", action="store_true", help="faults that strike at chosen messages")
    parser.add_argument("--slow", action="store_true", help="networks that are slower than every timer")
    parser.add_argument("--put-backs", action="store_true", help="disks that are put back to older copies")
    options = parser.parse_args()
    search = Search(
        replicas=options.replicas,
        steps=options.steps,
        duels_only=options.contending_leaders,
        laggards_only=options.lagging_members,
        pipelines_only=options.pipelines,
        adversary_only=options.adversary,
        slow_only=options.slow,
        put_backs_only=options.put_backs,
    )
    for bug in BUGS.values():
        if options.bug in (None, bug.name):
            began = time.monotonic()
            found = first_find(bug, search, range(options.first, options.first + options.seeds))
            sys.stdout.write(f"{bug.name:52} {found}  {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
