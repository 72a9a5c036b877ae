"""Clients that send every request at least twice, through random replicas, while replicas are killed.

`python -m tests.integration.twice --minutes 10` runs for this time. Each request increments a counter under one request
id. A request that is executed twice makes its counter too large, a lost one too small; and an answer that is not from
the first execution differs from the other answers to the same request.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.client import Client
from pydsm.client.link import Link, Sent
from pydsm.client.session import ClientSession
from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import PeerProtocolError, PyDSMError
from pydsm.core.types.ids import RequestId
from pydsm.machines.base import Result
from pydsm.machines.kv import encode
from pydsm.transport.address import Address

COUNTERS = 20
WORKERS_EACH = 16
PATIENCE_SECONDS = 0.5
CHECKPOINT_INSTANCES = 100
"""Small, so that most replicas that come back begin with a snapshot."""


class Request:
    """One increment, which may be sent several times."""

    def __init__(self, counter: int) -> None:
        self.counter = counter
        self.first_id: RequestId | None = None
        self.session: ClientSession | None = None
        self.answer: int | None = None
        self.news = asyncio.Event()


class Copy:
    """One transmission of a request: a `link.Sent`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.commands: Sequence[bytes] = (encode((b"INCR", b"counter:%d" % request.counter)),)
        self.first = 0

    @property
    def left(self) -> int:
        """Whether no copy of the request is answered yet."""
        return 1 if self.request.answer is None else 0

    @property
    def first_id(self) -> RequestId | None:
        """The request id, the same for all copies."""
        return self.request.first_id

    @property
    def session(self) -> ClientSession | None:
        """The session of the id."""
        return self.request.session

    @session.setter
    def session(self, session: ClientSession | None) -> None:
        self.request.session = session

    def set_request_id(self, id: RequestId) -> None:
        """Store the id that the first transmission got."""
        self.request.first_id = id
        self.request.news.set()


class Twice:
    """A client with links to all replicas. `results` has the answer to each request, by counter."""

    def __init__(self, addresses: Sequence[Address], seed: object) -> None:
        self.results: dict[int, list[int]] = defaultdict(list)
        self.wrong: list[str] = []
        self.copies = 0
        self._copies: dict[Sent, Request] = {}
        self._addresses = addresses
        self._random = Random(f"{seed}")
        self._links: dict[int, Link] = {}
        self._gone: dict[Link, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def run(self, seconds: float) -> None:
        """Load the group for this time, and then until all requests are answered."""
        keeping = [asyncio.create_task(self._keep(place)) for place in range(len(self._addresses))]
        working = [asyncio.create_task(self._work()) for _ in range(WORKERS_EACH)]
        try:
            await asyncio.sleep(seconds)
            self._stopping = True
            await asyncio.gather(*working)
        finally:
            for task in (*keeping, *working):
                task.cancel()
            await asyncio.gather(*keeping, *working, return_exceptions=True)
            for link in list(self._links.values()):
                link.close("the end")

    async def _keep(self, place: int) -> None:
        """Keep a link to one replica, and reconnect whenever it runs."""
        loop, address = asyncio.get_running_loop(), self._addresses[place]
        while True:
            link = Link(self, address, "")
            with suppress(OSError, PeerProtocolError, TimeoutError):
                async with asyncio.timeout(2):
                    await loop.create_connection(partial(_same, link), address.host, address.port)
                    await link.handshake
                self._links[place] = link
                self._gone[link] = asyncio.Event()
                await self._gone[link].wait()
            self._links.pop(place, None)
            await asyncio.sleep(0.05)

    async def _work(self) -> None:
        while not self._stopping:
            request = Request(self._random.randrange(COUNTERS))
            while request.answer is None:
                request.news.clear()
                self._send(request)
                if request.first_id is not None:
                    self._send(request)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_SECONDS * self._random.random()):
                        await request.news.wait()
            self.results[request.counter].append(request.answer)

    def _send(self, request: Request) -> None:
        links = [link for link in self._links.values() if link.is_open]
        if links:
            self.copies += 1
            copy = Copy(request)
            self._copies[copy] = request
            self._random.choice(links).send(copy)

    # what links tell

    def answered(self, call: Sent, places: Sequence[int], answers: Sequence[Answer | Result]) -> None:
        """See `link.LinkOwner`."""
        request, answer = self._copies.pop(call), answers[0]
        if isinstance(answer, Aborted | Overloaded):
            return
        if isinstance(answer, RequestExpired) and request.answer is not None:
            return  # it was acknowledged meanwhile
        if not isinstance(answer, int) or request.answer not in {None, answer}:
            name = "" if request.first_id is None else request.first_id.hex()
            self.wrong.append(f"{name} is told {answer!r}, and {request.answer!r} before")
        else:
            request.answer = answer
        request.news.set()

    def lost(self, link: Link, sent: Sequence[Sent], unsent: Sequence[Sent], reason: str) -> None:
        """See `link.LinkOwner`. The requests are sent again after a timeout."""
        for call in (*sent, *unsent):
            self._copies.pop(call, None)
        if link in self._gone:
            self._gone.pop(link).set()


def _same(link: Link) -> Link:
    return link


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def run(replicas: int, seconds: float, directory: Path, seed: int, say: Callable[[str], None]) -> int:
    """Run one group, and kill replicas one after the other. Returns the number of requests.

    Raises AssertionError if a counter is wrong.
    """
    random = Random(seed)
    options = "--checkpoint-instances", str(CHECKPOINT_INSTANCES)
    async with LocalGroup(replicas, directory, Storage.SQLITE, *options) as group:
        clients = [Twice(group.clients, f"{seed} {number}") for number in range(3)]
        running = [asyncio.create_task(client.run(seconds)) for client in clients]
        kills = 0
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            victim = random.randrange(replicas)
            await asyncio.sleep(random.uniform(0.2, 1.0))
            await group.kill(victim)
            await asyncio.sleep(random.uniform(0.1, 1.5))
            await group.start(victim)
            kills += 1
        async with asyncio.timeout(60):
            await asyncio.gather(*running)
        async with Client(group.clients) as client:
            values = await client.execute(encode((b"MGET", *[b"counter:%d" % number for number in range(COUNTERS)])))
    assert isinstance(values, list)
    requests = 0
    for counter, value in enumerate(values):
        results = sorted(result for client in clients for result in client.results[counter])
        assert int(value or 0) == len(results), f"counter {counter} is {value!r} after {len(results)} requests"
        assert results == list(range(1, len(results) + 1)), f"counter {counter} gave {results}"
        requests += len(results)
    wrong = [text for client in clients for text in client.wrong]
    assert not wrong, "\n".join(wrong[:5])
    copies = sum(client.copies for client in clients)
    say(f"seed {seed}: {requests} requests in {copies} copies, {kills} kills of {replicas} replicas: each counted once")
    return requests


def main(arguments: Sequence[str]) -> int:
    """Returns exit status 1 if a counter is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.twice", description="Every request twice, through random replicas that die."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on (10)")
    parser.add_argument("--round-seconds", type=float, default=30.0, help="life of one group (30)")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000, help="of the first group (the time)")
    options = parser.parse_args(arguments)
    ends, seed, total = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < ends:
        with tempfile.TemporaryDirectory(prefix="pydsm-twice-") as directory:
            try:
                total += asyncio.run(run(5 if seed % 3 == 0 else 3, options.round_seconds, Path(directory), seed, _say))
            except (AssertionError, PyDSMError, OSError) as error:
                _say(f"seed {seed}: WRONG: {type(error).__name__}: {error}")
                return 1
        seed += 1
    _say(f"{total} requests, each executed exactly once")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
