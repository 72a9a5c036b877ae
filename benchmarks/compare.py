"""Compares two result files, beyond noise: `python -m benchmarks.compare OLD NEW`.

The rule is in `pydsm.bench.compare`. Exit status 1 if a figure is worse.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import guarded
from pydsm.bench.compare import Verdict, compare
from pydsm.bench.results import read
from pydsm.bench.view import console_for, show_comparison


def main(arguments: Sequence[str]) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Shows changes between two result files, beyond noise."
    )
    parser.add_argument("old", type=Path, help="a file made with --out")
    parser.add_argument("new", type=Path, help="another file, measured later or with another version")
    options = parser.parse_args(arguments)

    def action() -> int:
        comparison = compare(read(options.old), read(options.new))
        show_comparison(comparison, console_for(sys.stdout))
        return 1 if comparison.of(Verdict.WORSE) else 0

    return guarded("compare", action)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
