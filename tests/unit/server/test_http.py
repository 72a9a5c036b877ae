"""The answers of the HTTP port to valid and invalid requests."""

import asyncio
import json

import pytest

from pydsm.core.sessions.session_limits import RequestState
from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.errors import OperationalError
from pydsm.runtime.apply_gate import MachinePhase
from pydsm.runtime.observation import Observation
from pydsm.runtime.snapshot_transfer import PieceCounters
from pydsm.runtime.traces import RequestTrace
from pydsm.server.http import HttpLimits, HttpServer, Subject
from pydsm.transport.address import Address
from tests.ports import free_ports
from tests.unit.runtime.observations import AHEAD, READY, but
from tests.unit.server.http_ports import IDENTITY, NAMES, get, nothing_known, send, serving
from tests.waiting import eventually


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/status", "/ready?verbose=1"])
async def test_every_path_answers_200_when_all_is_well(path: str) -> None:
    async with serving() as server:
        answer = await get(server.port, path)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.body


async def test_failed_replica_is_neither_healthy_nor_ready() -> None:
    async with serving(lambda: but(failure="disk is full")) as server:
        for path in ("/health", "/ready"):
            answer = await get(server.port, path)
            assert (answer.status, answer.body) == (503, "it has failed: disk is full\n")


async def test_replica_without_a_quorum_is_healthy_and_not_ready() -> None:
    async with serving(lambda: but(connected=())) as server:
        assert (await get(server.port, "/health")).status == 200
        answer = await get(server.port, "/ready")
        assert answer.status == 503
        assert answer.body.startswith("it sees 1 of 3 replicas, itself included, and needs 2")
        assert answer.body.count("\n") == 1


