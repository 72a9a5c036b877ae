"""Explores every order of events in a small world: breadth first over the real core, without states seen before.

Has no randomness and no clock. Possible events in each state: a message in flight arrives, a replica that has not yet
proposed proposes, a fast timer fires if that has an effect, a replica begins to recover an instance, a replica restarts
from its records if the world allows it. A message that was sent may arrive at any later time, any number of times, or
never, and no event has to happen. This covers loss, duplication, reordering, a crash between two sends, and replicas
that stop for good at any point (no further event happens to them) without separate events. The disk is synchronous, so
a crash before a write equals the loss of the message that caused it. Timeouts and slow disks are left to the seeded
simulator.

A replica's step depends only on its own state and the event, so each step is computed once, by the real code, and
looked up afterwards: this makes millions of global states affordable.
"""

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydsm.core.protocol.phases import PreAccepting
from pydsm.core.protocol.proposer import AcceptSlow, decide_pre_accept
from pydsm.core.replica import Replica
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Abort, Execute, InstanceRecord, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers, request_id
from pydsm.core.types.messages import (
    AcceptOk,
    Batch,
    Commit,
    Footprint,
    Message,
    PreAcceptOk,
    PrepareOk,
    Refuse,
    Run,
    ValidateOk,
    Value,
)
from pydsm.core.types.quorums import quorums
from pydsm.core.types.status import Status
from pydsm.runtime.perform import Performer
from pydsm.sim.tools.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class SmallWorld:
    """The possible events. The defaults are the world that the tests of a release must cover."""

    replicas: int = 3
    proposers: tuple[int, ...] = (0, 1)
    """Replicas that propose one instance each; all write the same key."""
    recoveries: int = 1
    """Recoveries that may begin, in addition to those that a waiting recovery begins automatically."""
    recovered: tuple[int, ...] = (0,)
    """Leaders whose instances may be recovered. Proposers differ only by their numbers, so one leader is enough."""
    restarts: int = 0
    """Crashes after which the replica restarts immediately from its records."""
    states_max: int = 20_000_000
    """Maximum number of states; beyond it, the search ends as incomplete."""


@dataclass(frozen=True, slots=True)
class StateOutcome:
    """The result of a search. `story` is the shortest sequence of events to the violation, one line per event."""

    states: int
    transitions: int
    replica_states: int
    complete: bool
    violation: str | None
    story: tuple[str, ...] = ()


MakeReplica = Callable[[Config], Replica]

_Event = tuple[str, object, object]
_ANSWERS = (PreAcceptOk, AcceptOk, PrepareOk, ValidateOk, Refuse, Commit)


class StateSearchReport(Protocol):
    """Receives the progress of the search from time to time."""

    def __call__(self, states: int, waiting: int) -> None:
        """`states` were found, and `waiting` of them are not explored yet."""
        ...


@dataclass(frozen=True, slots=True)
class _View:
    """The part of a replica's state that the invariants use: decisions with value and vector, and execution order."""

    decided: tuple[tuple[InstanceId, Batch | None, Deps], ...]
    votes: tuple[tuple[InstanceId, Ballot | None, Value | None, Deps], ...]
    """Accepted and undecided: the instance, its ballot, value and vector."""
    executed: tuple[InstanceId, ...]
    open: tuple[InstanceId, ...]
    """Known and undecided: these may be recovered."""
    late: tuple[InstanceId, ...]
    """Instances whose fast timer would now lead to the slow path."""


class _Io:
    """Disk, network and application of one step: everything happens immediately, and messages are collected."""

    def __init__(self, records: dict[object, Record], executed: list[InstanceId]) -> None:
        self.sent: list[tuple[tuple[ReplicaId, ...], Message]] = []
        self._records = records
        self._executed = executed

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        for record in records:
            self._records[record.id if isinstance(record, InstanceRecord) else type(record).__name__] = record
        done()

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        self.sent.append((to, message))

    def execute(self, execution: Execute) -> None:
        self._executed.append(execution.id)

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        pass

    def transfer(self, transfer: Transfer) -> None:
        """Nothing is compacted here, so nothing is fetched."""

    def abort(self, abort: Abort) -> None:
        pass


