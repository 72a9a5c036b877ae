"""`pydsm pause`, `resume` and `snapshot`: administration of a running replica through its HTTP port."""

import http.client
from typing import Annotated, TypeVar

import msgspec
import typer

from pydsm.cli.status import ask_http, no_replica
from pydsm.core.types.errors import OperationalError
from pydsm.runtime.maintenance import PauseReport, ResumeReport, SnapshotReport
from pydsm.transport.address import Address, parse_address

_ANSWER_SECONDS = 130.0
"""How long to wait for the response beyond the time given to the replica."""

_Report = TypeVar("_Report", PauseReport, ResumeReport, SnapshotReport)
_HttpPort = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help="HTTP port of a replica on this computer (serve --http).")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the replica's report as JSON.")]


def pause(
    address: _HttpPort,
    as_json: _AsJson = False,
    drain: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds to wait until accepted commands are answered.")
    ] = 5.0,
) -> int:
    """Pause a replica's state machine: it still takes part in agreement, but serves no clients until `pydsm resume`."""
    where = parse_address(address)
    report = _request(where, f"/pause?seconds={drain:g}", drain, PauseReport)
    text = f"{where} is paused{' already' if report.already else ''}"
    if report.commands_unanswered:
        text += f"; {report.commands_unanswered:,} accepted commands are answered after it is resumed"
    return _print_result(report, text, as_json)


def resume(address: _HttpPort, as_json: _AsJson = False) -> int:
    """Resume a paused state machine, and execute the commands committed meanwhile."""
    where = parse_address(address)
    report = _request(where, "/resume", 600.0, ResumeReport)
    if report.already:
        return _print_result(report, f"{where} was not paused", as_json)
    return _print_result(
        report,
        f"{where} is running again; {report.batches:,} waiting batches were executed in {report.seconds:.2f} s",
        as_json,
    )


def snapshot(
    address: _HttpPort,
    as_json: _AsJson = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds to wait until the snapshot is durable.")
    ] = 60.0,
) -> int:
    """Propose a checkpoint now, and wait until this replica's snapshot of it is durable."""
    where = parse_address(address)
    report = _request(where, f"/snapshot?seconds={timeout:g}", timeout, SnapshotReport)
    position = " ".join(map(str, report.position))
    text = (
        f"snapshot {report.number} of {where} is durable: position {position}, {report.bytes:,} bytes, "
        f"{report.seconds:.2f} s, {report.path}"
    )
    return _print_result(report, text, as_json)


def _request(address: Address, path: str, seconds: float, kind: type[_Report]) -> _Report:
    """The replica's report. Raises OperationalError when it refuses, fails, or does not answer."""
    status, body = ask_http(address, path, seconds + _ANSWER_SECONDS, method="POST")
    if status != http.client.OK:
        text = " ".join(body.decode(errors="replace").split())
        raise OperationalError(f"{address}: {text or http.client.responses.get(status, status)}")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise no_replica(address) from error


def _print_result(report: msgspec.Struct, text: str, as_json: bool) -> int:
    print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() if as_json else text)
    return 0
