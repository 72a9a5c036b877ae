"""Commands in flight in a client, until each has its outcome.

Guards that an outcome is noted once and in its place, however many answers come. What is done when something fails is
decided by `client`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from pydsm.client.outcomes import CommandNotCompleted
from pydsm.client.session import ClientSession
from pydsm.client_protocol.answers import Aborted, Overloaded
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.ids import RequestId, request_at
from pydsm.machines.base import Result

CallOutcome = Result | CommandNotCompleted
"""The outcome of a command: its result, which may be a CommandFailed, or the reason why there is none."""


class _Open(Enum):
    """Stands for an outcome that is not known yet."""

    OPEN = auto()


OPEN = _Open.OPEN


@dataclass(slots=True, eq=False)
class PendingCall:
    """Commands that travel together, each on its way to an outcome. `done` is called when all have one."""

    commands: Sequence[bytes]
    done: Callable[["PendingCall"], None]
    deadline: float
    outcomes: list[CallOutcome]
    left: int
    size_bytes: int
    origin: "PendingCall | None" = None
    """What these commands are a part of: there they count, and there their outcomes go."""
    named: Callable[[UUID], None] | None = None
    """Called with the id of the first command."""
    first: int = 0
    """See `link.Sent`."""
    name: RequestId | None = None
    """See `link.Sent`."""
    session: ClientSession | None = None
    """See `link.Sent`."""
    sent: bool = False
    uncertain: bool = False
    """They were sent before, and may have been executed then."""
    passed_on: bool = False
    """Parts of it are on their way through another replica."""
    attempts: int = 0
    expirations: int = 0
    """How often they were refused because their session was forgotten, which they were sent under only once."""
    refusal: CommandNotCompleted | None = None
    """What was last said of them: certainly not executed then."""

    def settle(self, places: Sequence[int], outcomes: Sequence[CallOutcome]) -> None:
        """Record outcomes; the first outcome of each command counts."""
        start, end = places[0], places[0] + len(places)
        if self.left == len(self.commands) and places == list(range(start, end)):
            self.outcomes[start:end] = outcomes
            self.left -= len(places)
            return
        for place, outcome in zip(places, outcomes, strict=True):
            if self.outcomes[place] is OPEN:
                self.outcomes[place] = outcome
                self.left -= 1

    def take_name(self, name: RequestId) -> None:
        """See `link.Sent`."""
        self.name = name
        if self.named is not None:
            self.named(UUID(bytes=name))

    def forget_name(self) -> None:
        """They are certainly in no instance that is executed, and get other ids."""
        self.name = self.session = None

    @property
    def longest_bytes(self) -> int:
        """Of the longest command; or more, where all together are short."""
        return self.size_bytes if self.size_bytes <= _SHORT_BYTES else max(map(len, self.commands))

    @property
    def open_places(self) -> list[int]:
        """Commands without an outcome."""
        return [place for place, outcome in enumerate(self.outcomes) if outcome is OPEN]

    @property
    def is_moot(self) -> bool:
        """Whether all of it has outcomes from elsewhere."""
        return self.origin is not None and not self.origin.left


def about(call: PendingCall, place: int, outcome: CommandNotCompleted) -> CommandNotCompleted:
    """The outcome, with the id of this command."""
    one = type(outcome)(*outcome.args)
    one.request_id = None if call.name is None else UUID(bytes=request_at(call.name, place))
    return one


def divided(commands: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Parts that fit into frames, so that answers to the first ones need not wait for the last."""
    start = size = 0
    for place, length in enumerate(map(len, commands)):
        if place - start >= _PART_COMMANDS_MAX or (size and size + length > _PART_BYTES_MAX):
            yield commands[start:place]
            start, size = place, 0
        size += length
    if start < len(commands):
        yield commands[start:]


_SHORT_BYTES = 64 << 10
_PART_COMMANDS_MAX = 1000
_PART_BYTES_MAX = 1 << 20


REFUSALS = {Aborted, Overloaded, SessionExpired, RequestExpired}
"""Answers that are no outcome yet: the command may be sent again, or gets another outcome."""


def refusal_group_key() -> Callable[[tuple[int, object]], object]:
    """A key under which results are alike, and refusals of one kind whose places follow one another."""
    before: tuple[int, object] | None = None
    rows = 0

    def key(item: tuple[int, object]) -> object:
        nonlocal before, rows
        place, answer = item
        if type(answer) not in REFUSALS:
            before = None
            return None
        if before is None or before[0] + 1 != place or before[1] != answer:
            rows += 1
        before = item
        return rows

    return key
