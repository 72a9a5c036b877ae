"""The constants of one simulated run: sizes, limits, latencies, and the behaviour of disks and clocks.

All values are drawn from a seed and can be saved, so that a run can be repeated or shrunk from its settings and its
plan alone. Virtual time is counted in whole microseconds.
"""

from functools import lru_cache
from random import Random

import msgspec

from pydsm.core.clocks.agreed_time import TimeLimits
from pydsm.core.log.conflicts import DeclaredKeys, EverythingConflicts, Relation, UserRelation
from pydsm.core.sessions.session_limits import SessionLimits
from pydsm.core.types.config import Config
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.sim.base.latencies import Latencies, latencies

TICK_US = 1000
"""One tick of a clock that runs at the right speed."""

NEVER = 1 << 40

_FETCHES_MAX = 30
"""Pieces that may be late at the heal, summed over all snapshots that one replica fetches then."""
_COPIES_MAX = 30
"""Times that an undecided batch may cross one link: first sent, repeated, recovered, committed."""
_STARTS_MAX = 100
"""Tens of one-way times that starts may take, including refused starts and their repair."""
_PIECES_MAX = 150
"""Tens of one-way times for pieces of snapshots, each with its delivery and its write."""

DECLARED, EVERYTHING, USER = "declared keys", "everything", "user"
"""Names of conflict relations."""


