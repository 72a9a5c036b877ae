"""Records the calls of clients: when they began and ended, and how.

The code that drives the clients fills a history, in the simulator or against real processes; `checkers.linearizability`
checks it. Times are integers of any monotonic scale; only their order matters. Two calls are concurrent if one ends at
the time at which the other begins, so beginnings and ends should have different times, such as odd and even ones.
"""

from dataclasses import dataclass, field
from enum import Enum


def begin_time(step: int) -> int:
    """An odd time within a step, later than `end_time` of the same step."""
    return 2 * step + 1


def end_time(step: int) -> int:
    """An even time within a step."""
    return 2 * step


class Outcome(Enum):
    """How a call ended, as far as its client knows."""

    OPEN = "not answered yet"
    DONE = "answered"
    FAILED = "definitely not executed"
    UNKNOWN = "given up: may have been executed, may be executed later, or never"


@dataclass(slots=True, eq=False)
class Call:
    """One operation of one client, on one key or on several keys together.

    Only the model interprets `action` and `argument`. `result` is the answer that the client received.
    `rank` is a guess of the position at which the call took effect: smaller is earlier. Calls with the same `program`
    were sent in a row, without waiting for answers, and must take effect in the order in which they began.
    """

    client: int
    key: str
    action: str
    argument: object
    began: int
    outcome: Outcome = Outcome.OPEN
    result: object = None
    ended: int | None = None
    rank: int = 0
    other_keys: tuple[str, ...] = ()
    """Other keys that the call accesses atomically with `key`."""
    program: object = None
    number: int = 0
    """Index of the call in the history."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that the call accesses."""
        return (self.key, *self.other_keys)

    def __str__(self) -> str:
        end = "..." if self.ended is None else str(self.ended)
        said = f" -> {self.result!r}" if self.outcome is Outcome.DONE else f" ({self.outcome.value})"
        return f"[{self.began} {end}] client {self.client}: {self.action} {' '.join(self.keys)} {self.argument!r}{said}"


@dataclass(slots=True)
class History:
    """All calls, in order of their beginnings."""

    calls: list[Call] = field(default_factory=list)

    def begin(self, now: int, client: int, key: str, action: str, argument: object = None) -> Call:
        """Record that a client sends an operation."""
        call = Call(client, key, action, argument, now, number=len(self.calls))
        self.calls.append(call)
        return call

    def done(self, call: Call, now: int, result: object) -> None:
        """Record the client's answer. A second answer, or one after the client gave up, changes nothing."""
        if call.outcome is Outcome.OPEN:
            call.outcome, call.result, call.ended = Outcome.DONE, result, now

    def failed(self, call: Call, now: int) -> None:
        """Record the report that the operation was not executed and never will be."""
        if call.outcome is Outcome.OPEN:
            call.outcome, call.ended = Outcome.FAILED, now

    def unknown(self, call: Call, now: int) -> None:
        """Record that the client gave up; the operation may still take effect at any later time."""
        if call.outcome is Outcome.OPEN:
            call.outcome, call.ended = Outcome.UNKNOWN, now

    def by_key(self) -> dict[str, list[Call]]:
        """The calls that may have taken effect, by key."""
        keys: dict[str, list[Call]] = {}
        for call in self.calls:
            if call.outcome is not Outcome.FAILED:
                keys.setdefault(call.key, []).append(call)
        return keys
