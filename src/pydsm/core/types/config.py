"""The core's settings: frozen, checked when created, each with its unit and default."""

from dataclasses import dataclass

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import COMMIT_QUERY_IDS_MAX

WINDOW_BYTES_MAX = 256 << 20
"""See `Config.window_bytes_max`."""


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one replica. One tick is one millisecond in the runtime.

    Raises UsageError for a value that cannot work.
    """

    replica: ReplicaId
    """This replica: a position in 0 .. `replicas` - 1."""
    replicas: int
    """Size of the group, n."""
    seed: int = 0
    """Seed of the jitter in timeouts; replicas of one group may share it."""
    thrifty: bool = False
    """Send requests only to as many replicas as a quorum needs, and to the others when one of these is late."""
    fast_timer_ticks: int = 20
    """How long a leader waits for a fast quorum before it continues with a slow one, in addition to twice the measured
    distance of the quorum's farthest replica. Also the wait before a thrifty leader sends to all replicas."""
    retry_ticks: int = 100
    """Wait before an unanswered request is first repeated, or twice the measured round trip to a quorum if that is
    more; each repetition waits twice as long as the one before."""
    recovery_timeout_ticks: int = 500
    """How long a known instance may stay undecided before a replica starts to recover it; at least three measured round
    trips to its leader and to a quorum."""
    recovery_jitter_ticks: int = 250
    """Added to that time once per replica whose turn comes before, and up to once more at random."""
    backoff_ticks_max: int = 4000
    """Upper bound of the wait between two repetitions of a question, and between two recoveries of an instance, which
    may reach `recovery_backoff_ticks_max`; or several measured round trips, if those are more."""
    repeats_max: int = 16
    """Repeated requests that may be under way to one peer; more are sent after it answered, or echoed later gossip. So
    repetition alone cannot fill a slow link."""
    scan_ticks: int = 50
    """How often undecided instances are searched for late ones."""
    gossip_ticks: int = 250
    """How often the frontier is sent to the members; what all have executed leaves memory at this pace."""
    drop_instances_max: int = 64
    """Instances of each leader removed from memory, or from disk, in one tick, so that the loop is not blocked."""
    discard_entries_max: int = 10_000
    """Entries of a replaced conflict index that are freed in one tick."""
    window_bytes_max: int = WINDOW_BYTES_MAX
    """Bytes of executed instances kept in memory for members that have not executed them. Above this, instances in a
    durable snapshot are removed; a member that lacks them has to fetch the snapshot."""
    fetch_ticks: int = 1000
    """How long to wait for a piece of a snapshot before another peer is asked, or longer if pieces or measured round
    trips take longer; doubled each time, up to 32 times this."""
    checkpoint_instances_max: int = 10_000
    """Batches executed since the last checkpoint, after which the next one is proposed."""
    checkpoint_bytes_max: int = 256 << 20
    """Bytes of commands executed since the last checkpoint, after which the next one is proposed."""
    checkpoint_ticks: int = 300_000
    """Age of the last checkpoint at which the next one is proposed, if anything was executed since."""
    digest_ticks: int = 5000
    """How often the digest of the last snapshot is sent to peers."""
    checkpoint_turn_ticks: int = 1000
    """How late a checkpoint may be before the next replica proposes it."""
    pipeline_instances_max: int = 64
    """Own instances that may be unexecuted; further proposals are refused with `PipelineFull`."""
    reservation_block: int = 32
    """Own indexes reserved on disk at a time. A restart turns at most two blocks of unused ones into nops."""
    recoveries_max: int = 64
    """Recoveries led at the same time, without those that wait for invalidators; others wait for the next scan."""
    inquiry_instances_max: int = 512
    """Instances asked about in one message, at most `messages.COMMIT_QUERY_IDS_MAX`."""
    backlog_instances_min: int = 256
    """From this many unexecuted instances on, conflicts are found by key instead of by comparing all pairs."""
    gap_instances_max: int = 1_000_000
    """How far above the highest known index a peer may name an instance; other messages are dropped."""

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
        """The longest wait between two recoveries of an instance, in ticks.

        At least eight recovery timeouts, and in `suspicion` at least eight times the measured time of an answer: with a
        limit below the duration of a recovery, replicas would interrupt each other with higher ballots for ever.
        """
        return max(8 * self.recovery_timeout_ticks, self.backoff_ticks_max)