async def test_metrics_have_the_values_of_the_time_of_the_request() -> None:
    seen = [READY]
    async with serving(lambda: seen[0]) as server:
        answer = await get(server.port, "/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = set(answer.body.splitlines())
        assert {
            "pydsm_healthy 1.0",
            "pydsm_ready 1.0",
            'pydsm_commits_total{path="fast"} 6.0',
            'pydsm_commits_total{path="slow"} 2.0',
            'pydsm_commits_total{path="recovered"} 1.0',
            'pydsm_recovery_decisions_total{rule="a rule"} 3.0',
            'pydsm_frontier{leader="r2"} 20.0',
            'pydsm_known{leader="r2"} 21.0',
            'pydsm_peer_connected{peer="r3"} 1.0',
            "pydsm_peer_messages_dropped_total 5.0",
            "pydsm_commands_waiting 4.0",
            "pydsm_disk_queue_turns 2.0",
            "pydsm_apply_queue_batches 0.0",
            "# TYPE pydsm_commits_total counter",
        } <= lines
        seen[0] = but(counters=ProtocolCounters(), connected=())
        lines = set((await get(server.port, "/metrics")).body.splitlines())
        assert {
            "pydsm_ready 0.0",
            'pydsm_commits_total{path="fast"} 0.0',
            'pydsm_peer_connected{peer="r3"} 0.0',
        } <= lines


async def test_metrics_report_batches_that_wait_for_a_paused_machine() -> None:
    seen = but(phase=MachinePhase.PAUSED, apply_queue_batches=12, apply_queue_bytes=3000)
    async with serving(lambda: seen) as server:
        lines = set((await get(server.port, "/metrics")).body.splitlines())
    assert {"pydsm_paused 1.0", "pydsm_apply_queue_batches 12.0", "pydsm_apply_queue_bytes 3000.0"} <= lines


async def test_metrics_report_snapshots_and_the_one_that_is_fetched() -> None:
    seen = but(checkpoint=7, snapshot=6, fetching=(9, 2048, None), pieces=PieceCounters(sent=3, kept=2, damaged=1))
    async with serving(lambda: seen) as server:
        lines = set((await get(server.port, "/metrics")).body.splitlines())
    assert {
        "pydsm_checkpoint 7.0",
        "pydsm_snapshot 6.0",
        "pydsm_fetching 1.0",
        "pydsm_fetched_bytes 2048.0",
        "pydsm_snapshot_pieces_sent_total 3.0",
        "pydsm_snapshot_pieces_damaged_total 1.0",
    } <= lines


async def test_a_wrong_clock_is_in_the_metrics_and_in_the_status() -> None:
    async with serving(lambda: but(clock=AHEAD)) as server:
        lines = set((await get(server.port, "/metrics")).body.splitlines())
        said = json.loads((await get(server.port, "/status")).body)
        ready = await get(server.port, "/ready")
    assert {
        "pydsm_clock_wrong 1.0",
        "pydsm_clock_difference_seconds 11.0",
        "pydsm_agreed_time_seconds 1.69999999e+09",
        'pydsm_peer_clock_difference_seconds{peer="r3"} -11.5',
    } <= lines
    assert (said["clock_ms"], said["group_clock_ms"]) == (1_700_000_011_000, 1_700_000_000_000)
    assert said["agreed_time_ms"] == 1_699_999_990_000
    assert said["members"][2]["clock_difference_ms"] == -11_500
    assert said["clock_fault"] == said["not_ready_because"]
    assert ready.body.startswith("its clock shows 2023-11-14T22:13:31")


async def test_two_ports_in_one_process_do_not_mix_their_metrics() -> None:
    async with serving() as one, serving(lambda: but(commands_waiting=99)) as other:
        assert "pydsm_commands_waiting 4.0" in (await get(one.port, "/metrics")).body
        assert "pydsm_commands_waiting 99.0" in (await get(other.port, "/metrics")).body


async def test_status_is_the_report_in_json() -> None:
    async with serving() as server:
        answer = await get(server.port, "/status")
        assert answer.headers["Content-Type"].startswith("application/json")
        said = json.loads(answer.body)
        assert (said["group"], said["name"], said["incarnation"]) == ("test", "r1", "0000000000000abc")
        assert (said["ready"], said["not_ready_because"], said["fast_share"]) == (True, None, 0.75)
        assert said["counters"]["fast"] == 6
        assert said["recovery_rules"] == {"a rule": 3}
        assert said["members"][1] == {
            "name": "r2",
            "replica": 1,
            "connected": True,
            "last_report_age_seconds": 0.1,
            "executed": 20,
            "known": 21,
            "lag": 1,
            "epoch": 4,
            "clock_difference_ms": None,
        }
        assert [member["epoch"] for member in said["members"]] == [None, 4, None]


async def test_head_is_answered_without_a_body() -> None:
    async with serving() as server:
        answer = await get(server.port, "/ready", method="HEAD")
        assert (answer.status, answer.body) == (200, "")


@pytest.mark.parametrize("path", ["/", "/nothing", "/ready/", "/../etc/passwd", "/%00"])
async def test_the_answer_to_an_unknown_path_lists_the_paths(path: str) -> None:
    async with serving() as server:
        answer = await get(server.port, path)
        assert answer.status == 404
        assert "/health, /ready, /metrics, /status" in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_method_that_would_change_something_is_refused(method: str) -> None:
    async with serving() as server:
        answer = await get(server.port, "/status", method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Many: 1\r\n" * 100 + b"\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n" + b"a" * 5000, 413),
        (b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"a" * 2048, 413),
        (b"*1\r\n$4\r\nPING\r\n", 400),
        (b"\x00\xff\xfe\r\n\r\n", 400),
    ],
    ids=["long path", "long header", "many headers", "long body", "long chunk", "Redis", "garbage"],
)
async def test_requests_that_are_too_large_or_not_http_are_refused_without_filling_the_log(
    request_bytes: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        assert (await send(server.port, request_bytes)).status == status
        assert (await get(server.port, "/health")).status == 200
    assert caplog.text == ""


async def test_failure_to_answer_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Observation:
        raise RuntimeError("cannot look")

    async with serving(broken) as server:
        assert (await get(server.port, "/ready")).status == 500
        assert (await get(server.port, "/metrics")).status == 500
    assert "cannot answer /ready" in caplog.text


async def test_connections_beyond_the_limit_are_closed_immediately_and_others_after_their_time() -> None:
    limits = HttpLimits(connections_max=2, connection_seconds_max=0.2)
    async with serving(limits=limits) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        assert (await get(server.port, "/health")).status == 0
        async with asyncio.timeout(10):
            for reader, writer in idle:
                assert await reader.read() == b""
                writer.close()
        assert (await get(server.port, "/health")).status == 200


async def test_stopping_does_not_wait_for_clients() -> None:
    async with serving() as server:
        _, idle = await asyncio.open_connection("127.0.0.1", server.port)
        reader, halfway = await asyncio.open_connection("127.0.0.1", server.port)
        halfway.write(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nhalf")
        await halfway.drain()
        assert (await get(server.port, "/health")).status == 200
        async with asyncio.timeout(5):
            await server.stop()
            await server.stop()
            await eventually(reader.at_eof, "the connection is closed")
        idle.close()
        halfway.close()


async def test_a_port_in_use_is_reported_with_its_address() -> None:
    (port,) = free_ports(1)
    address = Address("127.0.0.1", port)
    one, other = (HttpServer(Subject(IDENTITY, NAMES, lambda: READY, nothing_known)) for _ in range(2))
    await one.start(address)
    with pytest.raises(OperationalError, match=f"cannot listen for HTTP on {address}: .*free the port or use another"):
        await other.start(address)
    await other.stop()
    await one.stop()


async def test_a_request_is_traced_by_its_id() -> None:
    found = RequestTrace(
        request="0193a5c0-1b2c-7001-8000-00070000002a",
        replica=0,
        state=RequestState.KEPT.value,
        instances=(),
        remembered_instances=7,
        remembered_seconds=3.0,
    )
    async with serving(trace=lambda id: found) as server:
        answer = await get(server.port, f"/trace/{found.request}")
        assert answer.status == 200
        assert json.loads(answer.body)["state"] == "executed, and its result is kept"


async def test_an_invalid_or_unknown_request_id_is_refused_with_a_reason() -> None:
    async with serving() as server:
        answer = await get(server.port, "/trace/0193a5c0-1b2c-4001-8000-00070000002a")
        assert answer.status == 404
        assert "it is a UUID of version 4, and request ids have version 7" in answer.body
        answer = await get(server.port, "/trace/0193a5c0-1b2c-7abc-8000-00070000002a")
        assert answer.status == 404
        assert "it was first sent to replica 2748, and the group has replicas 0 to 2" in answer.body
        answer = await get(server.port, "/trace/nonsense")
        assert (answer.status, answer.body) == (400, "that is no request id: it is a UUID of 32 hexadecimal digits\n")
        answer = await get(server.port, "/trace/0193a5c0-1b2c-7001-8000-00070000002a")
        assert answer.status == 404
        assert "is not known at r1: none of the 7 instances of the last 3 s has it" in answer.body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST.", 200),
        ("r1.internal:8080", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("", 421),
    ],
)
async def test_a_request_with_another_host_name_is_refused(host: str, status: int) -> None:
    async with serving(hosts=("r1.internal",)) as server:
        for path in ("/status", "/metrics", "/ready", "/nothing"):
            answer = await send(server.port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert answer.status == (404 if status == 200 and path == "/nothing" else status)
            if answer.status == 421:
                assert "--http-hosts" in answer.body
        assert (await send(server.port, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200


async def test_two_host_names_are_refused_none_is_accepted_and_all_can_be_allowed() -> None:
    async with serving() as server:
        two = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
        assert (await send(server.port, two)).status in {400, 421}
        assert (await send(server.port, b"GET /status HTTP/1.0\r\n\r\n")).status == 200
    async with serving(hosts=("*",)) as server:
        assert (await send(server.port, b"GET /status HTTP/1.1\r\nHost: any.example\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"POST /status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\nabc",
        b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n12345",
        b"GET /status HTTP/1.1\r\nHos",
        b"\x16\x03\x01\x00\xff",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_that_is_cut_short_is_not_logged(
    data: bytes, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        await eventually(lambda: len(server._deadlines) == 1, "it is there")
        if reset:
            writer.transport.abort()
        else:
            writer.write_eof()
            await reader.read()
            writer.close()
        await eventually(lambda: not server._runner.server.connections, "it is gone")  # type: ignore[union-attr]
        assert (await get(server.port, "/status")).status == 200
    assert caplog.text == ""


async def test_the_answer_to_a_body_that_is_too_long_arrives_while_it_is_sent() -> None:
    async with serving() as server:
        head = b"POST /pause HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000000\r\n\r\n"
        answer = await send(server.port, head + b"a" * 3_000_000)
        assert answer.status == 413
        assert "1024 bytes" in answer.body
