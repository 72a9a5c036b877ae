"""The transports between replicas that `serve` supports, and their requirements."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.runtime.components import MakeTransport
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from pydsm.transport.base import Admit, LocalIdentity, StartExchange, Transport
from pydsm.transport.members import Member
from pydsm.transport.secret import GroupSecret
from pydsm.transport.tcp import TcpTransport
from pydsm.transport.tls import Tls, TlsFiles, load_tls


class TransportKind(StrEnum):
    """The transports between replicas."""

    TCP = "tcp"
    ZEROMQ = "zeromq"


def tls_files(kind: TransportKind, cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """The three files, or None without TLS. Raises UsageError if only some are given, or if TLS is not supported."""
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise UsageError("TLS needs --tls-cert, --tls-key and --tls-ca, all three; see docs/howto/encrypt.md")
    if kind is not TransportKind.TCP:
        raise UsageError(f"--transport {kind} does not support TLS: remove the --tls options, or use tcp")
    return TlsFiles(cert, key, ca)


def transport_maker(
    kind: TransportKind,
    identity: Identity,
    listen: Address,
    members: Mapping[str, Address],
    tls: Tls | None,
    secret: GroupSecret | None,
) -> MakeTransport:
    """A function that creates this replica's transport. Raises UsageError if a package for it is missing."""
    peers = {ReplicaId(number): at for number, at in enumerate(members.values()) if number != identity.replica}
    listed = tuple(Member(name, str(address)) for name, address in members.items())
    if kind is TransportKind.ZEROMQ:
        _need_pyzmq()

    def make(incarnation: int, admit: Admit, starts: StartExchange) -> Transport:
        me = LocalIdentity(
            identity.group, identity.replica, identity.replicas, incarnation, members=listed, secret=secret
        )
        if kind is TransportKind.ZEROMQ:
            from pydsm.transport.zeromq import ZeroMqTransport

            return ZeroMqTransport(me, listen, peers, admit, starts)
        return TcpTransport(me, listen, peers, admit, starts, tls=tls)

    return make


def load_peer_tls(files: TlsFiles, names: tuple[str, ...], peers: Mapping[ReplicaId, Address]) -> Tls:
    """TLS settings: a peer's certificate must have its name or its host. Raises UsageError for invalid files."""
    return load_tls(files, {peer: (names[peer], address.host) for peer, address in peers.items()})


def _need_pyzmq() -> None:
    try:
        import zmq  # noqa: F401
    except ImportError as error:
        raise UsageError("--transport zeromq needs pyzmq: pip install 'pydsm-epaxos[zmq]'") from error
