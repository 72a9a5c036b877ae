"""Load generators: all requests together, at a fixed rate, or a fixed number in flight.

Decides when a request is sent and from which time its latency counts. An open loop does not wait for answers, so at
a fixed rate latency counts from the moment a request was due, whether or not it could leave then; a closed loop waits,
and does not measure the requests that it would have sent meanwhile (coordinated omission). `measure` processes the
figures.
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
"""Types of the results that a workload can have. Everything else is not counted as done."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Open loop: all requests are handed to one client for each replica at once. Tells throughput, not latency."""

    requests: int = 100_000

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= _IN_FLIGHT_MAX:
            raise UsageError(f"a flood has between 1 and {_IN_FLIGHT_MAX} requests, got {self.requests}")

    def setting(self) -> dict[str, str | int | float]:
        """For a result file."""
        return {"load": "flood", "requests": self.requests}


@dataclass(frozen=True, slots=True)
class FixedRate:
    """Open loop: requests at even distances, spread over one client for each replica."""

    per_second: float
    seconds: float
    behind_seconds_max: float = 2.0
    """When so many seconds' worth of requests have no answer, the group does not keep up, and the run ends."""

    def __post_init__(self) -> None:
        ArrivalSchedule(self.per_second, self.seconds)

    def setting(self) -> dict[str, str | int | float]:
        """For a result file."""
        return {"load": "rate", "rate": self.per_second, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed loop: each client keeps so many requests in flight.

    It has up to eight lanes; each sends its part of them together, and the next ones when all of those are answered.
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
            raise UsageError(f"a closed loop needs a time above 0 seconds, got {self.seconds:g}")

    def setting(self) -> dict[str, str | int | float]:
        """For a result file."""
        return {"load": "closed", "clients": self.clients, "pipeline": self.pipeline, "seconds": self.seconds}


Load = Flood | FixedRate | Closed


@dataclass(slots=True)
class Driven:
    """What came of it."""

    answered: int = 0
    failed: int = 0
    """Requests without a result."""
    seconds: float = 0.0
    """From the start to the last answer."""
    latencies: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    """At a fixed rate: how long after they were due requests left the generator."""
    unsent: int = 0
    """At a fixed rate: requests that were given up, because too many waited for their answers."""
    example: str = ""
    """What was said of a request that failed."""

    def take(self, outcomes: Sequence[CallOutcome]) -> None:
        """Count them."""
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
    """Clients, spread over the replicas. Raises NoReplica when nobody answers."""
    limits = ClientLimits(timeout_seconds=_TIMEOUT_SECONDS, in_flight_commands_max=_IN_FLIGHT_MAX + 1)
    async with AsyncExitStack() as stack:
        made = [
            Client(addresses, prefer=addresses[number % len(addresses)], limits=limits) for number in range(clients)
        ]
        for client in made:
            await stack.enter_async_context(client)
        yield made


def clients_for(load: Load, replicas: int) -> int:
    """How many clients a load wants."""
    return load.clients if isinstance(load, Closed) else replicas


async def drive(load: Load, clients: Sequence[Client], requests: Sequence[bytes]) -> Driven:
    """Put the load on. `requests` are used from the first on, again and again if they do not suffice."""
    match load:
        case Flood():
            return await _flood(load, clients, requests)
        case FixedRate():
            return await _AtRate(load, clients, requests).run()
        case Closed():
            return await _closed(load, clients, requests)


async def _flood(load: Flood, clients: Sequence[Client], requests: Sequence[bytes]) -> Driven:
    if len(requests) != load.requests:
        raise UsageError(f"a flood of {load.requests} requests was given {len(requests)}")
    parts = [requests[place :: len(clients)] for place in range(len(clients))]
    driven, before = Driven(), time.perf_counter()
    answered = await asyncio.gather(*(client.execute_many(part) for client, part in zip(clients, parts, strict=True)))
    driven.seconds = time.perf_counter() - before
    for outcomes in answered:
        driven.take(outcomes)
    return driven


class _AtRate:
    """One run at a fixed rate. Requests that are due at the same tick for the same replica travel together."""

    def __init__(self, load: FixedRate, clients: Sequence[Client], requests: Sequence[bytes]) -> None:
        self._schedule = ArrivalSchedule(load.per_second, load.seconds)
        self._clients = clients
        self._requests = requests
        self._behind_max = max(_BEHIND_REQUESTS_MIN, int(load.per_second * load.behind_seconds_max))
        self._sent = self._settled = 0
        self._driven = Driven()
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> Driven:
        self._start = time.perf_counter() + _SECONDS_BEFORE_START
        ticker = Ticker(self._start, self._schedule.tick_seconds, self._tick)
        try:
            await self._over
        finally:
            ticker.close()
        await asyncio.gather(*self._open)
        return self._driven

    def _tick(self) -> None:
        now, first = time.perf_counter() - self._start, self._sent
        due = self._schedule.due_by(now)
        if self._over.done() or due <= first:
            return
        if due - self._settled > self._behind_max:
            self._driven.unsent = self._schedule.requests - first
            self._over.set_result(None)
            return
        self._driven.lateness.add(now - self._schedule.due_at(first))
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
        now, driven, per_second = time.perf_counter() - self._start, self._driven, self._schedule.per_second
        driven.take(outcomes)
        self._settled += len(numbers)
        driven.seconds = max(driven.seconds, now)
        for number in numbers:
            driven.latencies.add(now - number / per_second)


async def _closed(load: Closed, clients: Sequence[Client], requests: Sequence[bytes]) -> Driven:
    driven, next_request, start = Driven(), 0, time.perf_counter()

    async def lane(client: Client, size: int) -> None:
        nonlocal next_request
        while (before := time.perf_counter()) - start < load.seconds:
            first, next_request = next_request, next_request + size
            outcomes = await client.execute_many([requests[(first + place) % len(requests)] for place in range(size)])
            driven.latencies.add(time.perf_counter() - before, size)
            driven.take(outcomes)

    await asyncio.gather(*(lane(client, size) for client in clients for size in lanes(load.pipeline)))
    driven.seconds = time.perf_counter() - start
    return driven


def lanes(pipeline: int) -> list[int]:
    """How the requests in flight of one client are divided."""
    count = min(pipeline, _LANES_MAX)
    return [pipeline // count + (place < pipeline % count) for place in range(count)]
