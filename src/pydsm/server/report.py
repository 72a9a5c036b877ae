"""The report of `/status`: the replica writes it, `pydsm status` reads it.

Fields may be added with a default; nothing else may change, so that a tool can read the report of another version.
"""

from dataclasses import asdict

import msgspec

from pydsm.core.types.ids import ReplicaId
from pydsm.runtime.observation import Observation, ReadyLimits, not_ready_reason
from pydsm.storage.identity import Identity
from pydsm.version import __version__


class MemberReport(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the group as seen by this replica, and how many of its instances are known and executed here."""

    name: str
    replica: int
    connected: bool
    """Always true for the replica itself."""
    last_report_age_seconds: float | None
    """Age of its last frontier report; None before the first one since this start, and for this replica itself."""
    executed: int
    known: int
    lag: int
    epoch: int | None = None
    """The epoch that it stated in its last handshake; None before the first."""
    clock_difference_ms: int | None = None
    """By how much its wall clock is ahead of that of this replica; None when that is not known."""


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one replica at one time."""

    version: str
    group: str
    name: str
    replica: int
    incarnation: str
    """16 hexadecimal digits: a digest of the number that was drawn when the replica's data were made."""
    healthy: bool
    ready: bool
    not_ready_because: str | None
    members: tuple[MemberReport, ...]
    counters: dict[str, int]
    """Counts since the start of the process, named as in `core/types/counters.py`."""
    recovery_rules: dict[str, int]
    fast_share: float | None
    commands_waiting: int
    disk_queue_turns: int
    traffic: dict[str, int]
    """Counts since the start of the process, named as in `transport/base.py`."""
    instances: int = 0
    """Instances in memory: not executed yet, or not known to be executed at all replicas."""
    machine: str = "running"
    """A `runtime.apply_gate.MachinePhase`: paused, for example."""
    machine_fault: str | None = None
    """The exception that the state machine raised when it was last started or stopped."""
    apply_queue_batches: int = 0
    """Decided batches and checkpoints that wait until the state machine runs again."""
    apply_queue_bytes: int = 0
    """Bytes of the commands in these batches."""
    clock_ms: int = 0
    """The wall clock of this replica, Unix time in milliseconds."""
    group_clock_ms: int | None = None
    """The time that a majority of the members' clocks shows, Unix milliseconds; None while too few are known."""
    clock_fault: str | None = None
    """The fault of this replica's clock; None if it has none."""
    agreed_time_ms: int = 0
    """Unix time as agreed with the last checkpoint executed here; 0 before the first."""


def make_report(identity: Identity, names: tuple[str, ...], seen: Observation, limits: ReadyLimits) -> StatusReport:
    """The report of an observation; `names` has the names of all members, in the order of the group."""
    reason = not_ready_reason(seen, limits)
    return StatusReport(
        version=__version__,
        group=identity.group,
        name=identity.name,
        replica=identity.replica,
        incarnation=f"{seen.fingerprint:016x}",
        healthy=seen.failure is None,
        ready=reason is None,
        not_ready_because=reason,
        members=tuple(_member(ReplicaId(member), name, seen) for member, name in enumerate(names)),
        counters=counts(seen),
        recovery_rules=dict(seen.counters.branches),
        fast_share=seen.fast_share,
        commands_waiting=seen.commands_waiting,
        disk_queue_turns=seen.disk_queue_turns,
        traffic=asdict(seen.traffic),
        instances=seen.instances,
        machine=seen.phase.value,
        machine_fault=seen.machine_fault,
        apply_queue_batches=seen.apply_queue_batches,
        apply_queue_bytes=seen.apply_queue_bytes,
        clock_ms=seen.clock.own_ms,
        group_clock_ms=seen.clock.group_ms,
        clock_fault=seen.clock.fault,
        agreed_time_ms=seen.clock.agreed_ms,
    )


def counts(seen: Observation) -> dict[str, int]:
    """The counters of the core by name, without those of the recovery rules."""
    return {name: count for name, count in asdict(seen.counters).items() if name != "branches"}


def _member(replica: ReplicaId, name: str, seen: Observation) -> MemberReport:
    ago = seen.last_report_age_seconds.get(replica)
    return MemberReport(
        name=name,
        replica=replica,
        connected=replica == seen.replica or replica in seen.connected,
        last_report_age_seconds=None if ago is None else round(ago, 3),
        executed=seen.frontier[replica],
        known=seen.known[replica],
        lag=seen.lag[replica],
        epoch=seen.epochs.get(replica),
        clock_difference_ms=seen.clock.differences_ms.get(replica),
    )
