"""Formats messages, records and commands as short readable lines, the same in every run."""

from typing import assert_never

from pydsm.core.types import messages as m
from pydsm.core.types.effects import (
    BeginFetch,
    FrontierRecord,
    InstallSnapshot,
    InstanceRecord,
    KeepPiece,
    PurgeRecord,
    Record,
    ReservationRecord,
    ServePiece,
    Transfer,
)
from pydsm.core.types.ids import Deps


def vector(deps: Deps) -> str:
    """Formats a vector: `<1 0 4>`."""
    return "<" + " ".join(map(str, deps)) + ">"


def value(one: m.Value | None) -> str:
    """Formats a value: `nop`, `?` for unknown, or the commands of a batch."""
    if one is None:
        return "?"
    if isinstance(one, m.Nop):
        return "nop"
    return "{" + "; ".join(command.decode("ascii", "backslashreplace") for command in one.commands) + "}"


def message(one: m.Message) -> str:
    """Formats a message with its name and every field that decides its effect."""
    match one:
        case m.PreAccept():
            return f"PreAccept {one.id} {value(one.batch)} {vector(one.deps)}"
        case m.PreAcceptOk():
            return f"PreAcceptOk {one.id} {vector(one.deps)}"
        case m.Accept():
            return f"Accept {one.id} {one.ballot} {value(one.value)} {vector(one.deps)}"
        case m.AcceptOk():
            return f"AcceptOk {one.id} {one.ballot}"
        case m.Commit():
            return f"Commit {one.id} {value(one.value)} {vector(one.deps)}"
        case m.Prepare():
            return f"Prepare {one.id} {one.ballot}"
        case m.PrepareOk():
            voted = "" if one.voted is None else f" voted {one.voted}"
            return (
                f"PrepareOk {one.id} {one.ballot} {one.status.name}{voted} {value(one.value)} {vector(one.deps)} "
                f"initially {value(one.initial_batch)} {vector(one.initial_deps)}"
            )
        case m.Validate():
            return f"Validate {one.id} {one.ballot} {value(one.batch)} {vector(one.deps)}"
        case m.ValidateOk():
            found = ", ".join(
                f"{other.id} committed" if other.committed else str(other.id) for other in one.invalidators
            )
            return f"ValidateOk {one.id} {one.ballot} invalidators: {found or 'none'}"
        case m.Waiting():
            return f"Waiting {one.id} with {one.unchanged}"
        case m.Refuse():
            return f"Refuse {one.id} {one.ballot}, promised {one.promised}"
        case m.CommitQuery() | m.Frontier() | m.StateDigest() | m.Compacted() | m.FetchSnapshot() | m.SnapshotPiece():
            return _about_members(one)
        case unreachable:
            assert_never(unreachable)


def _about_members(one: m.MemberMessage) -> str:
    match one:
        case m.CommitQuery():
            return "CommitQuery " + " ".join(map(str, one.ids))
        case m.Frontier():
            return f"Frontier executed {vector(one.executed)} known {vector(one.known)}"
        case m.StateDigest():
            return f"StateDigest of checkpoint {one.number}, {len(one.parts)} parts"
        case m.Compacted():
            return f"Compacted to {vector(one.up_to)} by checkpoint {one.number}"
        case m.FetchSnapshot():
            return f"FetchSnapshot {one.number} from byte {one.offset}"
        case m.SnapshotPiece():
            return f"SnapshotPiece {one.number}, {len(one.data)} bytes from {one.offset} of {one.size}"
        case unreachable:
            assert_never(unreachable)


def transfer(one: Transfer) -> str:
    """Formats one step of a snapshot transfer, as an action of the replica."""
    match one:
        case ServePiece():
            return f"serves r{one.to} snapshot {one.number} from byte {one.offset}"
        case KeepPiece():
            return f"stores {len(one.data)} bytes from {one.offset} of snapshot {one.number}"
        case BeginFetch():
            return f"begins to fetch snapshot {one.number}"
        case InstallSnapshot():
            return f"installs the complete snapshot {one.number}"
        case unreachable:
            assert_never(unreachable)


def record(one: Record) -> str:
    """Formats the content of a record."""
    match one:
        case InstanceRecord():
            voted = "" if one.voted is None else f" voted {one.voted}"
            return f"{one.id} {one.status.name} promised {one.promised}{voted} {value(one.value)} {vector(one.deps)}"
        case ReservationRecord():
            return f"reserved to {one.up_to}"
        case FrontierRecord():
            return f"executed {vector(one.executed)} dropped {vector(one.dropped)}"
        case PurgeRecord():
            return f"purged {vector(one.up_to)}" + "".join(f" {id}" for id in one.exceptions)
        case unreachable:
            assert_never(unreachable)


def time(now_us: int) -> str:
    """Formats a time in milliseconds, with three decimals."""
    return f"{now_us // 1000:>6}.{now_us % 1000:03} ms"
