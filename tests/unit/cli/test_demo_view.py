"""The output of the demo without a terminal, on a terminal, and at the end."""

import json
from dataclasses import replace
from io import StringIO

import pytest

from pydsm.cli.demo_view import DemoReport, Moment, ReplicaMoment, make_view, show_report

MOMENT = Moment(
    seconds=3.0,
    replicas=(
        ReplicaMoment("r1", "up", 1200, 1.5, 9.5, 0.995, 0, 70),
        ReplicaMoment("r2", "killed", 0, 0, 0, None, 0, 0),
    ),
    commands_per_second=1200,
    p50_ms=1.5,
    p99_ms=9.5,
    lost=0,
    wrong=0,
)
REPORT = DemoReport(
    replicas=2,
    clients=1,
    pipeline=8,
    conflict=0.02,
    storage="sqlite",
    killed=True,
    seconds=10.0,
    commands=12000,
    commands_per_second=1200,
    commands_by_replica={"r1": 12000, "r2": 0},
    p50_ms=1.5,
    p99_ms=9.5,
    p999_ms=20,
    sync_ms=0.25,
    fast_share=0.995,
    unknown=8,
    refused=0,
    clients_left_waiting=0,
    keys_verified=1016,
    lost=0,
    wrong=0,
    histogram=[("1 - 2 ms", 11000), ("2 - 5 ms", 1000)],
)


def test_file_gets_a_plain_line_per_moment_and_event() -> None:
    output = StringIO()
    with make_view(False, output) as view:
        view.report("r2 killed")
        view.show(MOMENT)
    assert output.getvalue() == (
        "r2 killed\n  3.0 s      1200 commands/s  p50    1.5 ms  p99    9.5 ms  r1=1200 r2=killed\n"
    )


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_gets_a_table_with_every_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    output = Terminal()
    with make_view(False, output) as view:
        view.report("r2 killed")
        view.show(MOMENT)
    shown = output.getvalue()
    assert "r2 killed" in shown
    assert "1,200" in shown
    assert "99.5 %" in shown
    assert "killed" in shown


def test_only_json_is_printed_with_the_json_option() -> None:
    output = StringIO()
    with make_view(True, output) as view:
        view.report("r2 killed")
        view.show(MOMENT)
    show_report(REPORT, True, output)
    report = json.loads(output.getvalue())
    assert report["commands"] == 12000
    assert report["lost"] == 0


def test_report_ends_with_the_numbers_of_lost_and_wrong_answers() -> None:
    output = StringIO()
    show_report(replace(REPORT, lost=1), False, output)
    lines = output.getvalue().splitlines()
    assert "1 - 2 ms │████████████████████████████████████████ 11,000" in lines
    assert "2 - 5 ms │███▋                                     1,000" in lines
    assert lines[-1] == "lost: 1   wrong: 0"


def test_report_without_any_command_has_no_histogram() -> None:
    output = StringIO()
    show_report(replace(REPORT, commands=0, histogram=[], fast_share=None, clients_left_waiting=2), False, output)
    assert "│" not in output.getvalue()
    assert "2 clients had unanswered requests" in output.getvalue()
    assert "fast path -" in output.getvalue()
