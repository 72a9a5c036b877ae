"""The memory of all connections together, and which connections are closed because of it or for being slow."""

import asyncio
from dataclasses import dataclass, field

import pytest

from pydsm.server.limits import RespLimits
from pydsm.server.memory import ClientMemory, MemoryLimits
from pydsm.server.shared import SharedServerState
from tests.unit.server.local import array, connected, serving
from tests.waiting import eventually


@dataclass(eq=False)
class Client:
    """Holds what it is told to."""

    memory: ClientMemory
    half_sent: int = 0
    unread: int = 0
    taken: int = 0
    commands: int = 0
    closed: bool = field(default=False)

    def half_sent_bytes(self) -> int:
        return self.half_sent

    def commands_read(self) -> int:
        return self.commands

    def unread_bytes(self) -> int:
        return self.unread

    def taken_bytes(self) -> int:
        return self.taken

    def other_bytes(self) -> int:
        return 0

    def who(self) -> str:
        return "a client"

    def abort(self) -> None:
        self.closed = True


async def test_the_largest_connection_is_closed_when_all_exceed_the_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = ClientMemory(MemoryLimits(client_memory_bytes_max=1000))
    small, large = Client(memory, unread=300), Client(memory, half_sent=600)
    memory.note(small)
    memory.note(large)
    assert not large.closed
    small.unread = 401
    memory.note(small)
    assert (small.closed, large.closed) == (False, True)
    assert memory.held_bytes == 401
    assert "over the limit of 1000" in caplog.text
    memory.stop()


async def test_connections_are_measured_again_before_one_is_closed() -> None:
    memory = ClientMemory(MemoryLimits(client_memory_bytes_max=1000))
    one, other = Client(memory, unread=900), Client(memory, unread=900)
    memory.note(one)
    one.unread = 50
    memory.note(other)
    assert not one.closed
    assert not other.closed
    memory.stop()


async def test_incomplete_commands_and_unread_answers_end_the_connection_after_a_time() -> None:
    memory = ClientMemory(MemoryLimits(half_sent_seconds_max=10, unread_seconds_max=20))
    silent, slow, busy = Client(memory, half_sent=1), Client(memory, half_sent=100 << 14), Client(memory, half_sent=5)
    deaf, reading = Client(memory, unread=7), Client(memory, unread=7)
    for one in (silent, slow, busy, deaf, reading):
        memory.note(one)
    for now in range(1000, 1022):
        busy.commands += 1
        reading.taken += 1
        memory.check(now)
        assert silent.closed == (now > 1010)
        assert deaf.closed == (now > 1020)
    assert [one.closed for one in (slow, busy, reading)] == [False, False, False]
    busy.commands += 1
    memory.check(1111)
    assert [one.closed for one in (slow, busy, reading)] == [True, False, True]
    memory.stop()


async def test_connections_that_use_no_memory_are_not_tracked() -> None:
    memory = ClientMemory()
    one = Client(memory, unread=1)
    memory.note(one)
    one.unread = 0
    memory.check(1000)
    assert memory.held_bytes == 0
    assert not memory._held
    memory.stop()


async def test_half_sent_commands_of_real_clients_are_within_one_total() -> None:
    shared = SharedServerState(memory=ClientMemory(MemoryLimits(client_memory_bytes_max=2_500_000)))
    async with (
        serving(shared=shared) as server,
        connected(server) as one,
        connected(server) as two,
        connected(server) as three,
    ):
        for client, size in ((one, 900_000), (two, 1_200_000), (three, 800_000)):
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000000\r\n" + b"x" * size)
            await client.writer.drain()
        await eventually(lambda: shared.memory.closed == 1, "one is disconnected")
        await eventually(lambda: len(server.sessions()) == 2, "it is gone")
        assert shared.memory.held_bytes < 2_500_000
        async with connected(server) as other:
            await other.ask(b"PING", b"+PONG\r\n")


async def test_unread_answers_of_real_clients_are_within_one_total() -> None:
    shared = SharedServerState(memory=ClientMemory(MemoryLimits(client_memory_bytes_max=20_000_000)))
    limits = RespLimits(write_buffer_bytes_max=64_000_000)
    async with serving(limits=limits, shared=shared) as server, connected(server) as other:
        other.send(array(b"SET", b"a", b"x" * 8_000_000))
        await other.receive(b"+OK\r\n")
        async with connected(server) as lazy:
            lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
            lazy.send(array(b"GET", b"a") * 6)
            await eventually(lambda: shared.memory.closed == 1, "it is disconnected")
        await other.ask(b"PING", b"+PONG\r\n")
        assert shared.memory.held_bytes < 20_000_000


async def test_a_closed_connection_uses_no_memory() -> None:
    shared = SharedServerState()
    async with serving(shared=shared) as server:
        async with connected(server) as client:
            client.send(b"*1\r\n$100\r\nabc")
            await eventually(lambda: shared.memory.held_bytes > 0, "it is noted")
        await eventually(lambda: shared.memory.held_bytes == 0, "it is forgotten")
    await asyncio.sleep(0)