class _Steps:
    """All replica states and steps found so far, by number."""

    def __init__(self, world: SmallWorld, make_replica: MakeReplica) -> None:
        self._world = world
        self._make_replica = make_replica
        self._numbers: dict[object, int] = {}
        self._frozen: list[bytes] = []
        self.views: list[_View] = []
        self._messages: dict[tuple[int, int, Message], int] = {}
        self.messages: list[tuple[int, int, Message]] = []
        self.addressed_to = [0] * world.replicas
        """Per replica, the messages to it, as bits."""
        self._answers_about: dict[tuple[int, InstanceId], int] = {}
        self._known: dict[tuple[int, _Event], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._frozen)

    def first(self, replica: int) -> int:
        """The initial state of a replica."""
        return self._remember(self._make_replica(self._config(replica)), {}, [])

    def _config(self, replica: int) -> Config:
        return Config(ReplicaId(replica), self._world.replicas, seed=0)

    def answers_to_decided(self, replica: int, state: int) -> int:
        """Answers to this replica about decided instances, which cannot change it any more; as bits."""
        bits = 0
        for id, _, _ in self.views[state].decided:
            bits |= self._answers_about.get((replica, id), 0)
        return bits

    def step(self, replica: int, state: int, event: _Event) -> tuple[int, int]:
        """The state after the event, and the messages that it sends, as bits."""
        key = (state, event)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compute(replica, state, event)
        return known

    def _compute(self, replica: int, state: int, event: _Event) -> tuple[int, int]:
        core, records, executed = pickle.loads(self._frozen[state])  # written by this process
        if event[0] == "restart":
            core, executed = self._make_replica(self._config(replica)), []
        io = _Io(records, executed)
        performer = Performer(ReplicaId(replica), core, io, io, io)
        _apply(core, event, records)
        performer.pump()
        sent = 0
        for receivers, message in io.sent:
            for receiver in receivers:
                sent |= 1 << self._message(replica, receiver, message)
        return self._remember(core, records, executed), sent

    def _remember(self, core: Replica, records: dict[object, Record], executed: list[InstanceId]) -> int:
        kept = tuple(sorted(records.items(), key=repr)) if self._world.restarts else ()
        key = (fingerprint(core), kept, tuple(executed))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._frozen)
            self._frozen.append(pickle.dumps((core, records, executed)))
            self.views.append(_view(core, executed))
        return number

    def _message(self, sender: int, receiver: int, message: Message) -> int:
        key = (sender, receiver, message)
        number = self._messages.get(key)
        if number is None:
            number = self._messages[key] = len(self.messages)
            self.messages.append(key)
            self.addressed_to[receiver] |= 1 << number
            if isinstance(message, _ANSWERS):
                about = (receiver, message.id)
                self._answers_about[about] = self._answers_about.get(about, 0) | 1 << number
        return number


def _apply(core: Replica, event: _Event, records: dict[object, Record]) -> None:
    match event:
        case ("propose", Batch() as batch, _):
            core.propose(batch)
        case ("deliver", int() as sender, message):
            core.receive(ReplicaId(sender), message)  # type: ignore[arg-type]  # an event carries what was sent
        case ("fast timer", InstanceId() as id, _):
            core._recoverer.on_deadline(id, core._state.leading[id])
        case ("recover", InstanceId() as id, _):
            core._recoverer.recover(id)
        case ("restart", _, _):
            core.restore(records.values())


def _view(core: Replica, executed: list[InstanceId]) -> _View:
    decided = []
    undecided = []
    votes = []
    for id, instance in sorted(core.instances.items()):
        if instance.decided:
            batch = instance.value if isinstance(instance.value, Batch) else None
            decided.append((id, batch, instance.deps))
        else:
            undecided.append(id)
            if instance.status is Status.ACCEPTED:
                votes.append((id, instance.voted, instance.value, instance.deps))
    late = tuple(
        id
        for id, phase in sorted(core._state.leading.items())
        if isinstance(phase, PreAccepting) and _slow_when_late(phase, core._state.config.replicas)
    )
    return _View(tuple(decided), tuple(votes), tuple(executed), tuple(undecided), late)


