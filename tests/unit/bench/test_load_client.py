"""The checker of the load clients is itself checked: what it must accept, and what it must call lost or wrong."""

import asyncio
from collections.abc import Sequence

import pytest

from pydsm.bench.load_client import Ledger, LoadClient, LoadShape, verify
from pydsm.bench.resp import ask, encode_command
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Batch, Footprint, Run
from pydsm.machines.base import Result
from pydsm.machines.kv import KeyValue
from pydsm.runtime.replies import ReplyMany
from pydsm.server.native import NativeServer
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from tests.ports import free_ports
from tests.unit.server.local import make_host
from tests.waiting import eventually

KEY = b"client:0:5"


@pytest.mark.parametrize(
    ("reply", "lost", "wrong"),
    [
        (b"7", 0, 0),
        (b"9", 0, 0),
        (b"6", 1, 0),
        (None, 1, 0),
        (b"8", 0, 1),
        (b"text", 0, 1),
        (7, 0, 1),
    ],
)
def test_read_must_give_the_last_acknowledged_value_or_one_without_an_answer(
    reply: Result, lost: int, wrong: int
) -> None:
    ledger = Ledger(acknowledged={KEY: 7}, unknown={KEY: {9}})
    ledger.check_read(KEY, reply)
    assert (ledger.lost, ledger.wrong) == (lost, wrong)


@pytest.mark.parametrize(("reply", "wrong"), [(None, 0), (b"1", 1)])
def test_key_that_was_never_written_must_be_absent(reply: Result, wrong: int) -> None:
    ledger = Ledger()
    ledger.check_read(KEY, reply)
    assert (ledger.lost, ledger.wrong) == (0, wrong)


def test_two_increments_may_not_give_the_same_result() -> None:
    ledger = Ledger()
    for reply in (1, 2, 2, b"3"):
        ledger.check_count(b"shared:0", reply)
    assert ledger.counted[b"shared:0"] == 2
    assert ledger.wrong == 2


@pytest.mark.parametrize(
    ("total", "lost", "wrong"), [(b"10", 0, 0), (b"12", 0, 0), (b"9", 1, 0), (b"13", 0, 1), (None, 10, 0)]
)
def test_counter_must_end_between_what_was_counted_and_what_may_have_been(total: Result, lost: int, wrong: int) -> None:
    ledger = Ledger()
    ledger.counted[b"shared:0"] = 10
    ledger.maybe_counted[b"shared:0"] = 2
    ledger.check_total(b"shared:0", total)
    assert (ledger.lost, ledger.wrong) == (lost, wrong)


class FakeGroup:
    """Agrees with itself, and can forget what it was told."""

    def __init__(self) -> None:
        self.machine = KeyValue()
        self.sessions = Sessions()
        self.forgets = False

    def submit_requests(self, run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool) -> None:
        batch = Batch((run,), tuple(commands), Footprint())
        reply(0, self.sessions.execute(batch, self._apply))

    def _apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        if not self.forgets:
            return self.machine.apply(commands, timestamp_ms)
        return ["OK" if b"SET" in command else self.machine.apply([command], 0)[0] for command in commands]


class FakeReplica:
    """A port for native clients of a fake group."""

    def __init__(self, group: FakeGroup) -> None:
        self._identity = Identity("group", "r1", ReplicaId(0), 1)
        self._group = group
        (port,) = free_ports(1)
        self.address = Address("127.0.0.1", port)

    async def start(self) -> None:
        self._server = NativeServer(self._group.submit_requests, make_host(self._identity))
        await self._server.start(self.address)

    async def die(self) -> None:
        """Disconnect everyone without a word."""
        for connection in self._server.registry.connections():
            connection.abort()
        await self._server.stop()

    async def __aenter__(self) -> "FakeReplica":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()


async def drive(address: Address, ledger: Ledger, operations: int = 3000) -> LoadClient:
    """One client that does so many operations, and stops."""
    client = LoadClient(0, [address], 0, LoadShape(pipeline=8, conflict=0.1), ledger)
    running = asyncio.create_task(client.run())
    await eventually(lambda: client.per_replica[0].total >= operations, "the client has done enough")
    client.stop()
    await asyncio.wait_for(running, 5)
    return client


async def test_honest_group_loses_nothing() -> None:
    async with FakeReplica(FakeGroup()) as replica:
        ledger = Ledger()
        await drive(replica.address, ledger)
        assert await verify(ledger, [replica.address], {0: 0}) > 900
        assert (ledger.lost, ledger.wrong, ledger.refused) == (0, 0, 0)


async def test_forgetful_group_is_found_out_while_it_goes_and_afterwards() -> None:
    group = FakeGroup()
    group.forgets = True
    async with FakeReplica(group) as replica:
        ledger = Ledger()
        await drive(replica.address, ledger)
        while_it_went = ledger.lost
        assert while_it_went > 0
        await verify(ledger, [replica.address], {0: 0})
        assert ledger.lost >= while_it_went + len(ledger.acknowledged)


async def test_client_whose_replica_goes_away_moves_on_and_comes_back_and_knows_what_is_unknown() -> None:
    group = FakeGroup()
    async with FakeReplica(group) as first, FakeReplica(group) as second:
        ledger = Ledger()
        addresses = [first.address, second.address]
        client = LoadClient(0, addresses, 0, LoadShape(pipeline=8, conflict=0.1), ledger)
        running = asyncio.create_task(client.run())
        await eventually(lambda: client.per_replica[0].total > 100, "the first replica is used")
        await first.die()
        await eventually(lambda: client.per_replica[1].total > 100, "the second replica is used")
        client.take_latencies()
        await first.start()
        await eventually(lambda: client.per_replica[0].total > 0, "the client is home again")
        client.stop()
        await asyncio.wait_for(running, 5)
        assert await verify(ledger, addresses, {0: 1}) > 0
        assert (ledger.lost, ledger.wrong) == (0, 0)


async def test_client_that_gives_up_does_not_know_what_became_of_its_requests() -> None:
    held: list[bytes] = []
    identity = Identity("group", "r1", ReplicaId(0), 1)

    def hold(run: Run, commands: Sequence[bytes], reply: ReplyMany, *, is_retry: bool) -> None:
        held.extend(commands)

    server = NativeServer(hold, make_host(identity))
    await server.start(Address("127.0.0.1", 0))
    ledger = Ledger()
    client = LoadClient(0, [Address("127.0.0.1", server.port)], 0, LoadShape(pipeline=8, conflict=0.5), ledger)
    running = asyncio.create_task(client.run())
    await eventually(lambda: len(held) == 8, "the pipeline is full")
    client.give_up()
    await asyncio.wait_for(running, 5)
    assert sum(map(len, ledger.unknown.values())) + ledger.maybe_counted.total() > 0
    assert ledger.refused == 0
    await server.stop()


async def test_asking_a_server_that_closes_is_an_error() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConnectionResetError, match="closed the connection"):
            await ask(Address("127.0.0.1", server.sockets[0].getsockname()[1]), encode_command(b"PING"))
