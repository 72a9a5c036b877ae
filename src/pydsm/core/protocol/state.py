"""What the rooms of one replica share: log, outbox, execution, phases; and the one way to decide an instance.

Guards: a decision is final and made once; what a leader decides on the fast path is durable before it is visible
(PROTOCOL 6); clients of an own instance that became nop are told.
"""

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
    """Shared by acceptor, proposer and recoverer of one replica."""

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
        """Executed, and said so in a record."""
        self.leading: dict[InstanceId, Phase] = {}
        self.repeats = Repeats(self.peers, config.repeats_max, self.outbox, self.leading)
        self.decided: list[InstanceId] = []
        """Decided since the recoverer last looked."""
        self.counters = ProtocolCounters()
        self.now = Tick(0)
        self.first_index = 1
        """Own indexes below belong to an earlier life: never led in round 0 again."""
        self.in_flight = 0
        """Own instances of this life that are not executed yet."""

    def persist(self, instance: Instance) -> None:
        """Durable before anything of this turn becomes visible."""
        self.outbox.persist(instance.record())

    def decide(self, id: InstanceId, value: Value, deps: Deps, *, durable_first: bool = False) -> bool:
        """Commit. False if the instance was decided before; raises InvariantViolation if it was decided otherwise.

        `durable_first` is for a fast path commit at its leader: nobody else could tell that it happened.
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
        self.leading.pop(id, None)
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
        """Exactly here all replicas have executed the same; what is on the disk reaches as far before it is used."""
        schedule = self.schedule
        checkpoint = checkpoint_behind(component, schedule.number + 1, schedule.position, self.log.floor)
        schedule.begin(checkpoint, self.now)
        self.log.begin_index()
        self.record_frontier(always=True)
        self.outbox.execute(TakeCheckpoint(checkpoint))

    def record_frontier(self, *, always: bool = False) -> Deps:
        """Have a record of what is executed, which takes all lazy ones along. Gives what may be told once durable.

        Unless `always`, none is made when nothing was executed since the last one.

        After a restart it is not less than before, even where something that is undecided keeps what is on disk from
        being executed again at once.
        """
        executed = merge(self.recorded, self.log.frontier)
        if always or executed != self.recorded:
            self.recorded = executed
            self.outbox.persist(FrontierRecord(executed, self.log.dropped))
        return executed

    def repeat_later(self, phase: Phase) -> None:
        """Set the deadline of a phase whose question is repeated now.

        Each time later, so that repetition alone can never keep a slow network or disk busy. The longest wait is of
        the configuration only where answers come sooner than that.
        """
        wait = self.answer_ticks << min(phase.repeats, 16)
        longest = max(self.config.retry_ticks, self.config.backoff_ticks_max, 4 * self.quorum_ticks)
        phase.repeats += 1
        phase.deadline = Tick(self.now + min(wait, longest))

    @property
    def quorum_ticks(self) -> int:
        """The measured round trip to a slow quorum."""
        return self.distances.to_nearest(self.quorums.slow - 1)

    @property
    def answer_ticks(self) -> int:
        """How long a quorum may take to answer before a question is repeated."""
        return max(self.config.retry_ticks, 2 * self.quorum_ticks)

    def yield_to_promise(self, instance: Instance) -> None:
        """Stop driving an instance in a ballot below the one just promised: its own vote can no longer count."""
        phase = self.leading.get(instance.id)
        if phase is not None and phase.ballot < instance.promised:
            del self.leading[instance.id]
