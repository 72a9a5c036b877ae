"""`pydsm status`: shows the status report of a running replica, read from its HTTP port."""

import http.client
import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pydsm.cli.text import printable
from pydsm.core.types.errors import OperationalError
from pydsm.server.report import MemberReport, StatusReport
from pydsm.transport.address import Address, parse_address

_ANSWER_BYTES_MAX = 1 << 20


def status(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="A replica's HTTP port (serve --http).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the replica's answer as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the replica.")] = 5.0,
) -> int:
    """Show a replica's identity, its connections and its progress; exit status 1 if it does not answer."""
    report = fetch(parse_address(address), timeout)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        show(report, Console(file=sys.stdout, highlight=False))
    return 0


def fetch(address: Address, timeout_seconds: float) -> StatusReport:
    """Fetch the replica's report. Raises OperationalError if no replica answers at this address."""
    status, body = ask_http(address, "/status", timeout_seconds)
    if status != http.client.OK:
        reason = http.client.responses.get(status, "")
        raise OperationalError(f"{address} answered {status} {reason} to /status: see the replica's log")
    try:
        return msgspec.json.decode(body, type=StatusReport)
    except msgspec.DecodeError as error:
        raise no_replica(address) from error


def ask_http(address: Address, path: str, timeout_seconds: float, *, method: str = "GET") -> tuple[int, bytes]:
    """The HTTP status and the body of a response from a replica's HTTP port.

    Raises OperationalError if there is no response, or no valid one.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_seconds)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES_MAX)
    except TimeoutError as error:
        raise OperationalError(
            f"no answer from {address} within {timeout_seconds:g} s: the replica does not respond or is unreachable"
        ) from error
    except http.client.HTTPException as error:
        raise no_replica(address) from error
    except OSError as error:
        raise OperationalError(
            f"no connection to {address}: {error.strerror or error}; is the replica running, with --http {address}?"
        ) from error
    finally:
        connection.close()


def no_replica(address: Address) -> OperationalError:
    """The error for an address where another program answers."""
    return OperationalError(f"{address} is not the HTTP port of a replica: give the address of its --http")


def show(report: StatusReport, console: Console) -> None:
    """Print the report as text."""
    console.print(_headline(report))
    console.print(_state(report))
    console.print(_members(report))
    console.print(_numbers(report))


def _headline(report: StatusReport) -> Text:
    return Text(
        f"{printable(report.name)}: replica {report.replica} of {len(report.members)} in group "
        f"{printable(report.group)}, "
        f"data {report.incarnation}, PyDSM {report.version}"
    )


def _state(report: StatusReport) -> Text:
    if not report.healthy:
        return Text(f"FAILED: {printable(report.not_ready_because or '')}", style="bold red")
    if not report.ready:
        return Text(f"not ready: {printable(report.not_ready_because or '')}", style="bold yellow")
    return Text("ready", style="bold green")


def _members(report: StatusReport) -> Table:
    table = Table("member", "connection", "last report", "executed", "known", "lag")
    for column in table.columns[2:]:
        column.justify = "right"
    for member in report.members:
        table.add_row(
            Text(printable(member.name)),
            _seen(member, report),
            "" if member.last_report_age_seconds is None else f"{member.last_report_age_seconds:.1f} s ago",
            f"{member.executed:,}",
            f"{member.known:,}",
            f"{member.lag:,}",
        )
    return table


def _seen(member: MemberReport, report: StatusReport) -> Text:
    if member.replica == report.replica:
        return Text("this replica")
    return Text("connected", style="green") if member.connected else Text("not connected", style="red")


def _machine(report: StatusReport) -> str:
    batches, size = report.apply_queue_batches, report.apply_queue_bytes
    waiting = f", {batches:,} batches ({size:,} bytes) wait for it" if batches else ""
    return report.machine + ("" if report.machine_fault is None else f" ({printable(report.machine_fault)})") + waiting


def _clock(report: StatusReport) -> str:
    if report.group_clock_ms is None:
        return "the group time is unknown"
    ahead = (report.clock_ms - report.group_clock_ms) / 1000
    agreed = "none yet"
    if report.agreed_time_ms:
        agreed = f"{(report.group_clock_ms - report.agreed_time_ms) / 1000:,.0f} s ago"
    others = ", ".join(
        f"{member.name} {member.clock_difference_ms / 1000:+.1f} s"
        for member in report.members
        if member.clock_difference_ms is not None
    )
    return f"{ahead:+.1f} s from the group time; {others or 'no other clock is known'}; agreed time was set {agreed}"


def _numbers(report: StatusReport) -> Table:
    counters = report.counters
    share = "none yet" if report.fast_share is None else f"{report.fast_share:.1%} of own commits were fast"
    traffic = report.traffic
    rows = {
        "commits": f"{counters.get('fast', 0):,} fast, {counters.get('slow', 0):,} slow ({share})",
        "recovery": f"{counters.get('recovered', 0):,} recovered here, {counters.get('nops', 0):,} nops",
        "executed": f"{counters.get('executed', 0):,} batches",
        "waiting": f"{report.commands_waiting:,} commands, {report.disk_queue_turns:,} turns in the disk queue",
        "machine": _machine(report),
        "clock": _clock(report),
        "messages": f"{traffic.get('messages_sent', 0):,} sent, {traffic.get('messages_received', 0):,} received, "
        f"{traffic.get('messages_dropped', 0):,} dropped, {traffic.get('refused', 0):,} refused",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    return table
