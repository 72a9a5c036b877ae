"""Silent connections do not keep other clients out."""

import asyncio
import logging

import pytest

from pydsm.client_protocol.messages import CLIENT_PREAMBLE, ClientHello, encode_message
from pydsm.server.http import HttpServer
from pydsm.server.native import NativeServer
from pydsm.server.resp import RespServer
from pydsm.server.shared import SharedServerState
from pydsm.server.silent import SilentConnections, SilentLimits
from tests.unit.server.http_ports import get
from tests.unit.server.http_ports import serving as serving_http
from tests.unit.server.local import LocalAgreement, connected
from tests.unit.server.local import serving as serving_redis
from tests.unit.server.native_ports import serving as serving_native
from tests.waiting import eventually

LIMITS = SilentLimits(grace_seconds=5, silent_seconds_max=60, per_address_max=3, connections_max=4)
log = logging.getLogger("pydsm.test")


class Client:
    """A connection, and what was done to it."""

    def __init__(self, host: str | None = "10.0.0.1") -> None:
        self.came_from = host
        self.half_sent = 0
        self.aborted = False

    def host(self) -> str | None:
        return None if self.aborted else self.came_from

    def half_sent_bytes(self) -> int:
        return self.half_sent

    def abort(self) -> None:
        self.aborted = True


def opened(silent: SilentConnections, *clients: Client) -> float:
    """Let them in; gives when that was."""
    for client in clients:
        silent.opened(client)
    return asyncio.get_running_loop().time()


async def test_thousands_of_connections_opened_together_are_accepted_and_stay_when_they_send() -> None:
    silent = SilentConnections(LIMITS, log)
    clients = [Client() for _ in range(1000)]
    now = opened(silent, *clients)
    silent.check(now + 4.9)
    for client in clients:
        silent.settled(client)
    silent.check(now + 1000)
    assert not any(client.aborted for client in clients)
    silent.stop()


async def test_the_oldest_silent_one_of_an_address_is_closed_beyond_its_share(caplog: pytest.LogCaptureFixture) -> None:
    silent = SilentConnections(LIMITS, log)
    clients, other = [Client() for _ in range(6)], Client("10.0.0.2")
    now = opened(silent, *clients, other)
    silent.check(now + 5)
    assert [client.aborted for client in clients] == [True] * 3 + [False] * 3
    assert not other.aborted
    assert silent.closed == 3
    assert caplog.text.count("10.0.0.1 was disconnected: too many") == 1
    silent.stop()


async def test_beyond_the_total_limit_the_address_with_most_connections_loses_one() -> None:
    silent = SilentConnections(LIMITS, log)
    clients = [Client(host) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.4")]
    silent.check(opened(silent, *clients) + 5)
    assert [client.aborted for client in clients] == [False, True, False, False, False]
    silent.stop()


async def test_a_silent_connection_is_closed_after_a_time_and_one_that_sends_a_long_command_is_not() -> None:
    silent = SilentConnections(LIMITS, log)
    quiet, slow, gone = Client(), Client(), Client()
    now = opened(silent, quiet, slow, gone)
    slow.half_sent, gone.came_from = 10, None
    silent.check(now + 59)
    assert not quiet.aborted
    assert len(silent) == 2
    silent.check(now + 60)
    assert (quiet.aborted, slow.aborted, gone.aborted) == (True, False, False)
    silent.stop()


AT_ONCE = SilentLimits(grace_seconds=0, per_address_max=2, connections_max=2)


async def close(opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    """Also those that the other side has closed."""
    for _, writer in opened:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)


async def silence_is_limited(silent: SilentConnections, port: int, first: bytes) -> None:
    """Of five connections, of which the first speaks, three that are silent are too many."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    opened[0][1].write(first)
    await eventually(lambda: len(silent._fresh) == 4, "all have come, and one has spoken")
    silent.check(asyncio.get_running_loop().time())
    assert [await opened[place][0].read() for place in (1, 2)] == [b"", b""]
    assert silent.closed == 2
    assert len(silent) == 2
    await close(opened)
    await eventually(lambda: not silent._silent, "those that are gone are forgotten")


async def test_silent_connections_of_the_redis_port_are_limited() -> None:
    shared = SharedServerState(silent=SilentConnections(AT_ONCE, log))
    async with serving_redis(shared=shared) as server:
        assert isinstance(server, RespServer)
        await silence_is_limited(shared.silent, server.port, b"PING\r\n")
    shared.silent.stop()


async def test_silent_connections_of_the_native_port_are_limited() -> None:
    shared = SharedServerState(silent=SilentConnections(AT_ONCE, log))
    async with serving_native(LocalAgreement(), shared=shared) as server:
        assert isinstance(server, NativeServer)
        hello = CLIENT_PREAMBLE + encode_message(ClientHello("shop"))
        await silence_is_limited(shared.silent, server.port, hello)
    shared.silent.stop()


async def test_silent_connections_of_the_http_port_are_limited_and_counted() -> None:
    async with serving_http() as server:
        assert isinstance(server, HttpServer)
        silent = SilentConnections(AT_ONCE, log)
        server._silent = silent
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        await eventually(lambda: len(silent._fresh) == 4, "all have come")
        assert (await get(server.port, "/health")).status == 200
        await eventually(lambda: len(silent._fresh) == 4, "who has asked is forgotten")
        silent.check(asyncio.get_running_loop().time())
        assert [await opened[place][0].read() for place in (0, 1)] == [b"", b""]
        assert "pydsm_silent_connections_closed_total 2.0" in (await get(server.port, "/metrics")).body
        await close(opened)
        silent.stop()


async def test_clients_that_have_sent_a_request_may_be_idle_in_any_number() -> None:
    async with serving_redis() as server:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(300)]
        for _, writer in opened:
            writer.write(b"PING\r\n")
        assert [await reader.readexactly(7) for reader, _ in opened] == [b"+PONG\r\n"] * 300
        server.shared.silent.check(asyncio.get_running_loop().time() + 1000)
        async with connected(server) as client:
            await client.ask(b"PING", b"+PONG\r\n")
        opened[0][1].write(b"PING\r\n")
        assert await opened[0][0].readexactly(7) == b"+PONG\r\n"
        await close(opened)
