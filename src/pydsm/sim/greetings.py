"""What replicas say of their starts in the simulator: where there is a transport, it stands in greetings."""

from dataclasses import dataclass

from pydsm.core.starts import Remembered, Start, StartGreeting

Stamp = tuple[int, int] | None
"""The number of the sender's start, and how much was durable there, when a message left; None where nobody looks."""


@dataclass(frozen=True, slots=True)
class Asks:
    """The first greeting on a connection."""

    greeting: StartGreeting


@dataclass(frozen=True, slots=True)
class Tells:
    """The answer: a greeting, or a refusal, with what is remembered."""

    to: Start
    """Who asked: an answer to an earlier start is of a connection that is gone."""
    greeting: StartGreeting | None
    remembered: Remembered


Greeting = Asks | Tells
