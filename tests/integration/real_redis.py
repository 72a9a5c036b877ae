"""A real Redis server for one test, and a connection to it that returns the bytes of replies.

Debian's redis-tools contains the server's program under another name; it acts as the server if called by its own name.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydsm.bench.resp import encode_command
from pydsm.cli.local_group import free_ports


class Redis:
    """A connection to a real server, which returns the bytes of replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, words: list[bytes]) -> bytes:
        """One command, one reply."""
        self._writer.write(encode_command(*words))
        async with asyncio.timeout(20):
            return await self._reply()

    async def ask_line(self, line: bytes) -> bytes:
        """One inline command, without its line end; one reply."""
        self._writer.write(line + b"\r\n")
        async with asyncio.timeout(20):
            return await self._reply()

    async def _reply(self) -> bytes:
        line = await self._reader.readline()
        kind, number = line[:1], line[1:-2]
        if kind in b"+-:_,#" or number == b"-1":
            return line
        if kind == b"$":
            return line + await self._reader.readexactly(int(number) + 2)
        assert kind in b"*~%", line
        items = 2 * int(number) if kind == b"%" else int(number)
        return line + b"".join([await self._reply() for _ in range(items)])


@asynccontextmanager
async def real_redis(directory: Path, *options: str) -> AsyncIterator[Redis]:
    """Runs a server without persistence on a free port, with these additional options."""
    program = shutil.which("redis-server")
    if program is None:
        checker = shutil.which("redis-check-rdb")
        assert checker, "neither redis-server nor redis-check-rdb is installed: apt-get install redis-tools"
        program = str(directory / "redis-server")
        os.symlink(checker, program)
    (port,) = free_ports(1)
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory), *options]
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while b"Ready to accept connections" not in await process.stdout.readline():
                assert process.returncode is None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Redis(reader, writer)
        finally:
            writer.close()
    finally:
        process.kill()
        await process.communicate()
