"""Gathers commands into batches, and brings each command's result back to whoever submitted it.

Decides when a batch leaves: an idle replica proposes at once, a busy one lets commands gather while its instances
are in flight, so batches grow with the load and no clock is waited for. Guards that every command is answered once:
with its result, or with a value that says that it was definitely not executed. Leaves agreement to the core and
meaning to the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pydsm.machines.base import Result


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
