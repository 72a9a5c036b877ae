"""What comes behind a refused command is not executed: on Redis connections, and in sessions of native clients."""

from pydsm.client_protocol.answers import Overloaded
from pydsm.core.types.ids import ReplicaId, request_at, request_id
from pydsm.core.types.messages import Run
from pydsm.server.refused_requests import RefusedRequests
from tests.unit.server.local import LocalAgreement, connected, serving
from tests.waiting import eventually

SESSION = request_id(5000, ReplicaId(1), 7, 0)


def run(first: int, count: int = 1, acknowledged: int = 0) -> Run:
    return Run(request_at(SESSION, first), count, acknowledged, first - 1)


async def test_behind_a_refused_command_everything_that_has_come_is_refused() -> None:
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


async def test_unwatch_is_submitted_behind_what_was_sent_before_it() -> None:
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


def test_what_is_to_come_behind_a_refused_request_is_refused_until_that_comes_again() -> None:
    refused = RefusedRequests()
    assert not refused.is_ahead(run(1, 10))
    refused.refused(run(1, 10), 4)
    assert refused.is_ahead(run(11))
    assert not refused.is_ahead(run(2))
    assert refused.is_ahead(run(12))
    assert not refused.is_ahead(run(5, 3))
    assert not refused.is_ahead(run(13))


def test_nothing_waits_for_a_refused_request_that_the_client_has_given_up() -> None:
    refused = RefusedRequests()
    refused.refused(run(5), 0)
    assert refused.is_ahead(run(6))
    assert not refused.is_ahead(run(7, acknowledged=6))


def test_the_first_of_several_refused_requests_counts() -> None:
    refused = RefusedRequests()
    refused.refused(run(8), 0)
    refused.refused(run(5), 0)
    assert refused.is_ahead(run(6))
    assert not refused.is_ahead(run(5))
