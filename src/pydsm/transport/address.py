"""HOST:PORT as people write it."""

import os
import socket
from typing import NamedTuple

from pydsm.core.faults import CallerFault

_HOST_CHARACTERS_MAX = 255
_PORT_DIGITS_MAX = 5
_PORT_MAX = 65_535
_SHOWN_CHARACTERS = 300


class Address(NamedTuple):
    """A TCP endpoint; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises CallerFault for anything but HOST:PORT with a port in 1 .. 65535.

    A host is at most 255 characters, printable and without white space, as names and addresses are.
    """
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    strange = len(host) > _HOST_CHARACTERS_MAX or not host.isprintable() or any(map(str.isspace, host))
    if not host or strange or not (port.isascii() and port.isdigit()):
        raise CallerFault(
            f"{text[:_SHOWN_CHARACTERS]!r} is not an address: write HOST:PORT, like 127.0.0.1:7000 or [::1]:7000"
        )
    if len(port) > _PORT_DIGITS_MAX or not 1 <= int(port) <= _PORT_MAX:
        raise CallerFault(f"{text[:_SHOWN_CHARACTERS]!r} has a port that does not exist: ports are 1 to {_PORT_MAX}")
    return Address(host, int(port))


def reason_of(error: OSError) -> str:
    """Why an address could not be reached or used, in the system's words.

    Errors about names of hosts have numbers of their own, which `os.strerror` does not know.
    """
    if isinstance(error, socket.gaierror) or not error.errno or error.errno < 0:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
