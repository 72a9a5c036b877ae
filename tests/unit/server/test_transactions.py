"""MULTI, EXEC, DISCARD and WATCH on a connection: which commands are queued, refused and replicated."""

import pytest

from pydsm.machines.kv import KeyValue
from pydsm.server.limits import RespLimits
from tests.unit.server.local import LocalAgreement, Wire, connected, serving

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
EXECABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"


async def converse(wire: Wire, *conversation: tuple[bytes, bytes]) -> None:
    """Send commands one after the other, and expect their replies."""
    for command, reply in conversation:
        await wire.ask(command, reply)


async def test_nothing_is_executed_before_exec_and_then_all_of_it() -> None:
    async with serving() as server, connected(server) as wire, connected(server) as other:
        await converse(wire, (b"MULTI", OK), (b"SET a 1", QUEUED), (b"incr a", QUEUED), (b"GET b", QUEUED))
        await other.ask(b"EXISTS a", b":0\r\n")
        await wire.ask(b"EXEC", b"*3\r\n+OK\r\n:2\r\n$-1\r\n")
        await other.ask(b"GET a", b"$1\r\n2\r\n")


async def test_a_transaction_is_one_command_to_the_group() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as wire:
        agreement.holding = True
        wire.send(b"MULTI\r\nSET a 1\r\nSET b 2\r\nEXEC\r\nPING\r\n")
        await wire.receive(OK + QUEUED + QUEUED)
        assert len(agreement.waiting) == 1
        agreement.release()
        await wire.receive(b"*2\r\n+OK\r\n+OK\r\n+PONG\r\n")


async def test_discard_drops_the_queued_commands() -> None:
    async with serving() as server, connected(server) as wire:
        await converse(wire, (b"MULTI", OK), (b"SET a 1", QUEUED), (b"DISCARD", OK), (b"EXISTS a", b":0\r\n"))
        await wire.ask(b"EXEC", b"-ERR EXEC without MULTI\r\n")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (b"NOSUCH x", b"-ERR unknown command 'NOSUCH', with args beginning with: 'x' \r\n"),
        (b"GET", b"-ERR wrong number of arguments for 'get' command\r\n"),
        (b"EXEC now", b"-ERR wrong number of arguments for 'exec' command\r\n"),
    ],
)
async def test_an_error_while_commands_are_queued_makes_exec_refuse(command: bytes, error: bytes) -> None:
    async with serving() as server, connected(server) as wire:
        await converse(wire, (b"MULTI", OK), (command, error), (b"SET a 1", QUEUED), (b"EXEC", EXECABORT))
        await converse(wire, (b"EXISTS a", b":0\r\n"), (b"MULTI", OK), (b"EXEC", b"*0\r\n"))


async def test_commands_in_the_wrong_state_have_the_errors_of_redis() -> None:
    async with serving() as server, connected(server) as wire:
        await converse(
            wire,
            (b"EXEC", b"-ERR EXEC without MULTI\r\n"),
            (b"DISCARD", b"-ERR DISCARD without MULTI\r\n"),
            (b"MULTI", OK),
            (b"MULTI", b"-ERR MULTI calls can not be nested\r\n"),
            (b"WATCH a", b"-ERR WATCH inside MULTI is not allowed\r\n"),
            (b"EXEC", b"*0\r\n"),
            (b"WATCH", b"-ERR wrong number of arguments for 'watch' command\r\n"),
        )


async def test_local_commands_are_answered_in_their_order_in_a_transaction() -> None:
    async with serving() as server, connected(server) as wire:
        await converse(
            wire, (b"MULTI", OK), (b"PING", QUEUED), (b"SET a 1", QUEUED), (b"ECHO hi", QUEUED), (b"UNWATCH", QUEUED)
        )
        await wire.ask(b"EXEC", b"*4\r\n+PONG\r\n+OK\r\n$2\r\nhi\r\n+OK\r\n")
        await converse(wire, (b"MULTI", OK), (b"PING", QUEUED), (b"EXEC", b"*1\r\n+PONG\r\n"))


