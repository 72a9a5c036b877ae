"""A ledger of accounts in a SQLite file, replicated three times; its replicas are killed, and no balance is wrong.

    python examples/ledger.py

starts three replicas as processes, moves money between accounts, kills replicas with SIGKILL meanwhile and finally all
of them together, starts them again, and compares every account of every replica with the expected balance.

`Ledger` is the important part: each batch and its applied marker are committed in one transaction, so PyDSM finds after
a crash which batches are in the file, and executes only the missing ones. See docs/howto/your-own-machine.md.
"""

import asyncio
import hashlib
import json
import logging
import random
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pydsm.client import Client
from pydsm.core.types.config import Config
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.runtime.snapshot_transfer import RestartRequired
from pydsm.server.native import NativeServer
from pydsm.server.native_connection import NativeServerContext
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.members import Member
from pydsm.transport.tcp import TcpTransport

TABLES = """
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS markers (name TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
"""
ADD = "INSERT INTO accounts VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET balance = balance + ?2"


class Ledger:
    """Commands are JSON: ["deposit", account, amount], ["move", from, to, amount] or ["balance", account]."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # what every machine has: the keys of commands, and their execution

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """Deposits to one account commute: their result does not depend on its balance."""
        deposits, writes, reads = set(), set(), set()
        for command in commands:
            match json.loads(command):
                case ["deposit", str(account), int()]:
                    deposits.add(account.encode())
                case ["move", str(source), str(target), int()]:
                    writes |= {source.encode(), target.encode()}
                case ["balance", str(account)]:
                    reads.add(account.encode())
                case _:
                    raise UsageError(f"{command!r} is not a command of the ledger")
        return Footprint(tuple(sorted(reads)), tuple(sorted(writes)), ((b"deposit", tuple(sorted(deposits))),))

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Executes the commands in a transaction, which `commit` ends."""
        return [self._execute(*json.loads(command)) for command in commands]

    def _execute(self, verb: str, account: str, *rest: str | int) -> Result:
        if verb == "deposit":
            self.file.execute(ADD, (account, *rest))
            return None
        row = self.file.execute("SELECT balance FROM accounts WHERE name = ?", (account,)).fetchone()
        balance: int = row[0] if row else 0
        if verb == "balance":
            return balance
        target, amount = str(rest[0]), int(rest[1])
        if not 0 <= amount <= balance:
            return CommandFailed(f"{account} has {balance}, and so cannot give {amount}")
        self.file.execute(ADD, (account, -amount))
        self.file.execute(ADD, (target, amount))
        return balance - amount

    def digest(self) -> bytes:
        """The digest of all accounts."""
        rows = self.file.execute("SELECT name, balance FROM accounts ORDER BY name").fetchall()
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=32).digest()

    # a command that raises is undone, and one that finds the disk full is executed again after a restart

    local_faults = (sqlite3.OperationalError,)

    def savepoint(self) -> None:
        """Set a savepoint in the transaction."""
        self.file.execute("SAVEPOINT command")

    def rollback(self) -> None:
        """Undo everything since the savepoint."""
        self.file.execute("ROLLBACK TO command")

    # opening and closing the file

    async def start(self) -> None:
        """Open the file. Commits need not be synchronous: what a power failure loses is executed again."""
        self.file = sqlite3.connect(self.path, check_same_thread=False)
        self.file.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + TABLES)

    async def stop(self) -> None:
        """Close the file; what is not committed is undone."""
        self.file.close()

    # snapshots: for replicas that need the state, and to compare the states of replicas

    def snapshot(self) -> Iterator[bytes]:
        """The current state: a second connection reads one version of the file, whatever is written meanwhile."""
        view = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        view.execute("BEGIN")
        view.execute("SELECT count(*) FROM accounts").fetchone()  # the first read fixes the version
        return self._chunks(view)

    def _chunks(self, view: sqlite3.Connection) -> Iterator[bytes]:
        with closing(view):
            rows = view.execute("SELECT name, balance FROM accounts ORDER BY name")
            while some := rows.fetchmany(500):
                yield json.dumps(some).encode()

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace all accounts, in a transaction that `commit` ends."""
        self.file.execute("DELETE FROM accounts")
        for chunk in chunks:
            self.file.executemany("INSERT INTO accounts VALUES (?, ?)", json.loads(chunk))

    # applied markers of PyDSM, stored in the same transaction as the accounts

    def commit(self, marker: str, content: bytes, obsolete: Sequence[str]) -> None:
        """Commit everything since the last commit, with this marker; delete the obsolete markers."""
        self.file.execute("INSERT OR REPLACE INTO markers VALUES (?, ?)", (marker, content))
        self.file.executemany("DELETE FROM markers WHERE name = ?", [(name,) for name in obsolete])
        self.file.commit()

    def marker(self, name: str) -> bytes | None:
        """The content of one marker."""
        row = self.file.execute("SELECT content FROM markers WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def markers(self) -> list[str]:
        """The names of all markers."""
        return [name for (name,) in self.file.execute("SELECT name FROM markers")]


# One replica, in its own process


async def serve(number: int, directory: Path, ports: list[int]) -> None:
    """Run a replica until the process ends. The first half of the ports is for replicas, the second for clients."""
    members = len(ports) // 2
    addresses = [Address("127.0.0.1", port) for port in ports]
    me, names = ReplicaId(number), tuple(f"r{one}" for one in range(members))
    identity = Identity("ledger", names[number], me, members)
    data = directory / names[number]
    data.mkdir(parents=True, exist_ok=True)

    def transport(incarnation: int, admit: Admit, starts: StartExchange) -> TcpTransport:
        peers = {ReplicaId(one): addresses[one] for one in range(members) if one != number}
        listed = tuple(Member(name, str(at)) for name, at in zip(names, addresses, strict=False))
        own = LocalIdentity("ledger", me, members, incarnation, members=listed)
        return TcpTransport(own, addresses[number], peers, admit, starts)

    config = Config(me, members, checkpoint_instances_max=50)  # a low limit, so that this short run has checkpoints
    machine, store = Ledger(data / "ledger.sqlite"), SqliteStore(data, identity)
    node = Node(config, NodeComponents(machine, store, transport, snapshots=SnapshotFiles(data, identity), names=names))
    await node.start()
    server = NativeServer(
        node.submit_requests, NativeServerContext(identity, names, lambda: True, node.grant, node.session_ms)
    )
    await server.start(addresses[members + number])
    print("ready", flush=True)
    reason = await node.failure
    if not isinstance(reason, RestartRequired):
        raise reason
    await node.stop()
    await server.stop()
    await serve(number, directory, ports)  # it fetched a snapshot, and restarts from it


# The group, its clients, and the final check


class Processes:
    """Three replicas, by number."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.directory, self.ports = directory, ports
        self.running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, number: int) -> None:
        """Start one replica, and wait until it accepts clients."""
        line = [sys.executable, __file__, str(number), str(self.directory), *map(str, self.ports)]
        process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
        self.running[number] = process
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n", f"replica {number} did not start"

    async def kill(self, *numbers: int) -> None:
        """Kill these replicas with SIGKILL, so that they cannot write anything more."""
        for number in numbers:
            self.running[number].send_signal(signal.SIGKILL)
        for number in numbers:
            await self.running.pop(number).wait()


