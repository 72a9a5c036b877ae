"""The paths of the HTTP port that change the replica, and which callers they accept."""

import msgspec
import pytest

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.runtime.maintenance import Maintenance, PauseReport, ResumeReport, SnapshotReport
from pydsm.server.admin import is_same_computer
from pydsm.server.http import HttpLimits
from tests.unit.server.http_ports import get, send, serving

SNAPSHOT = SnapshotReport(number=3, position=(1, 2, 3), chunks=2, bytes=100, seconds=0.5, path="/data/3.snapshot")


class Pretended(Maintenance):
    """Does nothing, and says what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.trouble: Exception | None = None

    async def pause(self, drain_seconds_max: float = 5.0) -> PauseReport:
        self._note("pause", drain_seconds_max)
        return PauseReport(already=False, commands_unanswered=7)

    async def resume(self) -> ResumeReport:
        self._note("resume", 0)
        return ResumeReport(already=False, batches=12, seconds=0.25)

    async def snapshot(self, seconds_max: float = 60.0) -> SnapshotReport:
        self._note("snapshot", seconds_max)
        return SNAPSHOT

    def _note(self, verb: str, seconds: float) -> None:
        self.asked.append((verb, seconds))
        if self.trouble is not None:
            raise self.trouble


async def test_each_action_is_executed_and_reported() -> None:
    made = Pretended()
    async with serving(maintenance=made) as server:
        assert (await get(server.port, "/pause?seconds=2.5", "POST")).status == 200
        assert (await get(server.port, "/resume", "POST")).status == 200
        answer = await get(server.port, "/snapshot", "POST")
        assert msgspec.json.decode(answer.body, type=SnapshotReport) == SNAPSHOT
    assert made.asked == [("pause", 2.5), ("resume", 0), ("snapshot", 60)]


@pytest.mark.parametrize("path", ["/pause", "/resume", "/snapshot"])
async def test_get_requests_change_nothing(path: str) -> None:
    made = Pretended()
    async with serving(maintenance=made) as server:
        answer = await get(server.port, path)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert made.asked == []


@pytest.mark.parametrize(
    "header",
    [
        b"Origin: http://test",
        b"Origin: null",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-origin",
        b"Referer: http://test/",
    ],
)
async def test_requests_of_web_pages_change_nothing(header: bytes) -> None:
    made = Pretended()
    async with serving(maintenance=made) as server:
        request = b"POST /pause HTTP/1.1\r\nHost: 127.0.0.1\r\n" + header + b"\r\n\r\n"
        answer = await send(server.port, request)
        assert (answer.status, answer.body.startswith("web pages may change nothing")) == (403, True)
    assert made.asked == []


async def test_requests_of_other_computers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydsm.server.admin.is_same_computer", lambda caller, here: False)
    made = Pretended()
    async with serving(maintenance=made) as server:
        answer = await get(server.port, "/pause", "POST")
        assert (answer.status, "on the replica's own computer" in answer.body) == (403, True)
    assert made.asked == []


@pytest.mark.parametrize(
    ("caller", "here", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.7", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("10.0.0.2", "10.0.0.1", False),
        ("::ffff:10.0.0.2", "::ffff:10.0.0.1", False),
        ("fe80::2%eth0", "fe80::1%eth0", False),
    ],
)
def test_same_computer_is_loopback_or_an_equal_address(caller: str, here: str, same: bool) -> None:
    assert is_same_computer(caller, here) is same


@pytest.mark.parametrize("seconds", ["soon", "-1", "601", "nan", "inf"])
async def test_an_invalid_time_is_refused(seconds: str) -> None:
    made = Pretended()
    async with serving(maintenance=made) as server:
        assert (await get(server.port, f"/snapshot?seconds={seconds}", "POST")).status == 400
    assert made.asked == []


@pytest.mark.parametrize(("trouble", "status"), [(UsageError("is pausing"), 409), (OperationalError("no room"), 503)])
async def test_a_failure_is_reported_in_one_line(trouble: Exception, status: int) -> None:
    made = Pretended()
    made.trouble = trouble
    async with serving(maintenance=made) as server:
        answer = await get(server.port, "/snapshot", "POST")
        assert (answer.status, answer.body) == (status, f"{trouble}\n")


async def test_a_port_without_maintenance_has_no_such_paths() -> None:
    async with serving() as server:
        assert (await get(server.port, "/pause", "POST")).status == 404


async def test_a_connection_that_waits_for_a_snapshot_has_a_longer_time_limit() -> None:
    class Slow(Pretended):
        async def snapshot(self, seconds_max: float = 60.0) -> SnapshotReport:
            assert (await send(port, b"GET /status")).status == 0, "another connection has reached its limit"
            return SNAPSHOT

    async with serving(maintenance=Slow(), limits=HttpLimits(connection_seconds_max=1.0)) as server:
        port = server.port
        assert (await get(port, "/snapshot", "POST")).status == 200
