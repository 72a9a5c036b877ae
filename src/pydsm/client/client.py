"""The native asyncio client: uses the nearest replica, pipelines commands, and fails over to another replica.

Decides which replica is used and how a command continues after a failure. Guarantees that no outcome is guessed: until
its timeout, a command without an outcome is sent again under its first request id, if necessary through another
replica, and the group executes it once. Only after the timeout, commands that may have been executed fail with
`OutcomeUnknown`.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from types import TracebackType
from uuid import UUID

from pydsm.client import outcomes
from pydsm.client.calls import (
    OPEN,
    REFUSALS,
    CallOutcome,
    PendingCall,
    refusal_group_key,
    split_commands,
    with_request_id,
)
from pydsm.client.capacity import Capacity
from pydsm.client.finder import Finder
from pydsm.client.limits import ClientLimits
from pydsm.client.link import Link, Sent
from pydsm.client.order import EarlierCalls, RefusedCalls
from pydsm.client.outcomes import ClientClosed, CommandNotCompleted, NoReplicaReachable, OutcomeUnknown
from pydsm.client.session import ClientSession
from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import RequestId, request_at
from pydsm.machines.base import CommandFailed, Result
from pydsm.transport.address import Address, parse_address


class Client:
    """A client of a group. Use it as an async context manager, from one event loop.

    `addresses` are native ports (`pydsm serve --native`) of one or more replicas of the group. The nearest replica that
    is ready is used, or `prefer` while it is available. If `group` is given, replicas of other groups are refused.
    """

    def __init__(
        self,
        addresses: Sequence[str | Address],
        *,
        prefer: str | Address | None = None,
        group: str = "",
        limits: ClientLimits | None = None,
    ) -> None:
        self.addresses = tuple(dict.fromkeys(map(_address, addresses)))
        self._prefer = None if prefer is None else _address(prefer)
        if not self.addresses:
            raise UsageError("a client needs the address of at least one replica")
        if self._prefer is not None and self._prefer not in self.addresses:
            raise UsageError(f"the preferred address {self._prefer} is not among the addresses")
        self._limits = limits or ClientLimits()
        self._link: Link | None = None
        self._finder = Finder(self, self.addresses, self._prefer, group, self._limits)
        self._calls: dict[PendingCall, None] = {}
        self._capacity = Capacity(self._limits)
        self._waiting: deque[PendingCall] = deque()
        """Calls that no link has accepted yet, in order of arrival."""
        self._earlier = EarlierCalls()
        self._refused_calls = RefusedCalls(self._send_again)
        self._move = asyncio.Event()
        self._linked = asyncio.Event()
        self._linking: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def __aenter__(self) -> "Client":
        """Connect. Raises NoReplicaReachable if no replica answers in time."""
        self._loop = asyncio.get_running_loop()
        self._linking = self._loop.create_task(self._keep_linked())
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                await self._linked.wait()
        except TimeoutError:
            await self.close()
            raise NoReplicaReachable(self._describe_unreachable()) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect. Commands in flight fail with `ClientClosed`. Idempotent."""
        self._closed = True
        if self._linking is not None:
            self._linking.cancel()
            await asyncio.gather(self._linking, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        self._finder.close("the client was closed")
        for call in list(self._calls):
            self._give_up(call, ClientClosed("the client was closed before the answer came"))
        self._capacity.close()

    @property
    def at(self) -> Address | None:
        """The address of the replica in use; None while there is none."""
        return None if self._link is None else self._link.address

    @property
    def in_flight(self) -> int:
        """The number of commands without an outcome."""
        return sum(call.left for call in self._calls if call.origin is None)

    # Commands

    async def execute(
        self,
        command: bytes,
        *,
        timeout_seconds: float | None = None,
        on_request_id: Callable[[UUID], None] | None = None,
    ) -> Result:
        """Execute one command, encoded for the group's state machine, once, and return its result.

        `on_request_id` is called with the request id of the command when it is sent for the first time, and again if
        it gets another id because its session has expired. See `pydsm trace`.

        Raises:
            CommandFailed: the state machine refused the command, at all replicas alike.
            CommandAborted, ReplicaOverloaded, NoReplicaReachable: it was definitely not executed.
            OutcomeUnknown: the timeout was reached; it may have been executed.
            SessionExpiredError, RequestExpiredError: it was sent again too late, so its result is not available.
        """
        (outcome,) = await self._execute((command,), timeout_seconds, on_request_id)
        if isinstance(outcome, CommandFailed | CommandNotCompleted):
            raise outcome
        return outcome

    async def execute_many(
        self, commands: Sequence[bytes], *, timeout_seconds: float | None = None
    ) -> list[CallOutcome]:
        """Execute several commands and return their outcomes in the same order; failures are returned as values.

        The commands are sent together, but they are not a transaction.
        """
        return await self._execute(commands, timeout_seconds, None)

    async def _execute(
        self, commands: Sequence[bytes], timeout_seconds: float | None, on_request_id: Callable[[UUID], None] | None
    ) -> list[CallOutcome]:
        await self._capacity.wait(len(commands), sum(map(len, commands)))
        parts = [self._begin(part, timeout_seconds, on_request_id) for part in split_commands(commands)]
        for _, future in parts:
            await future
        return [outcome for call, _ in parts for outcome in call.outcomes]

    def _begin(
        self, commands: Sequence[bytes], timeout_seconds: float | None, on_request_id: Callable[[UUID], None] | None
    ) -> tuple[PendingCall, asyncio.Future[None]]:
        """Send some commands; the future is done when each of them has its outcome."""
        future: asyncio.Future[None] = self._loop.create_future()
        return self._submit(commands, partial(_settle_future, future), timeout_seconds, on_request_id), future

    def submit(
        self,
        command: bytes,
        done: Callable[[CallOutcome], None],
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        """Send one command; `done` is called once, on the event loop, with its outcome.

        Unlike `execute`, it does not wait while too many commands are in flight; the caller must limit them. Raises
        ClientClosed.
        """
        self._submit((command,), lambda call: done(call.outcomes[0]), timeout_seconds)

    def _submit(
        self,
        commands: Sequence[bytes],
        done: Callable[[PendingCall], None],
        timeout_seconds: float | None,
        on_request_id: Callable[[UUID], None] | None = None,
        repeated: tuple[RequestId, ClientSession] | None = None,
    ) -> PendingCall:
        if self._closed or self._linking is None:
            raise ClientClosed("the client is closed, or was never entered: use it as an async context manager")
        seconds = self._limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        size, count = sum(map(len, commands)), len(commands)
        call = PendingCall(
            commands, done, self._loop.time() + seconds, [OPEN] * count, count, size, on_request_id=on_request_id
        )
        if repeated is not None:
            (call.first_id, call.session), call.uncertain = repeated, True
        self._calls[call] = None
        self._capacity.add(count, size)
        self._send(call)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._check_deadlines)
        return call

    def _send(self, call: PendingCall) -> None:
        if call.is_answered_elsewhere:
            self._calls.pop(call, None)
            return
        link = self._link
        if link is None or not link.is_open or self._earlier.hold(call):
            self._waiting.append(call)
        elif call.longest_bytes > link.command_bytes_max:
            self._send_short(call, link.command_bytes_max)
        else:
            call.sent = True
            link.send(call)

    def _send_short(self, call: PendingCall, bytes_max: int) -> None:
        """Send a call, except commands over the size limit of replicas: these fail here."""
        for too_long, run in groupby(call.open_positions, lambda position: len(call.commands[position]) > bytes_max):
            positions = list(run)
            if not too_long:
                for _, row in groupby(enumerate(positions), lambda item: item[1] - item[0]):
                    part = [position for _, position in row]
                    self._send(self._part(call, part[0], part[-1] + 1))
                continue
            for position in positions:
                size = len(call.commands[position])
                text = f"the command has {size} bytes, over the limit of {bytes_max}; it was not sent"
                self._settle(call, [position], [CommandFailed(text)])

    def _settle(self, call: PendingCall, positions: Sequence[int], outcomes_: Sequence[CallOutcome]) -> None:
        """Record outcomes, and complete the call when all are known."""
        if call not in self._calls:
            return
        call.settle(positions, outcomes_)
        if not call.left:
            del self._calls[call]
            if self._earlier.was_last(call):
                self._send_waiting()
            self._capacity.remove(0 if call.origin is not None else len(call.commands), call.size_bytes)
            call.done(call)

    def _give_up(self, call: PendingCall, outcome: CommandNotCompleted) -> None:
        """Record the same outcome for all commands without one."""
        if call in self._calls and (positions := call.open_positions):
            given = [with_request_id(call, position, outcome) for position in positions]
            for position, one in zip(positions, given, strict=True):
                if isinstance(one, OutcomeUnknown) and call.session is not None and one.request_id is not None:
                    call.session.keep(one)
                    one.repeat = partial(self._repeat, call.commands[position], one.request_id, call.session)
            self._settle(call, positions, given)

    async def _repeat(
        self, command: bytes, request_id: UUID, session: ClientSession, timeout_seconds: float | None
    ) -> Result:
        """See `OutcomeUnknown.again`: the command is sent again under its id, and its result is the first one."""
        await self._capacity.wait(1, len(command))
        future: asyncio.Future[None] = self._loop.create_future()
        done = partial(_settle_future, future)
        call = self._submit((command,), done, timeout_seconds, repeated=(RequestId(request_id.bytes), session))
        await future
        (outcome,) = call.outcomes
        if isinstance(outcome, CommandFailed | CommandNotCompleted):
            raise outcome
        return outcome

    def _check_deadlines(self) -> None:
        self._sweep = None
        now = self._loop.time()
        for call in reversed([call for call in self._calls if call.deadline <= now]):  # split-off parts first
            self._give_up(call, self._outcome_at_deadline(call))
        link = self._link
        if link is not None and link.open_calls and self._is_silent(link, now):
            self._leave(link, f"it has not answered for {self._limits.silence_seconds_max:g} s")
            if link is not self._link:
                self._send_elsewhere(link)
        if self._calls and not self._closed:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._check_deadlines)

    def _is_silent(self, link: Link, now: float) -> bool:
        return now - max(link.last_answer_at, link.busy_since) > self._limits.silence_seconds_max

    def _outcome_at_deadline(self, call: PendingCall) -> CommandNotCompleted:
        if call.sent or call.uncertain:
            return OutcomeUnknown(
                "no answer came in time: the command may have been executed, or may be executed later"
            )
        return call.refusal or NoReplicaReachable(self._describe_unreachable())

    def _describe_unreachable(self) -> str:
        return f"no replica could be reached in time, so nothing was sent ({self._finder.errors()})"

    # Called by links

    def answered(self, call: Sent, positions: Sequence[int], answers: Sequence[Answer | Result]) -> None:
        """See `link.LinkOwner`."""
        assert isinstance(call, PendingCall), "a link returned a call that it was not given"
        if not {*map(type, answers)} & REFUSALS:
            self._settle(call, positions, answers)
            return
        start = 0
        for _, run in groupby(zip(positions, answers, strict=True), refusal_group_key()):
            end = start + sum(1 for _ in run)
            self._handle_answers(call, positions[start:end], answers[start:end])
            start = end

    def _handle_answers(self, call: PendingCall, positions: Sequence[int], answers: Sequence[Answer | Result]) -> None:
        """Handle answers that are all results, or all the same refusal of consecutive commands."""
        refusal = answers[0]
        if not isinstance(refusal, Aborted | Overloaded | SessionExpired | RequestExpired):
            self._settle(call, positions, answers)
            return
        if call not in self._calls:
            return
        if call.sent_elsewhere:
            return  # they were sent through another replica
        part = call if len(positions) == len(call.commands) else self._part(call, positions[0], positions[-1] + 1)
        if isinstance(refusal, Aborted | Overloaded):
            self._refused(part, refusal)
        elif isinstance(refusal, SessionExpired) and not part.uncertain:
            self._begin_session_for(part)
        else:
            kind = outcomes.SessionExpiredError if isinstance(refusal, SessionExpired) else outcomes.RequestExpiredError
            self._give_up(part, kind(refusal.reason))

    def _part(self, call: PendingCall, start: int, end: int) -> PendingCall:
        """Split some commands off a call; their outcomes are recorded in the original call."""

        def settled(part: PendingCall) -> None:
            self._settle(call, range(start, end), part.outcomes)

        commands = call.commands[start:end]
        part = PendingCall(commands, settled, call.deadline, [OPEN] * len(commands), len(commands), 0, origin=call)
        part.first_id = None if call.first_id is None else request_at(call.first_id, start)
        part.session, part.uncertain = call.session, call.uncertain
        part.attempts, part.expirations = call.attempts, call.expirations
        self._calls[part] = None
        return part

    def _begin_session_for(self, call: PendingCall) -> None:
        """The session has expired, and these commands were certainly not executed: send them again with new ids.

        The first time they are sent immediately, since the session may have been idle. If the next session is refused
        as well, they are sent after a delay and on a new connection, which is granted another session.
        """
        link = self._link
        if link is not None and call.session is not None and link.begin_session(call.session) > 1:
            self._link = None
            link.retire()
            self._move.set()
        self._earlier.begin(self._calls, self._waiting)
        call.clear_request_id()
        call.sent = False
        call.expirations += 1
        call.refusal = outcomes.CommandAborted(
            f"not executed: {call.expirations} sessions in a row were refused as expired"
        )
        if call.expirations == 1:
            self._send_again(call)
        else:
            self._send_after_backoff(call, call.expirations)

    def _send_elsewhere(self, link: Link) -> None:
        """Send commands that a silent replica has not answered through another one; the first outcome counts."""
        for call in link.unanswered:
            assert isinstance(call, PendingCall), "a link returned a call that it was not given"
            if not call.sent_elsewhere and call.attempts < _SENT_ELSEWHERE_MAX:
                call.sent_elsewhere = True
                self._send_rest(call)

    def _send_rest(self, call: PendingCall) -> None:
        """Send the commands without an outcome again under the same ids; they may have been executed."""
        for _, run in groupby(enumerate(call.open_positions), lambda item: item[1] - item[0]):
            positions = [position for _, position in run]
            part = self._part(call, positions[0], positions[-1] + 1)
            part.uncertain = True
            part.attempts += 1
            self._send(part)

    def _refused(self, call: PendingCall, answer: Aborted | Overloaded) -> None:
        """Retry commands that were certainly not executed, after a delay; elsewhere if this replica is overloaded."""
        kind = outcomes.CommandAborted if isinstance(answer, Aborted) else outcomes.ReplicaOverloaded
        call.refusal, call.sent = kind(answer.reason), False
        call.attempts += 1
        if isinstance(answer, Overloaded) and self._link is not None:
            self._leave(self._link, answer.reason)
        self._refused_calls.add(call, self._backoff_seconds(call.attempts))

    def _send_after_backoff(self, call: PendingCall, attempts: int) -> None:
        self._loop.call_later(self._backoff_seconds(attempts), self._send_again, call)

    def _backoff_seconds(self, attempts: int) -> float:
        wait = min(_BACKOFF_SECONDS * float(2 ** min(attempts, 10)), self._limits.backoff_seconds_max)
        return wait * random.uniform(0.5, 1.0)

    def _send_again(self, call: PendingCall) -> None:
        if call in self._calls:
            self._send(call)

    def lost(self, link: Link, sent: Sequence[Sent], unsent: Sequence[Sent], reason: str) -> None:
        """See `link.LinkOwner`."""
        self._finder.remove(link)
        if link is self._link:
            self._link = None
            self._finder.avoid(link.address, reason)
            self._move.set()
        for call in sent:
            assert isinstance(call, PendingCall), "a link returned a call that it was not given"
            if call in self._calls and not call.sent_elsewhere:
                call.sent_elsewhere = True
                self._send_rest(call)
        for call in reversed(unsent):
            assert isinstance(call, PendingCall), "a link returned a call that it was not given"
            call.sent = False
            self._waiting.appendleft(call)  # it is older than all waiting calls
        self._send_waiting()

    # The choice of the replica

    def _leave(self, link: Link, reason: str) -> None:
        """Switch to another replica, if there is one. The old replica may still answer open commands."""
        if link is self._link and len(self.addresses) > 1:
            self._link = None
            self._finder.avoid(link.address, reason)
            link.retire()
            self._loop.call_later(self._limits.timeout_seconds, link.close, reason)
            self._move.set()

    async def _keep_linked(self) -> None:
        """Keep a link to the best available replica open."""
        wait = _BACKOFF_SECONDS
        while True:
            self._move.clear()
            found = await self._finder.best_link(self._link)
            if found is not None:
                wait = _BACKOFF_SECONDS
                self._use(found)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.rediscovery_interval_seconds * random.uniform(0.75, 1.25)):
                        await self._move.wait()
            elif self._link is None:
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, self._limits.backoff_seconds_max)

    def _use(self, link: Link) -> None:
        before, self._link = self._link, link
        if before is not None and before is not link:
            before.retire()
        self._finder.clear_error(link.address)
        self._linked.set()
        if link is not before:
            self._earlier.begin(self._calls, self._waiting)
        self._send_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if call in self._calls:
                self._send(call)


_SENT_ELSEWHERE_MAX = 3
"""How often commands are sent through another replica only because of silence; then they wait for their timeout."""
_SWEEP_SECONDS = 0.05
_BACKOFF_SECONDS = 0.01


def _settle_future(future: "asyncio.Future[None]", call: PendingCall) -> None:
    if not future.done():
        future.set_result(None)


def _address(address: str | Address) -> Address:
    return parse_address(address) if isinstance(address, str) else address
