"""HOST:PORT as people write it."""

import os
from typing import NamedTuple

from pydsm.core.faults import CallerFault


class Address(NamedTuple):
    """A TCP endpoint; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises CallerFault for anything but HOST:PORT with a port in 1 .. 65535."""
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise CallerFault(f"{text!r} is not an address: write HOST:PORT, like 127.0.0.1:7000 or [::1]:7000")
    return Address(host, int(port))


def words_of(error: Exception) -> str:
    """What the system, or ZeroMQ, says went wrong. Names that cannot be resolved have numbers of their own, below 1."""
    number: int | None = getattr(error, "errno", None)
    said: str | None = getattr(error, "strerror", None)
    return os.strerror(number) if number and number > 0 else said or str(error)
