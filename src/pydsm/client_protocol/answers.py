"""The answers to submitted commands, as a replica gives them and as a native client receives them."""

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
