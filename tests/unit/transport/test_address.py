"""HOST:PORT."""

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.transport.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7000", Address("127.0.0.1", 7000)),
        (" name.example:1 ", Address("name.example", 1)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_good_address_is_taken_apart_and_written_back(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "7000", ":7000", "host:", "host:0", "host:65536", "host:-1", "::1:7000", "host:٣"]
)
def test_bad_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"HOST:PORT|ports are 1 to 65535"):
        parse_address(text)
