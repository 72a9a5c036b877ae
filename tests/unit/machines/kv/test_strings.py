"""Strings: results and effects of each command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.machines.base import Result
from pydsm.machines.kv import KeyValue, encode
from pydsm.machines.kv.command import show_float
from tests.unit.machines.kv.stories import NOW_MS, run

SYNTAX = "!ERR syntax error"
NOT_A_FLOAT = "!ERR value is not a valid float"
WRONG = "!WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.mark.parametrize(
    ("story", "results"),
    [
        (("SET a 1 EX 10", "TTL a", "SET a 2", "TTL a"), ["OK", 10, "OK", -1]),
        (("SET a 1 PX 10", "PTTL a", "SET a 2 KEEPTTL", "PTTL a", "GET a"), ["OK", 10, "OK", 10, b"2"]),
        ((f"SET a 1 EXAT {NOW_MS // 1000 + 7}", "TTL a"), ["OK", 7]),
        ((f"SET a 1 PXAT {NOW_MS + 7}", "PTTL a"), ["OK", 7]),
        ((f"SET a 1 PXAT {NOW_MS}", "EXISTS a"), ["OK", 0]),
        (("SET a 1", "SET a 2 EX 5 NX", "TTL a"), ["OK", None, -1]),
        (("SET a 1 EX 5 GET", "SET a 2 PX 9 GET XX", "PTTL a"), [None, b"1", 9]),
        (("SET a 1 EX 0", "SET a 1 PX -1"), ["!ERR invalid expire time in 'set' command"] * 2),
        (("SET a 1 EX ten", "SET a 1 EX"), ["!ERR value is not an integer or out of range", SYNTAX]),
        (("SET a 1 EX 1 PX 1", "SET a 1 EX 1 KEEPTTL", "SET a 1 KEEPTTL PX 1", "EXISTS a"), [*[SYNTAX] * 3, 0]),
        ((f"SET a 1 EX {2**63 - 1}",), ["!ERR invalid expire time in 'set' command"]),
        (("SETEX a 9 x", "TTL a", "PSETEX a 9 y", "PTTL a", "GET a"), ["OK", 9, "OK", 9, b"y"]),
        (
            ("SETEX a 0 x", "PSETEX a x y"),
            ["!ERR invalid expire time in 'setex' command", "!ERR value is not an integer or out of range"],
        ),
        (("GETEX a EX 1", "SET a 1", "GETEX a", "TTL a", "GETEX a EX 9", "TTL a"), [None, "OK", b"1", -1, b"1", 9]),
        (("GETEX a EX 0", "SET a 1", "GETEX a EX 0"), [None, "OK", "!ERR invalid expire time in 'getex' command"]),
        (("SET a 1 EX 9", "GETEX a PERSIST", "TTL a", "GETEX a NOW"), ["OK", b"1", -1, SYNTAX]),
        (
            ("MSETNX a 1 b 2", "MSETNX b 3 c 4", "MGET a b c", "MSETNX a 1 b"),
            [1, 0, [b"1", b"2", None], "!ERR wrong number of arguments for 'msetnx' command"],
        ),
        (("SET a 10 EX 9", "INCR a", "APPEND a 5", "SETRANGE a 0 2", "TTL a", "GET a"), ["OK", 11, 3, 3, 9, b"215"]),
        (("SET a 10 EX 9", "GETSET a 11", "TTL a", "MSET a 1", "TTL a"), ["OK", b"10", -1, "OK", -1]),
        (("INCRBYFLOAT a 0.1", "INCRBYFLOAT a 0.2", "INCRBYFLOAT a -0.3", "GET a"), [b"0.1", b"0.3", b"0", b"0"]),
        (("SET a 5.0e3", "INCRBYFLOAT a 2.0e2", "INCRBYFLOAT a -5200.5"), ["OK", b"5200", b"-0.5"]),
        (
            ("INCRBYFLOAT a x", "INCRBYFLOAT a nan", "SET a x", "INCRBYFLOAT a 1"),
            [*[NOT_A_FLOAT] * 2, "OK", NOT_A_FLOAT],
        ),
        (("INCRBYFLOAT a inf",), ["!ERR increment would produce NaN or Infinity"]),
        (
            ("INCRBYFLOAT a 1e308", "INCRBYFLOAT a 9e307"),
            [b"1" + b"0" * 308, "!ERR increment would produce NaN or Infinity"],
        ),
        (
            (
                "SET a hello",
                "GETRANGE a 0 0",
                "GETRANGE a 1 -2",
                "GETRANGE a -3 -1",
                "GETRANGE a 9 10",
                "GETRANGE b 0 -1",
            ),
            ["OK", b"h", b"ell", b"llo", b"", b""],
        ),
        (("SET a hello", "SUBSTR a -100 100", "GETRANGE a -1 -3", "GETRANGE a 3 -100"), ["OK", b"hello", b"", b""]),
        (("SETRANGE a 2 xy", "GET a", "SETRANGE a 0 _", "SETRANGE b 5 _", "EXISTS b"), [4, b"\0\0xy", 4, 0, 0]),
        (
            ("SETRANGE a -1 x", "SETRANGE a x y"),
            ["!ERR offset is out of range", "!ERR value is not an integer or out of range"],
        ),
        (
            ("SETBIT a 9 1", "GETBIT a 9", "GETBIT a 8", "GETBIT a 99", "SETBIT a 9 0", "GET a"),
            [0, 1, 0, 0, 1, b"\0\0"],
        ),
        (
            ("SETBIT a 0 2", "SETBIT a -1 1", f"GETBIT a {2**32}"),
            ["!ERR bit is not an integer or out of range", *["!ERR bit offset is not an integer or out of range"] * 2],
        ),
        (
            (
                "SET a foobar",
                "BITCOUNT a",
                "BITCOUNT a 0 0",
                "BITCOUNT a 1 1 BYTE",
                "BITCOUNT a 5 30 BIT",
                "BITCOUNT a -2 -1",
            ),
            ["OK", 26, 4, 6, 17, 7],
        ),
        (
            ("BITCOUNT a", "SET a x", "BITCOUNT a 0", "BITCOUNT a 0 1 WORD", "BITCOUNT a 3 1"),
            [0, "OK", SYNTAX, SYNTAX, 0],
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_story(story: tuple[str, ...], results: list[Result]) -> None:
    assert run(KeyValue(), *story) == results


@given(st.binary(max_size=9), st.integers(-12, 12), st.integers(-12, 12))
def test_getrange_returns_the_bytes_between_both_ends(value: bytes, first: int, last: int) -> None:
    machine = KeyValue()
    machine.apply([encode([b"SET", b"a", value])], NOW_MS)
    low = first if first >= 0 else max(first + len(value), 0)
    high = last if last >= 0 else max(last + len(value), 0)
    expected = bytes(value[place] for place in range(len(value)) if low <= place <= high)
    if first < 0 and last < 0 and first > last:
        expected = b""
    assert run(machine, f"GETRANGE a {first} {last}") == [expected]


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=9),
    st.integers(-99, 99),
)
def test_decimal_sums_are_exact(start: object, amount: int) -> None:
    machine = KeyValue()
    run(machine, f"INCRBYFLOAT a {start:f}")
    (there, back) = run(machine, f"INCRBYFLOAT a {amount}", f"INCRBYFLOAT a {-amount}")
    assert isinstance(there, bytes)
    assert back == run(KeyValue(), f"INCRBYFLOAT a {start:f}")[0]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, b"1"),
        (0.1, b"0.1"),
        (-2.5, b"-2.5"),
        (1e300, b"1e+300"),
        (float("-inf"), b"-inf"),
        (3e16, b"30000000000000000"),
    ],
)
def test_floats_are_shown_in_their_shortest_form(number: float, text: bytes) -> None:
    assert show_float(number) == text
