"""One Redis connection: replies in order, limits on the memory that a client can use, and how connections end."""

import asyncio
import socket

import pytest

from pydsm.client_protocol.answers import Aborted, Overloaded
from pydsm.core.types.errors import OperationalError
from pydsm.server.connection import RespConnection
from pydsm.server.descriptors import ClientCount
from pydsm.server.limits import RespLimits
from pydsm.server.memory import ClientMemory, MemoryLimits
from pydsm.server.resp import RespServer
from pydsm.server.shared import SharedServerState
from pydsm.server.transactions import ABORTED
from pydsm.transport.address import Address
from tests.unit.server.local import LocalAgreement, array, connected, serving
from tests.unit.server.transports import opened
from tests.waiting import eventually


async def test_replies_come_in_the_order_of_the_commands() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"INCR a\r\nPING\r\nINCR a\r\nNOSUCH\r\nGET\r\nINCR a\r\n")
        await eventually(lambda: len(agreement.waiting) == 3, "all are submitted")
        agreement.release()
        await client.receive(
            b":1\r\n+PONG\r\n:2\r\n-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
            b"-ERR wrong number of arguments for 'get' command\r\n:3\r\n"
        )


async def test_deep_pipeline_is_answered_whole() -> None:
    async with serving() as server, connected(server) as client:
        client.send(array(b"INCR", b"a") * 5000)
        await client.receive(b"".join(b":%d\r\n" % number for number in range(1, 5001)))


async def test_command_split_anywhere_is_executed_once() -> None:
    async with serving() as server, connected(server) as client:
        for byte in array(b"APPEND", b"a", b"xyz"):
            client.send(bytes([byte]))
            await client.writer.drain()
        await client.receive(b":3\r\n")
        await client.ask(b"GET a", b"$3\r\nxyz\r\n")


async def test_refused_commands_are_answered_with_try_again() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as client:
        for refusal in (Aborted("five nops"), Overloaded("full")):
            agreement.refusal = refusal
            client.send(b"INCR a\r\nPING\r\n")
            said = await client.reader.readline()
            assert said.startswith(b"-TRYAGAIN ")
            assert b"not executed" in said
            await client.receive(b"+PONG\r\n")


async def test_a_protocol_error_is_sent_after_earlier_replies_and_ends_the_connection() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"INCR a\r\n*1\r\nPING\r\nPING\r\n")
        await eventually(lambda: len(agreement.waiting) == 1, "the good command is submitted")
        agreement.release()
        assert await client.rest() == b":1\r\n-ERR Protocol error: expected '$', got 'P'\r\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (array(b"12345678901"), b"the command has an argument of 11 bytes, over the limit of 10 (proto-max-bulk-len)"),
        (array(b"1", b"2", b"3", b"4"), b"the command has 4 words, over the limit of 3"),
        (
            array(b"123456789", b"123456789"),
            b"the command has over 25 bytes, which is the limit (client-query-buffer-limit)",
        ),
    ],
)
async def test_a_command_over_a_limit_is_an_error_and_the_connection_stays_open(data: bytes, text: bytes) -> None:
    limits = RespLimits(bulk_bytes_max=10, arguments_max=3, query_buffer_bytes_max=25, line_bytes_max=50)
    async with serving(limits=limits) as server, connected(server) as client:
        client.send(b"PING\r\n" + data + b"PING\r\n")
        await client.receive(b"+PONG\r\n-ERR " + text + b"\r\n+PONG\r\n")
        client.send(b"MULTI\r\n" + data + b"EXEC\r\n")
        await client.receive(b"+OK\r\n-ERR " + text + b"\r\n-%b\r\n" % ABORTED.encode())


async def test_the_error_for_a_line_that_is_too_long_arrives_while_the_client_sends() -> None:
    async with serving(limits=RespLimits(line_bytes_max=50)) as server, connected(server) as client:
        client.send(b"P" * 51)
        said = await client.reader.readline()
        client.send(b"P" * 10_000_000)
        await client.writer.drain()
        assert said == b"-ERR Protocol error: too big inline request: a line has over 50 bytes\r\n"
        assert await client.rest() == b""


async def test_keys_beyond_the_limit_are_not_watched() -> None:
    limits = RespLimits(transaction_commands_max=3)
    async with serving(limits=limits) as server, connected(server) as client:
        await client.ask(b"WATCH a b", b"+OK\r\n")
        client.send(b"WATCH b c d\r\n")
        assert b"more than 3 keys" in await client.reader.readline()
        await client.ask(b"WATCH b c", b"+OK\r\n")


