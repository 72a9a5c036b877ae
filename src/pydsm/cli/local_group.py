"""Runs a group of `pydsm serve` processes on this machine, for the demo and for tests."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pydsm.cli.announce import LISTENING
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import OperationalError
from pydsm.transport.address import Address

_HOST = "127.0.0.1"
_PORTS = (10_000, 32_000)
"""Below the range of outgoing connections, so that no process takes a port between its choice and its use."""
_STARTS_MAX = 3
_READY_SECONDS_MAX = 60
_STOP_SECONDS_MAX = 10


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which no process listens, outside the range of outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(*_PORTS)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class LocalReplica:
    """One replica of the group, running or not."""

    name: str
    listen: Address
    redis: Address
    clients: Address
    data: Path
    log: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process exists."""
        return self.process is not None and self.process.returncode is None

    def last_log_line(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"


class LocalGroup:
    """Replicas r1, r2, ... with data and logs in `directory`. Use as an async context manager."""

    def __init__(self, replicas: int, directory: Path, storage: Storage = Storage.SQLITE, *options: str) -> None:
        self.members: list[LocalReplica] = []
        self._replicas = replicas
        self._directory = directory
        self._storage = storage
        self._options = options

    @property
    def redis(self) -> list[Address]:
        """The addresses for Redis clients, by replica."""
        return [member.redis for member in self.members]

    @property
    def clients(self) -> list[Address]:
        """The addresses for native clients, by replica."""
        return [member.clients for member in self.members]

    async def __aenter__(self) -> "LocalGroup":
        for attempt in range(1, _STARTS_MAX + 1):
            self.choose_members()
            try:
                await asyncio.gather(*(self.start(replica) for replica in range(self._replicas)))
                return self
            except OperationalError as fault:
                await self.stop()
                if "free the port" not in str(fault) or attempt == _STARTS_MAX:
                    raise
            except BaseException:
                await self.stop()
                raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def choose_members(self) -> None:
        """Choose names, directories and free ports of all replicas; called when the context is entered."""
        self._directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(3 * self._replicas)
        self.members = [
            LocalReplica(
                name=f"r{number}",
                listen=Address(_HOST, ports.pop()),
                redis=Address(_HOST, ports.pop()),
                clients=Address(_HOST, ports.pop()),
                data=self._directory / f"r{number}",
                log=self._directory / f"r{number}.log",
            )
            for number in range(1, self._replicas + 1)
        ]

    def address_for(self, replica: int, peer: int) -> Address:
        """The address at which one replica dials another. Override it to insert a proxy."""
        return self.members[peer].listen

    def command(self, replica: int) -> list[str]:
        """The command line that starts this replica."""
        member = self.members[replica]
        addresses = [self.address_for(replica, peer) for peer in range(len(self.members))]
        peers = ",".join(f"{one.name}={address}" for one, address in zip(self.members, addresses, strict=True))
        line = [sys.executable, "-m", "pydsm", "serve", "--name", member.name, "--peers", peers]
        line += ["--listen", str(member.listen), "--redis", str(member.redis)]
        line += ["--native", str(member.clients)]
        line += ["--storage", self._storage.value, "--data-dir", str(member.data), *self._options]
        return line

    async def start(self, replica: int) -> None:
        """Start one replica and wait until it listens. Raises OperationalError, with its last log line."""
        member = self.members[replica]
        with member.log.open("ab") as log:
            member.process = await asyncio.create_subprocess_exec(
                *self.command(replica),
                "--until-stdin-closes",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("PYDSM_")},
            )
        output = member.process.stdout
        assert output is not None
        try:
            async with asyncio.timeout(_READY_SECONDS_MAX):
                line = await output.readline()
        except TimeoutError:
            line = b""
        if f"{member.name} {LISTENING}".encode() not in line:
            raise OperationalError(f"replica {member.name} did not start: {member.last_log_line()}")

    def check_running(self) -> None:
        """Raises OperationalError for a replica that has ended, with its last log line."""
        for member in self.members:
            if not member.is_running:
                raise OperationalError(f"replica {member.name} has ended unexpectedly: {member.last_log_line()}")

    async def kill(self, replica: int) -> None:
        """End one replica with SIGKILL: it loses everything that it has not synchronised."""
        await self._end(self.members[replica], signal.SIGKILL)

    async def terminate(self, replica: int) -> int:
        """End one replica with SIGTERM. Returns its exit status."""
        return await self._end(self.members[replica], signal.SIGTERM)

    async def stop(self) -> None:
        """Stop all running replicas, first with SIGTERM."""
        await asyncio.gather(*(self._end(member, signal.SIGTERM) for member in self.members if member.is_running))

    async def _end(self, member: LocalReplica, number: signal.Signals) -> int:
        process = member.process
        if process is None:
            raise OperationalError(f"replica {member.name} was never started")
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_SECONDS_MAX):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
        return await process.wait()
