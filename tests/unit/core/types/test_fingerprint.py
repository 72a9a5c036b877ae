"""The printable fingerprint of an incarnation."""

from pydsm.core.types.fingerprint import fingerprint


def test_fingerprint_is_64_bits_the_same_everywhere_and_not_the_incarnation() -> None:
    assert fingerprint(0xABC) == 4129123944434501124
    assert fingerprint(0) != 0
    assert 0 <= fingerprint((1 << 64) - 1) < 1 << 64
