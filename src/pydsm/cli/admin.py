"""`pydsm pause`, `resume` and `snapshot`: what may be done to a running replica, asked at its HTTP port."""

import http.client
from typing import Annotated, TypeVar

import msgspec
import typer

from pydsm.cli.status import ask_http, no_replica
from pydsm.core.types.errors import OperationalError
from pydsm.runtime.maintenance import PauseReport, ResumeReport, SnapshotReport
from pydsm.transport.address import Address, parse_address

_ANSWER_SECONDS = 130.0
"""How long to wait for the answer, besides the time that the replica is given: a little longer than it may take."""

_Report = TypeVar("_Report", PauseReport, ResumeReport, SnapshotReport)
_HttpPort = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help="A replica's HTTP port (serve --http), from its own computer.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the replica's answer as JSON.")]


def pause(
    address: _HttpPort,
    as_json: _AsJson = False,
    drain: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds to wait until the commands that it has taken are answered.")
    ] = 5.0,
) -> int:
    """Stop the state machine of a replica that goes on agreeing; it serves no clients until `pydsm resume`."""
    where = parse_address(address)
    report = _order(where, f"/pause?seconds={drain:g}", drain, PauseReport)
    said = f"{where} is paused{' already' if report.already else ''}"
    if report.commands_unanswered:
        said += f"; {report.commands_unanswered:,} commands that it had taken are answered when it is resumed"
    return _tell(report, said, as_json)


def resume(address: _HttpPort, as_json: _AsJson = False) -> int:
    """Start the state machine of a paused replica again, and execute what was agreed on meanwhile."""
    where = parse_address(address)
    report = _order(where, "/resume", 600.0, ResumeReport)
    if report.already:
        return _tell(report, f"{where} was not paused", as_json)
    return _tell(
        report, f"{where} runs again; {report.batches:,} batches were held, executed in {report.seconds:.2f} s", as_json
    )


def snapshot(
    address: _HttpPort,
    as_json: _AsJson = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds until it must be durable.")] = 60.0,
) -> int:
    """Have a checkpoint agreed on now, and wait until this replica's snapshot of it is durable."""
    where = parse_address(address)
    report = _order(where, f"/snapshot?seconds={timeout:g}", timeout, SnapshotReport)
    position = " ".join(map(str, report.position))
    said = (
        f"snapshot {report.number} of {where} is durable: position {position}, {report.bytes:,} bytes, "
        f"{report.seconds:.2f} s, {report.path}"
    )
    return _tell(report, said, as_json)


def _order(address: Address, path: str, seconds: float, kind: type[_Report]) -> _Report:
    """What the replica reports. Raises OperationalError when it refuses, fails, or does not answer."""
    status, body = ask_http(address, path, seconds + _ANSWER_SECONDS, method="POST")
    if status != http.client.OK:
        said = " ".join(body.decode(errors="replace").split())
        raise OperationalError(f"{address}: {said or http.client.responses.get(status, status)}")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise no_replica(address) from error


def _tell(report: msgspec.Struct, said: str, as_json: bool) -> int:
    print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() if as_json else said)
    return 0
