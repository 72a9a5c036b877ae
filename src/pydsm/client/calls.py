"""Commands in flight in a client, until each has its outcome.

Guarantees that the first outcome of each command is recorded, and later ones are ignored. What happens after a failure
is decided by `client`.
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
    """The type of `OPEN`, the value of an outcome that is not known yet."""

    OPEN = auto()


OPEN = _Open.OPEN


@dataclass(slots=True, eq=False)
class PendingCall:
    """Commands that are sent together. `done` is called when each of them has an outcome.

    `deadline` is a time in seconds on the event loop's clock, `left` the number of commands without an outcome.
    """

    commands: Sequence[bytes]
    done: Callable[["PendingCall"], None]
    deadline: float
    outcomes: list[CallOutcome]
    left: int
    size_bytes: int
    origin: "PendingCall | None" = None
    """The call from which these commands were split off; their outcomes are recorded in it, and it counts them."""
    on_request_id: Callable[[UUID], None] | None = None
    """Called with the request id of the first command."""
    first: int = 0
    """See `link.Sent`."""
    first_id: RequestId | None = None
    """See `link.Sent`."""
    session: ClientSession | None = None
    """See `link.Sent`."""
    sent: bool = False
    uncertain: bool = False
    """Whether an earlier attempt may have executed the commands."""
    sent_elsewhere: bool = False
    """Whether parts of it were sent through another replica."""
    attempts: int = 0
    expirations: int = 0
    """How often they were refused because the session of their first attempt had expired."""
    refusal: CommandNotCompleted | None = None
    """The last refusal; the commands were certainly not executed by that attempt."""

    def settle(self, positions: Sequence[int], outcomes: Sequence[CallOutcome]) -> None:
        """Record outcomes; the first outcome of each command counts."""
        start, end = positions[0], positions[0] + len(positions)
        if self.left == len(self.commands) and positions == list(range(start, end)):
            self.outcomes[start:end] = outcomes
            self.left -= len(positions)
            return
        for position, outcome in zip(positions, outcomes, strict=True):
            if self.outcomes[position] is OPEN:
                self.outcomes[position] = outcome
                self.left -= 1

    def set_request_id(self, id: RequestId) -> None:
        """See `link.Sent`."""
        self.first_id = id
        if self.on_request_id is not None:
            self.on_request_id(UUID(bytes=id))

    def clear_request_id(self) -> None:
        """Remove the ids, so that the commands get others: they are certainly not in an instance that is executed."""
        self.first_id = self.session = None

    @property
    def longest_bytes(self) -> int:
        """Bytes of the longest command, or an upper bound of it if all commands together are short."""
        return self.size_bytes if self.size_bytes <= _SHORT_BYTES else max(map(len, self.commands))

    @property
    def open_positions(self) -> list[int]:
        """The positions of the commands without an outcome."""
        return [position for position, outcome in enumerate(self.outcomes) if outcome is OPEN]

    @property
    def is_answered_elsewhere(self) -> bool:
        """Whether all its commands have outcomes that other attempts brought."""
        return self.origin is not None and not self.origin.left


def with_request_id(call: PendingCall, position: int, outcome: CommandNotCompleted) -> CommandNotCompleted:
    """A copy of the outcome with the request id of this command."""
    one = type(outcome)(*outcome.args)
    one.request_id = None if call.first_id is None else UUID(bytes=request_at(call.first_id, position))
    return one


def split_commands(commands: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split commands into parts that fit into frames, so that the first answers do not wait for the last commands."""
    start = size = 0
    for position, length in enumerate(map(len, commands)):
        if position - start >= _PART_COMMANDS_MAX or (size and size + length > _PART_BYTES_MAX):
            yield commands[start:position]
            start, size = position, 0
        size += length
    if start < len(commands):
        yield commands[start:]


_SHORT_BYTES = 64 << 10
_PART_COMMANDS_MAX = 1000
_PART_BYTES_MAX = 1 << 20


REFUSALS = {Aborted, Overloaded, SessionExpired, RequestExpired}
"""Answers that are not final outcomes: the command may be sent again, or gets another outcome."""


def refusal_group_key() -> Callable[[tuple[int, object]], object]:
    """A key function for `groupby`: groups results, and equal refusals of commands that follow one another."""
    before: tuple[int, object] | None = None
    rows = 0

    def key(item: tuple[int, object]) -> object:
        nonlocal before, rows
        position, answer = item
        if type(answer) not in REFUSALS:
            before = None
            return None
        if before is None or before[0] + 1 != position or before[1] != answer:
            rows += 1
        before = item
        return rows

    return key
