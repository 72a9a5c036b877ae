"""Collects commands into batches, and returns each command's result to its submitter.

Decides when a batch is proposed: an idle replica proposes immediately; a busy one collects commands while its instances
are in flight, so batches grow with the load and no timer is needed. Guarantees that every command is answered once:
with its result, or with a value that states that it was definitely not executed. Keeps program order together with
`command_queue`: commands that were not executed are proposed again before later commands of the same connection.
Agreement is left to the core, the meaning of commands to the state machine.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pydsm.client_protocol.answers import Aborted, Overloaded
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
from pydsm.runtime.replies import Reply, ReplyMany


class SubmitMany(Protocol):
    """Submits commands that arrived together, which costs less than submitting them one by one."""

    def __call__(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """Like `Submit`, for several commands. They may be executed in several batches.

        Commands of one stream are executed in the order in which they are submitted, also across calls. When one of
        them is answered `Aborted`, so are all later commands of the stream that are waiting.
        """
        ...


class SubmitRequests(Protocol):
    """Submits requests of a session. Their results are stored, so a client may send them again."""

    def __call__(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool) -> None:
        """Like `SubmitMany`, under the ids of `run`.

        `is_retry` is False only if it is certain that they were not sent before (`core.sessions.grants.Grant`).
        They are executed in the order of the run, and only after the request that `run.after` names is executed.
        """
        ...


class Submit(Protocol):
    """Submits one command, for servers and clients in this process."""

    def __call__(self, command: bytes, reply: Reply) -> None:
        """Accept one command. A call is cheap, so pipelined commands are submitted one after another.

        `reply` is called exactly once, on the loop, possibly before this returns; never if the replica stops before
        the outcome is known. The order relative to other commands is not defined: use `SubmitMany` for that.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits on the size of batches, on the instances in flight, and on the waiting commands."""

    batch_commands_max: int = 1000
    """Commands in one instance."""
    batch_bytes_max: int = 1 << 20
    """Bytes of commands in one instance; a single larger command goes alone."""
    command_bytes_max: int = 8 << 20
    """Bytes of one command; a larger one fails without being submitted."""
    partial_instances_max: int = 2
    """Own instances in flight from which on only full batches are proposed, so that batches grow under load."""
    instances_max: int = 16
    """Own instances in flight from which on nothing is proposed."""
    queue_commands_max: int = 100_000
    """Commands waiting for a batch; further ones are answered `Overloaded`."""
    queue_bytes_max: int = 64 << 20
    """Bytes of commands waiting for a batch; commands beyond that are answered `Overloaded`."""
    attempts_max: int = 5
    """Instances tried for the same commands. When all were decided nop, or were executed before an earlier request of
    the session, the commands are answered `Aborted`."""


class Batcher:
    """Collects submitted commands into batches and passes them to the core's `propose`.

    `propose` returns the instance, or None when the core's pipeline is full. `wake` is called when `flush` has
    something to do; the owner should then call `flush` in the same turn of the loop, once for everything submitted in
    that turn. `now_ms` returns the timestamp of new batches (Unix time in milliseconds); while it returns None, nothing
    is proposed. `check` raises UsageError for commands that must not be proposed. `has_settled`: see `Sequencing`.
    While `has_room` returns False, nothing is proposed and batches grow. `session` is the session of the request ids
    that are assigned to commands submitted without ids.
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
        self._to_repropose: deque[Proposal] = deque()
        self._in_flight: dict[InstanceId, Proposal] = {}
        self._refusing: Overloaded | None = None

    @property
    def waiting(self) -> int:
        """Number of commands that are not answered yet."""
        return self.queued + sum(len(proposal.batch.commands) for proposal in self._in_flight.values())

    @property
    def queued(self) -> int:
        """Number of commands that are in no instance at this moment."""
        to_repropose = sum(len(proposal.batch.commands) for proposal in self._to_repropose)
        return self._queue.commands + self._queue.held_commands + to_repropose

    def submit(self, command: bytes, reply: Reply) -> None:
        """See `Submit`."""
        self.submit_many((command,), lambda offset, answers: reply(answers[0]))

    def submit_many(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        """See `SubmitMany`."""
        self._take(Submission(reply, 0, commands, sum(map(len, commands)), None, is_retry=False, stream=stream))

    def submit_requests(
        self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool, stream: Stream | None = None
    ) -> None:
        """See `SubmitRequests`."""
        self._take(Submission(reply, 0, commands, sum(map(len, commands)), run, is_retry=is_retry, stream=stream))

    def _take(self, submission: Submission) -> bool:
        """Queue commands for a batch. Returns False if the last of them is refused."""
        limits, queue, commands = self._limits, self._queue, submission.commands
        if not commands:
            return True
        if self._refusing is not None:
            return self._refuse(submission, self._refusing)
        if submission.size_bytes > limits.command_bytes_max and max(map(len, commands)) > limits.command_bytes_max:
            return self._take_one_by_one(submission)
        waiting = queue.commands + queue.held_commands
        waiting_bytes = queue.size_bytes + queue.held_bytes
        if waiting >= limits.queue_commands_max or waiting_bytes + submission.size_bytes > limits.queue_bytes_max:
            text = f"{waiting} commands are waiting already; send fewer at a time, or use another replica"
            return self._refuse(submission, Overloaded(text))
        idle = not queue.commands
        queue.add(submission)
        if idle and queue.commands:
            self._wake()
        return True

    @staticmethod
    def _refuse(submission: Submission, refusal: Overloaded) -> bool:
        submission.deliver([refusal] * len(submission.commands))
        return False

    def _take_one_by_one(self, submission: Submission) -> bool:
        """Queue commands of which one is too long: only that one fails.

        After a command that is refused because the queue is full, all later ones are refused too: they must not be
        executed without it.
        """
        limit = self._limits.command_bytes_max
        for position, command in enumerate(submission.commands):
            if len(command) > limit:
                text = f"the command has {len(command)} bytes, over the limit of {limit}"
                self._fail(submission.slice(position, position + 1), text)
            elif not self._take(submission.slice(position, position + 1)):
                if position + 1 < len(submission.commands):
                    rest = submission.slice(position + 1, len(submission.commands))
                    text = "an earlier command that came with this one was refused; send both again, in order"
                    self._refuse(rest, Overloaded(text))
                return False
        return True

    def _fail(self, single: Submission, text: str) -> None:
        """Answer one command that is not proposed with an error."""
        if single.run is not None:
            self._sequencing.unproposed(single.run, single.offset)
        single.deliver([CommandFailed(text)])

    def refuse(self, reason: str) -> None:
        """Refuse new commands; those accepted before are still proposed and answered."""
        self._refusing = Overloaded(reason)

    def accept(self) -> None:
        """Accept commands again, after `refuse`."""
        self._refusing = None

    def flush(self) -> None:
        """Propose all batches that may be proposed now."""
        while self.propose_next():
            pass

    def propose_next(self) -> bool:
        """Propose one batch, if one may be proposed now. Returns whether one was."""
        while self.may_propose and (now_ms := self._now_ms()) is not None:
            # Re-proposals go before new commands, in the order in which their instances failed. A run with `after` is
            # skipped at execution until the request before it is executed
            # (docs/reference/protocol.md#7-requests-exactly-once), so a new run of the session that is proposed ahead
            # of the re-proposal would be skipped as well, and would use up one of its attempts.
            if self._to_repropose:
                proposal: Proposal | None = self._with_timestamp(self._to_repropose.popleft(), now_ms)
            else:
                proposal = self._gather(now_ms)
            if proposal is None:
                continue
            id = self._propose(proposal.batch)
            if id is None:
                self._to_repropose.appendleft(proposal)  # the pipeline is full; it stays the first one
                return False
            self._in_flight[id] = proposal
            return True
        return False

    def awaits(self, id: InstanceId) -> bool:
        """Whether a client of this replica waits for the results of this instance."""
        return id in self._in_flight

    def executed(self, id: InstanceId, results: Sequence[Result]) -> None:
        """Answer the commands of an instance. Ignores instances that this process has not proposed."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        if len(results) != len(proposal.batch.commands):
            raise InvariantViolation(
                f"a machine returned {len(results)} results for {len(proposal.batch.commands)} commands"
            )
        if proposal.may_be_postponed:
            self._postponed(proposal.answer_executed(results), proposal.attempts + 1)
        else:
            proposal.answer(results)
        self._queue.release(proposal.streams)
        self._wake_if_more()

    def _postponed(self, submissions: list[Submission], attempts: int) -> None:
        """Propose again what was skipped because an earlier request is not executed, or answer it `Aborted`."""
        if not submissions:
            return
        if attempts < self._limits.attempts_max:
            proposal = self._checked_proposal(submissions, 0, attempts)  # gets its timestamp when it is proposed
            if proposal is not None:
                self._to_repropose.append(proposal)
            return
        text = (
            "not executed: an earlier request of the session is not executed after several attempts; submit both again"
        )
        for submission in submissions:
            submission.deliver([Aborted(text)] * len(submission.commands))

    def aborted(self, id: InstanceId) -> None:
        """The instance was decided nop: propose its commands again in a new one, or answer them `Aborted`."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        proposal.attempts += 1
        if proposal.attempts < self._limits.attempts_max:
            # Its streams are not released: later commands of these connections stay held in the queue, so none of them
            # is proposed before this batch is executed or given up.
            self._to_repropose.append(proposal)
        else:
            answer = Aborted(f"not executed: {proposal.attempts} instances in a row were decided nop; submit it again")
            dropped = self._queue.drop(proposal.streams) if proposal.streams else []
            proposal.answer([answer] * len(proposal.batch.commands))
            answer = Aborted("not executed: an earlier command of the connection was not; submit both again, in order")
            for submission in dropped:
                submission.deliver([answer] * len(submission.commands))
        self._wake_if_more()

    @staticmethod
    def _with_timestamp(proposal: Proposal, now_ms: int) -> Proposal:
        proposal.batch = msgspec.structs.replace(proposal.batch, timestamp_ms=now_ms)
        return proposal

    def _wake_if_more(self) -> None:
        if self._queue.commands or self._to_repropose:
            self._wake()

    @property
    def may_propose(self) -> bool:
        """Whether a batch may be proposed now."""
        in_flight, queue, limits = len(self._in_flight), self._queue, self._limits
        if not self._has_room():
            return False
        if in_flight < limits.partial_instances_max:
            return bool(queue.commands or self._to_repropose)
        full = queue.commands >= limits.batch_commands_max or queue.size_bytes >= limits.batch_bytes_max
        return full and in_flight < limits.instances_max

    def _gather(self, now: int) -> Proposal | None:
        """The oldest waiting commands, as many as fit into one batch; None if none of them parses."""
        submissions = self._queue.take(self._limits.batch_commands_max, self._limits.batch_bytes_max)
        if not submissions:
            return None
        proposal = self._checked_proposal(submissions, now)
        proposed = {} if proposal is None else proposal.streams
        failed = {
            submission.stream: None
            for submission in submissions
            if submission.stream is not None and submission.stream not in proposed
        }
        self._queue.release(failed)
        return proposal

    def _checked_proposal(self, submissions: list[Submission], now: int, attempts: int = 0) -> Proposal | None:
        """These commands in a batch, without those that must not be proposed, which are answered as failed."""
        try:
            return self._proposal(submissions, now, attempts)
        except UsageError:
            formed = self._well_formed(submissions)
        if formed:
            try:
                return self._proposal(formed, now, attempts)
            except UsageError as fault:  # each command alone was well-formed: an error of the machine
                for submission in formed:
                    for position in range(len(submission.commands)):
                        self._fail(submission.slice(position, position + 1), str(fault))
        return None

    def _footprint(self, commands: Sequence[bytes]) -> Footprint:
        """The keys of these commands. Raises UsageError for commands that must not be proposed."""
        footprint = guarded_footprint(self._machine, commands)
        self._check(commands)
        return footprint

    def _proposal(self, submissions: list[Submission], now: int, attempts: int = 0) -> Proposal:
        """These commands in a batch. Raises UsageError if the machine cannot parse one of them."""
        commands: list[bytes] = []
        for submission in submissions:
            commands += submission.commands
        footprint = self._footprint(commands)
        runs, ordered = self._runs(submissions, now)
        retried_sessions = dict.fromkeys(
            [session_of(submission.own_run().first) for submission in submissions if submission.is_retry]
        )
        retried_sessions.update(ordered)
        batch = Batch(tuple(runs), tuple(commands), footprint, now, tuple(retried_sessions))
        return Proposal(
            submissions,
            batch,
            attempts,
            {submission.stream: None for submission in submissions if submission.stream is not None},
        )

    def _runs(self, submissions: Sequence[Submission], now_ms: int) -> tuple[list[Run], dict[SessionId, None]]:
        """The request ids of these commands, in as few runs as possible, and the sessions that have runs with `after`.

        Commands submitted without ids get ids here; consecutive ones share a run.
        """
        runs: list[Run] = []
        ordered: dict[SessionId, None] = {}
        last_runs: dict[SessionId, tuple[int, int]] = {}
        without_ids = 0
        for submission in submissions:
            if submission.run is None:
                without_ids += len(submission.commands)
                continue
            if without_ids:
                runs.append(self._run(without_ids, now_ms))
                without_ids = 0
            run = submission.own_run()
            if runs and _follows(runs[-1], run):
                last = runs.pop()
                run = Run(last.first, last.count + run.count, max(last.acknowledged, run.acknowledged), last.after)
            elif is_tracked(run.first):
                run = self._sequencing.resolved(run, last_runs)
            session = session_of(run.first)
            last_runs[session] = run.after, sequence_of(run.first) + run.count
            if run.after:
                ordered[session] = None
            runs.append(run)
        if without_ids:
            runs.append(self._run(without_ids, now_ms))
        return runs, ordered

    def _run(self, count: int, now_ms: int) -> Run:
        """Request ids for `count` commands that were submitted without ids."""
        if self._sequence + count > SEQUENCES:
            self._session, self._sequence = _any_session(), 0
        run = Run(request_id(now_ms, self._replica, self._session, self._sequence), count)
        self._sequence += count
        return run

    def _well_formed(self, submissions: Sequence[Submission]) -> list[Submission]:
        """The commands that the machine can parse; the others are answered as failed, so that these can be proposed."""
        kept: list[Submission] = []
        for submission in submissions:
            for position, command in enumerate(submission.commands):
                single = submission.slice(position, position + 1)
                try:
                    self._footprint((command,))
                except UsageError as fault:
                    self._fail(single, str(fault))
                else:
                    kept.append(single)
        return kept


def _any_session() -> int:
    """A random session for request ids that no client sends twice; used for one run of this process."""
    return UNTRACKED_SESSIONS_START + secrets.randbelow(UNTRACKED_SESSIONS_START)


def _follows(before: Run, run: Run) -> bool:
    """Whether `run` continues `before`, so that both can be one run."""
    same = session_of(before.first) == session_of(run.first)
    return same and sequence_of(before.first) + before.count == sequence_of(run.first)
