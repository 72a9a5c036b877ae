"""Calls of the program in which a replica runs: each executed once, sent again while its outcome is not known.

Decides when a call is sent again and when it is given up. Guarantees that an outcome is never guessed, and that a call
keeps its request id for as long as it may have been executed. Calls of one turn of the loop are submitted together and
executed in their order; calls of different turns that are in flight together may be executed in any order.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from pydsm.client.calls import REFUSALS
from pydsm.client.outcomes import (
    CommandAborted,
    CommandNotCompleted,
    OutcomeUnknown,
    ReplicaOverloaded,
    RequestExpiredError,
    SessionExpiredError,
)
from pydsm.client.session import ClientSession
from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import RequestId
from pydsm.core.types.messages import Run
from pydsm.machines.base import Result
from pydsm.runtime.node import Node

_SWEEP_SECONDS = 0.02
_BACKOFF_SECONDS = 0.01
_BACKOFF_SECONDS_MAX = 0.5
_CALLS_PER_RUN_MAX = 1000
_ATTEMPTS_IN_SESSION = 5


@dataclass(slots=True, eq=False)
class LocalCall:
    """One call, until it has its outcome."""

    command: bytes
    future: "asyncio.Future[Result] | None" = None
    """None while nobody waits for the outcome."""
    deadline: float = 0.0
    first_id: RequestId | None = None
    """See `session.Identified`."""
    session: ClientSession | None = None
    submitted: bool = False
    """It may have been executed, or may be."""
    uncertain: bool = False
    """The same, because of an attempt before the present one."""
    refusal: CommandNotCompleted | None = None
    attempts: int = 0

    @property
    def left(self) -> int:
        """See `session.Identified`."""
        return int(self.is_open)

    @property
    def is_open(self) -> bool:
        """Whether the outcome is waited for."""
        return self.future is not None and not self.future.done()

    def settle(self, result: Result) -> None:
        """Give the result to who waits for it."""
        if self.future is not None and not self.future.done():
            self.future.set_result(result)

    def set_request_id(self, id: RequestId) -> None:
        """See `session.Identified`."""
        self.first_id = id


@dataclass(slots=True)
class LocalCalls:
    """Of one replica in this process. `use` a node, or none while it restarts; all calls from its loop."""

    timeout_seconds: float
    node: Node | None = None
    failure: str | None = None
    """Why no node will come any more."""
    _open: "dict[LocalCall, None]" = field(default_factory=dict)
    _waiting: "dict[LocalCall, None]" = field(default_factory=dict)
    _deadlines: "deque[LocalCall]" = field(default_factory=deque)
    """Open calls with the default timeout, in order."""
    _loop: "asyncio.AbstractEventLoop | None" = None
    _session: ClientSession | None = None
    _flushing: bool = False
    _sweeping: "asyncio.TimerHandle | None" = None

    def use(self, node: Node) -> None:
        """Submit to this node. What was submitted to the one before is submitted again, under its ids."""
        self.node, self._session, self._loop = node, None, asyncio.get_running_loop()
        self._waiting = dict(self._open)
        for call in self._waiting:
            call.uncertain = call.submitted
        self._wake()

    def end(self, reason: str) -> None:
        """No node will come any more: whatever is open has no outcome, and new calls are refused."""
        self.node, self.failure = None, reason
        for call in list(self._open):
            self._give_up(call, reason)

    async def execute(self, command: bytes, timeout_seconds: float | None, earlier: LocalCall | None = None) -> Result:
        """See `handles.Execute`; `earlier` is a call of unknown outcome that is repeated.

        Raises:
            CommandAborted: definitely not executed.
            OutcomeUnknown: time was up, or the replica has stopped; perhaps executed.
        """
        if self.failure is not None:
            raise CommandAborted(f"not executed now: {self.failure}")
        if earlier is not None and earlier.is_open:
            raise UsageError("this command is being repeated already: await that")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise UsageError("this replica runs in another event loop: use pydsm.blocking to call it from anywhere")
            self._loop = loop
        call = earlier or LocalCall(command)
        call.uncertain = earlier is not None
        future = call.future = loop.create_future()
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        call.deadline = loop.time() + seconds
        self._open[call] = self._waiting[call] = None
        timer: asyncio.TimerHandle | None = None
        if timeout_seconds is not None:
            timer = loop.call_later(seconds, self._time_is_up, call)
        else:
            self._deadlines.append(call)
            if self._sweeping is None:
                self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)
        if not self._flushing:
            self._wake()
        try:
            return await future
        finally:
            call.future = None
            del future  # it has the exception, whose traceback has this frame
            self._open.pop(call, None)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if not self._flushing and self._waiting and self.node is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Submit what waits: new calls under new ids, and those that were submitted before under theirs."""
        self._flushing = False
        node = self.node
        if node is None:
            return
        waiting, self._waiting = self._waiting, {}
        fresh: list[LocalCall] = []
        for call in waiting:
            if not call.is_open:
                continue
            if call.first_id is None:
                fresh.append(call)
            else:
                self._submit_again(node, call)
        for start in range(0, len(fresh), _CALLS_PER_RUN_MAX):
            self._submit(node, fresh[start : start + _CALLS_PER_RUN_MAX])

    def _submit(self, node: Node, calls: list[LocalCall]) -> None:
        session = self._session
        if session is None or session.is_over(len(calls)):
            loop = asyncio.get_running_loop()
            granted = loop.time()
            session = self._session = ClientSession(node.grant().id, lambda: int(1000 * (loop.time() - granted)))
        first: RequestId | None = None
        for call in calls:
            name = session.assign(call, 1)
            first = first or name
            call.session, call.submitted = session, True
        assert first is not None, "called with some calls"
        run = Run(first, len(calls), session.acknowledged())
        node.submit_requests(run, [call.command for call in calls], partial(self._answered, calls), is_retry=False)

    def _submit_again(self, node: Node, call: LocalCall) -> None:
        assert call.first_id is not None, "submitted before"
        call.submitted = True
        run = Run(call.first_id, 1)
        node.submit_requests(run, [call.command], partial(self._answered, [call]), is_retry=True)

    def _answered(self, calls: Sequence[LocalCall], offset: int, answers: Sequence[Answer]) -> None:
        if REFUSALS.isdisjoint(map(type, answers)):
            for call, answer in zip(calls[offset : offset + len(answers)], answers, strict=True):
                call.settle(answer)
            return
        for call, answer in zip(calls[offset:], answers, strict=False):
            self._settle(call, answer)

    def _settle(self, call: LocalCall, answer: Answer) -> None:
        if not call.is_open:
            return
        match answer:
            case Aborted() | Overloaded():
                kind = CommandAborted if isinstance(answer, Aborted) else ReplicaOverloaded
                call.submitted = call.uncertain
                call.refusal = kind(answer.reason)
                if call.attempts >= _ATTEMPTS_IN_SESSION and not call.uncertain:
                    self._leave_session(call)  # which may be what is full
                self._send_later(call)
            case SessionExpired() if not call.uncertain:
                call.submitted = False
                call.refusal = CommandAborted(f"not executed: {answer.reason}")
                self._leave_session(call)
                self._send_later(call)
            case SessionExpired():
                self._fail(call, SessionExpiredError(answer.reason))
            case RequestExpired():
                self._fail(call, RequestExpiredError(answer.reason))
            case _:
                call.settle(answer)

    def _leave_session(self, call: LocalCall) -> None:
        """A call that was certainly not executed gets another id, in another session."""
        if self._session is call.session:
            self._session = None
        call.first_id = call.session = None

    def _send_later(self, call: LocalCall) -> None:
        seconds = min(_BACKOFF_SECONDS * 2 ** min(call.attempts, 10), _BACKOFF_SECONDS_MAX)
        call.attempts += 1
        asyncio.get_running_loop().call_later(seconds, self._send_again, call)

    def _send_again(self, call: LocalCall) -> None:
        if call in self._open:
            self._waiting[call] = None
            self._wake()

    def _sweep(self) -> None:
        self._sweeping = None
        loop = asyncio.get_running_loop()
        now, deadlines = loop.time(), self._deadlines
        while deadlines and (not deadlines[0].is_open or deadlines[0].deadline <= now):
            self._time_is_up(deadlines.popleft())
        if deadlines:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _time_is_up(self, call: LocalCall) -> None:
        if call.is_open:
            self._give_up(call, "no majority of the group answered in time")

    def _give_up(self, call: LocalCall, reason: str) -> None:
        if call.submitted:
            unknown = OutcomeUnknown(f"{reason}: the command may have been executed, may be later, or never")
            unknown.repeat = partial(self._repeat, call)
            self._fail(call, unknown)
            if call.session is not None:
                call.session.keep(unknown)
        else:
            self._fail(call, call.refusal or CommandAborted(f"not executed: {reason}"))

    async def _repeat(self, call: LocalCall, timeout_seconds: float | None) -> Any:
        return await self.execute(call.command, timeout_seconds, call)

    @staticmethod
    def _fail(call: LocalCall, outcome: CommandNotCompleted) -> None:
        outcome.request_id = None if call.first_id is None else UUID(bytes=call.first_id)
        if call.future is not None and not call.future.done():
            call.future.set_exception(outcome)
