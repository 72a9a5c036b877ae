"""Authentication in a group of real processes: secrets, errors in --peers, silent connections, and shown identities."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pydsm.bench.resp import ask, encode_command
from pydsm.cli.local_group import LocalGroup, free_ports
from pydsm.cli.serve import Storage
from pydsm.cli.status import ask_http
from pydsm.storage.examination import DATABASE_NAME
from pydsm.transport.address import Address
from tests.integration.groups import load
from tests.waiting import eventually

INCREMENT = encode_command(b"INCR", b"visits")


class MixedGroup(LocalGroup):
    """Replicas whose command lines can be changed separately before they are started."""

    def __init__(self, directory: Path, replicas: int = 3) -> None:
        super().__init__(replicas, directory)
        self.extra: dict[int, list[str]] = {}
        self.order: dict[int, list[int]] = {}
        """In which order a replica is given the members, where that is not the right one."""

    def command(self, replica: int) -> list[str]:
        """See `LocalGroup`."""
        line = super().command(replica)
        if replica in self.order:
            members = [self.members[number] for number in self.order[replica]]
            peers = ",".join(f"{member.name}={member.listen}" for member in members)
            line[line.index("--peers") + 1] = peers
        return [*line, *self.extra.get(replica, [])]

    def said(self, replica: int) -> str:
        """The present log of a replica."""
        return self.members[replica].log.read_text()


def secret_file(directory: Path, name: str, value: str) -> list[str]:
    """The option for a file with this secret."""
    file = directory / name
    file.write_text(value)
    file.chmod(0o600)
    return ["--secret-file", str(file)]


@pytest.mark.parametrize("transport", ["tcp", "zeromq"])
async def test_a_replica_without_the_groups_secret_is_refused_until_it_has_the_secret(
    transport: str, tmp_path: Path
) -> None:
    group = MixedGroup(tmp_path / "group")
    right = secret_file(tmp_path, "right", "the secret of this group, " * 3)
    wrong = secret_file(tmp_path, "wrong", "another secret altogether")
    kind = ["--transport", transport]
    group.extra = {0: [*right, *kind], 1: [*right, *kind], 2: [*wrong, *kind]}
    async with group:
        assert await ask(group.redis[0], INCREMENT) == [1]
        reason = "r3 and r1 have different group secrets: give the same --secret-file to all"
        await eventually(lambda: reason in group.said(0), "r1 says why")
        await eventually(lambda: f"it refuses us: {reason}" in group.said(2), "r3 says why")
        await group.terminate(2)
        group.extra[2] = [*right, *kind]
        await group.start(2)
        assert await ask(group.redis[2], INCREMENT) == [2]
        for replica in range(3):
            assert "the secret of this group" not in group.said(replica)


async def test_a_wrong_order_of_peers_at_the_first_start_is_reported_and_can_be_corrected(tmp_path: Path) -> None:
    group = MixedGroup(tmp_path / "group")
    group.order = {2: [0, 2, 1]}
    async with group:
        assert await ask(group.redis[0], INCREMENT) == [1]
        addresses = [str(member.listen) for member in group.members]
        theirs = f"r3 has r1={addresses[0]}, r3={addresses[2]}, r2={addresses[1]}"
        ours = f"r1 has r1={addresses[0]}, r2={addresses[1]}, r3={addresses[2]}"
        said = f"r3 and r1 were given different members: {theirs}; {ours}; give --peers the same names in the same"
        await eventually(lambda: said in group.said(0), "r1 names both lists")
        await eventually(lambda: f"it refuses us: {said}" in group.said(2), "r3 names both lists")
        await group.terminate(2)
        del group.order[2]
        shutil.rmtree(group.members[2].data)  # it says that it is number 1 of the group
        await group.start(2)
        assert await ask(group.redis[2], INCREMENT) == [2]


async def test_silent_connections_do_not_prevent_replicas_from_connecting(tmp_path: Path) -> None:
    async with LocalGroup(3, tmp_path, Storage.SQLITE) as group, load(group) as busy:
        await busy.more_answers(100)
        await group.kill(2)
        silent = [
            await asyncio.open_connection(member.listen.host, member.listen.port)
            for member in group.members[:2]
            for _ in range(100)
        ]
        await group.start(2)
        await busy.more_answers(100, through=(2,))
        assert group.members[0].log.read_text().count("too many connections have not completed the handshake") <= 10
        for _, writer in silent:
            writer.transport.abort()
        await busy.check()


async def test_no_output_of_a_replica_contains_an_incarnation(tmp_path: Path) -> None:
    group = MixedGroup(tmp_path / "group")
    http = [Address("127.0.0.1", port) for port in free_ports(3)]
    group.extra = {replica: ["--http", str(address)] for replica, address in enumerate(http)}
    shown: list[str] = []
    async with group:
        assert await ask(group.redis[0], INCREMENT) == [1]
        for replica, address in enumerate(http):
            shown.append(repr(await ask(group.redis[replica], encode_command(b"INFO", b"everything"))))
            for path in ("/status", "/metrics", "/ready", "/health"):
                _, body = await asyncio.to_thread(ask_http, address, path, 5)
                shown.append(body.decode())
        await group.terminate(2)
        kept = group.members[2].data
        old = _incarnation(kept)
        shutil.rmtree(kept)
        await group.start(2)
        await eventually(lambda: "r3 came back without its data" in group.said(0), "it is refused")
        await eventually(lambda: "r3 came back without its data" in group.said(2), "and told so")
    shown += [group.said(replica) for replica in range(3)]
    for incarnation in [old, *(_incarnation(member.data) for member in group.members)]:
        for form in (f"{incarnation:016x}", str(incarnation)):
            assert not any(form in text for text in shown)


def _incarnation(data: Path) -> int:
    with closing(sqlite3.connect(data / DATABASE_NAME)) as database:
        (text,) = database.execute("SELECT value FROM meta WHERE name = 'incarnation'").fetchone()
    return int(text, 16)