BEGAN_MS = 1_000_000_000
"""The time of a right wall clock when a run begins: so long after 0 that clocks can be behind it."""
RIGHT_MS_MAX = 50
"""Maximum difference between a right clock and the true time."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The constants of one run; see `draw_settings` for the ranges from which seeds choose."""

    seed: int
    replicas: int
    steps_max: int
    """Events after which the phase of faults ends, if it has not ended before."""
    horizon_us: int
    """Time at which the phase of faults ends."""

    # the core
    thrifty: bool = False
    fast_timer_ticks: int = 20
    retry_ticks: int = 100
    recovery_timeout_ticks: int = 500
    recovery_jitter_ticks: int = 250
    backoff_ticks_max: int = 4000
    repeats_max: int = 16
    scan_ticks: int = 50
    gossip_ticks: int = 250
    pipeline_instances_max: int = 64
    reservation_block: int = 32
    recoveries_max: int = 64
    inquiry_instances_max: int = 512
    backlog_instances_min: int = 256
    drop_instances_max: int = 64
    window_bytes_max: int = NEVER
    fetch_ticks: int = 1000
    checkpoint_instances: int = NEVER
    checkpoint_ticks: int = NEVER
    checkpoint_turn_ticks: int = 1000
    lazy_records_max: int = 4096
    relation: str = DECLARED

    # machines
    tick_period_us: int = 5000
    clock_rates: tuple[float, ...]
    """Speed of each replica's clock; 1.0 is right."""
    sync_us: int = 1000
    """Mean duration of one durable write; 0 writes immediately, inside the call."""

    # the network
    latencies_us: Latencies
    """One way, from the row's replica to the column's."""
    spread: str = "uniform"
    """How delays vary: steady, uniform, exponential or heavy."""
    loss: float = 0.0
    duplication: float = 0.0
    command_us: int = 0
    """How long one command occupies a link: messages with batches delay the messages behind them. 0: no limit."""
    starve_us: int = 0
    """Periodic pauses of each replica for this long, also after the heal: an event loop without processor time."""
    starve_every_us: int = 0
    """Time from the start of one such pause to the start of the next."""
    codec_every: int = 7
    """One of this many messages is encoded and decoded; 0 for none."""

    # clients
    batch_requests_max: int = 4
    gather_us: int = 0
    """How long a replica waits for more requests before it proposes a batch."""
    patience_us: int = 2_000_000
    """How long a client waits for an answer."""
    client_us: int = 100
    """One-way latency between a client and its replica."""
    attempts_max: int = 3
    """Number of instances in which a client has an aborted request proposed."""
    retrying: bool = False
    """Clients never give up: they send their request again, under the same id and through another replica."""
    doubling: bool = False
    """Clients that never give up send each request through two replicas from the beginning."""
    pipelined: int = 0
    """Requests that a client has in flight, in an order that the group must keep; 0 for one, without order."""
    connections: bool = False
    """Whether clients that pipeline use connections without ids, and not sessions."""
    proposals_max: int = 1
    """Number of instances in which a replica proposes an aborted request, before it reports the abort."""
    session_idle_ms_max: int = 3_600_000
    """How long a session may be idle before a barrier expires it."""
    session_results_bytes_max: int = 16 << 20
    """Bytes of results kept for one session."""
    results_bytes_max: int = 128 << 20
    """Bytes of results of all sessions that remain after a barrier."""

    # wall clocks
    wall_offsets_ms: tuple[int, ...] = ()
    """Difference of each replica's wall clock from the true time; empty: none differs."""
    agreed_ms: int = 0
    """Agreed time at the beginning, as in a group that has executed a checkpoint; 0: a new group."""
    time_advance_ms: int = TimeLimits().advance_ms_max
    time_lag_ms: int = TimeLimits().lag_ms_max
    time_distance_ms: int = TimeLimits().distance_ms_max
    """See `core.clocks.agreed_time.TimeLimits`."""

    snapshot_step_us: int = 500
    """Time between two steps of taking a snapshot."""
    piece_bytes: int = 300
    """Bytes of a snapshot in one message."""
    damaged_pieces: float = 0.0
    """Share of the pieces that arrive damaged."""

    @property
    def forgets_early(self) -> bool:
        """Whether instances may be compacted before every member has executed them."""
        return self.window_bytes_max < NEVER

    starts_checked: bool = False
    """Whether replicas ask their peers at each start whether their disk is the newest (see `cluster.starts`)."""

    # checks
    scan_events: int = 4000
    """Events between two scans of the memory of all replicas (see `checkers.invariants`)."""

    @property
    def farthest_us(self) -> int:
        """The longest one-way latency."""
        return max(map(max, self.latencies_us))

    @property
    def is_starved(self) -> bool:
        """Whether links or event loops are so busy that no bound holds for when memory is released."""
        return bool(self.command_us or self.starve_us)

    @property
    def one_way_us(self) -> int:
        """Approximate time of a message, including the durable write before it and queueing on the link."""
        waits_us = self.starve_us + self.replicas * self.batch_requests_max * self.command_us
        return self.farthest_us + self.sync_us + waits_us

    def heal_us_max(self, open_instances: int, waiting_requests: int = 0) -> int:
        """The time limit within which a healed group must have decided and executed everything, in virtual time.

        Allows 40 rounds of suspicion, questions and recovery with all their messages; one more round for as many
        of the `open_instances` at the heal as one round can handle, and one for each full pipeline of the
        `waiting_requests` of one replica; ten full backoffs; if snapshots are fetched, several of them with lost
        pieces; all on the slowest clock. One-way times are those of the network, not the timeouts: ten for each
        round. Where the capacity of links is limited, adds the time for which the open batches occupy them.
        """
        rounds = 40 + open_instances // min(self.inquiry_instances_max, self.recoveries_max)
        rounds += waiting_requests // (self.batch_requests_max * self.pipeline_instances_max)
        patience = self.recovery_timeout_ticks + self.recovery_jitter_ticks + self.scan_ticks + 2 * self.retry_ticks
        ticks = rounds * (patience + self.gossip_ticks + self.fast_timer_ticks)
        ticks += 10 * self.config(0).recovery_backoff_ticks_max
        if self.forgets_early:
            ticks += _FETCHES_MAX * self.fetch_ticks
            rounds += _PIECES_MAX
        if self.starts_checked:
            rounds += _STARTS_MAX
        slowest = min(self.clock_rates)
        busy_us = _COPIES_MAX * open_instances * self.batch_requests_max * self.command_us
        return int(ticks * TICK_US / slowest) + 10 * rounds * self.one_way_us + busy_us + self.patience_us

    def drop_us_max(self, instances: int, clock_rate: float, sync_us: int) -> int:
        """The time limit for which a quiet group may keep this many instances of one leader in memory, in virtual time.

        Allows six rounds of gossip on the slowest clock and disk, with their one-way times, and dropping the instances
        in steps of `drop_instances_max`.
        """
        periods = instances // self.drop_instances_max + 6
        gossip_us = int(6 * self.gossip_ticks * TICK_US / clock_rate) + 400 * self.farthest_us + 40 * sync_us
        return gossip_us + periods * self.tick_period_us

    def config(self, replica: int) -> Config:
        """The configuration of one replica."""
        return Config(
            replica=ReplicaId(replica),
            replicas=self.replicas,
            seed=self.seed,
            thrifty=self.thrifty,
            fast_timer_ticks=self.fast_timer_ticks,
            retry_ticks=self.retry_ticks,
            recovery_timeout_ticks=self.recovery_timeout_ticks,
            recovery_jitter_ticks=self.recovery_jitter_ticks,
            backoff_ticks_max=self.backoff_ticks_max,
            repeats_max=self.repeats_max,
            scan_ticks=self.scan_ticks,
            gossip_ticks=self.gossip_ticks,
            pipeline_instances_max=self.pipeline_instances_max,
            reservation_block=self.reservation_block,
            recoveries_max=self.recoveries_max,
            inquiry_instances_max=self.inquiry_instances_max,
            backlog_instances_min=self.backlog_instances_min,
            drop_instances_max=self.drop_instances_max,
            window_bytes_max=self.window_bytes_max,
            fetch_ticks=self.fetch_ticks,
            checkpoint_instances_max=self.checkpoint_instances,
            checkpoint_bytes_max=NEVER,
            checkpoint_ticks=self.checkpoint_ticks,
            checkpoint_turn_ticks=self.checkpoint_turn_ticks,
            digest_ticks=100,
            discard_entries_max=3,
        )

    @property
    def session_limits(self) -> SessionLimits:
        """The limits on the sessions that replicas keep."""
        return SessionLimits(
            idle_ms_max=self.session_idle_ms_max,
            session_results_bytes_max=self.session_results_bytes_max,
            results_bytes_max=self.results_bytes_max,
            time=TimeLimits(self.time_advance_ms, self.time_lag_ms, self.time_distance_ms),
        )

    def make_relation(self) -> Relation:
        """Creates the conflict relation with this name. The user-defined one is for the commands of `registers`."""
        match self.relation:
            case "declared keys":
                return DeclaredKeys()
            case "everything":
                return EverythingConflicts()
            case "user":
                return UserRelation(_commands_conflict)
            case unknown:
                raise UsageError(f"there is no relation {unknown!r}: use {DECLARED!r}, {EVERYTHING!r} or {USER!r}")


