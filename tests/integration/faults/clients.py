"""Redis clients that record every call in a history, and the model of a key for the checker."""

import asyncio
import itertools
from collections.abc import Hashable, Sequence
from random import Random

from pydsm.bench.resp import ErrorReply, RespReader, RespReply, encode_command
from pydsm.core.types.errors import PeerProtocolError
from pydsm.sim.base.history import Call, History
from pydsm.transport.address import Address

CALLS_PER_KEY = 40
KEYS_AT_A_TIME = 3
PATIENCE_SECONDS = 3.0
"""How long a client waits for an answer; afterwards the outcome is unknown, and it goes to another replica."""
_RECONNECT_SECONDS = 0.05


class KeyModel:
    """The model of one key of Redis: missing, or a number."""

    def initial(self, key: str) -> Hashable:
        """Nothing."""
        return None

    def step(self, state: Hashable, call: Call) -> tuple[object, Hashable]:
        """The reply of Redis, and the state afterwards."""
        assert state is None or isinstance(state, int)
        match call.action:
            case "get":
                return state, state
            case "set":
                return "OK", call.argument if isinstance(call.argument, int) else None
            case "swap":
                return state, call.argument if isinstance(call.argument, int) else None
            case "claim":
                return ("OK", _number(call)) if state is None else (None, state)
            case "incr":
                return (state or 0) + 1, (state or 0) + 1
            case action:
                raise AssertionError(f"no action {action!r}")


def _number(call: Call) -> int:
    assert isinstance(call.argument, int)
    return call.argument


def words(call: Call) -> bytes:
    """The command of a call."""
    key, value = call.key.encode(), b"%s" % str(call.argument).encode()
    match call.action:
        case "get":
            return encode_command(b"GET", key)
        case "set":
            return encode_command(b"SET", key, value)
        case "swap":
            return encode_command(b"SET", key, value, b"GET")
        case "claim":
            return encode_command(b"SET", key, value, b"NX")
        case _:
            return encode_command(b"INCR", key)


def result(reply: RespReply) -> object:
    """A reply in the form that the model uses."""
    if isinstance(reply, bytes):
        return int(reply) if reply.lstrip(b"-").isdigit() else reply.decode()
    return reply


class Ledger:
    """All calls of all clients, and the keys that are in use."""

    def __init__(self) -> None:
        self.history = History()
        self.answered = 0
        self._clock = itertools.count(1)
        self._values = itertools.count(1)

    def now(self) -> int:
        """A new time: every call of this method returns a larger number."""
        return next(self._clock)

    def begin(self, client: int, random: Random) -> Call:
        """Begin a call on one of the present keys."""
        epoch = len(self.history.calls) // (CALLS_PER_KEY * KEYS_AT_A_TIME)
        key = f"k{epoch}.{random.randrange(KEYS_AT_A_TIME)}"
        action = random.choice(["get", "get", "set", "swap", "incr", "incr", "claim"])
        argument = next(self._values) * 1000 if action in {"set", "swap", "claim"} else None
        return self.history.begin(self.now(), client, key, action, argument)

    def settle(self, call: Call, reply: RespReply) -> None:
        """Record an answer. TRYAGAIN means that nothing was executed; any other error is a wrong answer."""
        now = self.now()
        call.rank = now
        if isinstance(reply, ErrorReply) and reply.message.startswith("TRYAGAIN"):
            self.history.failed(call, now)
        else:
            self.history.done(call, now, reply.message if isinstance(reply, ErrorReply) else result(reply))
            self.answered += 1

    def give_up(self, call: Call) -> None:
        """Record that no answer arrived."""
        call.rank = self.now()
        self.history.unknown(call, call.rank)


class RecordingClient:
    """Sends one call after the other, through one replica until that fails, then through the next."""

    def __init__(self, number: int, addresses: Sequence[Address], ledger: Ledger, seed: int) -> None:
        self._number = number
        self._addresses = addresses
        self._ledger = ledger
        self._random = Random(f"{seed} {number}")
        self._stopping = False

    def stop(self) -> None:
        """End after the present call."""
        self._stopping = True

    async def run(self) -> None:
        """Run until `stop` is called."""
        at = self._number % len(self._addresses)
        while not self._stopping:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    reader, writer = await asyncio.open_connection(self._addresses[at].host, self._addresses[at].port)
            except (OSError, TimeoutError):
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                try:
                    await self._converse(reader, writer)
                finally:
                    writer.transport.abort()
            at = (at + 1) % len(self._addresses)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send calls until one fails."""
        replies = RespReader()
        while not self._stopping:
            call = self._ledger.begin(self._number, self._random)
            try:
                writer.write(words(call))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    answer = await self._answer(reader, replies)
            except (OSError, TimeoutError, PeerProtocolError):
                self._ledger.give_up(call)
                return
            except asyncio.CancelledError:
                self._ledger.give_up(call)
                raise
            self._ledger.settle(call, answer)

    async def _answer(self, reader: asyncio.StreamReader, replies: RespReader) -> RespReply:
        while True:
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("the replica has closed the connection")
            for reply in replies.feed(data):
                return reply


async def read_everything(ledger: Ledger, addresses: Sequence[Address]) -> None:
    """Read every key through every replica, and record the calls: acknowledged writes must be visible.

    Raises AssertionError for a refused read: without it, a lost write could stay undetected.
    """
    keys = list(dict.fromkeys(call.key for call in ledger.history.calls))
    for number, address in enumerate(addresses):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        replies, parser = list[RespReply](), RespReader()
        try:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                calls = [ledger.history.begin(ledger.now(), -1 - number, key, "get") for key in part]
                writer.write(b"".join(map(words, calls)))
                replies = []
                async with asyncio.timeout(60):
                    while len(replies) < len(calls):
                        data = await reader.read(1 << 16)
                        if not data:
                            raise ConnectionResetError(f"{address} closed the connection before it had answered")
                        replies += parser.feed(data)
                for call, reply in zip(calls, replies, strict=True):
                    assert not isinstance(reply, ErrorReply), f"{address} refused to read {call.key}: {reply.message}"
                    ledger.settle(call, reply)
        finally:
            writer.transport.abort()
