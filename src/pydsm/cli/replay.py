"""`pydsm replay`: runs a saved simulation again and prints its trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pydsm.core.types.errors import UsageError
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search


def replay(
    file: Annotated[Path, typer.Argument(help="A file written by `pydsm simulate` for a failed run.")],
    grep: Annotated[str, typer.Option(help="Print only lines that contain this text, such as an instance: 1.23")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the lines and the violation.")] = False,
) -> int:
    """Run a failed simulation again, step by step; exit status 1 if it still breaks an invariant, otherwise 0."""
    saved = failure_report.load(file)
    if saved.machine != failure_report.REGISTERS:
        raise UsageError(f"{file} is for the machine {saved.machine!r}: replay it from the test that wrote it")
    lines: list[str] = []
    run = Search().play(saved.plan, lines.append if as_json else _printer(grep))
    found = run.finding
    if as_json:
        kept = [line for line in lines if grep in line]
        data = {"lines": kept, "violation": None if found is None else f"{found.invariant}: {found.what}"}
        print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())
    elif found is None:
        print(f"every invariant held in {run.counts.steps:,} steps; saved violation: {saved.invariant}: {saved.what}")
    return 0 if found is None else 1


def _printer(text: str) -> Callable[[str], None]:
    def print_line(line: str) -> None:
        if text in line or " VIOLATION " in line:
            print(line)

    return print_line
