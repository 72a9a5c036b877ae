"""One replica of the protocol: five verbs in, effects out. Start reading here.

`propose` leads a batch, `receive` takes a peer's message, `tick` brings time, `restore` brings what the disk kept, and
`take_effects` hands out what is to be done. What the rooms behind it decide: `acceptor` how to answer, `commit` how to
lead, `recoverer` and `recovery` how to finish what others began, `execution` in which order to execute.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pydsm.core import messages as m
from pydsm.core.acceptor import Acceptor
from pydsm.core.commit import PipelineFull, Proposer
from pydsm.core.config import Config
from pydsm.core.conflicts import DeclaredKeys, Relation
from pydsm.core.counters import Counters
from pydsm.core.effects import Effects, FrontierRecord, Record, ReservationRecord
from pydsm.core.faults import CallerFault, PeerFault, WorldFault
from pydsm.core.ids import Deps, InstanceId, ReplicaId, Tick, merge, with_instance
from pydsm.core.instance import Instance
from pydsm.core.recoverer import Recoverer
from pydsm.core.session_conflicts import with_sessions
from pydsm.core.state import ReplicaState

__all__ = ["PipelineFull", "Replica"]


class Replica:
    """Owned by one loop; not thread-safe. Call `take_effects` after each of the other verbs."""

    def __init__(self, config: Config, relation: Relation | None = None) -> None:
        self._state = ReplicaState(config, with_sessions(relation or DeclaredKeys()))
        self._acceptor = Acceptor(self._state)
        self._proposer = Proposer(self._state, self._acceptor)
        self._recoverer = Recoverer(self._state, self._acceptor, self._proposer)
        self._next_scan = Tick(0)
        self._next_gossip = Tick(0)
        self._recorded: Deps = self._state.log.no_deps
        """Executed, and said so in a record."""

    def propose(self, batch: m.Batch) -> InstanceId | PipelineFull:
        """Lead a new instance that agrees on `batch`; its fate comes back as an Execute or an Abort effect."""
        id = self._proposer.propose(batch)
        self._recoverer.settle()
        return id

    def receive(self, sender: ReplicaId, message: m.Message) -> None:
        """Take a message of a member of the group; one of its own comes back through here once it is durable.

        Raises:
            PeerFault: no correct replica sends this; at most some instances that it names were taken to exist.
            BrokenInvariant: the replica must stop.
        """
        if not 0 <= sender < self._state.config.replicas:
            raise PeerFault(
                f"a message of replica {sender}, which is not in this group of {self._state.config.replicas}"
            )
        if isinstance(message, m.PreAccept) and sender != message.id.leader:
            raise PeerFault(f"replica {sender} sent a PreAccept for {message.id}, which only its leader may send")
        if self._is_stale(message):
            return
        self._hear_of(message)
        self._dispatch(sender, message)
        self._recoverer.settle()

    def _is_stale(self, message: m.Message) -> bool:
        """About an instance that every member has executed and can execute again: it was sent before that."""
        id: InstanceId | None = getattr(message, "id", None)
        return id is not None and self._state.log.is_dropped(id)

    def _hear_of(self, message: m.Message) -> None:
        """Every instance that a message names exists, so it must be decided, and is recovered if need be."""
        log = self._state.log
        match message:
            case m.Frontier():
                log.hear_of(message.known)
            case m.PrepareOk():
                log.hear_of(with_instance(message.deps, message.id))
                log.hear_of(message.initial_deps)
            case m.PreAccept() | m.PreAcceptOk() | m.Accept() | m.Commit() | m.Validate():
                log.hear_of(with_instance(message.deps, message.id))
            case m.Inquire():
                pass
            case m.ValidateOk():
                for id in (message.id, *(invalidator.id for invalidator in message.invalidators)):
                    log.hear_of(with_instance(log.no_deps, id))
            case _:
                log.hear_of(with_instance(log.no_deps, message.id))

    def _dispatch(self, sender: ReplicaId, message: m.Message) -> None:
        acceptor, recoverer = self._acceptor, self._recoverer
        match message:
            case m.PreAccept():
                acceptor.on_pre_accept(sender, message)
            case m.PreAcceptOk():
                self._proposer.on_pre_accept_ok(sender, message)
            case m.Commit():
                recoverer.on_commit(message.id)
                acceptor.on_commit(message)
            case m.Accept():
                if message.ballot.round > 0:
                    recoverer.on_activity(sender, message.id)
                acceptor.on_accept(sender, message)
            case m.AcceptOk():
                self._proposer.on_accept_ok(sender, message)
            case m.Prepare():
                recoverer.on_activity(sender, message.id)
                acceptor.on_prepare(sender, message)
            case m.PrepareOk():
                recoverer.on_prepare_ok(sender, message)
            case m.Validate():
                recoverer.on_activity(sender, message.id)
                acceptor.on_validate(sender, message)
            case m.ValidateOk():
                recoverer.on_validate_ok(sender, message)
            case m.Waiting():
                recoverer.on_activity(sender, message.id)
                recoverer.on_waiting(message)
            case m.Refuse():
                recoverer.on_refuse(sender, message)
            case m.Inquire():
                acceptor.on_inquire(sender, message)
            case m.Frontier():
                self._state.window.report(sender, message.executed, message.known)

    def tick(self, now: Tick) -> None:
        """Time has come to `now`: repeat what is unanswered, look into what is late, gossip."""
        state = self._state
        if now < state.now:
            raise CallerFault(f"time went back from tick {state.now} to {now}: use a monotonic clock")
        state.now = state.log.now = now
        for id, phase in list(state.leading.items()):
            if phase.deadline <= now and state.leading.get(id) is phase:
                self._recoverer.on_deadline(id, phase)
        if now >= self._next_scan:
            self._next_scan = Tick(now + state.config.scan_ticks)
            self._recoverer.scan()
        if now >= self._next_gossip:
            self._next_gossip = Tick(now + state.config.gossip_ticks)
            self._gossip()
        state.log.drop(state.window.advance(state.log.frontier), state.config.drop_instances_max)
        self._recoverer.settle()

    def _gossip(self) -> None:
        """Tell what is executed, once the disk could execute it again: the record takes all lazy ones along.

        The own report comes back like those of others, when it is durable. After a restart it is not less than before,
        even where something that is undecided keeps what is on disk from being executed again at once.
        """
        state = self._state
        executed = merge(self._recorded, state.log.frontier)
        if executed != self._recorded:
            self._recorded = executed
            state.outbox.persist(FrontierRecord(executed, state.log.dropped))
        state.outbox.send(state.members, m.Frontier(executed, state.log.known))

    def take_effects(self) -> Effects:
        """Everything asked for since the last call, in its legal order (see `effects`)."""
        return self._state.outbox.take()

    def restore(self, records: Iterable[Record]) -> None:
        """Begin as the replica whose records these are. Once, before any other verb; executes what is committed."""
        state = self._state
        reserved = 0
        for record in records:
            if isinstance(record, ReservationRecord):
                reserved = max(reserved, record.up_to)
            elif isinstance(record, FrontierRecord):
                self._recorded = record.executed
            else:
                state.log.restore(Instance.from_record(record))
        self._check_kept(self._recorded)
        reserved = max(reserved, state.log.known[state.me])
        if reserved:
            state.log.hear_of_restored(with_instance(state.log.no_deps, InstanceId(state.me, reserved)))
        self._proposer.restore(reserved)
        decided = [instance for instance in state.log.instances.values() if instance.decided]
        for instance in sorted(decided, key=self._place_in_history):
            state.execution.committed(instance)

    def _check_kept(self, executed: Deps) -> None:
        """Others may have forgotten what this replica reported as executed. Raises WorldFault if some is missing."""
        instances = self._state.log.instances
        for leader, last in enumerate(executed):
            for index in range(1, last + 1):
                instance = instances.get(InstanceId(ReplicaId(leader), index))
                if instance is None or not instance.decided:
                    raise WorldFault(
                        f"the record of instance {leader}.{index} is missing, though others were told that it is "
                        "executed here: this replica must rejoin with an empty disk"
                    )

    def _place_in_history(self, instance: Instance) -> float:
        """How much of what is known the instance comes after, 0 to 1.

        Execution finds the agreed order by itself; near to it, each step finds little that is not executed yet.
        """
        return max(dep / max(known, 1) for dep, known in zip(instance.deps, self._state.log.known, strict=True))

    @property
    def frontier(self) -> Deps:
        """Per leader, the contiguous prefix executed here."""
        return self._state.log.frontier

    @property
    def known(self) -> Deps:
        """Per leader, the highest index heard of."""
        return self._state.log.known

    @property
    def dropped(self) -> Deps:
        """Per leader, the prefix that every member has executed and that has left memory."""
        return self._state.log.dropped

    @property
    def in_flight(self) -> int:
        """Own instances of this life that are not executed yet."""
        return self._state.in_flight

    @property
    def counters(self) -> Counters:
        """What this replica has done since it was made."""
        return self._state.counters

    @property
    def instances(self) -> Mapping[InstanceId, Instance]:
        """Read-only, for tools and the simulator's invariants."""
        return MappingProxyType(self._state.log.instances)
