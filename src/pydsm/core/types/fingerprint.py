"""What may be shown of an incarnation.

The incarnation of a replica's data is what a stranger would need to pose as that replica where the group has neither a
secret nor TLS. So only a replica that dials another says it, and to nobody else; others store, compare and print this
digest of it.
"""

from hashlib import sha256

_LABEL = b"PyDSM incarnation\0"
_BYTES = 8


def fingerprint(incarnation: int) -> int:
    """64 bits from which the incarnation, 64 random bits, cannot be found."""
    return int.from_bytes(sha256(_LABEL + incarnation.to_bytes(_BYTES, "big")).digest()[:_BYTES], "big")