def _slow_when_late(phase: PreAccepting, replicas: int) -> bool:
    decision = decide_pre_accept(
        phase.initial, phase.answers.values(), outstanding=replicas, not_sent_to=0, late=True, quorums=quorums(replicas)
    )
    return isinstance(decision, AcceptSlow)


_Global = tuple[tuple[int, ...], int, int, int, int]
"""Replica states by number, messages sent so far as bits, who has proposed as bits, and how many recoveries and
restarts may still happen."""


class StateSearch:
    """One exhaustive search. Call `run` once."""

    def __init__(self, world: SmallWorld, make_replica: MakeReplica = Replica) -> None:
        self._world = world
        self._steps = _Steps(world, make_replica)
        self._batches = {
            proposer: Batch(
                (Run(request_id(0, ReplicaId(proposer), 0, proposer), 1),), (b"write",), Footprint(writes=(b"key",)), 0
            )
            for proposer in world.proposers
        }
        self._checked: set[tuple[int, ...]] = set()
        self._widest: dict[object, list[int]] = {}
        self._deliveries: dict[tuple[int, int], tuple[tuple[int, int, int], ...]] = {}

    def run(self, report: StateSearchReport | None = None) -> StateOutcome:
        """Explore until every state was seen, a violation is found, or `states_max` is reached."""
        world, steps = self._world, self._steps
        first = tuple(steps.first(replica) for replica in range(world.replicas))
        start: _Global = (first, 0, 0, world.recoveries, world.restarts)
        self._widen(start)
        came_from: dict[_Global, _Global] = {start: start}
        waiting = deque([start])
        transitions = 0
        while waiting:
            now = waiting.popleft()
            if not self._is_widest(now):
                continue
            for following in self._following(now):
                transitions += 1
                if following in came_from or not self._widen(following):
                    continue
                came_from[following] = now
                waiting.append(following)
                violation = self._violation(following[0])
                if violation is not None:
                    story = self._story(came_from, following)
                    return StateOutcome(len(came_from), transitions, len(steps), False, violation, story)
                if report is not None and len(came_from) % 100_000 == 0:
                    report(len(came_from), len(waiting))
            if len(came_from) > world.states_max:
                return StateOutcome(len(came_from), transitions, len(steps), False, None)
        return StateOutcome(len(came_from), transitions, len(steps), True, None)

    def _widen(self, now: _Global) -> bool:
        """Whether this state allows an event that no earlier state allows.

        A state that differs only by having fewer messages allows nothing more, since messages need not arrive.
        """
        key = (now[0], now[2:])
        known = self._widest.get(key)
        if known is None:
            self._widest[key] = [now[1]]
            return True
        if any(now[1] & ~sent == 0 for sent in known):
            return False
        known[:] = [sent for sent in known if sent & ~now[1] != 0]
        known.append(now[1])
        return True

    def _is_widest(self, now: _Global) -> bool:
        return now[1] in self._widest[now[0], now[2:]]

    def _following(self, now: _Global) -> Iterator[_Global]:
        states, sent, proposed, recoveries, restarts = now
        for replica, state in enumerate(states):
            for _, after, more in self._effective_deliveries(replica, state, sent):
                yield self._after(now, replica, after, more)
            for event in self._own_events(now, replica):
                after, more = self._steps.step(replica, state, event)
                kind = event[0]
                left: _Global = (
                    states,
                    sent,
                    proposed | (1 << replica if kind == "propose" else 0),
                    recoveries - (kind == "recover"),
                    restarts - (kind == "restart"),
                )
                yield self._after(left, replica, after, more)

    def _own_events(self, now: _Global, replica: int) -> Iterator[_Event]:
        states, _, proposed, recoveries, restarts = now
        view = self._steps.views[states[replica]]
        if replica in self._batches and not proposed >> replica & 1:
            yield ("propose", self._batches[replica], None)
        for id in view.late:
            yield ("fast timer", id, None)
        if recoveries:
            for id in view.open:
                if id.leader in self._world.recovered:
                    yield ("recover", id, None)
        if restarts:
            yield ("restart", None, None)

    def _after(self, now: _Global, replica: int, state: int, more: int) -> _Global:
        states = (*now[0][:replica], state, *now[0][replica + 1 :])
        return (states, self._relevant(now[1] | more, states), *now[2:])

    def _effective_deliveries(self, replica: int, state: int, sent: int) -> tuple[tuple[int, int, int], ...]:
        """Messages to this replica that change it or make it send a new message: (message, state, sent)."""
        inbox = sent & self._steps.addressed_to[replica]
        known = self._deliveries.get((state, inbox))
        if known is None:
            found = []
            for number in _bits(inbox):
                sender, _, message = self._steps.messages[number]
                after, more = self._steps.step(replica, state, ("deliver", sender, message))
                if after != state or more:
                    found.append((number, after, more))
            known = self._deliveries[state, inbox] = tuple(found)
        return known

    def _relevant(self, sent: int, states: tuple[int, ...]) -> int:
        """The messages without answers about instances that their receiver has decided: these have no effect."""
        for replica, state in enumerate(states):
            sent &= ~self._steps.answers_to_decided(replica, state)
        return sent

    def _violation(self, states: tuple[int, ...]) -> str | None:
        if states in self._checked:
            return None
        self._checked.add(states)
        views = [self._steps.views[state] for state in states]
        decided: dict[InstanceId, tuple[Batch | None, Deps]] = {}
        for replica, view in enumerate(views):
            for id, batch, deps in view.decided:
                value = (batch, deps if batch is not None else ())
                if decided.setdefault(id, value) != value:
                    return f"agreement: replica {replica} has {id} as {value}, another as {decided[id]}"
        accepted: dict[tuple[InstanceId, Ballot | None], tuple[Value | None, Deps]] = {}
        for replica, view in enumerate(views):
            for id, ballot, vote, deps in view.votes:
                if accepted.setdefault((id, ballot), (vote, deps)) != (vote, deps):
                    return f"vote: replica {replica} accepted {vote} for {id} in {ballot}, another one another value"
        commands = [(id, deps) for id, (batch, deps) in decided.items() if batch is not None]
        for position, (id, deps) in enumerate(commands):
            for other, other_deps in commands[:position]:
                if not covers(deps, other) and not covers(other_deps, id):
                    return f"visibility: neither of {other} {other_deps} and {id} {deps} covers the other"
        longest = max((view.executed for view in views), key=len)
        for replica, view in enumerate(views):
            if len(set(view.executed)) < len(view.executed):
                return f"execution: replica {replica} executed one instance twice: {view.executed}"
            if view.executed != longest[: len(view.executed)]:
                return f"order: replica {replica} executed {view.executed}, another {longest}"
        return None

    def _story(self, came_from: dict[_Global, _Global], at: _Global) -> tuple[str, ...]:
        lines: list[str] = []
        while came_from[at] != at:
            before = came_from[at]
            lines.append(self._describe(before, at))
            at = before
        return tuple(reversed(lines))

    def _describe(self, before: _Global, after: _Global) -> str:
        """Find the event that leads from one state to the next, as a line."""
        for replica, (old, new) in enumerate(zip(before[0], after[0], strict=True)):
            for number, state, more in self._effective_deliveries(replica, old, before[1]):
                if self._after(before, replica, state, more) == after:
                    sender, _, message = self._steps.messages[number]
                    return f"{replica} receives from {sender}: {message}"
            for event in self._own_events(before, replica):
                if self._steps.step(replica, old, event)[0] == new:
                    return f"{replica}: {event[0]} {event[1] if isinstance(event[1], InstanceId) else ''}".rstrip()
        return "unknown event"


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
