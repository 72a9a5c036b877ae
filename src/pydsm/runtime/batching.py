"""Gathers commands into batches, and brings each command's result back to whoever submitted it.

Decides when a batch leaves: an idle replica proposes at once, a busy one lets commands gather while its instances
are in flight, so batches grow with the load and no clock is waited for. Guards that every command is answered once:
with its result, or with a value that says that it was definitely not executed. Leaves agreement to the core and
meaning to the machine.
"""

import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

import msgspec

from pydsm.core.faults import BrokenInvariant, CallerFault
from pydsm.core.ids import (
    SEQUENCES,
    UNKEPT_SESSIONS,
    InstanceId,
    ReplicaId,
    request_at,
    request_id,
    sequence_of,
    session_of,
)
from pydsm.core.messages import Batch, Run
from pydsm.machines.base import CommandFailed, Result, StateMachine


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
"""Takes the answer to one command. Must not raise."""


ReplyMany = Callable[[int, Sequence[Answer]], None]
"""Takes the answers to some commands that were submitted together: the place of the first, and one answer for it and
each of those behind it. Every command is answered once, in as many parts as there are batches. Must not raise."""


class SubmitMany(Protocol):
    """How servers hand over commands that came together, which costs less for each than one by one."""

    def __call__(self, commands: Sequence[bytes], reply: ReplyMany) -> None:
        """As `Submit`, for several commands. They may be executed in several batches."""
        ...


class SubmitRequests(Protocol):
    """How the requests of a session are handed over, whose results are kept so that they may come again."""

    def __call__(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, again: bool) -> None:
        """As `SubmitMany`, under these ids. `again` unless this is surely the first time (`sessions.Grant`)."""
        ...


