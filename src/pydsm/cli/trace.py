"""`pydsm trace`: shows the state and instances of a request, read from any replica's HTTP port."""

import http.client
import sys
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pydsm.cli.status import ask_http, no_replica
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import first_replica_of, timestamp_of
from pydsm.runtime.traces import InstanceTrace, RequestTrace
from pydsm.transport.address import Address, parse_address


def trace(
    request: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="A request id, from a client or a log.")],
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="A replica's HTTP port (serve --http).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the replica's answer as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the replica.")] = 5.0,
) -> int:
    """Show the instances of a request, how they were decided, and its outcome; exit status 1 if it is unknown."""
    found = fetch(parse_request_id(request), parse_address(address), timeout)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        show(found, Console(file=sys.stdout, highlight=False))
    return 0


def parse_request_id(text: str) -> UUID:
    """Parse a request id. Raises UsageError for any other text."""
    try:
        id = UUID(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a request id: a request id is a UUID of 32 hexadecimal digits, such as "
            "0193a5c0-1b2c-7001-8000-00070000002a"
        ) from None
    if id.version != 7:
        raise UsageError(
            f"{text} is not a request id: it has version {id.version}, and request ids are UUIDs of version 7"
        )
    return id


def fetch(request: UUID, address: Address, timeout_seconds: float) -> RequestTrace:
    """Fetch the replica's trace of a request. Raises OperationalError if it has none, or does not answer."""
    status, body = ask_http(address, f"/trace/{request}", timeout_seconds)
    if status == http.client.NOT_FOUND:
        raise OperationalError(body.decode(errors="replace").strip() or f"{address} has no trace of {request}")
    if status != http.client.OK:
        raise OperationalError(f"{address} answered {status} to /trace: see the replica's log")
    try:
        return msgspec.json.decode(body, type=RequestTrace)
    except msgspec.DecodeError as error:
        raise no_replica(address) from error


def show(found: RequestTrace, console: Console) -> None:
    """Print the trace as text."""
    id = UUID(found.request).bytes
    began = datetime.fromtimestamp(timestamp_of(id) / 1000, UTC).isoformat(timespec="milliseconds")
    console.print(Text(f"{found.request}: session of replica {first_replica_of(id)}, since {began}"))
    console.print(Text(found.state))
    for instance in found.instances:
        console.print(_headline(instance))
        console.print(_details(instance))
    if not found.instances:
        console.print(
            Text(
                f"replica {found.replica} has no instance of it: "
                f"it keeps {found.remembered_instances:,} instances of the last {found.remembered_seconds:,.0f} s"
            )
        )


def _headline(instance: InstanceTrace) -> Text:
    style = "bold green" if instance.status == "executed" and instance.path != "nop" else "bold yellow"
    return Text(f"instance {instance.id}: {instance.status}, {instance.path}", style=style)


def _details(instance: InstanceTrace) -> Table:
    conflicts, proposed = instance.conflicts, instance.initial_deps
    retries = ", retries among them" if instance.retries else ""
    rows = {
        "named": f"{instance.name} ({instance.commands:,} commands{retries})",
        "deps": " ".join(map(str, instance.deps)),
        "proposed deps": "unknown at this replica" if proposed is None else " ".join(map(str, proposed)),
        "conflicts": "no longer kept" if conflicts is None else ", ".join(conflicts) or "none found",
        "stages": ", ".join(f"{stage} +{ms:.1f} ms" for stage, ms in instance.stages_ms.items()),
        "seen": f"{instance.seen_seconds_ago:.1f} s ago",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"  {name}", value)
    return table
