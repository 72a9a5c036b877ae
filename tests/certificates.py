"""Certificate authorities for tests, and what they sign. Made once a process, since keys take time."""

import tempfile
from datetime import datetime
from functools import cache
from pathlib import Path

import trustme

from pydsm.transport.tls import TlsFiles


class Authority:
    """One private authority with its files."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pydsm-certificates-")
        self._ca = trustme.CA()
        self._issued = 0
        self.file = self._new_file("ca")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, not_after: datetime | None = None, ca: Path | None = None) -> TlsFiles:
        """A certificate that holds these names, and the authority that its owner trusts: this one, or another."""
        certificate = self._ca.issue_cert(*names, not_after=not_after)
        cert, key = self._new_file("cert"), self._new_file("key")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(cert, append=True)
        certificate.private_key_pem.write_to_path(key)
        return TlsFiles(cert, key, ca or self.file)

    def _new_file(self, kind: str) -> Path:
        self._issued += 1
        return Path(self._directory.name) / f"{self._issued}-{kind}.pem"


@cache
def authority(name: str = "ours") -> Authority:
    """The authority of this name, the same all along."""
    return Authority()
