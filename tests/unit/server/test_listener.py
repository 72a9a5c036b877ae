"""The listening socket: its port, and the error if it cannot listen."""

import asyncio

import pytest

from pydsm.core.types.errors import OperationalError
from pydsm.server.listener import Listener
from pydsm.transport.address import Address


async def test_an_address_in_use_is_reported_with_the_purpose_of_the_port() -> None:
    listener = await Listener.open(asyncio.Protocol, Address("127.0.0.1", 0), "tests")
    message = rf"cannot listen for other tests on 127\.0\.0\.1:{listener.port}: .*in use; free the port"
    with pytest.raises(OperationalError, match=message):
        await Listener.open(asyncio.Protocol, Address("127.0.0.1", listener.port), "other tests")
    listener.close()
    await listener.wait_closed()


async def test_after_closing_nothing_listens_on_the_port() -> None:
    listener = await Listener.open(asyncio.Protocol, Address("127.0.0.1", 0), "tests")
    port = listener.port
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
