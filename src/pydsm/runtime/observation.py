"""What can be seen of a running replica from outside, and when it is ready to be sent clients.

Decides readiness, from one snapshot and stated limits. Leaves taking the snapshot to `node`, showing it to `server`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import Deps, Epoch, ReplicaId
from pydsm.core.types.quorums import quorums
from pydsm.runtime.apply_gate import MachinePhase
from pydsm.runtime.clock import ClockReport
from pydsm.runtime.snapshot_transfer import PieceCounters
from pydsm.transport.base import Traffic


@dataclass(frozen=True, slots=True)
class Observation:
    """One moment of one replica. Taking it costs the same however much the replica has done."""

    replica: ReplicaId
    replicas: int
    fingerprint: int
    """Of the incarnation of the replica's data, which itself nobody is shown."""
    stopping: bool
    """It was told to stop and takes no commands any more."""
    failure: str | None
    """Why it had to stop by itself, if it did."""
    connected: tuple[ReplicaId, ...]
    """Peers to which messages are carried."""
    last_report_age_seconds: Mapping[ReplicaId, float]
    """How long ago each peer last told its frontier; peers that have not done so in this life are missing."""
    frontier: Deps
    """Per leader, the contiguous prefix executed here."""
    known: Deps
    """Per leader, the highest index heard of."""
    commands_waiting: int
    """Commands taken from clients and not answered yet."""
    disk_queue_turns: int
    counters: ProtocolCounters
    traffic: Traffic
    epochs: Mapping[ReplicaId, Epoch] = field(default_factory=dict)
    """The configuration that each peer was in when it last greeted this replica."""
    instances: int = 0
    """Instances in memory: not executed yet, or not known to be executed everywhere."""
    phase: MachinePhase = MachinePhase.RUNNING
    """Of the machine: whether what is agreed is executed. `frontier` counts what is held as executed."""
    machine_fault: str | None = None
    """What the machine raised when it was last started or stopped."""
    commands_raised: int = 0
    """Commands executed here that raised an exception, and were answered so."""
    apply_queue_batches: int = 0
    """Decided batches and checkpoints that wait until the state machine runs again."""
    apply_queue_bytes: int = 0
    """Bytes of the commands in them."""
    checkpoint: int = 0
    """The last checkpoint executed here; 0 for none."""
    snapshot: int = 0
    """The last one of which there is a durable snapshot here; 0 for none."""
    purged: Deps = ()
    """Per leader, the prefix whose records have left the disk."""
    fetching: tuple[int, int, int | None] | None = None
    """The snapshot that is fetched from peers, if one is: checkpoint, bytes here, bytes in all if that is known."""

    start: int = 0
    """How often this data directory was started, this time included."""
    position: int = 0
    """Groups of records that are durable."""
    not_participating_reason: str | None = None
    """Why it does not take part yet, while it asks its peers whether its data are the newest."""

    pieces: PieceCounters = field(default_factory=PieceCounters)
    """Of snapshots that travel."""
    clock: ClockReport = field(default_factory=ClockReport)
    """The wall clocks of the members, and agreed time."""
    names: tuple[str, ...] = ()
    """Of all members, in order."""

    def name_of(self, replica: ReplicaId) -> str:
        """How people call a member."""
        return self.names[replica] if replica < len(self.names) else f"replica {replica}"

    @property
    def lag(self) -> Deps:
        """Per leader, instances between the executed frontier and the highest index heard of."""
        return tuple(known - executed for known, executed in zip(self.known, self.frontier, strict=True))

    @property
    def fast_share(self) -> float | None:
        """Share of this replica's own commits that took one round trip; None before the first."""
        committed = self.counters.fast + self.counters.slow
        return self.counters.fast / committed if committed else None