async def test_a_command_without_a_result_is_answered_with_an_error_after_a_time() -> None:
    agreement, shared = LocalAgreement(), SharedServerState(reason="it sees 1 of 3 replicas")
    agreement.holding = True
    limits = RespLimits(answer_seconds_max=0.05)
    async with serving(agreement, limits, shared) as server, connected(server) as client:
        client.send(b"INCR a\r\nWATCH b\r\nPING\r\n")
        for _ in range(2):
            said = await client.reader.readline()
            assert said.startswith(
                b"-CLUSTERDOWN no answer within 0.05 s (it sees 1 of 3 replicas): whether the command"
            )
        await client.receive(b"+PONG\r\n")
        agreement.holding = False
        agreement.release()
        await client.ask(b"GET a", b"$1\r\n1\r\n")


async def test_commands_are_refused_immediately_while_there_is_no_majority() -> None:
    agreement, shared = LocalAgreement(), SharedServerState(refusal="it sees 1 of 3 replicas")
    async with serving(agreement, shared=shared) as server, connected(server) as client:
        for command in (b"INCR a\r\n", b"WATCH a\r\n"):
            client.send(command)
            said = await client.reader.readline()
            assert said == b"-CLUSTERDOWN it sees 1 of 3 replicas; the command was not executed\r\n"
        await client.ask(b"PING", b"+PONG\r\n")
        assert not agreement.waiting
        shared.refusal = None
        await client.ask(b"INCR a", b":1\r\n")


async def test_ports_share_the_limit_of_clients_and_config_returns_it() -> None:
    shared = SharedServerState(clients=ClientCount(2))
    async with serving(shared=shared) as one, serving(shared=shared) as other:
        async with connected(one) as first, connected(other) as second:
            await first.ask(b"PING", b"+PONG\r\n")
            await second.ask(b"CONFIG GET maxclients", b"*2\r\n$10\r\nmaxclients\r\n$1\r\n2\r\n")
            async with connected(other) as third:
                third.send(b"PING\r\n")
                assert await third.rest() == b"-ERR max number of clients reached\r\n"
        await eventually(lambda: shared.clients.now == 0, "they are gone")


async def test_client_with_too_many_unanswered_commands_is_not_read_from() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement, RespLimits(unanswered_commands_max=10)) as server, connected(server) as client:
        client.send(b"INCR a\r\n" * 25)
        await eventually(lambda: len(agreement.waiting) == 10, "as many as allowed are submitted")
        async with connected(server) as other:
            await other.ask(b"PING", b"+PONG\r\n")
        assert len(agreement.waiting) == 10
        agreement.release()
        await eventually(lambda: len(agreement.waiting) == 10, "the next ten follow")
        agreement.holding = False
        agreement.release()
        await client.receive(b"".join(b":%d\r\n" % number for number in range(1, 26)))


