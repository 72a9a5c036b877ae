"""TLS between replicas: nothing readable on the wire, wrong certificates refused, helpful reasons."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.messages import Batch, Footprint, PreAccept
from pydsm.transport.frames import PREAMBLE
from pydsm.transport.limits import TransportLimits
from pydsm.transport.tls import TlsFiles, load_tls
from tests.certificates import authority
from tests.ports import free_ports
from tests.unit.transport.groups import End, group, hello, started, tcp_end, who
from tests.waiting import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def pair(first: TlsFiles | None, second: TlsFiles | None) -> AsyncIterator[list[End]]:
    """Two replicas that were started with these files."""
    ports = free_ports(2)
    ends = [tcp_end(who(replica, 2), ports, files=files) for replica, files in enumerate((first, second))]
    try:
        for end in ends:
            await end.transport.start(end.receive)
        yield ends
    finally:
        for end in ends:
            await end.transport.stop()


@pytest.mark.parametrize(
    ("second", "reasons"),
    [
        pytest.param(
            lambda: authority("another").issue("r2"),
            ("its certificate is invalid", "give it one of the authority in --tls-ca"),
            id="another authority",
        ),
        pytest.param(
            lambda: authority().issue("r2", not_after=LONG_AGO),
            ("its certificate is invalid (certificate has expired): renew it",),
            id="expired",
        ),
        pytest.param(
            lambda: authority().issue("r3"),
            ("its certificate names r3, and must name r2 or 127.0.0.1 to be of r2",),
            id="of another replica",
        ),
        pytest.param(
            lambda: None,
            ("it does not speak TLS and we do: give --tls-cert", "it speaks TLS and we do not: give --tls-cert"),
            id="no TLS",
        ),
    ],
)
async def test_a_replica_with_wrong_files_is_refused_with_the_remedy(
    second: Callable[[], TlsFiles | None], reasons: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(authority().issue("r1"), second()) as ends:
        await eventually(lambda: all(reason in caplog.text for reason in reasons), f"{reasons} are logged")
        await eventually(lambda: ends[0].transport.traffic.refused >= 3, "it is refused again and again")
        assert [end.transport.connected for end in ends] == [(), ()]
    assert "Traceback" not in caplog.text


async def test_certificate_may_name_the_host_instead_of_the_replica() -> None:
    async with pair(authority().issue("127.0.0.1"), authority().issue("127.0.0.1", "other.example")) as ends:
        await eventually(lambda: [end.transport.connected for end in ends] == [(1,), (0,)], "they are connected")


async def test_a_refused_replica_is_accepted_with_the_right_files() -> None:
    ports = free_ports(2)
    first = tcp_end(who(0, 2), ports, files=authority().issue("r1"))
    await first.transport.start(first.receive)
    for second in (
        tcp_end(who(1, 2), ports, files=authority("another").issue("r2")),
        tcp_end(who(1, 2), ports, files=authority().issue("r2")),
    ):
        refused = first.transport.traffic.refused
        await second.transport.start(second.receive)
        await eventually(
            lambda before=refused: bool(first.transport.connected) or first.transport.traffic.refused > before,  # type: ignore[misc]
            "it is refused or let in",
        )
        if not first.transport.connected:
            await second.transport.stop()
    await eventually(lambda: second.transport.connected == (0,), "both ways")
    for end in (first, second):
        await end.transport.stop()


async def stranger(port: int, context: ssl.SSLContext | None, data: bytes) -> bytes:
    """The bytes that a process without a replica's certificate receives."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        writer.write(data)
        async with asyncio.timeout(5):
            return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.transport.abort()


def client_context(files: TlsFiles | None) -> ssl.SSLContext:
    """The TLS context of an unauthenticated peer, with or without a certificate."""
    context = ssl.create_default_context(cafile=str(authority().file))
    context.check_hostname = False
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


@asynccontextmanager
async def lonely_end() -> AsyncIterator[tuple[End, int]]:
    """One replica with TLS whose peers are not started, and its port."""
    ports = free_ports(3)
    end = tcp_end(who(0), ports, files=authority().issue("r1"))
    await end.transport.start(end.receive)
    try:
        yield end, ports[0]
    finally:
        await end.transport.stop()


async def test_a_connection_without_a_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with lonely_end() as (end, port):
        assert await stranger(port, client_context(None), hello("test", 1, 3)) == b""
        await eventually(lambda: end.transport.traffic.refused == 1, "it is counted")
    assert "it shows no certificate: give it --tls-cert and --tls-key" in caplog.text


async def test_a_replica_with_a_name_outside_its_certificate_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with lonely_end() as (_, port):
        said = await stranger(port, client_context(authority().issue("r3")), hello("test", 1, 3))
        assert b"its certificate names r3, and must name r2 or 127.0.0.1 to be of r2" in said