@dataclass(frozen=True, slots=True)
class ReadyLimits:
    """What a replica must keep to be called ready. Raises UsageError for a value that cannot work."""

    lag_instances_max: int = 128
    """Instances of one leader, heard of but beyond the executed frontier. A leader has at most 64 under way, so one
    that keeps up stays below twice that."""
    silence_seconds_max: float = 2.0
    """How long ago a peer may have told its frontier and still count as seen; peers tell it four times a second."""

    def __post_init__(self) -> None:
        if self.lag_instances_max < 0 or self.silence_seconds_max <= 0:
            raise UsageError("limits of readiness are numbers of instances from 0, and of seconds above 0")


def not_ready_reason(seen: Observation, limits: ReadyLimits) -> str | None:
    """One line that says why clients should go elsewhere, or None when they may come.

    A peer counts when it is connected and has told its frontier lately: without that, neither a cut in one direction
    nor what was decided while this replica was away would show.
    """
    if seen.failure is not None:
        return f"it has failed: {seen.failure}"
    if seen.stopping:
        return "it is stopping"
    if seen.not_participating_reason is not None:
        return seen.not_participating_reason
    if seen.fetching is not None:
        number, here, size = seen.fetching
        how_far = "" if size is None else f" of {size:,}"
        return f"it fetches the snapshot of checkpoint {number}, {here:,}{how_far} bytes are here"
    if seen.phase is not MachinePhase.RUNNING:
        fault = "" if seen.machine_fault is None else f" ({seen.machine_fault})"
        return f"it is {seen.phase.value}{fault}: {seen.apply_queue_batches} batches wait to be executed"
    if seen.clock.fault is not None:
        return seen.clock.fault
    alone = no_majority_reason(seen, limits)
    if alone is not None:
        return alone
    leader, lag = max(enumerate(seen.lag), key=lambda item: item[1])
    if lag > limits.lag_instances_max:
        return (
            f"it is catching up: {lag} instances of {seen.name_of(ReplicaId(leader))} are not executed here yet, "
            f"{limits.lag_instances_max} may be"
        )
    return None


def no_majority_reason(seen: Observation, limits: ReadyLimits) -> str | None:
    """One line that says that nothing can be agreed on, since too few replicas are there; None when enough are."""
    quorum = quorums(seen.replicas).slow
    peers = [
        peer
        for peer in seen.connected
        if seen.last_report_age_seconds.get(peer, float("inf")) <= limits.silence_seconds_max
    ]
    if len(peers) + 1 >= quorum:
        return None
    return (
        f"it sees {len(peers) + 1} of {seen.replicas} replicas, itself included, and needs {quorum}: "
        f"{len(seen.connected)} connected, {len(peers)} heard from in the last {limits.silence_seconds_max:g} s"
    )


def as_info(seen: Observation) -> dict[str, str]:
    """By name, for people, and for tools that know INFO."""
    counters, traffic = seen.counters, seen.traffic
    values: dict[str, int | tuple[int, ...]] = {
        "replica": seen.replica,
        "replicas": seen.replicas,
        "connected": seen.connected,
        "proposed": counters.proposed,
        "fast": counters.fast,
        "slow": counters.slow,
        "recovered": counters.recovered,
        "nops": counters.nops,
        "executed": counters.executed,
        "start": seen.start,
        "position": seen.position,
        "frontier": seen.frontier,
        "known": seen.known,
        "instances": seen.instances,
        "checkpoint": seen.checkpoint,
        "snapshot": seen.snapshot,
        "known_instances": sum(seen.known),
        "purged_instances": sum(seen.purged),
        "commands_waiting": seen.commands_waiting,
        "commands_raised": seen.commands_raised,
        "disk_queue_turns": seen.disk_queue_turns,
        "messages_sent": traffic.messages_sent,
        "messages_received": traffic.messages_received,
        "messages_dropped": traffic.messages_dropped,
        "peers_refused": traffic.refused,
        "agreed_time_ms": seen.clock.agreed_ms,
        "clock_difference_ms": seen.clock.difference_ms or 0,
    }
    return {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value) for name, value in values.items()
    }
