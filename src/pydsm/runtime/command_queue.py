"""Commands that wait for a batch, in the order in which they may be proposed.

Keeps the order of each connection whose commands have no request ids ("Program order" in
docs/reference/protocol.md#7-requests-exactly-once): while commands of a connection are in flight (in an
instance that is not executed, or about to be proposed again), its later commands are held here. So a connection waits
for one instance at a time, whatever is decided about it, and none of its later commands is proposed before that.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.ids import RequestId, SessionId, is_tracked, request_at, sequence_of, session_of
from pydsm.core.types.messages import Run
from pydsm.runtime.replies import ReplyMany

log = logging.getLogger("pydsm.batching")

_UNPROPOSED_MAX = 10_000
"""Requests answered without being proposed that are stored by `Sequencing`; the oldest is dropped for a new one."""


class Stream:
    """The commands of one connection, which take effect in the order in which they are submitted."""

    __slots__ = ("commands", "in_flight", "size_bytes", "submissions")

    def __init__(self) -> None:
        self.in_flight = False
        """Whether commands of this connection are in an instance or wait to be proposed again; later ones are held."""
        self.submissions: deque[Submission] = deque()
        """The submissions of this connection that are in the queue, the oldest first."""
        self.commands = 0
        self.size_bytes = 0


class Submission(NamedTuple):
    """Consecutive commands of those that were submitted together, from position `offset` on, with their callback."""

    reply: ReplyMany
    offset: int
    commands: Sequence[bytes]
    size_bytes: int
    run: Run | None
    """The ids of all commands that were submitted together; None for commands without ids."""
    is_retry: bool
    """Whether the requests may have been proposed before, here or at another replica."""
    stream: Stream | None

    def own_run(self) -> Run:
        """The ids of these commands alone. If the submission was divided, `after` keeps the pieces in order."""
        run = self.run
        assert run is not None, "commands without ids"
        if run.count == len(self.commands):
            return run
        after = sequence_of(run.first) + self.offset - 1 if self.offset and is_tracked(run.first) else run.after
        return Run(request_at(run.first, self.offset), len(self.commands), run.acknowledged, after)

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Pass the answers to these commands to the callback, one answer for each command."""
        try:
            self.reply(self.offset, answers)
        except Exception:  # an error of the caller; it must not stop the replica or leave other commands unanswered
            log.exception("a callback raised when it received the answer to its command")

    def slice(self, start: int, end: int) -> "Submission":
        """The commands from position `start` up to and excluding `end`."""
        commands = self.commands[start:end]
        size = sum(map(len, commands))
        return self._replace(offset=self.offset + start, commands=commands, size_bytes=size)

    def divide(self, count: int, size_bytes: int) -> tuple["Submission", "Submission"]:
        """The first `count` commands, which have `size_bytes` bytes, and the rest."""
        first = self._replace(commands=self.commands[:count], size_bytes=size_bytes)
        rest = self._replace(
            offset=self.offset + count, commands=self.commands[count:], size_bytes=self.size_bytes - size_bytes
        )
        return first, rest


