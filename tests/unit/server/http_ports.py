"""An HTTP port for tests, and a client that sends any bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from pydsm.core.sessions.session_limits import RequestState
from pydsm.core.types.ids import ReplicaId, RequestId
from pydsm.runtime.maintenance import Maintenance
from pydsm.runtime.observation import Observation
from pydsm.runtime.traces import RequestTrace
from pydsm.server.http import HttpLimits, HttpServer, Subject
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from tests.unit.runtime.observations import READY

IDENTITY = Identity("test", "r1", ReplicaId(0), 3)
NAMES = ("r1", "r2", "r3")


def nothing_known(id: RequestId) -> RequestTrace:
    """The trace of a request that never came."""
    return RequestTrace(
        request=str(UUID(bytes=id)),
        replica=0,
        state=RequestState.NEW.value,
        instances=(),
        remembered_instances=7,
        remembered_seconds=3.0,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 when the connection was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: str


async def send(port: int, request: bytes) -> Answer:
    """Send these bytes and read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            return parse(await reader.read())
    except ConnectionError:
        return parse(b"")
    finally:
        writer.close()


def parse(data: bytes) -> Answer:
    """Take an answer apart."""
    if not data:
        return Answer(0, {}, "")
    head, _, body = data.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)


async def get(port: int, path: str, method: str = "GET") -> Answer:
    """One ordinary request."""
    return await send(port, f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


@asynccontextmanager
async def serving(
    observe: Callable[[], Observation] = lambda: READY,
    limits: HttpLimits | None = None,
    trace: Callable[[RequestId], RequestTrace] = nothing_known,
    maintenance: Maintenance | None = None,
    hosts: tuple[str, ...] = (),
) -> AsyncIterator[HttpServer]:
    """A port that reports what `observe` gives."""
    server = HttpServer(Subject(IDENTITY, NAMES, observe, trace, maintenance, hosts), limits=limits)
    await server.start(Address("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()
