"""Options and addresses of sockets."""

import asyncio
import socket

import pytest

from pydsm.transport.address import Address
from pydsm.transport.sockets import enable_keepalive, own_address, peer_address


async def test_keepalive_is_enabled_with_the_time_before_the_first_probe() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    connection = transport.get_extra_info("socket")
    enable_keepalive(transport)
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    if hasattr(socket, "TCP_KEEPIDLE"):
        enable_keepalive(transport, 123)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 123
    assert peer_address(transport) == Address("127.0.0.1", port)
    assert own_address(transport) == Address(*connection.getsockname())
    transport.abort()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("::1", 5, 0, 0), Address("::1", 5)),
        (("192.0.2.1", 5), Address("192.0.2.1", 5)),
        ("/run/socket", None),
        (None, None),
    ],
)
def test_the_address_is_none_unless_it_is_an_ip_address(name: object, address: Address | None) -> None:
    transport = asyncio.BaseTransport({"peername": name, "sockname": name})
    assert peer_address(transport) == address
    assert own_address(transport) == address


def test_a_transport_without_a_socket_is_left_unchanged() -> None:
    enable_keepalive(asyncio.BaseTransport({}))
    assert peer_address(None) is None
