"""The observable state of a running replica, and whether it is ready to serve clients.

Decides readiness, from one observation and the stated limits. `node` makes the observation, `server` shows it.
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
    """The state of one replica at one time. The cost of making one does not grow with the replica's history."""

    replica: ReplicaId
    replicas: int
    fingerprint: int
    """Fingerprint of the incarnation of the replica's data; the incarnation itself is secret."""
    stopping: bool
    """Whether a stop was requested, so that new commands are refused."""
    failure: str | None
    """The fault that stopped the replica, or None."""
    connected: tuple[ReplicaId, ...]
    """Peers that messages can be sent to."""
    last_report_age_seconds: Mapping[ReplicaId, float]
    """How long ago each peer last reported its frontier; peers without a report since the start are missing."""
    frontier: Deps
    """Per leader, the contiguous prefix executed here."""
    known: Deps
    """Per leader, the highest index known."""
    commands_waiting: int
    """Commands accepted from clients and not answered yet."""
    disk_queue_turns: int
    counters: ProtocolCounters
    traffic: Traffic
    epochs: Mapping[ReplicaId, Epoch] = field(default_factory=dict)
    """The configuration of each peer at its last handshake with this replica."""
    instances: int = 0
    """Instances in memory: not executed yet, or not known to be executed everywhere."""
    phase: MachinePhase = MachinePhase.RUNNING
    """Whether agreed batches are executed or held. `frontier` counts held batches as executed."""
    machine_fault: str | None = None
    """The error of the last start or stop of the machine, or None."""
    commands_raised: int = 0
    """Commands executed here that raised an exception."""
    apply_queue_batches: int = 0
    """Decided batches and checkpoints that wait until the state machine runs again."""
    apply_queue_bytes: int = 0
    """Bytes of the commands in them."""
    checkpoint: int = 0
    """The last checkpoint executed here; 0 for none."""
    snapshot: int = 0
    """The last checkpoint with a durable snapshot here; 0 for none."""
    purged: Deps = ()
    """Per leader, the prefix whose records are removed from the disk."""
    fetching: tuple[int, int, int | None] | None = None
    """The snapshot being fetched from peers, or None: checkpoint, bytes received, total bytes if known."""

    start: int = 0
    """Number of starts of this data directory, including this one."""
    position: int = 0
    """Number of durable groups of records."""
    not_participating_reason: str | None = None
    """Why the replica does not take part in agreement yet, while its peers confirm that its data are the newest."""

    pieces: PieceCounters = field(default_factory=PieceCounters)
    """Counters of snapshot transfers."""
    clock: ClockReport = field(default_factory=ClockReport)
    """The wall clocks of the members, and agreed time."""
    names: tuple[str, ...] = ()
    """The names of all members, in order."""

    def name_of(self, replica: ReplicaId) -> str:
        """The name of a member."""
        return self.names[replica] if replica < len(self.names) else f"replica {replica}"

    @property
    def lag(self) -> Deps:
        """Per leader, the number of instances between the executed frontier and the highest index known."""
        return tuple(known - executed for known, executed in zip(self.known, self.frontier, strict=True))

    @property
    def fast_share(self) -> float | None:
        """Share of this replica's own commits that took one round trip; None before the first."""
        committed = self.counters.fast + self.counters.slow
        return self.counters.fast / committed if committed else None


@dataclass(frozen=True, slots=True)
class ReadyLimits:
    """The limits within which a replica is ready. Raises UsageError for a negative lag, or a silence of 0 or less."""

    lag_instances_max: int = 128
    """Known instances of one leader beyond the executed frontier. A leader has at most 64 in flight, so a replica that
    keeps up stays below twice that."""
    silence_seconds_max: float = 2.0
    """Maximal age of a peer's last frontier report for the peer to count; peers report four times a second."""

    def __post_init__(self) -> None:
        if self.lag_instances_max < 0 or self.silence_seconds_max <= 0:
            raise UsageError("limits of readiness: instances must be 0 or more, seconds must be above 0")


def not_ready_reason(seen: Observation, limits: ReadyLimits) -> str | None:
    """Why clients should use another replica, in one line; None if this replica is ready.

    A peer counts if it is connected and has recently reported its frontier. Without reports, a connection that works in
    only one direction, or instances decided while this replica was away, would not be noticed.
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
        return f"it fetches the snapshot of checkpoint {number}, {here:,}{how_far} bytes are received"
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
    """A line that states that too few replicas are connected to agree on anything; None if enough are."""
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
        f"{len(seen.connected)} connected, {len(peers)} with a report in the last {limits.silence_seconds_max:g} s"
    )


def as_info(seen: Observation) -> dict[str, str]:
    """The observation as names and values, for the Redis command INFO."""
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