class CommandQueue:
    """The queue of one replica. Counts commands that may be proposed (`commands`) and held ones (`held_commands`).

    The commands of a connection are kept in its `Stream`. A stream has one entry in this queue, whatever the number of
    its commands, and only while it has waiting commands and none in flight.
    """

    def __init__(self) -> None:
        self._entries: deque[Submission | Stream] = deque()
        self.commands = 0
        self.size_bytes = 0
        self.held_commands = 0
        self.held_bytes = 0

    def add(self, submission: Submission) -> None:
        """Append commands to the queue, or to those that their connection has waiting."""
        stream = submission.stream
        if stream is None:
            self._entries.append(submission)
        else:
            if not (stream.submissions or stream.in_flight):
                self._entries.append(stream)
            stream.submissions.append(submission)
            stream.commands += len(submission.commands)
            stream.size_bytes += submission.size_bytes
            if stream.in_flight:
                self.held_commands += len(submission.commands)
                self.held_bytes += submission.size_bytes
                return
        self.commands += len(submission.commands)
        self.size_bytes += submission.size_bytes

    def take(self, commands_max: int, bytes_max: int) -> list[Submission]:
        """Remove the oldest commands that may be proposed, for one instance; at least one command if there is one."""
        taken = _Taken(commands_max, bytes_max)
        while self._entries and not taken.is_full:
            entry = self._entries.popleft()
            if isinstance(entry, Submission):
                rest = taken.add(entry)
                if rest is not None:
                    self._entries.appendleft(rest)
            else:
                self._take_from_stream(entry, taken)
        self.commands -= taken.commands
        self.size_bytes -= taken.size_bytes
        return taken.submissions

    def _take_from_stream(self, stream: Stream, taken: "_Taken") -> None:
        """Take the commands of a connection that fit; the rest is held. If none fits, it stays first in the queue."""
        commands, size_bytes = taken.commands, taken.size_bytes
        while stream.submissions and not taken.is_full:
            rest = taken.add(stream.submissions.popleft())
            if rest is not None:
                stream.submissions.appendleft(rest)
        if taken.commands == commands:
            self._entries.appendleft(stream)
            return
        stream.in_flight = True
        stream.commands -= taken.commands - commands
        stream.size_bytes -= taken.size_bytes - size_bytes
        self._move_to_held(stream, 1)

    def _move_to_held(self, stream: Stream, sign: int) -> None:
        self.commands -= sign * stream.commands
        self.size_bytes -= sign * stream.size_bytes
        self.held_commands += sign * stream.commands
        self.held_bytes += sign * stream.size_bytes

    def release(self, streams: Iterable[Stream]) -> None:
        """The commands in flight of these connections are executed: their held commands may be proposed."""
        for stream in streams:
            stream.in_flight = False
            if stream.submissions:
                self._entries.append(stream)
                self._move_to_held(stream, -1)

    def drop(self, streams: Iterable[Stream]) -> list[Submission]:
        """The commands in flight of these connections are given up. Removes and returns their held commands.

        These must not be executed without the earlier ones.
        """
        dropped: list[Submission] = []
        for stream in streams:
            dropped += stream.submissions
            self.held_commands -= stream.commands
            self.held_bytes -= stream.size_bytes
            stream.submissions.clear()
            stream.in_flight, stream.commands, stream.size_bytes = False, 0, 0
        return dropped


class _Taken:
    """Commands for one instance, and how many more fit into it."""

    def __init__(self, commands_max: int, bytes_max: int) -> None:
        self.submissions: list[Submission] = []
        self.commands = 0
        self.size_bytes = 0
        self.is_full = False
        self._commands_max = commands_max
        self._bytes_max = bytes_max

    def add(self, submission: Submission) -> Submission | None:
        """Add as many commands as fit; returns the rest, after which nothing may be added. The first always fits."""
        left, left_bytes = self._commands_max - self.commands, self._bytes_max - self.size_bytes
        count, rest = len(submission.commands), None
        if count > left or submission.size_bytes > left_bytes:
            sizes = list(accumulate(map(len, islice(submission.commands, left))))
            fitting = bisect_right(sizes, left_bytes) or int(not self.submissions)
            if fitting < count:
                self.is_full = True
                if not fitting:
                    return submission
                submission, rest = submission.divide(fitting, sizes[fitting - 1])
        self.submissions.append(submission)
        self.commands += len(submission.commands)
        self.size_bytes += submission.size_bytes
        if self.commands >= self._commands_max:
            self.is_full = True
        return rest


class Sequencing:
    """Finds the earlier request of its session after which a run must be executed, when a batch is made.

    `has_settled` returns whether a request of a session is executed at this replica, or never will be. A run needs no
    `after` for such a request: its instance was decided before this batch is proposed, so it is ordered before it.
    """

    def __init__(self, has_settled: Callable[[SessionId, int], bool]) -> None:
        self._has_settled = has_settled
        self._unproposed: dict[RequestId, int] = {}

    def unproposed(self, run: Run, position: int) -> None:
        """The command at this position of the run is answered without being proposed: later ones do not wait for it."""
        before = sequence_of(run.first) + position - 1 if position else run.after
        if len(self._unproposed) >= _UNPROPOSED_MAX:
            del self._unproposed[next(iter(self._unproposed))]
        self._unproposed[request_at(run.first, position)] = before

    def resolved(self, run: Run, last_runs: dict[SessionId, tuple[int, int]]) -> Run:
        """The run as it is put into a batch, with the final value of `after`.

        `last_runs` has, for each session in the batch, `after` and the end sequence of its last run in the batch.
        """
        if not run.after:
            return run
        session, after = session_of(run.first), run.after
        while self._unproposed:
            before = self._unproposed.get(RequestId(session + after.to_bytes(4, "big")))
            if before is None:
                break
            after = before
        in_batch = last_runs.get(session)
        if not after or in_batch == (0, after + 1) or self._has_settled(session, after):
            after = 0
        return run if after == run.after else Run(run.first, run.count, run.acknowledged, after)
