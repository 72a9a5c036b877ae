"""The places of commands in the order of one connection's replies."""

from collections.abc import Callable, Iterable

from pydsm.core.sessions.result_ranges import weight
from pydsm.runtime.batching import Answer

_ENOUGH_BYTES = 1 << 40


class _Unanswered:
    """What stands in a slot until the answer is known."""


UNANSWERED = _Unanswered()


class Slot:
    """A command's place in the order of replies."""

    __slots__ = ("answer", "finish", "protocol", "since")

    def __init__(
        self, protocol: int, answer: Answer, since: float = 0.0, finish: Callable[[Answer], Answer] | None = None
    ) -> None:
        self.protocol = protocol
        self.answer = answer
        self.since = since
        """When it was asked for."""
        self.finish = finish
        """Makes the client's answer of the machine's, where they differ."""

    def settle(self, answer: Answer) -> None:
        """Take the machine's answer, unless the client was already answered."""
        if self.answer is UNANSWERED:
            self.answer = answer if self.finish is None else self.finish(answer)


def waiting_bytes(slots: Iterable[Slot]) -> int:
    """About what the answers take that wait for others in front of them."""
    return weight([slot.answer for slot in slots if slot.answer is not UNANSWERED], _ENOUGH_BYTES)
