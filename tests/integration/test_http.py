"""The HTTP port of a real replica: `pydsm serve --http` and `pydsm status`."""

import asyncio
import sys
from pathlib import Path

import msgspec

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.server.report import StatusReport
from tests.integration.test_refusals import outcome
from tests.ports import free_ports


async def status_of(address: str) -> StatusReport:
    """The output of `pydsm status --json`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pydsm", "status", address, "--json", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return msgspec.json.decode(said, type=StatusReport)


async def test_replica_reports_its_status_and_an_http_port_in_use_is_refused(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with LocalGroup(1, tmp_path / "first", Storage.MEMORY, "--http", address) as first:
        report = await status_of(address)
        assert (report.name, report.ready, report.members[0].name) == (first.members[0].name, True, "r1")

        second = LocalGroup(1, tmp_path / "second", Storage.MEMORY, "--http", address)
        second.choose_members()
        status, said = await outcome(second.command(0))
        assert status == 1
        assert f"cannot listen for HTTP on {address}" in said
