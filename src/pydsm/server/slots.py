"""Places in the order of a connection's replies."""

from collections.abc import Callable

from pydsm.runtime.batching import Answer


class _Unanswered:
    """What stands in a slot until the answer is known."""


UNANSWERED = _Unanswered()


class Slot:
    """A command's place in the order of replies."""

    __slots__ = ("answer", "finish", "protocol")

    def __init__(self, protocol: int, answer: Answer, finish: Callable[[Answer], Answer] | None = None) -> None:
        self.protocol = protocol
        self.answer = answer
        self.finish = finish
        """Makes the client's answer of the machine's, where they differ."""

    def settle(self, answer: Answer) -> None:
        """Take the machine's answer."""
        self.answer = answer if self.finish is None else self.finish(answer)
