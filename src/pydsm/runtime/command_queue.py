"""Commands that wait for a batch, in the order in which they may leave.

Guards the order of each connection whose commands come without ids (PROTOCOL 7, "Program order"): while commands of it
are in an instance that is not executed, or are about to be proposed again, its later commands are held here. So they
wait for one instance at a time, whatever becomes of it, and nothing of theirs is ever proposed ahead of it.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from pydsm.core.types.ids import RequestId, SessionId, is_tracked, request_at, sequence_of, session_of
from pydsm.core.types.messages import Run

log = logging.getLogger("pydsm.batching")

ReplyMany = Callable[[int, Sequence[Any]], None]
"""See `batching.ReplyMany`."""

_UNPROPOSED_MAX = 10_000


class Stream:
    """The commands of one connection, which take effect in the order in which they are submitted."""

    __slots__ = ("commands", "parts", "size_bytes", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        """Whether commands of it have left the queue, and are neither executed nor given up."""
        self.parts: deque[Submission] = deque()
        """All that is in the queue, the oldest first."""
        self.commands = 0
        self.size_bytes = 0


class Submission(NamedTuple):
    """Commands in a row, of those that were submitted together, from `offset` on; and who waits for them."""

    reply: ReplyMany
    offset: int
    commands: Sequence[bytes]
    size_bytes: int
    run: Run | None
    """The ids of all that were submitted together; None for commands that came without."""
    again: bool
    stream: Stream | None

    def named(self) -> Run:
        """The ids of these commands alone. What is divided stays in order."""
        run = self.run
        assert run is not None, "commands without ids"
        if run.count == len(self.commands):
            return run
        after = sequence_of(run.first) + self.offset - 1 if self.offset and is_tracked(run.first) else run.after
        return Run(request_at(run.first, self.offset), len(self.commands), run.acknowledged, after)

    def deliver(self, answers: Sequence[Any]) -> None:
        """Give whoever waits the answers to these commands, one for each."""
        try:
            self.reply(self.offset, answers)
        except Exception:  # a caller's mistake, which must not end the replica, nor leave others unanswered
            log.exception("a callback raised when it was given its command's answer")

    def slice(self, start: int, end: int) -> "Submission":
        """Some of them."""
        commands = self.commands[start:end]
        size = sum(map(len, commands))
        return self._replace(offset=self.offset + start, commands=commands, size_bytes=size)


class CommandQueue:
    """The queue of one replica. Counts what may leave apart from what is held.

    A connection keeps its own commands in order, and has one entry here, however many they are: while it has nothing
    under way, and something that waits.
    """

    def __init__(self) -> None:
        self._entries: deque[Submission | Stream] = deque()
        self.commands = 0
        self.size_bytes = 0
        self.held_commands = 0
        self.held_bytes = 0

    def add(self, part: Submission) -> None:
        """At the end, or behind what its connection has here or under way."""
        stream = part.stream
        if stream is None:
            self._entries.append(part)
        else:
            if not (stream.parts or stream.under_way):
                self._entries.append(stream)
            stream.parts.append(part)
            stream.commands += len(part.commands)
            stream.size_bytes += part.size_bytes
            if stream.under_way:
                self.held_commands += len(part.commands)
                self.held_bytes += part.size_bytes
                return
        self.commands += len(part.commands)
        self.size_bytes += part.size_bytes

    def take(self, commands_max: int, bytes_max: int) -> list[Submission]:
        """The oldest that may leave, for one instance; at least one command if there is one."""
        taken = _Taken(commands_max, bytes_max)
        while self._entries and not taken.is_full:
            entry = self._entries.popleft()
            if isinstance(entry, Submission):
                rest = taken.add(entry)
                if rest is not None:
                    self._entries.appendleft(rest)
            else:
                self._take_of(entry, taken)
        self.commands -= taken.commands
        self.size_bytes -= taken.size_bytes
        return taken.parts

    def _take_of(self, stream: Stream, taken: "_Taken") -> None:
        """What fits of a connection; the rest of it is held. If nothing fits, it is the next one again."""
        commands, size_bytes = taken.commands, taken.size_bytes
        while stream.parts and not taken.is_full:
            rest = taken.add(stream.parts.popleft())
            if rest is not None:
                stream.parts.appendleft(rest)
        if taken.commands == commands:
            self._entries.appendleft(stream)
            return
        stream.under_way = True
        stream.commands -= taken.commands - commands
        stream.size_bytes -= taken.size_bytes - size_bytes
        self._move_to_held(stream, 1)

    def _move_to_held(self, stream: Stream, sign: int) -> None:
        self.commands -= sign * stream.commands
        self.size_bytes -= sign * stream.size_bytes
        self.held_commands += sign * stream.commands
        self.held_bytes += sign * stream.size_bytes

    def release(self, streams: Iterable[Stream]) -> None:
        """What these had under way is executed: what came meanwhile may leave."""
        for stream in streams:
            stream.under_way = False
            if stream.parts:
                self._entries.append(stream)
                self._move_to_held(stream, -1)

    def drop(self, streams: Iterable[Stream]) -> list[Submission]:
        """What these had under way is given up: everything else of them, which must not be executed without it."""
        dropped: list[Submission] = []
        for stream in streams:
            dropped += stream.parts
            self.held_commands -= stream.commands
            self.held_bytes -= stream.size_bytes
            stream.parts.clear()
            stream.under_way, stream.commands, stream.size_bytes = False, 0, 0
        return dropped


class _Taken:
    """Commands for one instance, and the room that is left in it."""

    def __init__(self, commands_max: int, bytes_max: int) -> None:
        self.parts: list[Submission] = []
        self.commands = 0
        self.size_bytes = 0
        self.is_full = False
        self._commands_max = commands_max
        self._bytes_max = bytes_max

    def add(self, part: Submission) -> Submission | None:
        """As much of it as fits; gives the rest, behind which nothing may be added. The first command always fits."""
        room, room_bytes = self._commands_max - self.commands, self._bytes_max - self.size_bytes
        count, rest = len(part.commands), None
        if count > room or part.size_bytes > room_bytes:
            fitting = min(count, room, bisect_right(list(accumulate(map(len, part.commands))), room_bytes))
            fitting = fitting or int(not self.parts)
            if fitting < count:
                self.is_full = True
                if not fitting:
                    return part
                part, rest = part.slice(0, fitting), part.slice(fitting, count)
        self.parts.append(part)
        self.commands += len(part.commands)
        self.size_bytes += part.size_bytes
        if self.commands >= self._commands_max:
            self.is_full = True
        return rest


class Sequencing:
    """After which earlier request of its session a run is to be executed: resolved when a batch is made.

    `has_settled` tells whether a request of a session is executed here, or never will be. What is executed here needs
    no order: it was decided before this batch is proposed, so whatever sees the one sees the other.
    """

    def __init__(self, has_settled: Callable[[SessionId, int], bool]) -> None:
        self._has_settled = has_settled
        self._unproposed: dict[RequestId, int] = {}

    def unproposed(self, run: Run, place: int) -> None:
        """One command is answered without being proposed; nothing has to wait for it."""
        before = sequence_of(run.first) + place - 1 if place else run.after
        if len(self._unproposed) >= _UNPROPOSED_MAX:
            del self._unproposed[next(iter(self._unproposed))]
        self._unproposed[request_at(run.first, place)] = before

    def resolved(self, run: Run, together: dict[SessionId, tuple[int, int]]) -> Run:
        """The run as it goes into a batch, in which `together` tells the last run of each session: after, and end."""
        if not run.after:
            return run
        session, after = session_of(run.first), run.after
        while self._unproposed:
            before = self._unproposed.get(RequestId(session + after.to_bytes(4, "big")))
            if before is None:
                break
            after = before
        in_batch = together.get(session)
        if not after or in_batch == (0, after + 1) or self._has_settled(session, after):
            after = 0
        return run if after == run.after else Run(run.first, run.count, run.acknowledged, after)
