"""Mutual TLS between replicas: which replica a certificate names, and the text for each kind of failure.

Both sides present a certificate of the group's own authority. It must name the replica that presents it, by its name in
the group or by the host of its address, on both sides of a connection. So the key of one replica cannot be used to
impersonate another one. Handshakes are left to `ssl`, connections to `tcp_connections`.
"""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.logs import printable

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_EOF")
_NAMES_CHARACTERS_MAX = 300
_OVER, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: this replica's certificate with any intermediate ones, its key, and the authority's certificate."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS contexts of this replica, and the names that the certificates of its peers must have."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    names: Mapping[ReplicaId, tuple[str, ...]]
    """Per peer, the names of which its certificate must have one; the first is its name in the group."""

    def rejection_reason(self, peer: ReplicaId, certificate: Mapping[str, Any] | None) -> str | None:
        """Return None if the verified certificate (as `ssl` returns it) is this peer's, else the reason."""
        held = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
        wanted = self.names[peer]
        if {_comparable(name) for name in held} & {_comparable(name) for name in wanted}:
            return None
        names = printable(", ".join(map(str, held)), _NAMES_CHARACTERS_MAX) or "no name"
        return (
            f"its certificate names {names}, and must name {' or '.join(wanted)} to be of {wanted[0]}: make one with "
            "that as subjectAltName"
        )


def load_tls(files: TlsFiles, names: Mapping[ReplicaId, tuple[str, ...]]) -> Tls:
    """Read the files. Raises UsageError for one that cannot be read, has other content, or does not match."""
    return Tls(
        _context(files, ssl.PROTOCOL_TLS_SERVER),
        _context(files, ssl.PROTOCOL_TLS_CLIENT),
        {peer: tuple(dict.fromkeys(accepted)) for peer, accepted in names.items()},
    )


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # `rejection_reason` accepts one of two names, on both sides
    context.verify_mode = ssl.CERT_REQUIRED
    for option, path in (("--tls-cert", files.cert), ("--tls-key", files.key), ("--tls-ca", files.ca)):
        _check_readable(option, path)
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise UsageError(f"--tls-ca {files.ca} holds no certificate in PEM form: give the authority's") from error
    try:
        context.load_cert_chain(files.cert, files.key, password=lambda: _refuse_password(files.key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"--tls-key {files.key} is not the key of --tls-cert {files.cert}: give the two that were made together"
            ) from error
        raise UsageError(
            f"--tls-cert {files.cert} and --tls-key {files.key} are not a certificate and its key in PEM form "
            f"({error.reason or error}): make new ones"
        ) from error
    return context


def _check_readable(option: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {option} {path}: {error.strerror or error}; give a file that this process may read"
        ) from error


def _refuse_password(key: Path) -> str:
    raise UsageError(f"--tls-key {key} is protected by a password, which cannot be entered here: remove it")


def explain(error: OSError) -> str:
    """The reason of a failed TLS handshake, and the remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is invalid ({error.verify_message}): {_remedy(error.verify_code)}"
    reason = (error.reason if isinstance(error, ssl.SSLError) else None) or ""
    if reason in _NOT_TLS:
        return "it does not speak TLS and we do: give --tls-cert, --tls-key and --tls-ca to all replicas or to none"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate: give it --tls-cert and --tls-key"
    if "ALERT" in reason:
        what = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return f"it refuses the TLS handshake ({what}): see its log"
    what = reason.replace("_", " ").lower() or error.strerror or str(error) or "it closed the connection"
    return f"the TLS handshake failed: {what}"


def _remedy(verify_code: int) -> str:
    if verify_code in (_OVER, _NOT_YET):
        return "renew it, or set the clocks right"
    return "give it one of the authority in --tls-ca, and the same authority to all replicas"


def _comparable(name: str) -> str:
    """The canonical form of an IP address; names in lower case."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")
