"""What runs have exercised, as a table and as plain data."""

import msgspec
from rich.table import Table

from pydsm.sim.base.counts import BRANCHES, Counts

_ROWS = (
    ("seeds", "seeds"),
    ("steps", "steps (events)"),
    ("decided", "instances decided"),
    ("messages", "messages sent"),
    ("lost", "messages lost"),
    ("cut", "messages cut off"),
    ("doubled", "messages doubled"),
    ("undeliverable", "messages to the dead"),
    ("through_bytes", "messages through bytes"),
    ("crashes", "crashes"),
    ("crashes_inside", "crashes amid effects"),
    ("power_cuts", "power cuts"),
    ("restarts", "restarts"),
    ("pauses", "pauses"),
    ("deaths", "replicas dead for ever"),
    ("strikes", "faults at chosen messages"),
    ("writes", "group commits"),
    ("writes_lost_in_crash", "group commits lost"),
    ("writes_kept_in_crash", "group commits kept in a crash"),
    ("calls", "client operations"),
    ("calls_done", "answered"),
    ("calls_failed", "definitely not executed"),
    ("calls_unknown", "given up"),
    ("barriers", "barriers"),
    ("checkpoints", "checkpoints executed"),
    ("snapshots", "snapshots durable"),
    ("snapshots_damaged", "snapshots found damaged"),
    ("disks_damaged", "disks that lack a record, and are refused"),
    ("snapshots_restored", "restarts from a snapshot"),
    ("cycles", "memory bounds checked (cycles)"),
    ("heal_ms_max", "longest heal (virtual ms)"),
)
_REPLICA_ROWS = (
    ("fast", "fast commits"),
    ("slow", "slow commits"),
    ("prepared", "recoveries begun"),
    ("recovered", "recoveries that committed"),
    ("validated", "recoveries that validated"),
    ("waited", "recoveries that waited"),
    ("nops", "nops learnt"),
    ("aborted", "own instances aborted"),
    ("inquired", "instances asked about"),
    ("executed", "executions"),
)


def exercised(counts: Counts) -> Table:
    """Two columns: what, and how often."""
    table = Table(title="exercised", title_justify="left")
    table.add_column("what")
    table.add_column("how often", justify="right")
    for name, title in _ROWS:
        table.add_row(title, f"{getattr(counts, name):,}")
    table.add_section()
    for name, title in _REPLICA_ROWS:
        table.add_row(title, f"{counts.replicas.get(name, 0):,}")
    table.add_section()
    for branch in BRANCHES:
        table.add_row(f"recovery: {branch}", f"{counts.branches.get(branch, 0):,}")
    return table


def plain(counts: Counts) -> dict[str, object]:
    """The same for programs; every recovery branch is named, with 0 where it was not reached."""
    data = msgspec.structs.asdict(counts)
    data["branches"] = {branch: counts.branches.get(branch, 0) for branch in BRANCHES}
    return data