class Submit(Protocol):
    """How servers and clients in this process hand over commands."""

    def __call__(self, command: bytes, reply: Reply) -> None:
        """Take one command; cheap, so pipelined commands are submitted one after another.

        `reply` is called exactly once, on the loop, perhaps before this returns; never if the replica stops before
        the outcome is known. Commands submitted in one turn keep their order while none of them is aborted.
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
    """Instances tried for a batch whose instances are decided nop, before its commands are answered `Aborted`."""


class _Part(NamedTuple):
    """So many commands in a row, of those that were submitted together, from `offset` on; and who waits for them."""

    reply: ReplyMany
    offset: int
    commands: int
    run: Run | None
    """The ids of all that were submitted together; None for commands that came without."""
    again: bool

    def named(self) -> Run:
        """The ids of these commands alone."""
        run = self.run
        assert run is not None, "commands without ids"
        if run.count == self.commands:
            return run
        return Run(request_at(run.first, self.offset), self.commands, run.acknowledged)


@dataclass(slots=True)
class _Proposal:
    """Commands that travel together, who waits for them, and how many instances were tried in vain."""

    parts: list[_Part]
    batch: Batch
    attempts: int = 0

    def answer(self, answers: Sequence[Answer]) -> None:
        """One answer for each command."""
        start = 0
        for part in self.parts:
            part.reply(part.offset, answers[start : start + part.commands])
            start += part.commands


class Batcher:
    """Between `submit` and the core's `propose`.

    `propose` gives the instance, or None when the core's pipeline is full. `wake` is called when `flush` has
    something to do; it should come within the same turn of the loop, once for everything submitted in that turn.
    `now_ms` is the time for new batches, Unix time in milliseconds; while that is None, nothing is proposed.
    """

    def __init__(
        self,
        replica: ReplicaId,
        machine: StateMachine,
        propose: Callable[[Batch], InstanceId | None],
        wake: Callable[[], None],
        now_ms: Callable[[], int | None],
        limits: BatchLimits | None = None,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._propose = propose
        self._wake = wake
        self._now_ms = now_ms
        self._limits = limits or BatchLimits()
        self._session = _any_session()
        self._sequence = 0
        self._commands: list[bytes] = []
        self._parts: deque[_Part] = deque()
        self._queued_bytes = 0
        self._again: deque[_Proposal] = deque()
        self._in_flight: dict[InstanceId, _Proposal] = {}
        self._refusing: Overloaded | None = None

    @property
    def waiting(self) -> int:
        """Commands whose answer is still due."""
        gathered = len(self._commands) + sum(len(proposal.batch.commands) for proposal in self._again)
        return gathered + sum(len(proposal.batch.commands) for proposal in self._in_flight.values())

    def submit(self, command: bytes, reply: Reply) -> None:
        """See `Submit`."""
        self.submit_many((command,), lambda offset, answers: reply(answers[0]))

    def submit_many(self, commands: Sequence[bytes], reply: ReplyMany) -> None:
        """See `SubmitMany`."""
        self._take(commands, reply, None, again=False)

    def submit_requests(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, again: bool) -> None:
        """See `SubmitRequests`."""
        self._take(commands, reply, run, again=again)

    def _take(self, commands: Sequence[bytes], reply: ReplyMany, run: Run | None, *, again: bool) -> None:
        limits = self._limits
        size = sum(map(len, commands))
        if not commands:
            return
        if self._refusing is not None:
            reply(0, [self._refusing] * len(commands))
        elif size > limits.command_bytes_max and max(map(len, commands)) > limits.command_bytes_max:
            self._take_one_by_one(commands, reply, run, again=again)
        elif len(self._commands) >= limits.queue_commands_max or self._queued_bytes + size > limits.queue_bytes_max:
            text = f"{len(self._commands)} commands are waiting already; send fewer at a time, or elsewhere"
            reply(0, [Overloaded(text)] * len(commands))
        else:
            idle = not self._commands
            self._commands += commands
            self._parts.append(_Part(reply, 0, len(commands), run, again))
            self._queued_bytes += size
            if idle:
                self._wake()

    def _take_one_by_one(self, commands: Sequence[bytes], reply: ReplyMany, run: Run | None, *, again: bool) -> None:
        """One of them is too long: it fails, and does not take the others down with it."""
        limit = self._limits.command_bytes_max
        for place, command in enumerate(commands):
            if len(command) > limit:
                text = f"the command has {len(command)} bytes, over the limit of {limit}"
                reply(place, [CommandFailed(text)])
            else:
                one = None if run is None else Run(request_at(run.first, place), 1, run.acknowledged)
                self._take((command,), partial(_at, reply, place), one, again=again)

    def refuse(self, reason: str) -> None:
        """Take nothing more; what was taken is still proposed and answered."""
        self._refusing = Overloaded(reason)

    def accept(self) -> None:
        """Take commands again, after `refuse`."""
        self._refusing = None

    def flush(self) -> None:
        """Propose what may leave now."""
        while self._may_propose() and (now_ms := self._now_ms()) is not None:
            proposal = self._renewed(self._again.popleft(), now_ms) if self._again else self._gather(now_ms)
            if proposal is None:
                continue
            id = self._propose(proposal.batch)
            if id is None:
                self._again.appendleft(proposal)
                return
            self._in_flight[id] = proposal

    def executed(self, id: InstanceId, results: Sequence[Result]) -> None:
        """Answer the commands of an instance. One that was not proposed here in this life is nobody's."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        if len(results) != len(proposal.batch.commands):
            raise BrokenInvariant(f"a machine gave {len(results)} results for {len(proposal.batch.commands)} commands")
        proposal.answer(results)
        self._wake_if_more()

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
            proposal.answer([answer] * len(proposal.batch.commands))
        self._wake_if_more()

    @staticmethod
    def _renewed(proposal: _Proposal, now_ms: int) -> _Proposal:
        proposal.batch = msgspec.structs.replace(proposal.batch, timestamp_ms=now_ms)
        return proposal

    def _wake_if_more(self) -> None:
        if self._commands or self._again:
            self._wake()

    def _may_propose(self) -> bool:
        in_flight = len(self._in_flight)
        if in_flight < self._limits.partial_instances_max:
            return bool(self._commands or self._again)
        full = (
            len(self._commands) >= self._limits.batch_commands_max or self._queued_bytes >= self._limits.batch_bytes_max
        )
        return full and in_flight < self._limits.instances_max

    def _gather(self, now: int) -> _Proposal | None:
        """The oldest waiting commands, as many as one batch takes; None when none of them parses."""
        count = self._batch_size()
        commands = tuple(self._commands[:count])
        del self._commands[:count]
        parts = self._take_parts(len(commands))
        self._queued_bytes -= sum(map(len, commands))
        try:
            footprint = self._machine.footprint(commands)
        except CallerFault:
            commands, parts = self._well_formed(commands, parts)
            if not commands:
                return None
            footprint = self._machine.footprint(commands)
        runs = tuple(self._runs(parts, now))
        retried = dict.fromkeys([session_of(part.named().first) for part in parts if part.again])
        return _Proposal(parts, Batch(runs, commands, footprint, now, tuple(retried)))

    def _runs(self, parts: Sequence[_Part], now_ms: int) -> list[Run]:
        """Their ids, in as few runs as possible; commands that came without get them now, those in a row together."""
        runs: list[Run] = []
        nameless = 0
        for part in parts:
            if part.run is None:
                nameless += part.commands
                continue
            if nameless:
                runs.append(self._run(nameless, now_ms))
                nameless = 0
            run = part.named()
            if runs and _follows(runs[-1], run):
                last = runs.pop()
                run = Run(last.first, last.count + run.count, max(last.acknowledged, run.acknowledged))
            runs.append(run)
        if nameless:
            runs.append(self._run(nameless, now_ms))
        return runs

    def _run(self, count: int, now_ms: int) -> Run:
        """Ids for so many commands that came without."""
        if self._sequence + count > SEQUENCES:
            self._session, self._sequence = _any_session(), 0
        run = Run(request_id(now_ms, self._replica, self._session, self._sequence), count)
        self._sequence += count
        return run

    def _take_parts(self, commands: int) -> list[_Part]:
        """Who waits for so many of the oldest commands; the last of them may wait for more."""
        taken: list[_Part] = []
        while commands:
            part = self._parts.popleft()
            if part.commands > commands:
                rest = part._replace(offset=part.offset + commands, commands=part.commands - commands)
                self._parts.appendleft(rest)
                part = part._replace(commands=commands)
            taken.append(part)
            commands -= part.commands
        return taken

    def _batch_size(self) -> int:
        commands, limits = self._commands, self._limits
        if self._queued_bytes <= limits.batch_bytes_max:
            return limits.batch_commands_max
        ends = list(accumulate(map(len, commands[: limits.batch_commands_max])))
        return max(1, bisect_right(ends, limits.batch_bytes_max))

    def _well_formed(self, commands: Sequence[bytes], parts: Sequence[_Part]) -> tuple[tuple[bytes, ...], list[_Part]]:
        """Answer the commands that the machine cannot parse; they must not take the others down with them."""
        kept: list[tuple[bytes, _Part]] = []
        singles = (
            part._replace(offset=place, commands=1)
            for part in parts
            for place in range(part.offset, part.offset + part.commands)
        )
        for command, single in zip(commands, singles, strict=True):
            try:
                self._machine.footprint((command,))
            except CallerFault as fault:
                single.reply(single.offset, [CommandFailed(str(fault))])
            else:
                kept.append((command, single))
        return tuple(command for command, _ in kept), [part for _, part in kept]


def _any_session() -> int:
    """Of requests that nobody sends twice, for a life of this replica."""
    return UNKEPT_SESSIONS + secrets.randbelow(UNKEPT_SESSIONS)


def _follows(before: Run, run: Run) -> bool:
    """Whether both are one run."""
    same = session_of(before.first) == session_of(run.first)
    return same and sequence_of(before.first) + before.count == sequence_of(run.first)


def _at(reply: ReplyMany, place: int, offset: int, answers: Sequence[Answer]) -> None:
    """Pass on the answer to the only command that was submitted, as that of the one at `place`."""
    reply(place, answers)
