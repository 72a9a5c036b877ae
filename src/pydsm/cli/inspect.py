"""`pydsm inspect`: shows the contents of a stopped replica's data directory, and checks their integrity."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import INDEX_MAX, InstanceId, ReplicaId, RequestId
from pydsm.core.types.messages import Batch, Footprint, Nop, Value
from pydsm.core.types.status import Status
from pydsm.storage.inspection import DataDirectory, Findings, LeaderCounts, open_directory

_SHOWN_MAX = 20
"""Maximum number of lines of one kind in the printed output; JSON contains all."""

_words = msgspec.msgpack.Decoder(tuple[bytes, ...])


def inspect(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory of a stopped replica.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")] = False,
    instance: Annotated[str, typer.Option(metavar="L.I", help="Show only this instance, in full, such as 0.17.")] = "",
) -> int:
    """Read a data directory and check every record, without changes; exit status 1 if it is damaged or in use."""
    id = parse_instance(instance) if instance else None
    with open_directory(directory) as data:
        if id is None:
            _survey(data, directory, as_json)
        else:
            _one(data, id, directory, as_json)
    return 0


def parse_instance(text: str) -> InstanceId:
    """Parse LEADER.INDEX. Raises UsageError for anything else."""
    leader, _, index = text.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in (leader, index)):
        raise UsageError(f"{text!r} is not an instance: write LEADER.INDEX, such as 0.17")
    id = InstanceId(ReplicaId(int(leader)), int(index))
    if not 1 <= id.index <= INDEX_MAX:
        raise UsageError(f"{text!r} is not an instance: indexes are 1 to {INDEX_MAX}")
    return id


def _survey(data: DataDirectory, directory: Path, as_json: bool) -> None:
    findings = data.survey()
    if as_json:
        print(json.dumps(describe(findings), indent=1))
    else:
        show(findings, Console(file=sys.stdout, highlight=False, soft_wrap=True))
    if findings.damage:
        more = f" and {len(findings.damage) - 1} more" if len(findings.damage) > 1 else ""
        raise OperationalError(
            f"{directory} is damaged: {findings.damage[0]}{more}. Do not start a replica with it, which could break "
            "agreement: keep it as evidence; the group continues while more than half of its replicas are up"
        )


def _one(data: DataDirectory, id: InstanceId, directory: Path, as_json: bool) -> None:
    record = data.instance(id)
    if record is None:
        raise OperationalError(f"{directory} has no record of instance {id}: this replica never received its value")
    described = describe_instance(record)
    if as_json:
        print(json.dumps(described, indent=1))
    else:
        show_instance(described, Console(file=sys.stdout, highlight=False, soft_wrap=True))


def describe(findings: Findings) -> dict[str, Any]:
    """All findings, for JSON. Execution is not stored on disk, so no instance counts as executed."""
    identity = findings.identity
    return {
        "group": identity.group,
        "name": identity.name,
        "replica": identity.replica,
        "replicas": identity.replicas,
        "format": findings.format,
        "incarnation": findings.incarnation,
        "peers_met": {str(peer): incarnation for peer, incarnation in findings.peers.items()},
        "starts": findings.starts,
        "position": findings.position,
        "reservation": findings.reservation,
        "executed": list(findings.executed),
        "purged": list(findings.purged),
        "leaders": [_describe_leader(leader, counts) for leader, counts in enumerate(findings.leaders)],
        "undecided": [{"instance": str(one.id), "status": _words_of(one.status)} for one in findings.undecided],
        "snapshots": findings.snapshots,
        "damage": findings.damage,
        "remarks": findings.remarks,
    }


def _describe_leader(leader: int, counts: LeaderCounts) -> dict[str, Any]:
    return {
        "leader": leader,
        "highest": counts.highest,
        "records": counts.records,
        "missing": counts.missing,
        **{status.name.lower(): counts.by_status[status] for status in Status if status is not Status.EXECUTED},
        "nops": counts.nops,
        "damaged": counts.damaged,
    }


def show(findings: Findings, console: Console) -> None:
    """Print the findings as text."""
    identity = findings.identity
    console.print(
        Text(
            f"{identity.name}: replica {identity.replica} of {identity.replicas} in group {identity.group}, "
            f"data {findings.incarnation}, format {findings.format}"
        )
    )
    met = ", ".join(f"{peer} ({incarnation})" for peer, incarnation in findings.peers.items())
    console.print(Text(f"peers connected before: {met or 'none'}"))
    console.print(Text(f"started {findings.starts} times, {findings.position} groups of records written"))
    console.print(Text(f"own indexes reserved up to {findings.reservation}"))
    if findings.executed:
        console.print(Text(f"executed (recorded): {' '.join(map(str, findings.executed))}"))
    if findings.purged:
        console.print(Text(f"purged, and in two snapshots: {' '.join(map(str, findings.purged))}"))
    console.print(_leaders(findings))
    _print_some(console, "undecided", [f"{one.id} {_words_of(one.status)}" for one in findings.undecided], "")
    console.print(Text(f"snapshots of checkpoints: {' '.join(map(str, findings.snapshots)) or 'none'}"))
    _print_some(console, "damaged, and not needed", findings.remarks, "yellow")
    records = sum(counts.records for counts in findings.leaders)
    if findings.damage:
        _print_some(console, "DAMAGED", findings.damage, "bold red")
    else:
        console.print(Text(f"whole: {records:,} records, every checksum fits", style="green"))


def _leaders(findings: Findings) -> Table:
    """A table with one column for each leader: groups are small, but the counts are not."""
    table = Table("instances led by", *map(str, range(len(findings.leaders))))
    for column in table.columns[1:]:
        column.justify = "right"
    described = [_describe_leader(leader, counts) for leader, counts in enumerate(findings.leaders)]
    for name in described[0]:
        if name != "leader":
            table.add_row(name.replace("_", "-"), *(f"{one[name]:,}" for one in described))
    return table


def _print_some(console: Console, what: str, lines: list[str], style: str) -> None:
    if lines:
        console.print(Text(f"{what}: {len(lines):,}", style=style))
    for line in lines[:_SHOWN_MAX]:
        console.print(Text(f"  {line}", style=style))
    if len(lines) > _SHOWN_MAX:
        console.print(Text(f"  ... and {len(lines) - _SHOWN_MAX:,} more, all of them with --json"))


def describe_instance(record: InstanceRecord) -> dict[str, Any]:
    """One record in full, in words and numbers."""
    return {
        "instance": str(record.id),
        "status": _words_of(record.status),
        "promised": _ballot(record.promised),
        "voted": None if record.voted is None else _ballot(record.voted),
        "deps": list(record.deps),
        "value": _value(record.value),
        "initial_deps": list(record.initial_deps),
        "initial_batch": "the same as the value"
        if record.initial_batch is not None and record.initial_batch == record.value
        else _value(record.initial_batch),
    }


def _value(value: Value | None) -> object:
    if value is None:
        return "unknown"
    if isinstance(value, Nop):
        return "nop"
    return _batch(value)


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "name": "none, it has no requests" if batch.name is None else _request(batch.name),
        "time": _time(batch.timestamp_ms),
        "requests": [
            {"id": _request(id), "command": _command(command)}
            for id, command in zip(batch.request_ids, batch.commands, strict=True)
        ],
        "footprint": _footprint(batch.footprint),
    }


def _footprint(footprint: Footprint) -> dict[str, Any]:
    return {
        "reads": [_text(key) for key in footprint.reads],
        "writes": [_text(key) for key in footprint.writes],
        "updates": {_text(kind): [_text(key) for key in keys] for kind, keys in footprint.updates},
        "barrier": footprint.barrier,
    }


def show_instance(described: dict[str, Any], console: Console) -> None:
    """Print one instance as indented lines."""
    for line in _lines(described, 0):
        console.print(Text(line))


def _lines(value: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for name, part in value.items():
        start = f"{'  ' * depth}{name.replace('_', ' ')}:"
        if isinstance(part, dict) and part:
            lines += [start, *_lines(part, depth + 1)]
        elif name == "requests":
            lines += [start, *(f"{'  ' * (depth + 1)}{one['id']}  {one['command']}" for one in part)]
        elif isinstance(part, list | dict):
            lines.append(f"{start} {', '.join(map(str, part)) or 'none'}")
        else:
            lines.append(f"{start} {_plain(part)}")
    return lines


def _plain(value: object) -> str:
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _command(command: bytes) -> str:
    """A command of the key-value machine in the form of redis-cli; any other command as bytes."""
    try:
        return " ".join(_text(word) for word in _words.decode(command))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return repr(command)


def _text(data: bytes) -> str:
    """Printable words unchanged, everything else quoted with escapes."""
    text = repr(data)[1:]
    bare = text[1:-1]
    return bare if data and bare.encode() == data and " " not in bare else text


def _request(id: RequestId) -> str:
    return str(UUID(bytes=id))


def _time(timestamp_ms: int) -> str:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"


def _ballot(ballot: Ballot) -> str:
    return f"round {ballot.round} of replica {ballot.replica}"


def _words_of(status: Status) -> str:
    return status.name.lower().replace("_", "-")
