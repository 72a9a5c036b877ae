"""The core's settings: frozen, checked once, each with its unit and default."""

from dataclasses import dataclass

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import COMMIT_QUERY_IDS_MAX

WINDOW_BYTES_MAX = 256 << 20
"""See `Config.window_bytes_max`."""


@dataclass(frozen=True, slots=True)
class Config:
    """One replica's view of its group. One tick is one millisecond in the runtime.

    Raises UsageError for a value that cannot work.
    """

    replica: ReplicaId
    """This replica: a position in 0 .. `replicas` - 1."""
    replicas: int
    """Size of the group, n."""
    seed: int = 0
    """Seed of the jitter in timeouts; replicas of one group may share it."""
    thrifty: bool = False
    """Ask only as many replicas as a quorum needs, and the others when one of those is late."""
    fast_timer_ticks: int = 20
    """How long a leader waits for a fast quorum, besides twice the measured way to the farthest replica of it, before
    it is content with a slow one; also the wait before a thrifty leader asks everyone."""
    retry_ticks: int = 100
    """When an unanswered request is first repeated, or twice the measured round trip to a quorum, if that is more; each
    repetition waits twice as long as the one before."""
    recovery_timeout_ticks: int = 500
    """How long an instance may stay undecided before a replica that knows of it looks into it; at least three measured
    round trips to its leader and to a quorum."""
    recovery_jitter_ticks: int = 250
    """Added to that time, once for each replica whose turn comes before, and up to once more at random."""
    backoff_ticks_max: int = 4000
    """Upper bound of the wait between two repetitions of a question, and between two recoveries of an instance, which
    may reach `recovery_backoff_ticks_max`; or several measured round trips, if those are more."""
    repeats_max: int = 16
    """Repeated questions that may be on their way to one peer; further ones are sent when it has answered, or has
    echoed later gossip. So repetition alone cannot fill a slow link."""
    scan_ticks: int = 50
    """How often undecided instances are looked through for late ones."""
    gossip_ticks: int = 250
    """How often frontiers are told to peers, and what all have executed leaves memory."""
    drop_instances_max: int = 64
    """Instances of each leader that leave memory, or the disk, in one tick, so that the loop does not stop for many."""
    discard_entries_max: int = 10_000
    """Entries of an old conflict index that are let go of in one tick."""
    window_bytes_max: int = WINDOW_BYTES_MAX
    """Bytes of executed instances that are kept in memory for members that have not executed them. What is more leaves
    if a durable snapshot has it, and who lacks it then has to fetch that."""
    fetch_ticks: int = 1000
    """How long a piece of a snapshot may take to come before another peer is asked for it, if pieces and measured round
    trips do not take longer than that; twice as long each time, up to 32 times."""
    checkpoint_instances_max: int = 10_000
    """Batches executed since the last checkpoint, after which the next one is proposed."""
    checkpoint_bytes_max: int = 256 << 20
    """Bytes of commands executed since the last checkpoint, after which the next one is proposed."""
    checkpoint_ticks: int = 300_000
    """Age of the last checkpoint at which the next one is proposed, if anything was executed since."""
    digest_ticks: int = 5000
    """How often the digest of the last snapshot is told to peers."""
    checkpoint_turn_ticks: int = 1000
    """How late a checkpoint may be before the next replica in turn proposes it."""
    pipeline_instances_max: int = 64
    """Own instances that may be unexecuted; a proposal beyond is refused with `PipelineFull`."""
    reservation_block: int = 32
    """Own indexes reserved on disk at a time. A restart turns at most two blocks of unused ones into nops."""
    recoveries_max: int = 64
    """Recoveries led at the same time, those that wait for others left out; further ones wait for the next scan."""
    inquiry_instances_max: int = 512
    """Instances asked about in one message, at most `messages.COMMIT_QUERY_IDS_MAX`."""
    backlog_instances_min: int = 256
    """From so many unexecuted instances on, conflicting ones are found by key, and not by comparing each with each."""
    gap_instances_max: int = 1_000_000
    """How far beyond what is known a peer may name an instance; a message about one farther away is dropped."""

    def __post_init__(self) -> None:
        if not 0 <= self.replica < self.replicas:
            raise UsageError(f"replica {self.replica} is not in a group of {self.replicas}: use 0 .. n-1")
        if self.inquiry_instances_max > COMMIT_QUERY_IDS_MAX:
            raise UsageError(
                f"inquiry_instances_max is {self.inquiry_instances_max}, {COMMIT_QUERY_IDS_MAX} is the limit"
            )
        for name in self.__slots__:
            if name.endswith(("_ticks", "_max", "_min", "_block")) and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def recovery_backoff_ticks_max(self) -> int:
        """The longest wait between two recoveries of an instance.

        Never less than eight recovery timeouts, and, in `suspicion`, never less than eight times what answers take in
        this network: a patience that cannot outgrow the time that a recovery takes lets replicas outbid each other for
        ever.
        """
        return max(8 * self.recovery_timeout_ticks, self.backoff_ticks_max)
