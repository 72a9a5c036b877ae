"""Gathers commands into batches, and brings each command's result back to whoever submitted it.

Decides when a batch leaves: an idle replica proposes at once, a busy one lets commands gather while its instances
are in flight, so batches grow with the load and no clock is waited for. Guards that every command is answered once:
with its result, or with a value that says that it was definitely not executed. Guards program order together with
`command_queue`: what was not executed is proposed again ahead of what the same connection has sent since. Leaves
agreement to the core and meaning to the machine.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pydsm.core.types.errors import InvariantViolation, UsageError
from pydsm.core.types.ids import (
    SEQUENCES,
    UNTRACKED_SESSIONS_START,
    InstanceId,
    ReplicaId,
    SessionId,
    is_tracked,
    request_id,
    sequence_of,
    session_of,
)
from pydsm.core.types.messages import Batch, Footprint, Run
from pydsm.machines.base import CommandFailed, Result, StateMachine
from pydsm.machines.failures import guarded_footprint
from pydsm.runtime.command_queue import CommandQueue, Sequencing, Stream, Submission
from pydsm.runtime.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Aborted:
    """The command was definitely not executed and will not be; it is safe to submit again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The command was not taken, because the replica is full or stopping; try again later or elsewhere."""

    reason: str


Answer = Result | Aborted | Overloaded
"""What a submitted command comes back as."""

Reply = Callable[[Answer], None]
"""Takes the answer to one command. What it raises is logged."""


ReplyMany = Callable[[int, Sequence[Answer]], None]
"""Takes the answers to some commands that were submitted together: the place of the first, and one answer for it and
each of those behind it. Every command is answered once, in as many parts as there are batches. What it raises is
logged."""


class SubmitMany(Protocol):
    """How servers hand over commands that came together, which costs less for each than one by one."""

    def __call__(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """As `Submit`, for several commands. They may be executed in several batches.

        Those of one stream are executed in the order in which they are submitted, in whatever calls. When one of them
        is answered `Aborted`, so are all later ones that wait.
        """
        ...


class SubmitRequests(Protocol):
    """How the requests of a session are handed over, whose results are kept so that they may come again."""

    def __call__(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, again: bool) -> None:
        """As `SubmitMany`, under these ids. `again` unless this is surely the first time (`sessions.Grant`).

        They are executed in the order of the run, and none before the request that `run.after` names is executed.
        """
        ...


class Submit(Protocol):
    """How servers and clients in this process hand over commands."""

    def __call__(self, command: bytes, reply: Reply) -> None:
        """Take one command; cheap, so pipelined commands are submitted one after another.

        `reply` is called exactly once, on the loop, perhaps before this returns; never if the replica stops before
        the outcome is known. In no order with other commands: see `SubmitMany` for that.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is gathered, and how much is kept waiting."""

    batch_commands_max: int = 1000
    """Commands in one instance."""
    batch_bytes_max: int = 1 << 20
    """Bytes of commands in one instance; a single larger command goes alone."""
    command_bytes_max: int = 8 << 20
    """Bytes of one command; a larger one fails without being submitted."""
    partial_instances_max: int = 2
    """Own instances in flight beyond which only full batches leave: this is what lets batches grow under load."""
    instances_max: int = 16
    """Own instances in flight beyond which nothing leaves."""
    queue_commands_max: int = 100_000
    """Commands waiting for a batch; one more is answered `Overloaded`."""
    queue_bytes_max: int = 64 << 20
    """Bytes of commands waiting for a batch; more are answered `Overloaded`."""
    attempts_max: int = 5
    """Instances tried for commands whose instances are decided nop, or executed without what has to come before the
    commands, until they are answered `Aborted`."""


class Batcher:
    """Between `submit` and the core's `propose`.

    `propose` gives the instance, or None when the core's pipeline is full. `wake` is called when `flush` has
    something to do; it should come within the same turn of the loop, once for everything submitted in that turn.
    `now_ms` is the time for new batches, Unix time in milliseconds; while that is None, nothing is proposed.
    `check` raises UsageError for commands that must not be proposed. `has_settled` see `Sequencing`. While `has_room`
    says no, nothing leaves and batches grow. `session` numbers the ids of commands that come without.
    """

    def __init__(
        self,
        replica: ReplicaId,
        machine: StateMachine,
        propose: Callable[[Batch], InstanceId | None],
        wake: Callable[[], None],
        now_ms: Callable[[], int | None],
        limits: BatchLimits | None = None,
        *,
        check: Callable[[Sequence[bytes]], None] = lambda commands: None,
        has_settled: Callable[[SessionId, int], bool] = lambda session, sequence: False,
        has_room: Callable[[], bool] = lambda: True,
        session: int | None = None,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._check = check
        self._propose = propose
        self._wake = wake
        self._now_ms = now_ms
        self._limits = limits or BatchLimits()
        self._has_room = has_room
        self._session = _any_session() if session is None else session
        self._sequence = 0
        self._queue = CommandQueue()
        self._sequencing = Sequencing(has_settled)
        self._again: deque[Proposal] = deque()
        self._in_flight: dict[InstanceId, Proposal] = {}
        self._refusing: Overloaded | None = None

    @property
    def waiting(self) -> int:
        """Commands whose answer is still due."""
        return self.queued + sum(len(proposal.batch.commands) for proposal in self._in_flight.values())

    @property
    def queued(self) -> int:
        """Commands that are in no instance at this moment."""
        again = sum(len(proposal.batch.commands) for proposal in self._again)
        return self._queue.commands + self._queue.held_commands + again

    def submit(self, command: bytes, reply: Reply) -> None:
        """See `Submit`."""
        self.submit_many((command,), lambda offset, answers: reply(answers[0]))

    def submit_many(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """See `SubmitMany`."""
        self._take(Submission(reply, 0, commands, sum(map(len, commands)), None, again=False, stream=stream))

    def submit_requests(
        self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, again: bool, stream: Stream | None = None
    ) -> None:
        """See `SubmitRequests`."""
        self._take(Submission(reply, 0, commands, sum(map(len, commands)), run, again=again, stream=stream))

    def _take(self, part: Submission) -> bool:
        """Let commands wait for a batch; False when the last of them is refused."""
        limits, queue, commands = self._limits, self._queue, part.commands
        if not commands:
            return True
        if self._refusing is not None:
            return self._refuse(part, self._refusing)
        if part.size_bytes > limits.command_bytes_max and max(map(len, commands)) > limits.command_bytes_max:
            return self._take_one_by_one(part)
        waiting = queue.commands + queue.held_commands
        waiting_bytes = queue.size_bytes + queue.held_bytes
        if waiting >= limits.queue_commands_max or waiting_bytes + part.size_bytes > limits.queue_bytes_max:
            text = f"{waiting} commands are waiting already; send fewer at a time, or elsewhere"
            return self._refuse(part, Overloaded(text))
        idle = not queue.commands
        queue.add(part)
        if idle and queue.commands:
            self._wake()
        return True

    @staticmethod
    def _refuse(part: Submission, refusal: Overloaded) -> bool:
        part.deliver([refusal] * len(part.commands))
        return False

    def _take_one_by_one(self, part: Submission) -> bool:
        """One of them is too long: it fails, and does not take the others down with it.

        Behind one that is refused because there is no room, all are: what is later must not be executed without it.
        """
        limit = self._limits.command_bytes_max
        for place, command in enumerate(part.commands):
            if len(command) > limit:
                text = f"the command has {len(command)} bytes, over the limit of {limit}"
                self._fail(part.slice(place, place + 1), text)
            elif not self._take(part.slice(place, place + 1)):
                if place + 1 < len(part.commands):
                    rest = part.slice(place + 1, len(part.commands))
                    text = "an earlier command that came with this one was refused; send both again, in order"
                    self._refuse(rest, Overloaded(text))
                return False
        return True

    def _fail(self, single: Submission, text: str) -> None:
        """Answer one command that is not proposed."""
        if single.run is not None:
            self._sequencing.unproposed(single.run, single.offset)
        single.deliver([CommandFailed(text)])

    def refuse(self, reason: str) -> None:
        """Take nothing more; what was taken is still proposed and answered."""
        self._refusing = Overloaded(reason)

    def accept(self) -> None:
        """Take commands again, after `refuse`."""
        self._refusing = None

    def flush(self) -> None:
        """Propose what may leave now."""
        while self.propose_next():
            pass

    def propose_next(self) -> bool:
        """Propose one batch, if one may leave now."""
        while self.may_propose and (now_ms := self._now_ms()) is not None:
            proposal = self._renewed(self._again.popleft(), now_ms) if self._again else self._gather(now_ms)
            if proposal is None:
                continue
            id = self._propose(proposal.batch)
            if id is None:
                self._again.appendleft(proposal)
                return False
            self._in_flight[id] = proposal
            return True
        return False

    def awaits(self, id: InstanceId) -> bool:
        """Whether somebody here waits for the results of this instance."""
        return id in self._in_flight

    def executed(self, id: InstanceId, results: Sequence[Result]) -> None:
        """Answer the commands of an instance. One that was not proposed here in this life is nobody's."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        if len(results) != len(proposal.batch.commands):
            raise InvariantViolation(
                f"a machine gave {len(results)} results for {len(proposal.batch.commands)} commands"
            )
        if proposal.may_be_postponed:
            self._postponed(proposal.answer_executed(results), proposal.attempts + 1)
        else:
            proposal.answer(results)
        self._queue.release(proposal.streams)
        self._wake_if_more()

    def _postponed(self, parts: list[Submission], attempts: int) -> None:
        """What has to come before these is not executed yet: propose them again behind it, or give up and say so."""
        if not parts:
            return
        if attempts < self._limits.attempts_max:
            proposal = self._checked_proposal(parts, 0, attempts)  # stamped when it leaves
            if proposal is not None:
                self._again.append(proposal)
            return
        text = "not executed: an earlier request of the session is not, in spite of several attempts; submit both again"
        for part in parts:
            part.deliver([Aborted(text)] * len(part.commands))

    def aborted(self, id: InstanceId) -> None:
        """The instance was decided nop: try its commands again in a new one, or give up and say so."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        proposal.attempts += 1
        if proposal.attempts < self._limits.attempts_max:
            self._again.append(proposal)
        else:
            answer = Aborted(f"not executed: {proposal.attempts} instances in a row were decided nop; submit it again")
            behind = self._queue.drop(proposal.streams) if proposal.streams else []
            proposal.answer([answer] * len(proposal.batch.commands))
            answer = Aborted("not executed: an earlier command of the connection was not; submit both again, in order")
            for part in behind:
                part.deliver([answer] * len(part.commands))
        self._wake_if_more()

    @staticmethod
    def _renewed(proposal: Proposal, now_ms: int) -> Proposal:
        proposal.batch = msgspec.structs.replace(proposal.batch, timestamp_ms=now_ms)
        return proposal

    def _wake_if_more(self) -> None:
        if self._queue.commands or self._again:
            self._wake()

    @property
    def may_propose(self) -> bool:
        """Whether a batch may leave now."""
        in_flight, queue, limits = len(self._in_flight), self._queue, self._limits
        if not self._has_room():
            return False
        if in_flight < limits.partial_instances_max:
            return bool(queue.commands or self._again)
        full = queue.commands >= limits.batch_commands_max or queue.size_bytes >= limits.batch_bytes_max
        return full and in_flight < limits.instances_max

    def _gather(self, now: int) -> Proposal | None:
        """The oldest waiting commands, as many as one batch takes; None when none of them parses."""
        parts = self._queue.take(self._limits.batch_commands_max, self._limits.batch_bytes_max)
        if not parts:
            return None
        proposal = self._checked_proposal(parts, now)
        left = {} if proposal is None else proposal.streams
        gone = {part.stream: None for part in parts if part.stream is not None and part.stream not in left}
        self._queue.release(gone)
        return proposal

    def _checked_proposal(self, parts: list[Submission], now: int, attempts: int = 0) -> Proposal | None:
        """These in a batch, without those that must not be proposed, which are answered."""
        try:
            return self._proposal(parts, now, attempts)
        except UsageError:
            formed = self._well_formed(parts)
        if formed:
            try:
                return self._proposal(formed, now, attempts)
            except UsageError as fault:  # each by itself was well-formed: a machine's mistake
                for part in formed:
                    for place in range(len(part.commands)):
                        self._fail(part.slice(place, place + 1), str(fault))
        return None

    def _footprint(self, commands: Sequence[bytes]) -> Footprint:
        """Raises UsageError for what must not be proposed."""
        footprint = guarded_footprint(self._machine, commands)
        self._check(commands)
        return footprint

    def _proposal(self, parts: list[Submission], now: int, attempts: int = 0) -> Proposal:
        """These in a batch. Raises UsageError when the machine cannot parse one of them."""
        commands: list[bytes] = []
        for part in parts:
            commands += part.commands
        footprint = self._footprint(commands)
        runs, ordered = self._runs(parts, now)
        retried = dict.fromkeys([session_of(part.named().first) for part in parts if part.again])
        retried.update(ordered)
        batch = Batch(tuple(runs), tuple(commands), footprint, now, tuple(retried))
        return Proposal(parts, batch, attempts, {part.stream: None for part in parts if part.stream is not None})

    def _runs(self, parts: Sequence[Submission], now_ms: int) -> tuple[list[Run], dict[SessionId, None]]:
        """Their ids, in as few runs as possible; commands that came without get them now, those in a row together.

        Gives as well the sessions of runs that must be executed after something else.
        """
        runs: list[Run] = []
        ordered: dict[SessionId, None] = {}
        together: dict[SessionId, tuple[int, int]] = {}
        nameless = 0
        for part in parts:
            if part.run is None:
                nameless += len(part.commands)
                continue
            if nameless:
                runs.append(self._run(nameless, now_ms))
                nameless = 0
            run = part.named()
            if runs and _follows(runs[-1], run):
                last = runs.pop()
                run = Run(last.first, last.count + run.count, max(last.acknowledged, run.acknowledged), last.after)
            elif is_tracked(run.first):
                run = self._sequencing.resolved(run, together)
            session = session_of(run.first)
            together[session] = run.after, sequence_of(run.first) + run.count
            if run.after:
                ordered[session] = None
            runs.append(run)
        if nameless:
            runs.append(self._run(nameless, now_ms))
        return runs, ordered

    def _run(self, count: int, now_ms: int) -> Run:
        """Ids for so many commands that came without."""
        if self._sequence + count > SEQUENCES:
            self._session, self._sequence = _any_session(), 0
        run = Run(request_id(now_ms, self._replica, self._session, self._sequence), count)
        self._sequence += count
        return run

    def _well_formed(self, parts: Sequence[Submission]) -> list[Submission]:
        """Answer the commands that the machine cannot parse; they must not take the others down with them."""
        kept: list[Submission] = []
        for part in parts:
            for place, command in enumerate(part.commands):
                single = part.slice(place, place + 1)
                try:
                    self._footprint((command,))
                except UsageError as fault:
                    self._fail(single, str(fault))
                else:
                    kept.append(single)
        return kept


def _any_session() -> int:
    """Of requests that nobody sends twice, for a life of this replica."""
    return UNTRACKED_SESSIONS_START + secrets.randbelow(UNTRACKED_SESSIONS_START)


def _follows(before: Run, run: Run) -> bool:
    """Whether both are one run."""
    same = session_of(before.first) == session_of(run.first)
    return same and sequence_of(before.first) + before.count == sequence_of(run.first)
