"""State that the protocol classes of one replica share: log, outbox, execution, phases; and how instances are decided.

Guarantees: an instance is decided once, and finally; a fast-path decision is durable at its leader before it is visible
(docs/reference/protocol.md#6-what-is-durable-when-and-what-may-be-removed); an Abort effect is emitted for an own
instance that was decided nop. Which value is decided is left to `proposer`, `acceptor` and `recoverer`.
"""

from collections.abc import Mapping

from pydsm.core.log.conflicts import Relation
from pydsm.core.log.instance import Instance
from pydsm.core.log.log import Log
from pydsm.core.log.window import Window
from pydsm.core.protocol.distances import Distances
from pydsm.core.protocol.execution import Execution
from pydsm.core.protocol.outbox import Outbox
from pydsm.core.protocol.phases import Phase
from pydsm.core.protocol.repeats import Repeats
from pydsm.core.types.checkpoint import CheckpointSchedule, checkpoint_behind, is_checkpoint
from pydsm.core.types.config import Config
from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.effects import Abort, Execute, FrontierRecord, TakeCheckpoint
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, merge
from pydsm.core.types.messages import Batch, Value
from pydsm.core.types.quorums import quorums


class ReplicaState:
    """State shared by the acceptor, proposer, recoverer and snapshot fetcher of one replica."""

    def __init__(self, config: Config, relation: Relation) -> None:
        self.config = config
        self.me = config.replica
        self.members = tuple(ReplicaId(number) for number in range(config.replicas))
        self.peers = tuple(member for member in self.members if member != self.me)
        self.quorums = quorums(config.replicas)
        self.log = Log(config.replicas, relation, config.gap_instances_max, config.backlog_instances_min)
        self.window = Window(self.me, self.members, self.log.no_deps)
        self.outbox = Outbox()
        self.execution = Execution(self.log, self._executed, self._checkpointed)
        self.schedule = CheckpointSchedule(config)
        self.distances = Distances(self.members)
        self.recorded = self.log.no_deps
        """Per leader, the executed prefix in the last FrontierRecord."""
        self._leading: dict[InstanceId, Phase] = {}
        self.leading: Mapping[InstanceId, Phase] = self._leading
        """The current phase of each instance that this replica drives, as its leader or in a recovery. Read-only:
        `begin_phase` and `end_phase` change it."""
        self.repeats = Repeats(self.peers, config.repeats_max, self.outbox, self._leading)
        self.decided: list[InstanceId] = []
        """Instances decided since the last `Recoverer.settle`."""
        self.counters = ProtocolCounters()
        self.now = Tick(0)
        self.first_index = 1
        """Own indexes below were used or reserved by an earlier start: they are never led in round 0 again."""
        self.in_flight = 0
        """Own instances of this start that are not executed yet."""

    def begin_phase(self, id: InstanceId, phase: Phase) -> None:
        """Start a phase of an instance; it replaces the phase before, whose answers no longer count."""
        self._leading[id] = phase

    def end_phase(self, id: InstanceId) -> None:
        """Stop driving an instance, if this replica does: it was decided, or its ballot was given up."""
        self._leading.pop(id, None)

    def persist(self, instance: Instance) -> None:
        """Write the instance's record durably before any other effect of this turn, except early messages."""
        self.outbox.persist(instance.record())

    def decide(self, id: InstanceId, value: Value, deps: Deps, *, durable_first: bool = False) -> bool:
        """Commit an instance and execute what becomes executable.

        Args:
            id: the instance.
            value: the decided batch, or NOP.
            deps: its dependency vector, one index per replica.
            durable_first: for a fast-path commit at its leader. No other replica could report this decision after a
                crash of the leader, so its record must be durable before any effect of this turn is visible.

        Returns False if the instance was decided before. Raises InvariantViolation if it was decided differently.
        """
        instance = self.log.instance(id)
        if instance.decided:
            self.log.check_same(instance, value, deps)
            return False
        self.log.commit(instance, value, deps)
        if durable_first:
            self.outbox.persist(instance.record())
        else:
            self.outbox.persist_lazily(instance.record())
        self.end_phase(id)
        self.decided.append(id)
        if not isinstance(value, Batch):
            self.counters.nops += 1
            if id.leader == self.me and instance.initial_batch is not None:
                self.counters.aborted += 1
                self.outbox.abort(Abort(id, instance.initial_batch.runs))
        self.execution.committed(instance)
        return True

    def _executed(self, instance: Instance) -> None:
        if instance.id.leader == self.me and instance.id.index >= self.first_index:
            self.in_flight -= 1
        self.schedule.executed(instance.id, instance.value)
        if isinstance(instance.value, Batch):
            self.counters.executed += 1
            if not is_checkpoint(instance.value):
                self.outbox.execute(Execute(instance.id, instance.value))

    def _checkpointed(self, component: list[Instance]) -> None:
        """Take a checkpoint: after this component, every replica has executed the same set of instances."""
        schedule = self.schedule
        checkpoint = checkpoint_behind(component, schedule.number + 1, schedule.position, self.log.floor)
        schedule.begin(checkpoint, self.now)
        self.log.begin_index()
        # The record makes all lazy records durable in the same commit. So when the checkpoint's snapshot exists, the
        # disk has a decided record of every instance in it, which a restart checks before it uses the snapshot.
        self.record_frontier(always=True)
        self.outbox.execute(TakeCheckpoint(checkpoint))

    def record_frontier(self, *, always: bool = False) -> Deps:
        """Write a FrontierRecord, with which all lazy records become durable.

        Unless `always`, no record is written when nothing was executed since the last one.

        Returns the executed prefix per leader. Peers may learn it once this turn is durable, that is in `sends`.
        """
        # Never below the last record: after a restart, an undecided instance may delay the execution of instances that
        # were executed, and reported to peers, before.
        executed = merge(self.recorded, self.log.frontier)
        if always or executed != self.recorded:
            self.recorded = executed
            self.outbox.persist(FrontierRecord(executed, self.log.dropped))
        return executed

    def repeat_later(self, phase: Phase) -> None:
        """Set the next deadline of a phase whose request is repeated now.

        The wait doubles with each repetition, so that repetition alone cannot saturate a slow network or disk. It is
        limited by the configuration, or by four measured round trips to a quorum if these take longer.
        """
        wait = self.answer_ticks << min(phase.repeats, 16)
        longest = max(self.config.retry_ticks, self.config.backoff_ticks_max, 4 * self.quorum_ticks)
        phase.repeats += 1
        phase.deadline = Tick(self.now + min(wait, longest))

    @property
    def quorum_ticks(self) -> int:
        """The measured round trip to a slow quorum, in ticks."""
        return self.distances.to_nearest(self.quorums.slow - 1)

    @property
    def answer_ticks(self) -> int:
        """Ticks within which a quorum should answer; after these a request is repeated."""
        return max(self.config.retry_ticks, 2 * self.quorum_ticks)

    def yield_to_promise(self, instance: Instance) -> None:
        """Stop leading an instance in a ballot below the one just promised.

        The promise says that this replica votes in no lower ballot, and the leader counts its own vote.
        """
        phase = self.leading.get(instance.id)
        if phase is not None and phase.ballot < instance.promised:
            self.end_phase(instance.id)
