"""`pydsm` as a process: its standard streams, signals at any time, and its status lines."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pydsm.bench.resp import ErrorReply, ask, encode_command
from pydsm.cli.announce import READY
from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage

CLOSED = "closed"
FULL = "/dev/full"


@asynccontextmanager
async def one_of_three(directory: Path, *options: str, where: Storage = Storage.MEMORY) -> AsyncIterator[LocalGroup]:
    """A group of which only the first replica is started."""
    group = LocalGroup(3, directory, where, *options)
    group.choose_members()
    yield group


def run(command: list[str], *, stdin: str = "", stdout: str = "", stderr: str = "") -> "subprocess.Popen[bytes]":
    """Start a command with standard streams that are pipes, closed, or files."""
    redirections = []
    for number, what, mode in ((0, stdin, "<"), (1, stdout, ">"), (2, stderr, ">")):
        if what == CLOSED:
            redirections.append(f"{number}{mode}&-")
        elif what:
            redirections.append(f"{number}{mode}{what}")
    line = ["sh", "-c", f'exec "$@" {" ".join(redirections)}', "sh", *command]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def answers(group: LocalGroup) -> bool:
    """Whether the first replica's Redis port is open."""
    try:
        return await ask(group.redis[0], encode_command(b"PING")) == [b"PONG"]
    except OSError:
        return False


