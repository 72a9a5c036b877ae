"""The secret that all replicas of a group share, and proofs that a replica has it, which do not reveal it.

Each side of a connection proves that it has the secret by an HMAC-SHA256 over its role (the side that dialled, or the
side that was dialled) and over both Hellos, each of which contains 32 random bytes drawn for this connection. So a
proof is valid only on one connection, in one direction, and between two replicas. The secret excludes unauthenticated
peers. It does not encrypt, and does not protect a connection from an attacker who can change its bytes: TLS does.
"""

import hmac
import ipaddress
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pydsm.core.types.errors import UsageError

log = logging.getLogger("pydsm.transport")

SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 4096

_LABEL = b"PyDSM group secret 1\0"


class GroupSecret:
    """Makes and checks proofs. Neither `repr` nor `str` shows the secret."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """Raises UsageError for a value that is shorter than `SECRET_BYTES_MIN` or longer than `SECRET_BYTES_MAX`."""
        if not SECRET_BYTES_MIN <= len(value) <= SECRET_BYTES_MAX:
            raise UsageError(
                f"a group secret of {len(value)} bytes: it must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}; "
                "make one with: openssl rand -hex 32"
            )
        self._value = value

    def proof(self, role: bytes, *messages: bytes) -> bytes:
        """The proof that this side has the secret, in this role, on the connection with these handshake messages."""
        parts = [_LABEL, *(len(part).to_bytes(4, "big") + part for part in (role, *messages))]
        return hmac.digest(self._value, b"".join(parts), "sha256")

    def accepts(self, proof: bytes, role: bytes, *messages: bytes) -> bool:
        """Whether the proof is correct, compared in constant time."""
        return hmac.compare_digest(proof, self.proof(role, *messages))


def read_secret(path: Path) -> GroupSecret:
    """The secret in a file, without white space around it.

    Raises UsageError for a file that cannot be read, that every user of this computer may read or change, or that
    holds too few or too many bytes.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(SECRET_BYTES_MAX + 256)
    except OSError as error:
        raise UsageError(
            f"cannot read --secret-file {path}: {error.strerror or error}; give a file that this process may read"
        ) from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UsageError(
            f"--secret-file {path} may be read or changed by every user of this computer (mode {mode:04o}): "
            f"chmod 600 {path}, and make a new secret if others could have read it"
        )
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        log.warning("--secret-file %s may be read or changed by its group (mode %04o): chmod 600 it", path, mode)
    try:
        return GroupSecret(text.strip())
    except UsageError as fault:
        raise UsageError(f"--secret-file {path} holds {fault}") from fault


def warn_if_unauthenticated(hosts: Iterable[str], secret: GroupSecret | None, *, encrypted: bool) -> None:
    """Log a warning if other computers can reach a port for replicas that does not authenticate connections."""
    beyond = sorted(host for host in set(hosts) if not ipaddress.ip_address(host.partition("%")[0]).is_loopback)
    if beyond and secret is None and not encrypted:
        log.warning(
            "any process that can reach the port for replicas on %s can take part in this group and break it: give all "
            "replicas the same --secret-file, or TLS (--tls-cert, --tls-key, --tls-ca)",
            ", ".join(beyond),
        )
