"""Prints the progress of measurements, and then their figures and notes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pydsm.bench.compare import CHANGE_MIN, P_MAX, Comparison, Verdict
from pydsm.bench.measure import ProgressCallback
from pydsm.bench.results import Measurement, Results

_WIDTH_ELSEWHERE = 200
WIDE = 115
"""Minimum width in characters for a table with all columns."""
_NAMES_MAX = 3


def console_for(output: TextIO) -> Console:
    """A console for this output; wide enough for the tables if it is not a terminal."""
    console = Console(file=output, highlight=False)
    return console if console.is_terminal else Console(file=output, highlight=False, width=_WIDTH_ELSEWHERE)


@contextmanager
def progress(output: TextIO, steps: int | None = None) -> Iterator[ProgressCallback]:
    """A bar on a terminal, otherwise a line for each step. `steps`: their number, if it is known."""
    console = Console(file=output, highlight=False)
    if not console.is_terminal:
        yield lambda text: console.print(text, soft_wrap=True, markup=False)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)
        started = False

        def write_line(text: str) -> None:
            nonlocal started
            bar.update(task, description=text, advance=1 if started else 0)
            started = True

        yield write_line


def show(measurements: list[Measurement], console: Console) -> None:
    """Print a line for each measurement, with medians of its runs; nothing without measurements."""
    if not measurements:
        return
    table = Table()
    table.add_column("measured", ratio=1)
    columns = [column for column in _COLUMNS if column.always or console.width >= WIDE]
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for each in measurements:
        table.add_row(Text(each.name), *(column.text(each) for column in columns))
    console.print(table)
    runs = sorted({len(each.runs) for each in measurements})
    plural = "" if runs == [1] else "s"
    console.print(
        f"Medians of {' or '.join(map(str, runs))} run{plural}. CPU is processor time for each command, of all "
        f"replicas together and of the load generator.",
        soft_wrap=True,
    )
    show_notes(measurements, console)


def show_notes(measurements: list[Measurement], console: Console) -> None:
    """Print each note once, with the measurements to which it applies."""
    about: dict[str, list[str]] = {}
    for each in measurements:
        for note in each.notes:
            about.setdefault(note, []).append(each.name)
    for note, names in about.items():
        whose = "; ".join(names) if len(names) <= _NAMES_MAX else f"{len(names)} of {len(measurements)} measurements"
        console.print(Text(f"! {note} ({whose})", style="yellow"), soft_wrap=True)


def show_machine(results: Results, console: Console) -> None:
    """Print the machine and its calibrations."""
    machine, calibrations = results.machine, results.calibrations
    memory = "" if machine.memory_gib is None else f", {machine.memory_gib:g} GiB"
    commit = "" if machine.commit is None else f" ({machine.commit})"
    words = [machine.cpu, f"{machine.cores} cores{memory}", machine.system, machine.python]
    console.print(", ".join([*words, f"PyDSM {machine.pydsm}{commit}"]), soft_wrap=True)
    console.print(
        f"one sync of the disk {_span([each.sync_ms for each in calibrations])} ms, a fixed piece of Python "
        f"{_span([each.python_loop_ms for each in calibrations])} ms, load average "
        f"{_span([each.load_average for each in calibrations])}",
        soft_wrap=True,
    )


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the changed figures, the number of the others, and warnings."""
    for warning in comparison.warnings:
        console.print(Text(f"! {warning}", style="yellow"), soft_wrap=True)
    changed = comparison.of(Verdict.BETTER, Verdict.WORSE)
    if changed:
        table = Table()
        table.add_column("measured", ratio=1)
        for title in ("old", "new", "new / old", "p"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for each in changed:
            style = "green" if each.verdict is Verdict.BETTER else "red"
            table.add_row(
                Text(f"{each.name}: {each.figure}"),
                number(each.old),
                number(each.new),
                f"{each.ratio:.2f}",
                f"{each.p:.3f}",
                Text(each.verdict, style=style),
            )
        console.print(table)
    same, few = len(comparison.of(Verdict.SAME)), len(comparison.of(Verdict.TOO_FEW))
    console.print(
        f"{len(changed)} figures changed, {same} did not beyond noise, {few} have too few runs (4 on each side "
        f"are needed).",
        soft_wrap=True,
    )
    console.print(
        f"Changed means: Mann-Whitney p < {P_MAX:g}, and medians {100 * CHANGE_MIN:g} % or more apart; of twenty that "
        f"did not change, one may be shown as changed.",
        soft_wrap=True,
    )
    for name in comparison.only_old:
        console.print(Text(f"only in the old file: {name}"), soft_wrap=True)
    for name in comparison.only_new:
        console.print(Text(f"only in the new file: {name}"), soft_wrap=True)


def number(value: float | None) -> str:
    """At least three significant digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _least_and_most(measurement: Measurement) -> str:
    rates = measurement.values("commands_per_second")
    return f"{min(rates):,.0f} - {max(rates):,.0f}" if rates else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _span(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


class _Column(NamedTuple):
    title: str
    text: Callable[[Measurement], str]
    always: bool
    """Whether the column is also shown in a narrow table."""


_COLUMNS = (
    _Column("commands/s", lambda each: number(each.median("commands_per_second")), True),
    _Column("least - most", _least_and_most, False),
    _Column("p50 ms", lambda each: number(each.median("p50_ms")), True),
    _Column("p99 ms", lambda each: number(each.median("p99_ms")), True),
    _Column("µs CPU\nreplicas", lambda each: number(each.median("replicas_us_per_command")), True),
    _Column("µs CPU\ngenerator", lambda each: number(each.median("generator_us_per_command")), False),
    _Column("fast\npath", lambda each: _percent(each.median("fast_share")), False),
    _Column("per\ninstance", lambda each: number(each.median("commands_per_instance")), False),
)
