"""Groups of real processes under the load of real clients, for tests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pydsm.bench.load_client import Ledger, LoadClient, LoadShape, verify
from pydsm.bench.resp import ask, encode_command
from pydsm.cli.local_group import LocalGroup
from tests.waiting import eventually


class Load:
    """Clients that send load to a group."""

    def __init__(self, group: LocalGroup, clients: int = 3) -> None:
        self.ledger = Ledger()
        self.answered = 0
        self._group = group
        shape = LoadShape(pipeline=8, conflict=0.05)
        homes = len(group.members)
        self._clients = [
            LoadClient(number, group.clients, number % homes, shape, self.ledger) for number in range(clients)
        ]
        self._running = [asyncio.create_task(client.run()) for client in self._clients]

    async def more_answers(self, count: int, *, through: Sequence[int] | None = None, seconds: float = 30) -> None:
        """Wait until this number of further requests is answered, by any replica or by one of these."""
        wanted = self.answered + count

        def enough() -> bool:
            for client in self._clients:
                for replica, latencies in enumerate(client.take_latencies()):
                    if through is None or replica in through:
                        self.answered += latencies.total
            return self.answered >= wanted

        await eventually(enough, f"{count} more requests are answered", seconds)

    async def stop(self) -> None:
        """Stop the clients, and wait until their requests are answered."""
        for client in self._clients:
            client.stop()
        _, waiting = await asyncio.wait(self._running, timeout=20)
        for client in self._clients:
            client.give_up()
        assert not waiting, f"{len(waiting)} clients had no answer within 20 s"

    async def check(self) -> None:
        """Stop, and check that every replica has all acknowledged writes."""
        await self.stop()
        for replica in range(len(self._group.members)):
            read_at = dict.fromkeys(range(len(self._clients)), replica)
            assert await verify(self.ledger, self._group.clients, read_at) > 0
        assert (self.ledger.lost, self.ledger.wrong) == (0, 0)


async def counter(group: LocalGroup, replica: int, name: str) -> int:
    """A counter in INFO of this replica."""
    (info,) = await ask(group.redis[replica], encode_command(b"INFO"))
    assert isinstance(info, bytes)
    (value,) = [line.partition(":")[2] for line in info.decode().splitlines() if line.startswith(f"{name}:")]
    return int(value)


@asynccontextmanager
async def load(group: LocalGroup, clients: int = 3) -> AsyncIterator[Load]:
    """Clients that are stopped at the end of the context."""
    made = Load(group, clients)
    try:
        yield made
    finally:
        for client in made._clients:
            client.give_up()
        await asyncio.gather(*made._running, return_exceptions=True)
