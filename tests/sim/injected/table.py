"""`python -m tests.sim.injected.table [--write]`: the table of docs/injected-bugs.md, from the bugs and their finds.

Without `--write`, the exit status shows whether the page is up to date.
"""

import argparse
import sys

from tests.documents import ROOT
from tests.sim.injected.finds import FINDS, Find
from tests.sim.injected.registry import BUGS

PAGE = ROOT / "docs/injected-bugs.md"
_HEAD = "| bug | breaks | found by | invariant |\n| --- | --- | --- | --- |\n"


def page() -> str:
    """The text of the page with the present table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_HEAD)
    _, _, after = rest.partition("\n\n")
    return before + _HEAD + "\n".join(map(_row, FINDS)) + "\n\n" + after


def _row(find: Find) -> str:
    return f"| {find.bug} | {BUGS[find.bug].breaks} | {_found_by(find)} | {find.invariant} |"


def _found_by(find: Find) -> str:
    if find.story:
        return f"the story “{find.story}”"
    size = "" if find.replicas is None else f" of {find.replicas} replicas"
    return f"{find.kind} {find.seed}{size}"


def main() -> int:
    """Compare the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is out of date: python -m tests.sim.injected.table --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
