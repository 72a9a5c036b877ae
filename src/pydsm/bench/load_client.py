"""Clients that generate load and check the answers.

Each client keeps many requests in flight: it writes keys of its own, reads some of them again, and increments counters
that all clients share. Acknowledged writes are recorded in a `Ledger`, with which lost writes and wrong answers are
detected.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

from pydsm.bench.latency import LatencyEstimates
from pydsm.client.calls import CallOutcome
from pydsm.client.client import Client
from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import CommandAborted, CommandNotCompleted
from pydsm.core.types.errors import PeerProtocolError
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import encode
from pydsm.transport.address import Address

_OWN_KEYS = 1000
_SHARED_KEYS = 16
_READ_SHARE = 0.1
_LIMITS = ClientLimits(timeout_seconds=30, rediscovery_interval_seconds=0.5)
_VERIFY_KEYS_PER_COMMAND = 100


@dataclass(frozen=True, slots=True)
class LoadShape:
    """The requests that the clients send."""

    pipeline: int = 16
    """Requests in flight per client, at most 400."""
    conflict: float = 0.02
    """Share of requests that increment a counter shared by all clients."""


class _Kind(Enum):
    WRITE = auto()
    READ = auto()
    COUNT = auto()


@dataclass(slots=True)
class Ledger:
    """Acknowledged and unanswered writes by key. Values of own keys are numbers that grow with every write."""

    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """For each own key, the last value whose write was acknowledged."""
    unknown: dict[bytes, set[int]] = field(default_factory=dict)
    """For each own key, the values whose writes got no answer: they may take effect at any time, or never."""
    counted: Counter[bytes] = field(default_factory=Counter)
    """For each shared counter, its acknowledged increments."""
    maybe_counted: Counter[bytes] = field(default_factory=Counter)
    """For each shared counter, the increments without an answer."""
    count_results: dict[bytes, set[int]] = field(default_factory=dict)
    """For each shared counter, the results received: each increment has a different one."""
    lost: int = 0
    """Acknowledged writes that were lost."""
    wrong: int = 0
    """Answers that are incorrect."""
    refused: int = 0
    """Requests that were refused and not executed."""

    def check_read(self, key: bytes, reply: Result) -> None:
        """Check the result of a read of an own key, sent while no write to the key was in flight."""
        expected, unknown = self.acknowledged.get(key), self.unknown.get(key, ())
        value = int(reply) if isinstance(reply, bytes) and reply.isdigit() else None
        if value is not None and (value == expected or value in unknown):
            return
        if reply is None and expected is None:
            return
        if expected is not None and (reply is None or (value is not None and value < expected)):
            self.lost += 1
        else:
            self.wrong += 1

    def check_count(self, key: bytes, reply: Result) -> None:
        """Check the result of an increment."""
        results = self.count_results.setdefault(key, set())
        if not isinstance(reply, int) or reply in results:
            self.wrong += 1
            return
        results.add(reply)
        self.counted[key] += 1

    def check_total(self, key: bytes, reply: Result) -> None:
        """Check the final value of a shared counter."""
        total = int(reply) if isinstance(reply, bytes) and reply.isdigit() else 0
        self.lost += max(0, self.counted[key] - total)
        self.wrong += max(0, total - self.counted[key] - self.maybe_counted[key])


@dataclass(slots=True)
class _Request:
    kind: _Kind
    key: bytes
    value: int
    sent: float


class LoadClient:
    """One client; all share a ledger. `per_replica` has the latencies of each replica since `take_latencies`.

    It uses replica `home` while that can be reached, and another one otherwise.
    """

    def __init__(self, number: int, addresses: Sequence[Address], home: int, shape: LoadShape, ledger: Ledger) -> None:
        self.home = home
        self.per_replica = [LatencyEstimates() for _ in addresses]
        self._number = number
        self._addresses = tuple(addresses)
        self._shape = shape
        self._ledger = ledger
        self._random = random.Random(number)
        self._cursor = 0
        self._value = 0
        self._open = 0
        self._open_keys: dict[bytes, None] = {}
        """Own keys with a request in flight: a second one could overtake it."""
        self._loop = asyncio.get_running_loop()
        self._client = Client(addresses, prefer=addresses[home], limits=_LIMITS)
        self._stopping = False
        self._finished = asyncio.Event()

    @property
    def at(self) -> int | None:
        """The index of the replica in use; None while there is none."""
        address = self._client.at
        return None if address is None else self._addresses.index(address)

    async def run(self) -> None:
        """Load the group until `stop`. Raises NoReplicaReachable if no replica can be reached at the start."""
        async with self._client:
            try:
                for _ in range(self._shape.pipeline):
                    self._send()
                if self._open:
                    await self._finished.wait()
            finally:
                self._stopping = True

    def stop(self) -> None:
        """Send no more requests; `run` ends when each request has an outcome."""
        self._stopping = True
        if not self._open:
            self._finished.set()

    def give_up(self) -> None:
        """Stop immediately: requests in flight have no known outcome."""
        self._stopping = True
        self._finished.set()

    def take_latencies(self) -> list[LatencyEstimates]:
        """Per replica, since the last call."""
        taken, self.per_replica = self.per_replica, [LatencyEstimates() for _ in self._addresses]
        return taken

    def _send(self) -> None:
        if self._stopping:
            return
        request, command = self._next_request()
        self._open += 1
        self._open_keys[request.key] = None
        self._client.submit(command, partial(self._settle, request))

    def _settle(self, request: _Request, outcome: CallOutcome) -> None:
        self._open -= 1
        self._open_keys.pop(request.key, None)
        if isinstance(outcome, CommandAborted):
            self._ledger.refused += 1
        elif isinstance(outcome, CommandNotCompleted):
            self._note_unknown(request)
        else:
            if (at := self.at) is not None:
                self.per_replica[at].add(self._loop.time() - request.sent)
            self._check(request, outcome)
        if not self._stopping:
            self._send()
        elif not self._open:
            self._finished.set()

    def _note_unknown(self, request: _Request) -> None:
        """Record a request without an answer, which may or may not have been executed."""
        if request.kind is _Kind.WRITE:
            self._ledger.unknown.setdefault(request.key, set()).add(request.value)
        elif request.kind is _Kind.COUNT:
            self._ledger.maybe_counted[request.key] += 1

    def _check(self, request: _Request, result: Result) -> None:
        if isinstance(result, CommandFailed):
            self._ledger.wrong += 1
        elif request.kind is _Kind.READ:
            self._ledger.check_read(request.key, result)
        elif request.kind is _Kind.COUNT:
            self._ledger.check_count(request.key, result)
        elif result == "OK":
            self._ledger.acknowledged[request.key] = request.value
        else:
            self._ledger.wrong += 1

    def _next_request(self) -> tuple[_Request, bytes]:
        now, draw = self._loop.time(), self._random.random()
        if draw < self._shape.conflict:
            key = b"shared:%d" % self._random.randrange(_SHARED_KEYS)
            return _Request(_Kind.COUNT, key, 0, now), encode((b"INCR", key))
        # Half the keys away from the cursor, the last write is some time ago.
        if draw > 1 - _READ_SHARE and (key := self._own_key(self._cursor + _OWN_KEYS // 2)) not in self._open_keys:
            return _Request(_Kind.READ, key, 0, now), encode((b"GET", key))
        self._cursor += 1
        while (key := self._own_key(self._cursor)) in self._open_keys:
            self._cursor += 1
        self._value += 1
        return _Request(_Kind.WRITE, key, self._value, now), encode((b"SET", key, b"%d" % self._value))

    def _own_key(self, position: int) -> bytes:
        return b"client:%d:%d" % (self._number, position % _OWN_KEYS)


async def verify(ledger: Ledger, addresses: Sequence[Address], read_at: dict[int, int]) -> int:
    """Read all keys, and record in the ledger which writes are lost and which values are wrong; the number of keys.

    `read_at` maps a client's number to the replica through which its keys are read. Raises NoReplicaReachable, or
    another CommandNotCompleted if a read has no result.
    """
    keys: dict[int, list[bytes]] = {}
    for key in {**ledger.acknowledged, **ledger.unknown}:
        keys.setdefault(read_at[int(key.split(b":")[1])], []).append(key)
    for replica, own in keys.items():
        async with Client([addresses[replica]]) as client:
            for start in range(0, len(own), _VERIFY_KEYS_PER_COMMAND):
                part = own[start : start + _VERIFY_KEYS_PER_COMMAND]
                values = await client.execute(encode((b"MGET", *part)))
                if not isinstance(values, list):
                    raise PeerProtocolError(f"replica at {addresses[replica]} answers MGET with {values!r}")
                for key, value in zip(part, values, strict=True):
                    ledger.check_read(key, value)
    shared = sorted({*ledger.counted, *ledger.maybe_counted})
    async with Client([addresses[0]]) as client:
        for key in shared:
            ledger.check_total(key, await client.execute(encode((b"GET", key))))
    return sum(map(len, keys.values())) + len(shared)
