"""Submits the commands of one Redis connection for replication, in the order in which they were sent.

Guarantees that commands take effect in this order, and that none is executed that arrived after a refused command and
before the refusal was sent: a client that sent both together must not find only the second one executed. Batches and
retries are left to `runtime/batching`, the order of replies to `reply_queue`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import SubmitMany
from pydsm.runtime.command_queue import Stream
from pydsm.server.reply_queue import PendingReply


class SubmissionTarget(Protocol):
    """The replica that accepts the commands."""

    submit_many: SubmitMany

    @property
    def refusal(self) -> str | None:
        """Why replicated commands are refused now; None while they are accepted."""
        ...


def _ignore(offset: int, answers: Sequence[Answer]) -> None:
    pass


class CommandSubmitter:
    """Collects commands that arrived together and submits them with one call.

    `on_answered` is called after replies were completed by answers of the replica.
    """

    def __init__(self, target: SubmissionTarget, on_answered: Callable[[], None]) -> None:
        self._target = target
        self._on_answered = on_answered
        self._stream = Stream()
        self._commands: list[bytes] = []
        self._replies: list[PendingReply] = []
        self._refused: Aborted | Overloaded | None = None
        """Why a command was not executed; later commands get the same answer until `accept_again`."""

    def add(self, command: bytes, reply: PendingReply) -> None:
        """Submit a command with the next `submit`, or complete its reply with a refusal immediately."""
        if self._refused is not None:
            reply.complete(self._refused)
        elif (reason := self._target.refusal) is not None:
            reply.complete(CommandFailed(f"CLUSTERDOWN {reason}; the command was not executed"))
        else:
            self._commands.append(command)
            self._replies.append(reply)

    def submit(self) -> None:
        """Submit the commands that were added since the last call."""
        if self._commands:
            commands, replies = self._commands, self._replies
            self._commands, self._replies = [], []
            self._target.submit_many(commands, partial(self._complete, replies), self._stream)

    def submit_without_reply(self, command: bytes) -> None:
        """Submit a command after those that were added; its answer is ignored."""
        self.submit()
        self._target.submit_many((command,), _ignore, self._stream)

    def accept_again(self) -> None:
        """Accept commands again after a refusal: all replies were written, so the client can know of it."""
        self._refused = None

    def _complete(self, replies: list[PendingReply], offset: int, answers: Sequence[Answer]) -> None:
        for reply, answer in zip(replies[offset : offset + len(answers)], answers, strict=True):
            reply.complete(answer)
        if isinstance(answers[-1], Aborted | Overloaded):  # answers that come together are all refusals, or none is
            self._refused = answers[-1]
        self._on_answered()
