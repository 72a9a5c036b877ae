"""`pydsm replay`: a broken run, played again line by line."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pydsm.core.types.errors import UsageError
from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search


def replay(
    file: Annotated[Path, typer.Argument(help="A file that `pydsm simulate` has written.")],
    grep: Annotated[str, typer.Option(help="Only lines with this text, such as an instance: 1.23")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the lines and what was found.")] = False,
) -> int:
    """Play a broken run step by step; exit status 1 if it still breaks an invariant, 0 if it no longer does."""
    saved = failure_report.load(file)
    if saved.machine != failure_report.REGISTERS:
        raise UsageError(f"{file} was made with the machine {saved.machine!r}: play it from the test that wrote it")
    lines: list[str] = []
    run = Search().play(saved.plan, lines.append if as_json else _printer(grep))
    found = run.finding
    if as_json:
        kept = [line for line in lines if grep in line]
        data = {"lines": kept, "violation": None if found is None else f"{found.invariant}: {found.what}"}
        print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())
    elif found is None:
        print(
            f"every invariant held in {run.counts.steps:,} steps; when it was written: {saved.invariant}: {saved.what}"
        )
    return 0 if found is None else 1


def _printer(text: str) -> Callable[[str], None]:
    def print_line(line: str) -> None:
        if text in line or " VIOLATION " in line:
            print(line)

    return print_line
