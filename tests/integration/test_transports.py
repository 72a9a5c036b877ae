"""Groups of processes over TLS and ZeroMQ serve, and tolerate the same faults as groups over TCP."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from pydsm.bench.resp import ask, encode_command
from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.transport.tls import TlsFiles
from tests.certificates import authority
from tests.documents import ROOT, blocks
from tests.integration.groups import load
from tests.integration.test_group import connections, send_garbage


class EncryptedGroup(LocalGroup):
    """A group in which each replica has a separate certificate."""

    def __init__(self, directory: Path, files: list[TlsFiles], secret: Path | None = None) -> None:
        super().__init__(len(files), directory)
        self._files = files
        self._secret = secret

    def command(self, replica: int) -> list[str]:
        """See `LocalGroup`."""
        files = self._files[replica]
        options = ["--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca]
        if self._secret is not None:
            options += ["--secret-file", self._secret]
        return [*super().command(replica), *map(str, options)]


def made_group(kind: str, directory: Path) -> LocalGroup:
    """Create a group of three without starting it."""
    if kind == "tls":
        return EncryptedGroup(directory, [authority().issue(f"r{number}") for number in (1, 2, 3)])
    return LocalGroup(3, directory, Storage.SQLITE, "--transport", kind)


@pytest.mark.parametrize("kind", ["tls", "zeromq"])
async def test_a_group_serves_and_a_killed_replica_rejoins(kind: str, tmp_path: Path) -> None:
    async with made_group(kind, tmp_path) as group, connections(group) as clients, load(group) as busy:
        assert await clients[0].set("colour", "blue")
        assert [await client.get("colour") for client in clients] == ["blue"] * 3
        await busy.more_answers(300)
        await group.kill(2)
        await busy.more_answers(300, through=(0, 1))
        await group.start(2)
        await busy.more_answers(100, through=(2,))
        await busy.check()


@pytest.mark.parametrize("kind", ["tls", "zeromq"])
async def test_garbage_at_the_port_of_replicas_does_no_harm(kind: str, tmp_path: Path) -> None:
    async with made_group(kind, tmp_path) as group, load(group) as busy:
        await busy.more_answers(100)
        for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), b"\xff" * 200, b"\x16\x03\x01" + b"\xff" * 80):
            await asyncio.gather(*(send_garbage(member.listen, data) for member in group.members))
        await busy.more_answers(200)
        await busy.check()
        for member in group.members:
            assert "refused a connection" in member.log.read_text()
            assert "Traceback" not in member.log.read_text()


@pytest.mark.openssl
async def test_a_group_starts_with_a_secret_and_certificates_made_as_in_the_guide(tmp_path: Path) -> None:
    for commands in [block for block in blocks(ROOT / "docs/howto/encrypt.md", "sh") if "openssl" in block]:
        making = await asyncio.create_subprocess_exec("sh", "-ec", commands, cwd=tmp_path, stderr=subprocess.DEVNULL)
        assert await making.wait() == 0
    files = [TlsFiles(tmp_path / f"r{n}.pem", tmp_path / f"r{n}.key", tmp_path / "ca.pem") for n in (1, 2, 3)]
    async with EncryptedGroup(tmp_path / "group", files, tmp_path / "group.secret") as group:
        assert await ask(group.redis[0], encode_command(b"INCR", b"visits")) == [1]
        assert await ask(group.redis[2], encode_command(b"INCR", b"visits")) == [2]
