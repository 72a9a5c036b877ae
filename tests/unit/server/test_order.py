"""The order of effects on a Redis connection: nothing sent behind a refused command is executed."""

from pydsm.client_protocol.answers import Overloaded
from tests.unit.server.local import LocalAgreement, connected, serving
from tests.waiting import eventually


async def test_commands_received_behind_a_refused_one_are_refused() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"SET x 1\r\n")
        await eventually(lambda: len(agreement.waiting) == 1, "the first is submitted")
        agreement.refusal = Overloaded("full")
        client.send(b"SET data new\r\n")
        await eventually(lambda: server.sessions()[0].commands == 2, "the second has come")
        agreement.refusal = None
        client.send(b"SET ready yes\r\nPING\r\n")
        await eventually(lambda: server.sessions()[0].commands == 4, "all have come")
        assert len(agreement.waiting) == 1
        agreement.holding = False
        agreement.release()
        assert await client.reader.readline() == b"+OK\r\n"
        assert (await client.reader.readline()).startswith(b"-TRYAGAIN")
        assert (await client.reader.readline()).startswith(b"-TRYAGAIN")
        await client.receive(b"+PONG\r\n")
        await client.ask(b"SET ready yes", b"+OK\r\n")


async def test_unwatch_is_submitted_behind_earlier_commands() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as client:
        await client.ask(b"WATCH k", b"+OK\r\n")
        agreement.holding = True
        client.send(b"SET x 1\r\nUNWATCH\r\n")
        await eventually(lambda: len(agreement.waiting) == 2, "both are submitted")
        assert b"SET" in agreement.waiting[0][0]
        assert b"UNWATCH" in agreement.waiting[1][0]
        agreement.holding = False
        agreement.release()
        await client.receive(b"+OK\r\n+OK\r\n")