async def open_port(group: LocalGroup, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the replica serves."""
    async with asyncio.timeout(30):
        while not await answers(group):
            assert process.poll() is None, process.communicate()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("streams", [(CLOSED, "", ""), ("", CLOSED, ""), ("", "", CLOSED), (CLOSED, CLOSED, CLOSED)])
async def test_a_replica_serves_and_stops_without_its_standard_streams(
    streams: tuple[str, str, str], tmp_path: Path
) -> None:
    stdin, stdout, stderr = streams
    async with one_of_three(tmp_path, where=Storage.SQLITE) as group:
        process = run(group.command(0), stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            await open_port(group, process)
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 0
        assert b"Traceback" not in said


@pytest.mark.parametrize("stderr", ["", FULL])
async def test_a_replica_with_an_unwritable_output_still_serves(stderr: str, tmp_path: Path) -> None:
    async with one_of_three(tmp_path) as group:
        process = run(group.command(0), stdout=FULL, stderr=stderr)
        try:
            await open_port(group, process)
        finally:
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 0
        assert b"Traceback" not in said
        assert stderr or b"cannot write to standard output (No space left on device)" in said


@pytest.mark.parametrize("verb", [["--help"], ["simulate", "--seeds", "1"], ["exhaustive", "--help"]])
async def test_unwritable_output_is_a_failure_in_one_line(verb: list[str]) -> None:
    process = run([sys.executable, "-m", "pydsm", *verb], stdout=FULL)
    _, said = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert said == b"pydsm: cannot write to standard output: No space left on device\n"


async def test_a_verb_without_standard_streams_ends_with_its_status() -> None:
    process = run([sys.executable, "-m", "pydsm", "status", "127.0.0.1:1"], stdin=CLOSED, stdout=CLOSED, stderr=CLOSED)
    await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_at_any_time_during_the_start_ends_the_process_cleanly(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Imports, opened files and log lines show the progress of the start, so that the test needs no durations."""
    async with one_of_three(tmp_path, where=Storage.SQLITE) as group:
        moments = ["pydsm.cli.main", "typer", "pydsm.runtime.node", "asyncio.run", "store", "listening"]
        for moment in moments:
            program = INTERRUPTED_AT.replace("MOMENT", moment).replace("NUMBER", str(int(number)))
            command = [sys.executable, "-c", program, *group.command(0)[3:]]
            process = run(command)
            _, said = await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode in {0, 128 + number}, (moment, said)
            assert b"Traceback" not in said, moment
            assert said, moment


INTERRUPTED_AT = """
import os, sys
from pydsm.cli import entry
def now():
    os.kill(os.getpid(), NUMBER)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "MOMENT":
            now()
sys.meta_path.insert(0, Finder())
if "MOMENT" in ("asyncio.run", "store", "listening"):
    def prepare():
        from pydsm.cli import serve
        if "MOMENT" == "asyncio.run":
            original = serve._serve
            async def begin(settings):
                now()
                return await original(settings)
            serve._serve = begin
        elif "MOMENT" == "store":
            original = serve.SqliteStore.load
            def load(self):
                now()
                return original(self)
            serve.SqliteStore.load = load
        else:
            original = serve.announce
            def announce(line):
                original(line)
                now()
            serve.announce = announce
    from pydsm.cli import main
    run = main.run
    def prepared(arguments):
        prepare()
        return run(arguments)
    main.run = prepared
entry.main()
"""


async def test_a_replica_reports_ready_only_with_a_majority(tmp_path: Path) -> None:
    async with one_of_three(tmp_path, "--answer-seconds", "0.5") as group:
        try:
            await group.start(0)
            output = group.members[0].process
            assert output is not None
            assert output.stdout is not None

            async def refused() -> bool:
                (reply,) = await ask(group.redis[0], encode_command(b"SET", b"a", b"1"))
                assert isinstance(reply, ErrorReply)
                assert reply.message.startswith("CLUSTERDOWN ")
                return "the command was not executed" in reply.message

            async with asyncio.timeout(30):
                while not await refused():
                    pass
            assert "not ready: it waits until its peers have confirmed" in group.members[0].log.read_text()
            await group.start(1)
            async with asyncio.timeout(30):
                assert f"r1 {READY}: ".encode() in await output.stdout.readline()
                while await ask(group.redis[0], encode_command(b"SET", b"a", b"1")) != [b"OK"]:
                    pass
            await group.kill(1)
            (reply,) = await ask(group.redis[0], encode_command(b"SET", b"a", b"2"))
            assert isinstance(reply, ErrorReply)
            assert "CLUSTERDOWN no answer within 0.5 s" in reply.message
            assert "is unknown" in reply.message
        finally:
            await group.stop()


async def test_clients_cannot_use_up_the_descriptors_of_peers_and_watchers(tmp_path: Path) -> None:
    """Each replica may open 420 descriptors; clients try to take twice as many at one of them."""
    limited = Limited(3, tmp_path, 420)
    async with limited as group:
        (config,) = await ask(group.redis[0], encode_command(b"CONFIG", b"GET", b"maxclients"))
        assert isinstance(config, list)
        assert isinstance(config[1], bytes)
        most = int(config[1])
        assert 8 < most < 420
        assert f"at most {most} clients at a time" in group.members[0].log.read_text()
        clients = []
        try:
            refused = 0
            for _ in range(840):
                reader, writer = await asyncio.open_connection(*group.redis[0])
                clients.append(writer)
                writer.write(encode_command(b"PING"))
                line = await reader.readline()
                refused += line == b"-ERR max number of clients reached\r\n"
                assert line in {b"+PONG\r\n", b"-ERR max number of clients reached\r\n"}
            assert refused == 840 - most
            await group.kill(1)
            await group.start(1)
            await group.kill(2)
            (reply,) = await ask(group.redis[1], encode_command(b"SET", b"a", b"1"), seconds_max=30)
            assert reply == b"OK", "the crowded replica and the one that came back are a majority"
            text = group.members[0].log.read_text()
            assert "a client was refused" in text
            assert "Traceback" not in text
        finally:
            for writer in clients:
                writer.transport.abort()

        async def is_let_in() -> bool:
            return await ask(group.redis[0], encode_command(b"PING")) == [b"PONG"]

        async with asyncio.timeout(20):
            while not await is_let_in():
                pass


class Limited(LocalGroup):
    """Replicas with a limit on their descriptors."""

    def __init__(self, replicas: int, directory: Path, descriptors: int) -> None:
        super().__init__(replicas, directory)
        self._descriptors = descriptors

    def command(self, replica: int) -> list[str]:
        """See `LocalGroup`."""
        return ["sh", "-c", f'ulimit -n {self._descriptors}; exec "$@"', "sh", *super().command(replica)]


async def test_a_replica_without_descriptors_for_clients_names_the_limit_to_raise(tmp_path: Path) -> None:
    group = Limited(1, tmp_path, 250)
    group.choose_members()
    process = run(group.command(0))
    _, said = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 1
    assert b"none is left for clients; raise the limit (ulimit -n, LimitNOFILE)" in said.splitlines()[-1]
