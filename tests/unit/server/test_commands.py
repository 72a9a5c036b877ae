"""Local commands and their answers, which are those of Redis."""

import pytest

from pydsm.machines.kv import COMMANDS
from pydsm.server.commands import LOCAL_COMMANDS
from pydsm.server.transactions import TRANSACTION_COMMANDS
from pydsm.version import __version__
from tests.unit.server.local import LocalAgreement, array, connected, serving
from tests.waiting import eventually

ARGUMENTS = b"-ERR wrong number of arguments for '%b' command\r\n"
NAMES = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"PING", b"+PONG\r\n"),
        (b"ping hello", b"$5\r\nhello\r\n"),
        (b"PING a b", ARGUMENTS % b"ping"),
        (b"ECHO hello", b"$5\r\nhello\r\n"),
        (b"ECHO", ARGUMENTS % b"echo"),
        (b"SELECT 0", b"+OK\r\n"),
        (b"SELECT 1", b"-ERR DB index is out of range\r\n"),
        (b"SELECT x", b"-ERR value is not an integer or out of range\r\n"),
        (b"AUTH default secret", b"+OK\r\n"),
        (b"AUTH nobody secret", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        (
            b"AUTH secret",
            b"-ERR AUTH <password> called without any password configured for the default user. "
            b"Are you sure your configuration is correct?\r\n",
        ),
        (b"AUTH default secret more", b"-ERR syntax error\r\n"),
        (b"CLIENT LIST TYPE pubsub", b"$0\r\n\r\n"),
        (b"CLIENT LIST ID 7 8", b"$0\r\n\r\n"),
        (b"CLIENT LIST ID x", b"-ERR Invalid client ID\r\n"),
        (b"CLIENT LIST TYPE x", b"-ERR Unknown client type 'x'\r\n"),
        (b"CLIENT LIST FOO", b"-ERR syntax error\r\n"),
        (b"FLUSHALL sync x", b"-ERR syntax error\r\n"),
        (b"SET a 1 EX", b"-ERR syntax error\r\n"),
        (b"HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        (b"HELLO x", b"-ERR Protocol version is not an integer or out of range\r\n"),
        (b"HELLO 3 SETNAME", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
        (b"HELLO 3 AUTH nobody x", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        (b"HELLO 3 SETNAME 'a b'", NAMES),
        (b"CLIENT", ARGUMENTS % b"client"),
        (b"CLIENT SETNAME", ARGUMENTS % b"client|setname"),
        (b"CLIENT FOO", b"-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        (b"CLIENT SETNAME 'a b'", NAMES),
        (b"CLIENT GETNAME", b"$-1\r\n"),
        (b"CLIENT SETINFO lib-name redis-py", b"+OK\r\n"),
        (b"CLIENT SETINFO LIB-VER 'a b'", b"-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"),
        (b"CLIENT SETINFO FOO x", b"-ERR Unrecognized option 'FOO'\r\n"),
        (b"CLIENT NO-EVICT on", b"+OK\r\n"),
        (b"CLIENT NO-TOUCH off", b"+OK\r\n"),
        (b"CLIENT NO-TOUCH perhaps", b"-ERR syntax error\r\n"),
        (b"CONFIG GET SAVE append*", b"*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        (b"CONFIG GET nothing", b"*0\r\n"),
        (b"CONFIG GET SA[U-W]?", b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        (b"CONFIG GET sa\\ve", b"*0\r\n"),
        (b"CONFIG GET " + b"*a" * 2049, b"-ERR the pattern has 4098 bytes, over the limit of 4096\r\n"),
        (b"CONFIG SET save x", b"-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n"),
        (b"COMMAND COUNT", b":%d\r\n" % (len(COMMANDS) + len(LOCAL_COMMANDS) + len(TRANSACTION_COMMANDS))),
        (b"COMMAND INFO nosuch", b"*1\r\n$-1\r\n"),
        (
            b"COMMAND INFO mset",
            b"*1\r\n*10\r\n$4\r\nmset\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:-1\r\n:2\r\n" + b"*0\r\n" * 4,
        ),
        (
            b"COMMAND INFO dbsize",
            b"*1\r\n*10\r\n$6\r\ndbsize\r\n:1\r\n*1\r\n+readonly\r\n:0\r\n:0\r\n:0\r\n" + b"*0\r\n" * 4,
        ),
        (
            b"COMMAND DOCS get nosuch",
            b"*2\r\n$3\r\nget\r\n*4\r\n$7\r\nsummary\r\n$27\r\nReturns the value of a key.\r\n"
            b"$5\r\ngroup\r\n$6\r\nstring\r\n",
        ),
        (b"COMMAND GETKEYS MSET a 1 b 2", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (b"COMMAND GETKEYS PING", b"-ERR The command has no key arguments\r\n"),
        (b"COMMAND GETKEYS NOSUCH", b"-ERR Invalid command specified\r\n"),
        (b"COMMAND FOO", b"-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"),
        (b"RESET", b"+RESET\r\n"),
        (b"FOO", b"-ERR unknown command 'FOO', with args beginning with: \r\n"),
        (b"foo 'b\\nc' baz", b"-ERR unknown command 'foo', with args beginning with: 'b\\nc' 'baz' \r\n"),
        (b"GET", ARGUMENTS % b"get"),
        (b"get a b", ARGUMENTS % b"get"),
        (b"MSET", ARGUMENTS % b"mset"),
        (b"MSET a 1 b", ARGUMENTS % b"mset"),
    ],
)
async def test_reply(command: bytes, reply: bytes) -> None:
    async with serving() as server, connected(server) as client:
        await client.ask(command, reply)
        await client.ask(b"PING", b"+PONG\r\n")


async def test_the_error_for_an_unknown_command_quotes_a_limited_part_of_it() -> None:
    async with serving() as server, connected(server) as client:
        client.send(array(b"F" * 200, b"x" * 200, b"y"))
        client.send(array(b"a\r\nb"))
        await client.receive(
            b"-ERR unknown command '%b', with args beginning with: '%b' \r\n" % (b"F" * 128, b"x" * 128)
            + b"-ERR unknown command 'a  b', with args beginning with: \r\n"
        )


async def test_hello_changes_the_protocol_from_its_own_reply_on() -> None:
    agreement = LocalAgreement()
    agreement.holding = True
    async with serving(agreement) as server, connected(server) as client:
        client.send(b"GET a\r\nHELLO 3 AUTH default x SETNAME me\r\nGET a\r\nHELLO 2\r\nGET a\r\nCLIENT GETNAME\r\n")
        await eventually(lambda: len(agreement.waiting) == 3, "all three are submitted")
        agreement.release()
        await client.receive(b"$-1\r\n%7\r\n" + _facts(3) + b"_\r\n*14\r\n" + _facts(2) + b"$-1\r\n$2\r\nme\r\n")


def _facts(protocol: int) -> bytes:
    """What HELLO tells the first client."""
    return (
        b"$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:%d\r\n" % protocol
        + b"$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        + b"$7\r\nmodules\r\n*0\r\n"
    )


async def test_reset_clears_name_and_protocol() -> None:
    async with serving() as server, connected(server) as client:
        await client.ask(b"CLIENT SETNAME me", b"+OK\r\n")
        await client.ask(b"CLIENT GETNAME", b"$2\r\nme\r\n")
        await client.ask(b"RESET", b"+RESET\r\n")
        await client.ask(b"CLIENT GETNAME", b"$-1\r\n")


async def test_quit_sends_earlier_replies_and_closes() -> None:
    async with serving() as server, connected(server) as client:
        client.send(b"INCR a\r\nQUIT\r\nINCR a\r\n")
        assert await client.rest() == b":1\r\n+OK\r\n"
        async with connected(server) as other:
            await other.ask(b"GET a", b"$1\r\n1\r\n")


async def test_client_list_shows_all_clients_and_client_info_one() -> None:
    async with serving() as server, connected(server) as one, connected(server) as other:
        await one.ask(b"CLIENT SETNAME first", b"+OK\r\n")
        await one.ask(b"CLIENT SETINFO LIB-NAME lib", b"+OK\r\n")
        await one.ask(b"CLIENT ID", b":1\r\n")
        other.send(b"CLIENT LIST\r\nQUIT\r\n")
        lines = (await other.rest()).decode().splitlines()
        assert lines[1].startswith("id=1 addr=127.0.0.1:")
        assert " name=first " in lines[1]
        assert " lib-name=lib " in lines[1]
        assert lines[2].startswith("id=2 addr=127.0.0.1:")
        one.send(b"CLIENT LIST TYPE normal\r\nCLIENT LIST ID 1 2\r\nCLIENT INFO\r\nQUIT\r\n")
        assert b"cmd=client " in await one.rest()


async def test_info_returns_all_sections_or_one() -> None:
    async with serving() as server, connected(server) as client, connected(server) as other:
        client.send(b"INFO\r\nQUIT\r\n")
        info = (await client.rest()).decode()
        assert f"# Server\r\nredis_version:7.4.0\r\npydsm_version:{__version__}\r\n" in info
        assert "\r\n# Replication\r\nrole:master\r\n" in info
        assert "\r\n# Stats\r\nname:alone\r\nexecuted:7\r\n" in info
        assert info.split("\r\n\r\n# Keyspace\r\n")[1].startswith("db0:keys=3,expires=1,avg_ttl=0\r\n")
        await other.ask(b"INFO stats nosuch", b"$33\r\n# Stats\r\nname:alone\r\nexecuted:7\r\n\r\n")
        await other.ask(b"INFO nosuch", b"$0\r\n\r\n")
