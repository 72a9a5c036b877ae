"""The answers to submitted commands, and the callbacks that receive them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydsm.machines.base import Result


@dataclass(frozen=True, slots=True)
class Aborted:
    """The command was definitely not executed and will not be; it is safe to submit it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The command was not accepted, because the replica is full or stopping; try again later or at another replica."""

    reason: str


Answer = Result | Aborted | Overloaded
"""The answer to a submitted command: its result, or the reason why there is none."""

Reply = Callable[[Answer], None]
"""Receives the answer to one command. Exceptions that it raises are logged."""

ReplyMany = Callable[[int, Sequence[Answer]], None]
"""Receives answers to commands that were submitted together: the position of the first of these commands in the
submission, and the answers for it and the commands after it. Each command is answered exactly once; there is at least
one call for each batch that contains some of the commands. Exceptions that it raises are logged."""
