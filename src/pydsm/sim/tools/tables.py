"""Formats the counts of runs as a table and as plain data."""

import msgspec
from rich.table import Table

from pydsm.sim.base.counts import BRANCHES, Counts

_ROWS = (
    ("seeds", "seeds"),
    ("steps", "steps (events)"),
    ("decided", "instances decided"),
    ("messages", "messages sent"),
    ("lost", "messages lost"),
    ("cut", "messages lost on cut links"),
    ("doubled", "messages duplicated"),
    ("undeliverable", "messages to replicas that were down"),
    ("through_bytes", "messages encoded and decoded"),
    ("crashes", "crashes"),
    ("crashes_inside", "crashes between effects"),
    ("power_cuts", "power cuts"),
    ("restarts", "restarts"),
    ("pauses", "pauses"),
    ("deaths", "replicas that never restarted"),
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
    ("disks_damaged", "starts refused, with a record missing"),
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
    ("nops", "nops learned"),
    ("aborted", "own instances aborted"),
    ("inquired", "instances in commit queries"),
    ("executed", "executions"),
)


def exercised(counts: Counts) -> Table:
    """A table with the name and the number of each count."""
    table = Table(title="events in all runs", title_justify="left")
    table.add_column("event")
    table.add_column("number", justify="right")
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
    """The same as plain data; every recovery branch is included, with 0 if it was not taken."""
    data = msgspec.structs.asdict(counts)
    data["branches"] = {branch: counts.branches.get(branch, 0) for branch in BRANCHES}
    return data
