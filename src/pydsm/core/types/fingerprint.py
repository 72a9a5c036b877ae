"""The printable hash of an incarnation.

In a group with neither a secret nor TLS, a process that has the incarnation of a replica's data could impersonate that
replica. So a replica sends it only when it connects to a peer; all others store, compare and print this hash.
"""

from hashlib import sha256

_LABEL = b"PyDSM incarnation\0"
_BYTES = 8


def fingerprint(incarnation: int) -> int:
    """64 bits from which the incarnation, 64 random bits, cannot be found."""
    return int.from_bytes(sha256(_LABEL + incarnation.to_bytes(_BYTES, "big")).digest()[:_BYTES], "big")
