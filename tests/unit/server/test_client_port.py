"""A port for clients: the limits that it shares with other ports, and its end."""

import asyncio

from pydsm.server.client_port import ClientPort
from pydsm.server.descriptors import ClientCount
from pydsm.server.shared import SharedServerState
from pydsm.transport.address import Address


class Connection:
    """A connection that is lost as soon as it is aborted."""

    def __init__(self, port: "ClientPort[Connection, str]") -> None:
        self._port = port
        self.was_aborted = False

    def host(self) -> str | None:
        return "192.0.2.1"

    def half_sent_bytes(self) -> int:
        return 0

    def abort(self) -> None:
        self.was_aborted = True
        self._port.remove(self)


async def test_ports_count_their_clients_together_and_each_its_own() -> None:
    shared = SharedServerState(clients=ClientCount(2))
    one: ClientPort[Connection, str] = ClientPort(shared, 1)
    other: ClientPort[Connection, str] = ClientPort(shared, 5)
    first, second = Connection(one), Connection(other)
    assert one.reserve()
    one.add(first, "first")
    assert not one.reserve()
    assert other.reserve()
    other.add(second, "second")
    assert not other.reserve()
    one.remove(first)
    one.remove(first)
    assert shared.clients.now == 1
    assert other.registry.details() == ["second"]
    other.remove(second)
    shared.silent.stop()


async def test_a_stopped_port_is_closed_and_its_connections_are_closed_gracefully() -> None:
    shared = SharedServerState()
    port: ClientPort[Connection, str] = ClientPort(shared, 5)
    opened = [port.is_open]
    await port.start(asyncio.Protocol, Address("127.0.0.1", 0), "tests")
    opened.append(port.is_open)
    assert port.number > 0
    connection = Connection(port)
    assert port.reserve()
    port.add(connection, "only")
    await port.stop(port.remove)
    opened.append(port.is_open)
    assert opened == [False, True, False]
    assert not connection.was_aborted
    assert shared.clients.now == 0
    await port.stop(port.remove)
    shared.silent.stop()