async def test_writing_to_and_reading_from_a_client_pause_while_it_does_not_read() -> None:
    limits = RespLimits(write_buffer_bytes_max=100_000, unanswered_commands_max=50)
    agreement = LocalAgreement()
    value = b"x" * 1_000_000
    loop = asyncio.get_running_loop()
    async with serving(agreement, limits) as server, connected(server) as other:
        other.send(array(b"SET", b"a", value))
        await other.receive(b"+OK\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as lazy:
            lazy.setblocking(False)
            await loop.sock_sendall(lazy, array(b"GET", b"a") * 40 + array(b"SET", b"done", b"yes"))
            await eventually(lambda: len(server.connections()) == 2, "it is served")
            connection = server.connections()[1]
            await eventually(lambda: connection.write_paused, "the server notices")
            await other.ask(b"PING", b"+PONG\r\n")
            assert connection.buffered_bytes < 3 * len(value)
            got = 0
            expected = 40 * len(b"$1000000\r\n%b\r\n" % value) + len(b"+OK\r\n")
            async with asyncio.timeout(20):
                while got < expected:
                    got += len(await loop.sock_recv(lazy, 1 << 20))
            assert got == expected
            await other.ask(b"GET done", b"$3\r\nyes\r\n")


async def test_a_client_that_reads_nothing_for_too_long_is_disconnected(caplog: pytest.LogCaptureFixture) -> None:
    limits = RespLimits(write_buffer_bytes_max=1000)
    shared = SharedServerState(memory=ClientMemory(MemoryLimits(unread_seconds_max=0.02)))
    async with serving(limits=limits, shared=shared) as server, connected(server) as other:
        other.send(array(b"SET", b"a", b"x" * 8_000_000))
        await other.receive(b"+OK\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as lazy:
            lazy.sendall(array(b"GET", b"a") * 4)
            await eventually(lambda: len(server.sessions()) == 2, "it is served")
            await eventually(lambda: len(server.sessions()) == 1, "it is disconnected")
    assert "bytes of answers were not read within 0.02 s" in caplog.text


@pytest.mark.parametrize("head", [b"POST / HTTP/1.1\r\n", b"FOO / HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
async def test_web_page_cannot_make_a_browser_write(head: bytes) -> None:
    async with serving() as server, connected(server) as client, connected(server) as other:
        client.send(head + b"Content-Length: 9\r\n\r\nSET a 1\r\n")
        await eventually(lambda: len(server.sessions()) == 1, "it is disconnected")
        await other.ask(b"EXISTS a", b":0\r\n")


async def test_a_client_that_ended_its_input_gets_its_answers() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"INCR a\r\nINCR a\r\nINC")
        client.writer.write_eof()
        await eventually(lambda: len(agreement.waiting) == 2, "both are submitted")
        agreement.release()
        assert await client.rest() == b":1\r\n:2\r\n"


async def test_client_that_ends_its_input_after_a_protocol_error_still_gets_earlier_replies() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server:
        with opened(RespConnection(server)) as (connection, transport):
            connection.data_received(b"INCR a\r\n*1\r\nPING\r\n")
            assert connection.eof_received()
            agreement.release()
            await eventually(lambda: transport.end is not None, "it is closed")
            assert transport.written == b":1\r\n-ERR Protocol error: expected '$', got 'P'\r\n"
            assert transport.end == "close"


async def test_after_a_protocol_error_the_client_can_read_the_error_while_it_sends() -> None:
    async with serving() as server:
        with opened(RespConnection(server)) as (connection, transport):
            connection.data_received(b"*1\r\nPING\r\n")
            assert transport.written == b"-ERR Protocol error: expected '$', got 'P'\r\n"
            assert transport.end == "write_eof"
            connection.data_received(b"PING\r\n")
            assert transport.written.count(b"\r\n") == 1
            assert not connection.eof_received()


async def test_commands_behind_quit_are_not_executed() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"INCR a\r\nQUIT\r\nINCR a\r\nINC")
        await eventually(lambda: len(agreement.waiting) == 1, "the first command is submitted")
        agreement.release()
        assert await client.rest() == b":1\r\n+OK\r\n"
        assert not agreement.waiting


async def test_commands_held_back_when_the_input_ends_are_executed_and_answered() -> None:
    limits = RespLimits(unanswered_commands_max=2)
    async with serving(limits=limits) as server, connected(server) as client:
        client.send(b"WATCH k\r\n" + b"INCR a\r\n" * 9 + b"INC")
        client.writer.write_eof()
        assert await client.rest() == b"+OK\r\n" + b"".join(b":%d\r\n" % number for number in range(1, 10))


async def test_a_client_that_disconnects_before_its_answers_does_not_affect_others() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as other:
        await other.ask(b"PING", b"+PONG\r\n")
        async with connected(server) as client:
            client.send(b"INCR a\r\n")
            await eventually(lambda: len(agreement.waiting) == 1, "it is submitted")
        agreement.release()
        agreement.holding = False
        await eventually(lambda: len(server.sessions()) == 1, "it is gone")
        await other.ask(b"GET a", b"$1\r\n1\r\n")


async def test_a_client_over_the_limit_of_connections_receives_an_error() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    async with serving(limits=RespLimits(connections_max=1)) as server:
        async with connected(server) as first:
            await first.ask(b"PING", b"+PONG\r\n")
            async with connected(server) as second:
                assert await second.rest() == b"-ERR max number of clients reached\r\n"
            await first.ask(b"PING", b"+PONG\r\n")
        await eventually(lambda: not server.sessions(), "the first is gone")
        async with connected(server) as third:
            await third.ask(b"PING", b"+PONG\r\n")
    assert failures == []


async def test_stopping_sends_known_answers_and_disconnects() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"INCR a\r\nINCR a\r\n")
        await eventually(lambda: len(agreement.waiting) == 2, "both are submitted")
        _, reply = agreement.waiting[0]
        reply(1)
        await server.stop()
        assert await client.rest() == b":1\r\n"
        await server.stop()


async def test_port_in_use_is_reported_with_its_address_and_a_remedy() -> None:
    async with serving() as server:
        message = (
            rf"cannot listen for Redis clients on 127\.0\.0\.1:{server.port}: .*in use; free the port or use another"
        )
        with pytest.raises(OperationalError, match=message):
            await RespServer(LocalAgreement().submit_many, dict).start(Address("127.0.0.1", server.port))
