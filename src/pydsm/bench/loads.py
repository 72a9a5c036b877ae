"""Load generators: all requests together, at a fixed rate, or a fixed number in flight.

Decides when a request is sent and from which time its latency counts. An open loop does not wait for answers: at a
fixed rate, latency counts from the time at which a request was due, even if it was sent later. A closed loop waits, and
does not measure the requests that it would have sent meanwhile (coordinated omission). `measure` processes the figures.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import NoneType

from pydsm.bench.histogram import Histogram
from pydsm.bench.pace import ArrivalSchedule, Ticker
from pydsm.client import CallOutcome, Client, ClientLimits, CommandNotCompleted
from pydsm.core.types.errors import UsageError
from pydsm.machines.base import CommandFailed
from pydsm.transport.address import Address

_TIMEOUT_SECONDS = 60.0
_IN_FLIGHT_MAX = 2_000_000
_CLIENTS_MAX = 1000
_LANES_MAX = 8
_BEHIND_REQUESTS_MIN = 2000
_SECONDS_BEFORE_START = 0.05
_ANSWERS = {str, bytes, int, NoneType}
"""Types of successful results of the workload. All other results count as failed."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Open loop: one client for each replica submits all its requests immediately. Measures throughput, not latency."""

    requests: int = 100_000

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= _IN_FLIGHT_MAX:
            raise UsageError(f"a flood has between 1 and {_IN_FLIGHT_MAX} requests, got {self.requests}")

    def setting(self) -> dict[str, str | int | float]:
        """The setting for a result file."""
        return {"load": "flood", "requests": self.requests}


