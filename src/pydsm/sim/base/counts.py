"""Counters of the events in simulated runs: in the world, in its replicas, and by rule of recovery."""

from collections.abc import Iterable

import msgspec

from pydsm.core.protocol.recovery_rules import Rule
from pydsm.core.types.counters import ProtocolCounters

BRANCHES = tuple(rule.value for rule in Rule)
"""Every branch of the recovery rules that a run can take."""

REPLICA_COUNTERS = (
    "proposed",
    "fast",
    "slow",
    "recovered",
    "nops",
    "aborted",
    "prepared",
    "validated",
    "waited",
    "inquired",
    "executed",
)
"""The counters of `core.types.counters` that are summed over all replicas and their processes."""


class Counts(msgspec.Struct):
    """Totals of one run or of many. Each field is a plain count."""

    seeds: int = 0
    steps: int = 0
    virtual_ms: int = 0
    messages: int = 0
    delivered: int = 0
    lost: int = 0
    cut: int = 0
    doubled: int = 0
    undeliverable: int = 0
    through_bytes: int = 0
    crashes: int = 0
    crashes_inside: int = 0
    power_cuts: int = 0
    restarts: int = 0
    pauses: int = 0
    clock_jumps: int = 0
    """Changes of wall clocks."""
    deaths: int = 0
    """Replicas that never started again."""
    strikes: int = 0
    """Faults that a trigger injected when a chosen message was sent."""
    put_backs: int = 0
    """Disks that were replaced by an older copy."""
    put_backs_refused: int = 0
    """Refused processes: those on such a copy, and the first one on the newest disk afterwards."""
    put_backs_undetectable: int = 0
    """Runs that ended because no reachable peer had a record of the data that such a copy lacks."""
    writes: int = 0
    writes_lost_in_crash: int = 0
    writes_kept_in_crash: int = 0
    calls: int = 0
    calls_done: int = 0
    calls_failed: int = 0
    calls_unknown: int = 0
    sent_again: int = 0
    """Requests that clients sent again under the same id."""
    found_executed: int = 0
    """Requests that an instance skipped because they had been executed before; counted at each replica."""
    postponed: int = 0
    """Requests that an instance skipped because an earlier request was not executed; counted at each replica."""
    sessions_expired: int = 0
    """Requests that were refused because their session had expired; counted at each replica."""
    raised: int = 0
    """Commands that raised an exception during execution; counted at each replica."""
    barriers: int = 0
    checkpoints: int = 0
    snapshots: int = 0
    snapshots_damaged: int = 0
    disks_damaged: int = 0
    """Damaged copies of disks, without a needed record, on which a separate replica was started."""
    snapshots_restored: int = 0
    pieces: int = 0
    """Pieces of snapshots that were received from peers."""
    pieces_damaged: int = 0
    snapshots_installed: int = 0
    """Fetched snapshots from which replicas were restarted."""
    pipeline_full: int = 0
    decided: int = 0
    scans: int = 0
    cycles: int = 0
    """Cycles of the sliding window after which memory was compared with its bound: see `cluster.memory_checker`."""
    configurations: int = 0
    linearizability_undecided: int = 0
    heal_ms_max: int = 0
    heal_share_max: float = 0.0
    """The largest fraction of the stated bound that a run needed to heal."""
    replicas: dict[str, int] = {}
    branches: dict[str, int] = {}

    def add_replica(self, counters: ProtocolCounters) -> None:
        """Add the counters of one process of a replica."""
        for name in REPLICA_COUNTERS:
            self.replicas[name] = self.replicas.get(name, 0) + getattr(counters, name)
        _add_into(self.branches, counters.branches.items())

    def add(self, other: "Counts") -> None:
        """Add another run's totals."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                _add_into(mine, theirs.items())
            elif name.endswith("_max"):
                setattr(self, name, max(mine, theirs))
            else:
                setattr(self, name, mine + theirs)

    def missing_branches(self) -> list[str]:
        """The branches of the recovery rules that no run has taken."""
        return [branch for branch in BRANCHES if not self.branches.get(branch)]


def _add_into(totals: dict[str, int], more: Iterable[tuple[str, int]]) -> None:
    for name, count in more:
        totals[name] = totals.get(name, 0) + count
