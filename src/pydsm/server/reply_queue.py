"""The replies of one Redis connection, in the order of its commands.

Guarantees that each command has one reply and that replies leave in the order of the commands, in whatever order the
answers arrive. When replies are written is decided by `connection`.
"""

from collections import deque
from collections.abc import Callable

from pydsm.client_protocol.answers import Answer
from pydsm.core.sessions.result_ranges import weight
from pydsm.machines.base import CommandFailed
from pydsm.server.limits import RespLimits
from pydsm.server.replies import encode_reply

_NO_LIMIT_BYTES = 1 << 40
"""A limit for `weight` that is never reached, so that it counts everything."""


class _Unanswered:
    """The value of `PendingReply.answer` until the answer is known."""


UNANSWERED = _Unanswered()


class PendingReply:
    """The reply to one command, in the version of RESP that was selected when the command arrived."""

    __slots__ = ("answer", "finish", "protocol", "since")

    def __init__(
        self, protocol: int, answer: Answer, since: float = 0.0, finish: Callable[[Answer], Answer] | None = None
    ) -> None:
        """`since` is the time in seconds, on the event loop's clock, at which the command arrived.

        `finish` computes the answer to the client from the answer of the state machine; None if they are the same.
        """
        self.protocol = protocol
        self.answer = answer
        self.since = since
        self.finish = finish

    @property
    def is_answered(self) -> bool:
        """Whether the answer is known."""
        return self.answer is not UNANSWERED

    def complete(self, answer: Answer) -> None:
        """Record the answer of the state machine. Ignored if the reply has an answer already."""
        if self.answer is UNANSWERED:
            self.answer = answer if self.finish is None else self.finish(answer)


class ReplyQueue:
    """Replies that are not written yet, oldest first. They are added in order and completed in any order."""

    def __init__(self, limits: RespLimits) -> None:
        self._limits = limits
        self._replies: deque[PendingReply] = deque()

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, protocol: int, answer: Answer) -> None:
        """Add a reply whose answer is known."""
        self._replies.append(PendingReply(protocol, answer))

    def add_unanswered(
        self, protocol: int, since: float, finish: Callable[[Answer], Answer] | None = None
    ) -> PendingReply:
        """Add a reply that is completed later. The arguments are those of `PendingReply`."""
        reply = PendingReply(protocol, UNANSWERED, since, finish)
        self._replies.append(reply)
        return reply

    @property
    def is_first_answered(self) -> bool:
        """Whether a reply can be written now."""
        return bool(self._replies) and self._replies[0].answer is not UNANSWERED

    @property
    def is_last_answered(self) -> bool:
        """Whether the newest reply has its answer, which may still wait for older replies."""
        return bool(self._replies) and self._replies[-1].answer is not UNANSWERED

    def take_encoded(self, bytes_max: int) -> bytes:
        """Remove answered replies from the head of the queue and return their encoding.

        Stops after the reply with which the encoding reaches `bytes_max` bytes; empty if none can be written.
        """
        replies, limits = self._replies, self._limits
        encoded: list[bytes] = []
        size = 0
        while replies and replies[0].answer is not UNANSWERED and size < bytes_max:
            first = replies.popleft()
            data = encode_reply(first.answer, first.protocol, limits)
            encoded.append(data)
            size += len(data)
        return b"".join(encoded)

    def expire(self, before_seconds: float, error: CommandFailed) -> bool:
        """Answer commands that arrived before this time, and have no answer, with an error; whether there were any."""
        found = False
        for reply in self._replies:
            if reply.since > before_seconds:
                break
            if reply.answer is UNANSWERED:
                reply.complete(error)
                found = True
        return found

    def waiting_bytes(self) -> int:
        """Approximate size, in bytes, of the answers that wait for older replies."""
        return weight([reply.answer for reply in self._replies if reply.answer is not UNANSWERED], _NO_LIMIT_BYTES)

    def clear(self) -> None:
        """Discard all replies."""
        self._replies.clear()
