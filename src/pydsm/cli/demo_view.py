"""Shows the demo: a live table on a terminal, plain lines elsewhere, and a summary or JSON at the end."""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

_BAR_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class ReplicaMoment:
    """One replica in the last second; the share and the counts are since its start."""

    name: str
    state: str
    commands_per_second: float
    p50_ms: float
    p99_ms: float
    fast_share: float | None
    recovered: int
    executed: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The group in the last second."""

    seconds: float
    replicas: tuple[ReplicaMoment, ...]
    commands_per_second: float
    p50_ms: float
    p99_ms: float
    lost: int
    wrong: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The results of the whole run."""

    replicas: int
    clients: int
    pipeline: int
    conflict: float
    storage: str
    killed: bool
    seconds: float
    commands: int
    commands_per_second: float
    commands_by_replica: dict[str, int]
    p50_ms: float
    p99_ms: float
    p999_ms: float
    sync_ms: float | None
    """Duration of one durable write of 4 KiB on this disk just before the load; None for storage in memory."""
    fast_share: float | None
    unknown: int
    refused: int
    clients_left_waiting: int
    keys_verified: int
    lost: int
    wrong: int
    histogram: list[tuple[str, int]]


class View(Protocol):
    """Shows the run while it is in progress."""

    def report(self, text: str) -> None:
        """Report an event."""
        ...

    def show(self, moment: Moment) -> None:
        """Show the state after another second."""
        ...


class _Silent:
    def report(self, text: str) -> None:
        pass

    def show(self, moment: Moment) -> None:
        pass


class _PlainLines:
    """The view for files and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def report(self, text: str) -> None:
        self._line(text)

    def show(self, moment: Moment) -> None:
        each = " ".join(
            f"{one.name}={one.commands_per_second:.0f}" if one.state.startswith("up") else f"{one.name}={one.state}"
            for one in moment.replicas
        )
        self._line(
            f"{moment.seconds:5.1f} s  {moment.commands_per_second:8.0f} commands/s  p50 {moment.p50_ms:6.1f} ms  "
            f"p99 {moment.p99_ms:6.1f} ms  {each}"
        )

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class _LiveTable:
    """The view for terminals."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "_LiveTable":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def report(self, text: str) -> None:
        self._live.console.print(text, style="bold", markup=False)

    def show(self, moment: Moment) -> None:
        self._live.update(_table(moment), refresh=True)


def make_view(json: bool, output: TextIO) -> AbstractContextManager[View]:
    """The view for this output."""
    console = Console(file=output)
    if json:
        return nullcontext(_Silent())
    if console.is_terminal:
        return _LiveTable(console)
    return nullcontext(_PlainLines(console))


def _table(moment: Moment) -> Table:
    table = Table(title=f"{moment.seconds:.0f} s: {moment.commands_per_second:,.0f} commands/s", show_footer=True)
    table.add_column("replica", footer="all")
    table.add_column("state")
    for title, footer in (
        ("commands/s", f"{moment.commands_per_second:,.0f}"),
        ("p50 ms", f"{moment.p50_ms:.1f}"),
        ("p99 ms", f"{moment.p99_ms:.1f}"),
        ("fast path", ""),
        ("recovered", ""),
        ("batches executed", ""),
    ):
        table.add_column(title, footer=footer, justify="right")
    for one in moment.replicas:
        table.add_row(
            one.name,
            one.state,
            f"{one.commands_per_second:,.0f}",
            f"{one.p50_ms:.1f}" if one.commands_per_second else "-",
            f"{one.p99_ms:.1f}" if one.commands_per_second else "-",
            _percent(one.fast_share),
            f"{one.recovered:,}",
            f"{one.executed:,}",
            style=None if one.state.startswith("up") else "red",
        )
    return table


def show_report(report: DemoReport, as_json: bool, output: TextIO) -> None:
    """Print the results."""
    if as_json:
        print(json.dumps(asdict(report)), file=output)
        return
    console = Console(file=output)
    for line in (*_histogram(report), "", *_summary(report)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _summary(report: DemoReport) -> list[str]:
    by_replica = ", ".join(f"{name} {count:,}" for name, count in report.commands_by_replica.items())
    lines = [
        f"{report.commands:,} commands in {report.seconds:.1f} s: {report.commands_per_second:,.0f} per second",
        f"through {by_replica}",
        f"latency p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms, p99.9 {report.p999_ms:.1f} ms; "
        f"fast path {_percent(report.fast_share)}",
        *([] if report.sync_ms is None else [f"one sync of this disk took {report.sync_ms:.2f} ms without load"]),
        f"{report.unknown:,} without an answer (their replica was killed), {report.refused:,} refused and not executed",
        f"{report.keys_verified:,} keys read back through other replicas",
    ]
    if report.clients_left_waiting:
        lines.append(f"{report.clients_left_waiting} clients had unanswered requests at the end")
    return [*lines, f"lost: {report.lost}   wrong: {report.wrong}"]


def _histogram(report: DemoReport) -> list[str]:
    if not report.histogram:
        return []
    most = max(count for _, count in report.histogram)
    width = max(len(label) for label, _ in report.histogram)
    return ["", "latency", *(_bar(label.rjust(width), count, most) for label, count in report.histogram)]


def _bar(label: str, count: int, most: int) -> str:
    eighths = round(count * _BAR_CHARACTERS * 8 / most)
    bar = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
    return f"{label} │{bar.ljust(_BAR_CHARACTERS)} {count:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
