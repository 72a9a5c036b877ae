"""`pydsm trace` with real replicas: each of them can trace a request."""

import asyncio
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import msgspec

from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.client import Client
from pydsm.machines.kv import encode
from pydsm.runtime.traces import RequestTrace
from tests.ports import free_ports


class WatchedGroup(LocalGroup):
    """A group whose replicas have HTTP ports."""

    http: tuple[str, ...] = ()

    def choose_members(self) -> None:
        """See `LocalGroup`."""
        super().choose_members()
        self.http = tuple(f"127.0.0.1:{port}" for port in free_ports(len(self.members)))

    def command(self, replica: int) -> list[str]:
        """See `LocalGroup`."""
        return [*super().command(replica), "--http", self.http[replica]]


async def traced(*arguments: str) -> tuple[int, str]:
    """Exit status and output of `pydsm trace`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pydsm", "trace", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def executed_at(address: str, id: UUID) -> RequestTrace:
    """Wait until the replica has executed the request, and return its trace."""
    async with asyncio.timeout(10):
        while True:
            status, said = await traced(str(id), address, "--json")
            if status == 0:
                found = msgspec.json.decode(said, type=RequestTrace)
                if any(instance.status == "executed" for instance in found.instances):
                    return found
            await asyncio.sleep(0.05)


async def test_every_replica_can_trace_a_request(tmp_path: Path) -> None:
    names: list[UUID] = []
    group = WatchedGroup(3, tmp_path)
    async with group, Client(group.clients, prefer=group.clients[1]) as client:
        await client.execute(encode([b"INCR", b"count"]), on_request_id=names.append)
        (id,) = names
        told: set[str] = set()
        path = None
        for replica, address in enumerate(group.http):
            found = await executed_at(address, id)
            (instance,) = found.instances
            assert found.replica == replica
            assert found.state == "executed, and its result is kept"
            told.add(instance.id)
            path = instance.path
            assert path in ("fast", "slow")  # on a loaded machine, the answers of a fast quorum may be late
            assert instance.name == str(id)
            assert next(iter(instance.stages_ms)) == "pre-accepted"
        (instance_id,) = told  # of whichever replica was ready first
        status, said = await traced(str(id), group.http[2])
        assert status == 0
        assert f"instance {instance_id}: executed, {path}" in said
        assert "executed, and its result is kept" in said


async def test_a_restarted_replica_can_trace_executed_requests(tmp_path: Path) -> None:
    names: list[UUID] = []
    group = WatchedGroup(3, tmp_path)
    async with group, Client(group.clients, prefer=group.clients[1]) as client:
        await client.execute(encode([b"INCR", b"count"]), on_request_id=names.append)
        await group.kill(1)
        await group.start(1)
        found = await executed_at(group.http[1], names[0])
        assert found.state == "executed, and its result is kept"


async def test_an_unknown_request_is_reported_with_the_reason(tmp_path: Path) -> None:
    group = WatchedGroup(1, tmp_path, Storage.MEMORY)
    async with group:
        status, said = await traced("not-an-id", group.http[0])
        assert status == 2
        assert "'not-an-id' is not a request id: a request id is a UUID" in said
        status, said = await traced("00000000-0000-4000-8000-000000000000", group.http[0])
        assert status == 2
        assert "request ids are UUIDs of version 7" in said
        status, said = await traced("0193a5c0-1b2c-7000-8000-00070000002a", group.http[0])
        assert status == 1
        assert "0193a5c0-1b2c-7000-8000-00070000002a is not known at r1" in said
