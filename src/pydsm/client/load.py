"""Clients that load a group through its Redis ports and check what it answers.

Each client keeps many requests in flight on one connection: it writes keys of its own, reads them back while it goes,
and increments counters that all clients share. It remembers what was acknowledged, so that afterwards nothing can be
lost or wrong without being noticed: see `Ledger`.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

from pydsm.client.latency import Latencies
from pydsm.client.resp import ErrorReply, RespReader, RespReply, encode_command
from pydsm.core.faults import PeerFault
from pydsm.transport.address import Address

_OWN_KEYS = 1000
_SHARED_KEYS = 16
_READ_SHARE = 0.1
_RECONNECT_SECONDS = 0.1
_VERIFY_KEYS_PER_COMMAND = 100


@dataclass(frozen=True, slots=True)
class LoadShape:
    """What the clients do."""

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
    """What clients know about the keys. Values of own keys are numbers that grow with every write."""

    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """Own key to the last value whose write was acknowledged."""
    unknown: dict[bytes, set[int]] = field(default_factory=dict)
    """Own key to values whose writes got no answer: they may take effect at any time, or never."""
    counted: Counter[bytes] = field(default_factory=Counter)
    """Shared counter to its acknowledged increments."""
    maybe_counted: Counter[bytes] = field(default_factory=Counter)
    """Shared counter to increments without an answer."""
    count_results: dict[bytes, set[int]] = field(default_factory=dict)
    """Shared counter to the results seen: each increment has another one."""
    lost: int = 0
    """Acknowledged writes that are not there."""
    wrong: int = 0
    """Answers that no correct group gives."""
    refused: int = 0
    """Requests that were refused and not executed."""

    def check_read(self, key: bytes, reply: RespReply) -> None:
        """Judge what a read of an own key gave, while no write to it is in flight."""
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

    def check_count(self, key: bytes, reply: RespReply) -> None:
        """Judge the result of an increment."""
        results = self.count_results.setdefault(key, set())
        if not isinstance(reply, int) or reply in results:
            self.wrong += 1
            return
        results.add(reply)
        self.counted[key] += 1

    def check_total(self, key: bytes, reply: RespReply) -> None:
        """Judge the final value of a shared counter."""
        total = int(reply) if isinstance(reply, bytes) and reply.isdigit() else 0
        self.lost += max(0, self.counted[key] - total)
        self.wrong += max(0, total - self.counted[key] - self.maybe_counted[key])


@dataclass(slots=True)
class _Request:
    kind: _Kind
    key: bytes
    value: int
    sent: float


class LoadClient(asyncio.Protocol):
    """One client; all share a ledger. `per_replica` has the latencies by replica since they were last taken."""

    def __init__(self, number: int, addresses: Sequence[Address], home: int, shape: LoadShape, ledger: Ledger) -> None:
        self.home = home
        self.at = home
        self.per_replica = [Latencies() for _ in addresses]
        self.verified = 0
        self._number = number
        self._addresses = addresses
        self._shape = shape
        self._ledger = ledger
        self._random = random.Random(number)
        self._cursor = 0
        self._value = 0
        self._pending: deque[_Request] = deque()
        self._reader = RespReader()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._going_home = False
        self._lost_connection = asyncio.Event()

    async def run(self) -> None:
        """Load the group until `stop`, moving to another replica whenever this one goes away."""
        while not self._stopping:
            address = self._addresses[self.at]
            self._lost_connection.clear()
            try:
                await self._loop.create_connection(lambda: self, address.host, address.port)
            except OSError:
                self.at = (self.at + 1) % len(self._addresses)
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            await self._lost_connection.wait()
            if self._going_home:
                self._going_home, self.at = False, self.home
            else:
                self.at = (self.at + 1) % len(self._addresses)

    def stop(self) -> None:
        """Send nothing more; `run` ends when everything is answered."""
        self._stopping = True
        self._close_when_answered()

    def give_up(self) -> None:
        """Wait no longer for answers."""
        self._stopping = True
        if self._transport is not None:
            self._transport.abort()

    def go_home(self) -> None:
        """Return to the first replica, when everything is answered."""
        if self.at != self.home:
            self._going_home = True
            self._close_when_answered()

    def take_latencies(self) -> list[Latencies]:
        """Per replica, since the last call."""
        taken, self.per_replica = self.per_replica, [Latencies() for _ in self._addresses]
        return taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Fill the pipeline."""
        self._transport = cast(asyncio.Transport, transport)
        self._reader = RespReader()
        self._send(self._shape.pipeline)
        self._close_when_answered()

    def connection_lost(self, error: Exception | None) -> None:
        """What was in flight may or may not have happened."""
        self._transport = None
        for request in self._pending:
            if request.kind is _Kind.WRITE:
                self._ledger.unknown.setdefault(request.key, set()).add(request.value)
            elif request.kind is _Kind.COUNT:
                self._ledger.maybe_counted[request.key] += 1
        self._pending.clear()
        self._lost_connection.set()

    def data_received(self, data: bytes) -> None:
        """Settle what is answered, and send as much again."""
        try:
            replies = self._reader.feed(data)
        except PeerFault:
            self._ledger.wrong += 1
            self.give_up()
            return
        now, latencies = self._loop.time(), self.per_replica[self.at]
        for reply in replies:
            request = self._pending.popleft()
            if isinstance(reply, ErrorReply):
                self._ledger.refused += 1
                continue
            latencies.add(now - request.sent)
            self._settle(request, reply)
        self._send(len(replies))
        self._close_when_answered()

    def _settle(self, request: _Request, reply: RespReply) -> None:
        if request.kind is _Kind.WRITE:
            if reply == b"OK":
                self._ledger.acknowledged[request.key] = request.value
            else:
                self._ledger.wrong += 1
        elif request.kind is _Kind.READ:
            self._ledger.check_read(request.key, reply)
        else:
            self._ledger.check_count(request.key, reply)

    def _close_when_answered(self) -> None:
        if (self._stopping or self._going_home) and not self._pending and self._transport is not None:
            self._transport.close()

    def _send(self, count: int) -> None:
        if self._stopping or self._going_home or self._transport is None:
            return
        now = self._loop.time()
        self._transport.write(b"".join(self._next_request(now) for _ in range(count)))

    def _next_request(self, now: float) -> bytes:
        draw = self._random.random()
        if draw < self._shape.conflict:
            key = b"shared:%d" % self._random.randrange(_SHARED_KEYS)
            self._pending.append(_Request(_Kind.COUNT, key, 0, now))
            return encode_command(b"INCR", key)
        self._cursor = (self._cursor + 1) % _OWN_KEYS
        if draw > 1 - _READ_SHARE:
            # Half the keys away from the cursor, so every write to it was answered long ago.
            key = self._own_key((self._cursor + _OWN_KEYS // 2) % _OWN_KEYS)
            self._pending.append(_Request(_Kind.READ, key, 0, now))
            return encode_command(b"GET", key)
        self._value += 1
        key = self._own_key(self._cursor)
        self._pending.append(_Request(_Kind.WRITE, key, self._value, now))
        return encode_command(b"SET", key, b"%d" % self._value)

    def _own_key(self, place: int) -> bytes:
        return b"client:%d:%d" % (self._number, place)


async def ask(address: Address, *commands: bytes, seconds_max: float = 10) -> list[RespReply]:
    """Send encoded commands to one replica and wait for all replies. Raises OSError, TimeoutError or PeerFault."""
    async with asyncio.timeout(seconds_max):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(b"".join(commands))
            parser, replies = RespReader(), list[RespReply]()
            while len(replies) < len(commands):
                data = await reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError(f"{address} closed the connection before it had answered")
                replies += parser.feed(data)
            return replies
        finally:
            writer.transport.abort()


async def verify(ledger: Ledger, addresses: Sequence[Address], read_at: dict[int, int]) -> int:
    """Read everything back and note in the ledger what is lost or wrong; gives how many keys were read.

    `read_at` maps a client's number to the replica through which its keys are read.
    """
    keys: dict[int, list[bytes]] = {}
    for key in {**ledger.acknowledged, **ledger.unknown}:
        keys.setdefault(read_at[int(key.split(b":")[1])], []).append(key)
    for replica, own in keys.items():
        for start in range(0, len(own), _VERIFY_KEYS_PER_COMMAND):
            part = own[start : start + _VERIFY_KEYS_PER_COMMAND]
            (values,) = await ask(addresses[replica], encode_command(b"MGET", *part))
            if not isinstance(values, list):
                raise PeerFault(f"replica at {addresses[replica]} answers MGET with {values!r}")
            for key, value in zip(part, values, strict=True):
                ledger.check_read(key, value)
    shared = sorted({*ledger.counted, *ledger.maybe_counted})
    for key in shared:
        (total,) = await ask(addresses[0], encode_command(b"GET", key))
        ledger.check_total(key, total)
    return sum(map(len, keys.values())) + len(shared)