async def test_a_change_of_a_watched_key_by_another_client_stops_the_transaction() -> None:
    async with serving() as server, connected(server) as wire, connected(server) as other:
        for protocol, nothing in ((2, b"*-1\r\n"), (3, b"_\r\n")):
            wire.send(b"HELLO %d\r\n" % protocol)
            await wire.ask(b"ECHO mark", b"")
            while not (await wire.reader.readline()).startswith(b"mark"):
                pass
            await wire.ask(b"WATCH a b", OK)
            await other.ask(b"SET b %d" % protocol, OK)
            await converse(wire, (b"MULTI", OK), (b"SET c 1", QUEUED), (b"EXEC", nothing), (b"EXISTS c", b":0\r\n"))


async def test_unwatch_and_discard_and_exec_end_all_watches() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as wire, connected(server) as other:
        for ending in ((b"UNWATCH", OK), (b"DISCARD", OK), (b"EXEC", b"*0\r\n"), (b"RESET", b"+RESET\r\n")):
            await wire.ask(b"WATCH a", OK)
            if ending[0] in {b"DISCARD", b"EXEC"}:
                await wire.ask(b"MULTI", OK)
            await converse(wire, ending)
            await other.ask(b"SET a 1", OK)
            await converse(wire, (b"MULTI", OK), (b"GET none", QUEUED), (b"EXEC", b"*1\r\n$-1\r\n"))
            await other.ask(b"DEL a", b":1\r\n")
            assert agreement.machine.digest() == KeyValue().digest()


async def test_the_watches_of_a_client_end_when_it_disconnects() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server:
        async with connected(server) as wire:
            await converse(wire, (b"WATCH a", OK), (b"QUIT", OK))
            assert await wire.rest() == b""
        async with connected(server) as wire:
            await wire.ask(b"EXISTS a", b":0\r\n")
    assert agreement.machine.digest() == KeyValue().digest()


async def test_commands_sent_behind_a_watch_are_executed_after_it() -> None:
    agreement = LocalAgreement()
    async with serving(agreement) as server, connected(server) as wire:
        agreement.holding = True
        wire.send(b"PING\r\nWATCH a\r\nGET a\r\nMULTI\r\nSET a 1\r\nEXEC\r\nPING\r\n")
        await wire.receive(b"+PONG\r\n")
        assert len(agreement.waiting) == 1
        agreement.holding = False
        agreement.release()
        await wire.receive(OK + b"$-1\r\n" + OK + QUEUED + b"*1\r\n+OK\r\n+PONG\r\n")


async def test_a_transaction_has_limits() -> None:
    limits = RespLimits(transaction_commands_max=2, transaction_bytes_max=100)
    refused = b"-ERR the transaction is longer than 2 commands or 100 bytes; make several of it\r\n"
    async with serving(limits=limits) as server, connected(server) as wire:
        await converse(
            wire, (b"MULTI", OK), (b"GET a", QUEUED), (b"GET a", QUEUED), (b"GET a", refused), (b"EXEC", EXECABORT)
        )
        await converse(
            wire, (b"MULTI", OK), (b"SET a " + b"x" * 100, refused), (b"EXEC", EXECABORT), (b"EXISTS a", b":0\r\n")
        )


async def test_command_getkeys_returns_the_keys_of_a_command() -> None:
    async with serving() as server, connected(server) as wire:
        await wire.ask(b"COMMAND GETKEYS COPY a b REPLACE", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")
        await wire.ask(b"COMMAND GETKEYS MSET a 1 b 2", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")
        await wire.ask(b"COMMAND GETKEYS DBSIZE", b"-ERR The command has no key arguments\r\n")
        await wire.ask(b"COMMAND GETKEYS NOSUCH", b"-ERR Invalid command specified\r\n")
        await wire.ask(b"COMMAND GETKEYS GET", b"-ERR Invalid number of arguments specified for command\r\n")
