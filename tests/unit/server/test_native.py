"""The port for native clients: listening, accepting and stopping."""

import pytest

from pydsm.client_protocol.messages import (
    CloseReason,
)
from pydsm.core.types.errors import OperationalError
from pydsm.server.limits import NativeLimits
from pydsm.server.native import NativeServer
from pydsm.transport.address import Address
from tests.unit.server.local import LocalAgreement
from tests.unit.server.native_ports import HOST, command, connected, request, serving


async def test_a_client_over_the_limit_of_connections_receives_the_reason() -> None:
    async with (
        serving(LocalAgreement(), NativeLimits(connections_max=1)) as server,
        connected(server),
        connected(server, handshake=False) as second,
    ):
        message = await second.receive()
        assert isinstance(message, CloseReason)
        assert "connect to another replica" in message.reason


async def test_stopping_sends_known_answers_and_a_close_reason() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as peer:
        peer.send(request(0, [command("PING x")]))
        await peer.receive()
        await server.stop()
        assert await peer.receive() == CloseReason("this replica is stopping")
        assert await peer.is_closed()


async def test_an_address_in_use_is_reported() -> None:
    async with serving(LocalAgreement()) as server:
        with pytest.raises(
            OperationalError, match=r"cannot listen for clients on 127\.0\.0\.1:.*free the port or use another"
        ):
            await NativeServer(LocalAgreement().submit_requests, HOST).start(Address("127.0.0.1", server.port))