def _commands_conflict(left: bytes, right: bytes) -> bool:
    """Whether two commands have a key in common and are not both reads; a `sum` conflicts with everything."""
    left_action, left_keys = _action_and_keys(left)
    right_action, right_keys = _action_and_keys(right)
    if b"sum" in (left_action, right_action):
        return True
    return not left_keys.isdisjoint(right_keys) and not {left_action, right_action} <= {b"read", b"when", b"both"}


@lru_cache(maxsize=1 << 16)  # each command is compared with all earlier ones
def _action_and_keys(command: bytes) -> tuple[bytes, frozenset[bytes]]:
    action, *words = command.split(b" ")
    return action, frozenset(words[: 2 if action in (b"move", b"both") else 1])


def draw_settings(random: Random, seed: int, replicas: int, steps_max: int, horizon_us: int) -> Settings:
    """Draws the constants of a world of this size from `random`.

    Timeouts are short compared with the faults, so that recovery happens often.
    """
    choice = random.choice
    preset = choice(["rack", "rack", "building", "building", "uneven", "continents"])
    matrix = latencies(preset, replicas, random)
    far_ticks = max(map(max, matrix)) // TICK_US
    patience_ticks = choice([10, 20, 40, 100, 300]) + 3 * far_ticks
    return Settings(
        seed=seed,
        replicas=replicas,
        steps_max=steps_max,
        horizon_us=horizon_us,
        thrifty=random.random() < 0.3,
        fast_timer_ticks=choice([1, 5, 20, 50]),
        retry_ticks=choice([10, 30, 100]) + 2 * far_ticks,
        recovery_timeout_ticks=patience_ticks,
        recovery_jitter_ticks=choice([1, 10, 100]),
        backoff_ticks_max=choice([50, 300, 1500]),
        repeats_max=(1, 2, 8)[seed // 9 % 3],
        scan_ticks=choice([5, 20, 50]),
        gossip_ticks=choice([30, 100, 250]),
        pipeline_instances_max=choice([1, 2, 4, 16, 64]),
        reservation_block=choice([1, 2, 2, 8, 8, 32]),
        recoveries_max=choice([8, 64]),
        inquiry_instances_max=choice([4, 64, 512]),
        backlog_instances_min=(1, 8, 256)[seed % 3],
        drop_instances_max=(1, 4, 64)[seed // 3 % 3],
        checkpoint_instances=(4, 15, 60, NEVER)[seed % 4],
        checkpoint_ticks=(NEVER, 150, 2000)[seed // 4 % 3],
        checkpoint_turn_ticks=(10, 100)[seed // 2 % 2],
        lazy_records_max=choice([1, 16, 4096]),
        relation=choice([DECLARED] * 8 + [EVERYTHING, USER]),
        tick_period_us=choice([2000, 5000, 10_000]),
        clock_rates=(1.0,) * replicas,
        agreed_ms=0 if seed % 7 == 6 else BEGAN_MS - RIGHT_MS_MAX,
        sync_us=choice([0, 100, 1000, 5000]),
        latencies_us=matrix,
        spread=choice(["steady", "uniform", "uniform", "exponential", "heavy"]),
        batch_requests_max=choice([1, 2, 4, 8]),
        gather_us=choice([0, 0, 500, 3000]),
        patience_us=choice([50_000, 300_000, 2_000_000]) + 6 * far_ticks * TICK_US,
        client_us=choice([10, 200]),
        attempts_max=choice([1, 3]),
        retrying=seed % 8 in (2, 5, 7),
        doubling=seed % 8 == 5,
        session_idle_ms_max=(200, 2000, 3_600_000)[seed % 3],
        # only where clients give up: clients that never do would wait for results that are dropped
        session_results_bytes_max=50 if seed % 8 in (1, 4) else 16 << 20,
        results_bytes_max=100 if seed % 8 in (1, 3, 4) else 128 << 20,
    )
