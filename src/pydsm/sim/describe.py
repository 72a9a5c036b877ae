"""Messages, records and commands as short readable lines, the same in every run."""

from pydsm.core import messages as m
from pydsm.core.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record
from pydsm.core.ids import Deps


def vector(deps: Deps) -> str:
    """`<1 0 4>`."""
    return "<" + " ".join(map(str, deps)) + ">"


def value(one: m.Value | None) -> str:
    """`nop`, `?` for unknown, or the commands of a batch."""
    if one is None:
        return "?"
    if isinstance(one, m.Nop):
        return "nop"
    return "{" + "; ".join(command.decode("ascii", "backslashreplace") for command in one.commands) + "}"


def message(one: m.Message) -> str:
    """A message with everything that decides what it does."""
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
            return f"ValidateOk {one.id} {one.ballot} against it: {found or 'nothing'}"
        case m.Waiting():
            return f"Waiting {one.id} with {one.unchanged}"
        case m.Refuse():
            return f"Refuse {one.id} {one.ballot}, promised {one.promised}"
        case m.StateDigest():
            return f"StateDigest of checkpoint {one.number}, {len(one.parts)} parts"
        case m.Inquire():
            return "Inquire " + " ".join(map(str, one.ids))
        case _:
            return f"Frontier executed {vector(one.executed)} known {vector(one.known)}"


def record(one: Record) -> str:
    """What a record makes durable."""
    if isinstance(one, PurgeRecord):
        return f"purged {vector(one.up_to)}"
    if isinstance(one, FrontierRecord):
        return f"executed {vector(one.executed)} dropped {vector(one.dropped)}"
    if not isinstance(one, InstanceRecord):
        return f"reserved to {one.up_to}"
    voted = "" if one.voted is None else f" voted {one.voted}"
    return f"{one.id} {one.status.name} promised {one.promised}{voted} {value(one.value)} {vector(one.deps)}"


def time(now_us: int) -> str:
    """Milliseconds, to the microsecond."""
    return f"{now_us // 1000:>6}.{now_us % 1000:03} ms"