async def greeting_of(port: int, context: ssl.SSLContext) -> bytes:
    """The first answer to a valid peer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(hello("test", 1, 3))
    try:
        return await asyncio.wait_for(reader.readexactly(len(PREAMBLE)), 5)
    finally:
        writer.transport.abort()


async def test_the_handshake_of_a_peer_is_encrypted() -> None:
    async with lonely_end() as (_, port):
        assert await greeting_of(port, client_context(authority().issue("r2"))) == PREAMBLE


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", hello("test", 1, 3), b"\xff" * 100])
async def test_plain_text_to_an_encrypted_port_is_refused_and_logged(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with lonely_end() as (end, port):
        assert PREAMBLE not in await stranger(port, None, data)
        await eventually(lambda: end.transport.traffic.refused == 1, "it is counted")
        assert "refused a connection from" in caplog.text
        assert end.received == []


async def test_an_unfinished_handshake_times_out(caplog: pytest.LogCaptureFixture) -> None:
    async with lonely_end() as (end, port):
        assert await stranger(port, None, b"\x16\x03\x01") == b""
        await eventually(lambda: end.transport.traffic.refused == 1, "it is counted")
    assert "handshake timed out" in caplog.text


async def test_a_connection_closed_during_its_handshake_does_not_block_a_peer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ports = free_ports(3)
    limits = TransportLimits(
        unauthenticated_connections_max=1, unauthenticated_per_address_max=1, handshake_seconds_max=30
    )
    end = tcp_end(who(0), ports, limits=limits, files=authority().issue("r1"))
    async with started(end):
        reader, silent = await asyncio.open_connection("127.0.0.1", ports[0])
        silent.write(b"\x16\x03\x01")
        await eventually(lambda: len(end.transport.pending) > 0, "it has come")  # type: ignore[attr-defined]
        others = [await asyncio.open_connection("127.0.0.1", ports[0]) for _ in range(2)]
        assert await reader.read() == b""
        assert "too many connections have not completed the handshake" in caplog.text
        peer = client_context(authority().issue("r2"))
        assert PREAMBLE in await greeting_of(ports[0], peer)
        for _, writer in [(reader, silent), *others]:
            writer.transport.abort()


async def test_stopping_in_the_middle_of_handshakes_ends_them() -> None:
    async with lonely_end() as (end, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await eventually(lambda: len(end.transport.pending) > 0, "it has arrived")  # type: ignore[attr-defined]
        await end.transport.stop()
        assert not len(end.transport.pending)  # type: ignore[attr-defined]
        writer.transport.abort()


async def test_nothing_of_a_message_can_be_read_on_the_wire() -> None:
    secret, ports, seen = b"a word that nobody else may read", free_ports(3), bytearray()
    plain_ports = ports[:2]

    async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass everything on to the second replica, and look at it."""
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", plain_ports[1])

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                seen.extend(data)
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, upstream), pump(upstream_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(tap, "127.0.0.1", ports[2])
    first = tcp_end(who(0, 2), [ports[0], ports[2]], files=authority().issue("r1"))
    second = tcp_end(who(1, 2), plain_ports, files=authority().issue("r2"))
    for end in (first, second):
        await end.transport.start(end.receive)
    await eventually(lambda: first.transport.connected == (1,), "they are connected through the tap")
    first.transport.send((ReplicaId(1),), PreAccept(_instance(), Batch((), (), Footprint(writes=(secret,))), (0, 0)))
    await eventually(lambda: bool(second.received), "the message arrives")
    assert len(seen) > 500
    assert secret not in seen
    assert PREAMBLE not in seen
    for end in (first, second):
        await end.transport.stop()
    server.close()


def _instance() -> InstanceId:
    return InstanceId(ReplicaId(0), 1)


def test_encrypted_group_works_on_uvloop_as_well() -> None:
    async def story() -> None:
        async with group("tls") as ends:
            assert [end.transport.connected for end in ends] == [(1, 2), (0, 2), (0, 1)]

    uvloop.run(story())


def test_refusals_work_on_uvloop_as_well(caplog: pytest.LogCaptureFixture) -> None:
    uvloop.run(_refused_strangers())
    for reason in ("it shows no certificate", "it does not speak TLS and we do", "handshake timed out"):
        assert reason in caplog.text


async def _refused_strangers() -> None:
    async with lonely_end() as (end, port):
        await stranger(port, client_context(None), hello("test", 1, 3))
        await stranger(port, None, hello("test", 1, 3))
        await stranger(port, None, b"\x16\x03\x01")
        await eventually(lambda: end.transport.traffic.refused == 3, "all are refused")


NAMES = {ReplicaId(1): ("r2",)}


def test_files_that_cannot_be_used_are_one_clear_line(tmp_path: Path) -> None:
    good, other, missing = authority().issue("r1"), authority().issue("r1"), tmp_path / "missing.pem"
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("hello")
    for files, said in (
        (replace(good, cert=missing), f"cannot read --tls-cert {missing}: No such file or directory; give a file"),
        (replace(good, key=missing), f"cannot read --tls-key {missing}"),
        (replace(good, ca=tmp_path), f"cannot read --tls-ca {tmp_path}: Is a directory"),
        (replace(good, key=other.key), f"--tls-key {other.key} is not the key of --tls-cert {good.cert}"),
        (replace(good, cert=garbage), "are not a certificate and its key in PEM form"),
        (replace(good, ca=garbage), f"--tls-ca {garbage} holds no certificate in PEM form"),
    ):
        with pytest.raises(UsageError) as caught:
            load_tls(files, NAMES)
        assert said in str(caught.value)


def test_a_key_with_a_password_is_refused_without_a_prompt(tmp_path: Path) -> None:
    good = authority().issue("r1")
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match="is protected by a password"):
        load_tls(replace(good, key=locked), NAMES)
