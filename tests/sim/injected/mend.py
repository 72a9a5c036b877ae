"""`python -m tests.sim.injected.mend [--seeds N]`: finds new seeds for bugs that their seeds do not find any more.

A seed gives another run whenever the planning of runs changes. This command runs every find of `finds`. If a bug is not
found by its run, or by another invariant, it tries seeds of the same kind from 0 on, then of the other kinds, and
rewrites `finds.py` and the table of docs/injected-bugs.md. Scenarios are written by hand: it lists those that fail.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sim.injected import finds
from tests.sim.injected.finds import FINDS, Find
from tests.sim.injected.registry import BUGS
from tests.sim.injected.search import first_find

_FILE = Path(finds.__file__)
_NAMES = ("duels", "laggards", "pipelines", "adversary", "slow", "put_backs")
_KINDS: tuple[dict[str, Any], ...] = ({}, *({name: True} for name in _NAMES))


def holds(find: Find) -> bool:
    """Whether the run finds the bug by its invariant, and succeeds without the bug."""
    with pytest.MonkeyPatch.context() as patch:
        BUGS[find.bug].put_back(patch)
        if find.play() != find.invariant:
            return False
    return find.play() is None


def kinds_of(find: Find) -> Iterator[Find]:
    """The kinds of runs to try: first that of the find, then the others."""
    yield find
    for kind in _KINDS:
        other = replace(find, **{**dict.fromkeys(_NAMES, False), "replicas": None, **kind})
        if other.kind != find.kind:
            yield other


def mended(find: Find, seeds: int) -> Find | None:
    """A run that finds the bug; None if this number of seeds of each kind does not."""
    for kind in kinds_of(find):
        if (found := first_find(BUGS[find.bug], kind.search, range(seeds))) is not None:
            return replace(kind, seed=found[0], invariant=found[1])
    return None


def write(find: Find) -> None:
    """Replace the earlier run in `finds.py`."""
    options = "".join(f", {name}=True" for name in _NAMES if getattr(find, name))
    options += f", replicas={find.replicas}" if find.replicas is not None else ""
    line = f'    Find("{find.bug}", "{find.invariant}", {find.seed}{options}),\n'
    text = _FILE.read_text(encoding="utf-8")
    text, count = re.subn(rf'    Find\("{re.escape(find.bug)}",.*\),\n', lambda _: line, text)
    assert count == 1, f"{find.bug} has {count} lines in {_FILE.name}: put {line.strip()} there yourself"
    _FILE.write_text(text, encoding="utf-8")


def main() -> int:
    """Check all bugs. Returns exit status 1 if some were not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="give up a kind after so many")
    parser.add_argument("--part", default="1/1", help="only every Nth bug from the Kth on, as K/N, for several cores")
    options = parser.parse_args()
    first, step = map(int, options.part.split("/"))
    lost = 0
    for find in FINDS[first - 1 :: step]:
        if holds(find):
            continue
        found = None if find.story else mended(find, options.seeds)
        if found is None:
            lost += 1
            sys.stdout.write(f"{find.bug}: NOT FOUND\n")
        else:
            write(found)
            sys.stdout.write(f"{find.bug}: {found.kind} {found.seed}, {found.invariant}\n")
        sys.stdout.flush()
    sys.stdout.write("then: python -m tests.sim.injected.table --write\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