async def main(directory: Path) -> None:
    """Send commands, kill replicas, compare. Raises AssertionError if a balance is wrong."""
    ports, chance, expected = free_ports(6), random.Random(7), Counter[str]()
    group = Processes(directory, ports)

    async def work(client: Client, rounds: int) -> None:
        for _ in range(rounds):
            source, target = chance.sample("ABCDEFGH", 2)
            deposits = [json.dumps(["deposit", source, 10]).encode()] * chance.randint(1, 20)
            outcomes = await client.execute_many(deposits)
            assert outcomes == [None] * len(deposits), outcomes
            expected[source] += 10 * len(deposits)
            left = await client.execute(json.dumps(["move", source, target, 7]).encode())
            expected.update({source: -7, target: 7})
            assert left == expected[source], f"{source} has {left}, and not {expected[source]}"

    try:
        await asyncio.gather(*(group.start(number) for number in range(3)))
        async with Client([f"127.0.0.1:{port}" for port in ports[3:]]) as client:
            await work(client, 60)
            for number in (0, 1, 2):
                working = asyncio.create_task(work(client, 60))
                await group.kill(number)
                await group.start(number)
                await working
            await group.kill(0, 1, 2)
            await asyncio.gather(*(group.start(number) for number in range(3)))
            for account, balance in expected.items():
                assert await client.execute(json.dumps(["balance", account]).encode()) == balance
            await work(client, 20)
        for number in range(3):  # each alone: a replica that answers has executed everything before
            async with Client([f"127.0.0.1:{ports[3 + number]}"]) as client:
                for account, balance in expected.items():
                    assert await client.execute(json.dumps(["balance", account]).encode()) == balance
        await group.kill(0, 1, 2)
        for number in range(3):
            with closing(sqlite3.connect(directory / f"r{number}" / "ledger.sqlite")) as file:
                assert dict(file.execute("SELECT name, balance FROM accounts")) == expected
        print(f"exact: {len(expected)} accounts with {sum(expected.values())} together, at all three replicas")
    finally:
        await group.kill(*group.running)


def free_ports(count: int) -> list[int]:
    """Ports that are free."""
    from pydsm.cli.local_group import free_ports as choose  # noqa: PLC0415 - not for the replicas

    return choose(count)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        logging.basicConfig(level=logging.ERROR)  # lost connections are expected here
        asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
    else:
        with tempfile.TemporaryDirectory() as made:
            asyncio.run(main(Path(made)))