@dataclass(frozen=True, slots=True)
class FixedRate:
    """Open loop: requests at even intervals, divided among one client for each replica."""

    per_second: float
    seconds: float
    behind_seconds_max: float = 2.0
    """The run ends if this many seconds' worth of requests are unanswered: the group cannot sustain the rate."""

    def __post_init__(self) -> None:
        ArrivalSchedule(self.per_second, self.seconds)

    def setting(self) -> dict[str, str | int | float]:
        """The setting for a result file."""
        return {"load": "rate", "rate": self.per_second, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed loop: each client keeps this number of requests in flight.

    A client has up to eight lanes. Each lane sends its part together, and the next part when all of them are answered.
    """

    clients: int
    pipeline: int
    seconds: float

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= _CLIENTS_MAX or not 1 <= self.clients * self.pipeline <= _IN_FLIGHT_MAX:
            raise UsageError(
                f"a closed loop has between 1 and {_CLIENTS_MAX} clients with at least one request each, and at most "
                f"{_IN_FLIGHT_MAX} in flight; got {self.clients} with {self.pipeline}"
            )
        if self.seconds <= 0:
            raise UsageError(f"a closed loop needs a duration above 0 seconds, got {self.seconds:g}")

    def setting(self) -> dict[str, str | int | float]:
        """The setting for a result file."""
        return {"load": "closed", "clients": self.clients, "pipeline": self.pipeline, "seconds": self.seconds}


Load = Flood | FixedRate | Closed


@dataclass(slots=True)
class LoadResult:
    """The results of one run of a load."""

    answered: int = 0
    failed: int = 0
    """Requests without a result."""
    seconds: float = 0.0
    """Seconds from the start to the last answer."""
    latencies: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    """At a fixed rate: the delays between the time at which requests were due and the time at which they were sent."""
    unsent: int = 0
    """At a fixed rate: requests that were not sent, because too many were unanswered."""
    example: str = ""
    """The error of one failed request."""

    def take(self, outcomes: Sequence[CallOutcome]) -> None:
        """Count these outcomes."""
        if {*map(type, outcomes)} <= _ANSWERS:
            self.answered += len(outcomes)
            return
        bad = [outcome for outcome in outcomes if isinstance(outcome, CommandFailed | CommandNotCompleted)]
        self.answered += len(outcomes) - len(bad)
        self.failed += len(bad)
        if bad:
            self.example = self.example or f"{type(bad[0]).__name__}: {bad[0]}"


@asynccontextmanager
async def connected(addresses: Sequence[Address], clients: int) -> AsyncIterator[list[Client]]:
    """Connected clients, divided among the replicas. Raises NoReplica if no replica answers."""
    limits = ClientLimits(timeout_seconds=_TIMEOUT_SECONDS, in_flight_commands_max=_IN_FLIGHT_MAX + 1)
    async with AsyncExitStack() as stack:
        made = [
            Client(addresses, prefer=addresses[number % len(addresses)], limits=limits) for number in range(clients)
        ]
        for client in made:
            await stack.enter_async_context(client)
        yield made


def clients_for(load: Load, replicas: int) -> int:
    """The number of clients that a load needs."""
    return load.clients if isinstance(load, Closed) else replicas


async def drive(load: Load, clients: Sequence[Client], requests: Sequence[bytes]) -> LoadResult:
    """Run the load. `requests` are used in order, and again from the first if there are too few."""
    match load:
        case Flood():
            return await _flood(load, clients, requests)
        case FixedRate():
            return await _AtRate(load, clients, requests).run()
        case Closed():
            return await _closed(load, clients, requests)


async def _flood(load: Flood, clients: Sequence[Client], requests: Sequence[bytes]) -> LoadResult:
    if len(requests) != load.requests:
        raise UsageError(f"a flood of {load.requests} requests got only {len(requests)}")
    parts = [requests[place :: len(clients)] for place in range(len(clients))]
    result, before = LoadResult(), time.perf_counter()
    answered = await asyncio.gather(*(client.execute_many(part) for client, part in zip(clients, parts, strict=True)))
    result.seconds = time.perf_counter() - before
    for outcomes in answered:
        result.take(outcomes)
    return result


class _AtRate:
    """One run at a fixed rate. Requests that are due at the same tick for the same replica are sent together."""

    def __init__(self, load: FixedRate, clients: Sequence[Client], requests: Sequence[bytes]) -> None:
        self._schedule = ArrivalSchedule(load.per_second, load.seconds)
        self._clients = clients
        self._requests = requests
        self._behind_max = max(_BEHIND_REQUESTS_MIN, int(load.per_second * load.behind_seconds_max))
        self._sent = self._settled = 0
        self._result = LoadResult()
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> LoadResult:
        self._start = time.perf_counter() + _SECONDS_BEFORE_START
        ticker = Ticker(self._start, self._schedule.tick_seconds, self._tick)
        try:
            await self._over
        finally:
            ticker.close()
        await asyncio.gather(*self._open)
        return self._result

    def _tick(self) -> None:
        now, first = time.perf_counter() - self._start, self._sent
        due = self._schedule.due_by(now)
        if self._over.done() or due <= first:
            return
        if due - self._settled > self._behind_max:
            self._result.unsent = self._schedule.requests - first
            self._over.set_result(None)
            return
        self._result.lateness.add(now - self._schedule.due_at(first))
        self._sent = due
        for place in range(min(len(self._clients), due - first)):
            task = self._loop.create_task(self._ask(range(first + place, due, len(self._clients))))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        if due == self._schedule.requests:
            self._over.set_result(None)

    async def _ask(self, numbers: range) -> None:
        client, pool = self._clients[numbers[0] % len(self._clients)], self._requests
        outcomes = await client.execute_many([pool[number % len(pool)] for number in numbers])
        now, result, per_second = time.perf_counter() - self._start, self._result, self._schedule.per_second
        result.take(outcomes)
        self._settled += len(numbers)
        result.seconds = max(result.seconds, now)
        for number in numbers:
            result.latencies.add(now - number / per_second)


async def _closed(load: Closed, clients: Sequence[Client], requests: Sequence[bytes]) -> LoadResult:
    result, next_request, start = LoadResult(), 0, time.perf_counter()

    async def lane(client: Client, size: int) -> None:
        nonlocal next_request
        while (before := time.perf_counter()) - start < load.seconds:
            first, next_request = next_request, next_request + size
            outcomes = await client.execute_many([requests[(first + place) % len(requests)] for place in range(size)])
            result.latencies.add(time.perf_counter() - before, size)
            result.take(outcomes)

    await asyncio.gather(*(lane(client, size) for client in clients for size in lanes(load.pipeline)))
    result.seconds = time.perf_counter() - start
    return result


def lanes(pipeline: int) -> list[int]:
    """The sizes of the lanes for this number of requests in flight of one client."""
    count = min(pipeline, _LANES_MAX)
    return [pipeline // count + (place < pipeline % count) for place in range(count)]
