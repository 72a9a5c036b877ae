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
from itertools import accumulate
from typing import Protocol

import msgspec

from pydsm.core.faults import CallerFault
from pydsm.core.ids import InstanceId, ReplicaId, request_id
from pydsm.core.messages import Batch
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


@dataclass(slots=True)
class _Proposal:
    """Commands that travel together, who waits for them, and how many instances were tried in vain."""

    replies: list[Reply]
    batch: Batch
    attempts: int = 0


class Batcher:
    """Between `submit` and the core's `propose`.

    `propose` gives the instance, or None when the core's pipeline is full. `wake` is called when `flush` has
    something to do; it should come within the same turn of the loop, once for everything submitted in that turn.
    `now_ms` is the wall clock, Unix time in milliseconds.
    """

    def __init__(
        self,
        replica: ReplicaId,
        machine: StateMachine,
        propose: Callable[[Batch], InstanceId | None],
        wake: Callable[[], None],
        now_ms: Callable[[], int],
        limits: BatchLimits | None = None,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._propose = propose
        self._wake = wake
        self._now_ms = now_ms
        self._limits = limits or BatchLimits()
        self._session = secrets.randbits(30)
        self._sequence = 0
        self._commands: list[bytes] = []
        self._replies: list[Reply] = []
        self._queued_bytes = 0
        self._again: deque[_Proposal] = deque()
        self._in_flight: dict[InstanceId, _Proposal] = {}
        self._refusing: Overloaded | None = None

    @property
    def waiting(self) -> int:
        """Commands whose answer is still due."""
        gathered = len(self._commands) + sum(len(proposal.replies) for proposal in self._again)
        return gathered + sum(len(proposal.replies) for proposal in self._in_flight.values())

    def submit(self, command: bytes, reply: Reply) -> None:
        """See `Submit`."""
        limits = self._limits
        size = len(command)
        if self._refusing is not None:
            reply(self._refusing)
        elif size > limits.command_bytes_max:
            reply(CommandFailed(f"the command has {size} bytes, over the limit of {limits.command_bytes_max}"))
        elif len(self._commands) >= limits.queue_commands_max or self._queued_bytes + size > limits.queue_bytes_max:
            reply(Overloaded(f"{len(self._commands)} commands are waiting already; send fewer at a time, or elsewhere"))
        else:
            self._commands.append(command)
            self._replies.append(reply)
            self._queued_bytes += size
            if len(self._commands) == 1:
                self._wake()

    def refuse(self, reason: str) -> None:
        """Take nothing more; what was taken is still proposed and answered."""
        self._refusing = Overloaded(reason)

    def flush(self) -> None:
        """Propose what may leave now."""
        while self._may_propose():
            proposal = self._again.popleft() if self._again else self._gather()
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
        for reply, result in zip(proposal.replies, results, strict=True):
            reply(result)
        self._wake_if_more()

    def aborted(self, id: InstanceId) -> None:
        """The instance was decided nop: try its commands again in a new one, or give up and say so."""
        proposal = self._in_flight.pop(id, None)
        if proposal is None:
            return
        proposal.attempts += 1
        if proposal.attempts < self._limits.attempts_max:
            proposal.batch = msgspec.structs.replace(proposal.batch, timestamp_ms=self._now_ms())
            self._again.append(proposal)
        else:
            answer = Aborted(f"not executed: {proposal.attempts} instances in a row were decided nop; submit it again")
            for reply in proposal.replies:
                reply(answer)
        self._wake_if_more()

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

    def _gather(self) -> _Proposal | None:
        """The oldest waiting commands, as many as one batch takes; None when none of them parses."""
        count = self._batch_size()
        commands, replies = tuple(self._commands[:count]), self._replies[:count]
        del self._commands[:count], self._replies[:count]
        self._queued_bytes -= sum(map(len, commands))
        try:
            footprint = self._machine.footprint(commands)
        except CallerFault:
            commands, replies = self._well_formed(commands, replies)
            if not commands:
                return None
            footprint = self._machine.footprint(commands)
        now, first = self._now_ms(), self._sequence
        self._sequence += len(commands)
        ids = tuple(request_id(now, self._replica, self._session, first + place) for place in range(len(commands)))
        return _Proposal(replies, Batch(ids, commands, footprint, now))

    def _batch_size(self) -> int:
        commands, limits = self._commands, self._limits
        if self._queued_bytes <= limits.batch_bytes_max:
            return limits.batch_commands_max
        ends = list(accumulate(map(len, commands[: limits.batch_commands_max])))
        return max(1, bisect_right(ends, limits.batch_bytes_max))

    def _well_formed(
        self, commands: Sequence[bytes], replies: Sequence[Reply]
    ) -> tuple[tuple[bytes, ...], list[Reply]]:
        """Answer the commands that the machine cannot parse; they must not take the others down with them."""
        kept: list[tuple[bytes, Reply]] = []
        for command, reply in zip(commands, replies, strict=True):
            try:
                self._machine.footprint((command,))
            except CallerFault as fault:
                reply(CommandFailed(str(fault)))
            else:
                kept.append((command, reply))
        return tuple(command for command, _ in kept), [reply for _, reply in kept]
