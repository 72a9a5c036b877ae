"""`pydsm status`: a replica's report as text and JSON, and one line if there is none."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pydsm.cli.main import run
from pydsm.core.types.counters import ProtocolCounters
from pydsm.runtime.maintenance import Maintenance
from pydsm.runtime.observation import Observation
from tests.ports import free_ports
from tests.unit.runtime.observations import AHEAD, READY, but
from tests.unit.server.http_ports import serving


@contextmanager
def replica(
    observe: Callable[[], Observation] = lambda: READY, maintenance: Maintenance | None = None
) -> Iterator[str]:
    """Runs an HTTP port on a separate event loop, since the command has none. Yields its address."""
    started = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with serving(observe, maintenance=maintenance) as server:
            ports.append(server.port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert started.wait(10), "the port did not open"
        yield f"127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def stranger(answer: bytes | None) -> Iterator[str]:
    """Runs a server that is not a replica: it sends these bytes to each connection, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


def said_by(capsys: pytest.CaptureFixture[str]) -> str:
    """The output of the command, independent of the width of the terminal."""
    return " ".join(capsys.readouterr().out.split())


def test_ready_replica_is_shown_with_all_members(capsys: pytest.CaptureFixture[str]) -> None:
    with replica() as address:
        assert run(["status", address]) == 0
    said = said_by(capsys)
    assert said.startswith("r1: replica 0 of 3 in group test, data 0000000000000abc, PyDSM")
    assert " ready " in said
    assert "│ r1 │ this replica │ │ 10 │ 10 │ 0 │" in said
    assert "│ r2 │ connected │ 0.1 s ago │ 20 │ 21 │ 1 │" in said
    assert "6 fast, 2 slow (75.0% of own commits were fast)" in said
    assert "1 recovered here, 1 nops" in said
    assert "4 commands, 2 turns in the disk queue" in said


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        (but(connected=()), "not ready: it sees 1 of 3 replicas"),
        (but(failure="disk is full"), "FAILED: it has failed: disk is full"),
        (but(counters=ProtocolCounters()), "0 fast, 0 slow (none yet)"),
        (but(connected=(1,)), "│ r3 │ not connected │"),
        (but(clock=AHEAD), "clock +11.0 s from the group time; r2 -11.0 s, r3 -11.5 s; agreed time was set 10 s ago"),
        (but(clock=AHEAD), "not ready: its clock shows 2023-11-14T22:13:31"),
        (but(), "clock the group time is unknown"),
    ],
)
def test_a_replica_that_is_not_ready_is_shown_with_the_reason(
    seen: Observation, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with replica(lambda: seen) as address:
        assert run(["status", address]) == 0
    assert shown in said_by(capsys)


def test_json_is_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    with replica() as address:
        assert run(["status", address, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"] == "r1"
    assert [member["name"] for member in said["members"]] == ["r1", "r2", "r3"]
    assert said["traffic"]["messages_sent"] == 100


def test_no_answer_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    assert run(["status", address]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pydsm: no connection to {address}: Connection refused")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"-ERR unknown command\r\n", "is not the HTTP port of a replica"),
        (b"", "is not the HTTP port of a replica"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is not the HTTP port of a replica"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "is not the HTTP port of a replica"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404 Not Found to /status"),
        (None, "within 0.2 s: the replica does not respond or is unreachable"),
    ],
    ids=["Redis", "closes", "other JSON", "half", "other web server", "hangs"],
)
def test_another_program_at_the_address_is_reported(
    answer: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stranger(answer) as address:
        assert run(["status", address, "--timeout", "0.2"]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_invalid_address_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "somewhere"]) == 2
    assert "'somewhere' is not an address: write HOST:PORT" in capsys.readouterr().err
