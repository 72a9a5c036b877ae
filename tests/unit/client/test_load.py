"""The checker of the load clients is itself checked: what it must accept, and what it must call lost or wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pydsm.client.load import Ledger, LoadClient, LoadShape, ask, verify
from pydsm.client.resp import RespReply, encode_command
from pydsm.transport.address import Address
from tests.ports import free_ports
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
    reply: RespReply, lost: int, wrong: int
) -> None:
    ledger = Ledger(acknowledged={KEY: 7}, unknown={KEY: {9}})
    ledger.check_read(KEY, reply)
    assert (ledger.lost, ledger.wrong) == (lost, wrong)


@pytest.mark.parametrize(("reply", "wrong"), [(None, 0), (b"1", 1)])
def test_key_that_was_never_written_must_be_absent(reply: RespReply, wrong: int) -> None:
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
def test_counter_must_end_between_what_was_counted_and_what_may_have_been(
    total: RespReply, lost: int, wrong: int
) -> None:
    ledger = Ledger()
    ledger.counted[b"shared:0"] = 10
    ledger.maybe_counted[b"shared:0"] = 2
    ledger.check_total(b"shared:0", total)
    assert (ledger.lost, ledger.wrong) == (lost, wrong)


class FakeServer:
    """Answers SET, GET, MGET and INCR from a dict, can lie, and closes when it is asked nothing."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.forgets = False
        self.connections: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2])
            if not words:
                break
            writer.write(self.answer(*words))
        writer.close()

    def answer(self, name: bytes, *words: bytes) -> bytes:
        if name == b"SET":
            if not self.forgets:
                self.data[words[0]] = words[1]
            return b"+OK\r\n"
        if name == b"INCR":
            self.data[words[0]] = b"%d" % (int(self.data.get(words[0], b"0")) + 1)
            return b":%b\r\n" % self.data[words[0]]
        if name == b"GET":
            return self.bulk(words[0])
        return b"*%d\r\n" % len(words) + b"".join(map(self.bulk, words))

    def bulk(self, key: bytes) -> bytes:
        value = self.data.get(key)
        return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


@asynccontextmanager
async def fake_server() -> AsyncIterator[tuple[FakeServer, Address]]:
    fake = FakeServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", free_ports(1)[0])
    host, port = server.sockets[0].getsockname()
    yield fake, Address(host, port)
    server.close()
    for writer in fake.connections:
        writer.transport.abort()


async def drive(address: Address, ledger: Ledger, operations: int = 3000) -> LoadClient:
    """One client that does so many operations, and stops."""
    client = LoadClient(0, [address], 0, LoadShape(pipeline=8, conflict=0.1), ledger)
    running = asyncio.create_task(client.run())
    await eventually(lambda: client.per_replica[0].total >= operations, "the client has done enough")
    client.stop()
    await asyncio.wait_for(running, 5)
    return client


async def test_honest_server_loses_nothing() -> None:
    async with fake_server() as (_, address):
        ledger = Ledger()
        await drive(address, ledger)
        assert await verify(ledger, [address], {0: 0}) > 900
        assert (ledger.lost, ledger.wrong, ledger.refused) == (0, 0, 0)


async def test_forgetful_server_is_found_out_while_it_goes_and_afterwards() -> None:
    async with fake_server() as (fake, address):
        fake.forgets = True
        ledger = Ledger()
        await drive(address, ledger)
        while_it_went = ledger.lost
        assert while_it_went > 0
        await verify(ledger, [address], {0: 0})
        assert ledger.lost >= while_it_went + len(ledger.acknowledged)


async def test_client_whose_server_goes_away_moves_on_and_knows_what_is_unknown() -> None:
    async with fake_server() as (first, first_address), fake_server() as (_, second_address):
        ledger = Ledger()
        client = LoadClient(0, [first_address, second_address], 0, LoadShape(pipeline=8, conflict=0.1), ledger)
        running = asyncio.create_task(client.run())
        await eventually(lambda: client.per_replica[0].total > 100, "the first server is used")
        first.connections[0].transport.abort()
        await eventually(lambda: client.per_replica[1].total > 100, "the second server is used")
        assert sum(map(len, ledger.unknown.values())) + ledger.maybe_counted.total() > 0
        client.go_home()
        await eventually(lambda: client.at == 0 and client.per_replica[0].total > 0, "the client is home again")
        client.stop()
        await asyncio.wait_for(running, 5)


async def test_asking_a_server_that_closes_is_an_error() -> None:
    async with fake_server() as (_, address):
        with pytest.raises(ConnectionResetError, match="closed the connection"):
            await ask(address, encode_command())
