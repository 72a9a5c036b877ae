"""Parsing: the same commands for each split of the bytes, limits, and ProtocolError for garbage."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.server.limits import RespLimits
from pydsm.server.parser import CommandTooLarge, ProtocolError, RequestParser, split_line
from tests.unit.server.local import array

SMALL = RespLimits(bulk_bytes_max=100, arguments_max=10, query_buffer_bytes_max=400, line_bytes_max=50)

commands = st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=8)


def parse(*pieces: bytes, limits: RespLimits = SMALL, at_once: int = 1000) -> list[list[bytes]]:
    """All commands in these pieces, each piece arriving alone."""
    parser, found = RequestParser(limits), list[list[bytes]]()
    for piece in pieces:
        parser.feed(piece)
        while taken := parser.take(at_once):
            assert len(taken) <= at_once
            found += [list(words) for words in taken]
    return found


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(commands, st.lists(st.integers(min_value=0)), st.integers(1, 3))
def test_any_split_gives_the_same_commands(sent: list[list[bytes]], places: list[int], at_once: int) -> None:
    stream = b"".join(array(*words) for words in sent)
    assert parse(*cut(stream, places), at_once=at_once) == sent


@given(commands)
def test_byte_by_byte_gives_the_same_commands(sent: list[list[bytes]]) -> None:
    stream = b"".join(array(*words) for words in sent)
    assert parse(*(stream[place : place + 1] for place in range(len(stream)))) == sent


morsels = [b"*", b"$", b"\r\n", b"\n", b"\r", b"1", b"2", b"-1", b"0", b"9" * 12, b"GET", b'"', b"'", b" ", b"\\"]
soup = st.lists(st.sampled_from(morsels) | st.binary(max_size=3), max_size=40).map(b"".join)


@given(soup, st.lists(st.integers(min_value=0), max_size=10))
def test_garbage_gives_the_same_result_for_each_split_and_raises_only_protocol_errors(
    garbage: bytes, places: list[int]
) -> None:
    def outcome(*pieces: bytes, limits: RespLimits = SMALL) -> tuple[list[list[bytes]], str]:
        parser, found = RequestParser(limits), list[list[bytes]]()
        try:
            for piece in pieces:
                parser.feed(piece)
                while taken := parser.take(5):
                    found += [list(words) for words in taken]
        except ProtocolError as error:
            return found, str(error)
        return found, ""

    assert outcome(*cut(garbage, places))[0] == outcome(garbage)[0]
    assert outcome(*cut(garbage, places), limits=RespLimits()) == outcome(garbage, limits=RespLimits())
    if len(garbage) <= SMALL.line_bytes_max:
        assert outcome(*cut(garbage, places)) == outcome(garbage)


@given(
    st.lists(st.lists(st.sampled_from([b"", b"x", b"a\r\nb", b"\r\n", b"$1", b"y" * 1024, b"z" * 1025]), min_size=1)),
    st.lists(st.integers(min_value=0), max_size=5),
    st.integers(1, 100),
)
def test_long_words_and_line_ends_inside_words_are_parsed(
    sent: list[list[bytes]], places: list[int], at_once: int
) -> None:
    stream = b"".join(array(*words) for words in sent)
    assert parse(*cut(stream, places), limits=RespLimits(), at_once=at_once) == sent


@pytest.mark.parametrize("words", [1, 63, 64, 65, 5000])
def test_commands_of_any_number_of_words_follow_each_other(words: int) -> None:
    sent = [[b"word"] * words] * 3
    stream = b"".join(array(*command) for command in sent)
    assert parse(stream, limits=RespLimits()) == sent
    assert parse(stream, limits=RespLimits(), at_once=1) == sent


def test_lines_and_arrays_may_be_mixed_and_empty_commands_are_skipped() -> None:
    stream = b"PING\r\n\r\n" + array(b"GET", b"a") + b"*0\r\n*-1\r\n \t\r\nGET\tb \n"
    assert parse(stream) == [[b"PING"], [b"GET", b"a"], [b"GET", b"b"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'SET a "b c"', [b"SET", b"a", b"b c"]),
        (b"SET a 'b c' ", [b"SET", b"a", b"b c"]),
        (rb'"\x41\x4a\n\r\t\b\a\q\"\\"', [b'AJ\n\r\t\b\aq"\\']),
        (rb"'\x41\'\n'", [rb"\x41'\n"]),
        (b"\"\" ''", [b"", b""]),
        (b"a\"b c\" d'e'", [b"ab c", b"de"]),
        (b"", []),
        (b"\v a\vb\f c\v \f\vd\f", [b"a\vb\f", b"c\v", b"d\f"]),
        (b"\va\vb \"c\"\vd\fe'f' \f", [b"a\vb", b"c", b"d\fef"]),
    ],
)
def test_line_may_quote_as_in_redis(line: bytes, words: list[bytes]) -> None:
    assert list(split_line(line)) == words


@pytest.mark.parametrize("line", [b'"a', b"'a", b"'a\\'", b'"a\\"', b"'a'b", b'"a""b"', b"a'", b'a"b', b'a"b"c'])
def test_line_with_open_quotes_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^Protocol error: unbalanced quotes in request$"):
        split_line(line)


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1 \r\n", "invalid multibulk length"),
        (b"*9999999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\nxx\r\n", "expected '$', got 'x'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*1\r\n$" + b"9" * 40 + b"\r\n", "invalid bulk length"),
        (b"*1\r\n$" + b"1" * 50, "too big bulk count string"),
        (b"*" + b"1" * 50, "too big mbulk count string"),
        (b"P" * 51, "too big inline request: a line has over 50 bytes"),
        (b"P" * 51 + b"\r\n", "too big inline request: a line has over 50 bytes"),
    ],
)
def test_errors_of_the_protocol_have_the_texts_of_redis(stream: bytes, text: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse(stream)
    assert str(raised.value) == f"Protocol error: {text}"


def test_valid_commands_before_an_invalid_one_are_returned_first() -> None:
    parser = RequestParser(SMALL)
    parser.feed(array(b"PING") + b"*x\r\n")
    assert parser.take(10) == [[b"PING"]]
    with pytest.raises(ProtocolError):
        parser.take(10)


def test_commands_up_to_the_limits_are_accepted() -> None:
    assert parse(array(b"x" * 100)) == [[b"x" * 100]]
    assert parse(array(*[b"x"] * 10)) == [[b"x"] * 10]
    assert parse(b"P" * 48 + b"\r\n") == [[b"P" * 48]]


TOO_LARGE = [
    (array(b"x" * 101), "an argument of 101 bytes, over the limit of 100"),
    (array(*[b"x"] * 11), "11 words, over the limit of 10"),
    (array(*[b"x" * 90] * 5), "over 400 bytes, which is the limit"),
    (array(b"x" * 101, b"y" * 300, b"*1"), "an argument of 101 bytes, over the limit of 100"),
]


@pytest.mark.parametrize(("command", "text"), TOO_LARGE)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_command_that_is_too_large_is_skipped_and_reported(command: bytes, text: str, size: int) -> None:
    parser = RequestParser(SMALL)
    stream = array(b"PING") + command + array(b"GET", b"a") + b"PING\r\n"
    found: list[object] = []
    for start in range(0, len(stream), size):
        parser.feed(stream[start : start + size])
        try:
            while taken := parser.take(10):
                found += [list(words) for words in taken]
        except CommandTooLarge as error:
            found += [str(error), *map(list, parser.take(10))]
        assert parser.held_bytes <= 500
    assert found[0] == [b"PING"]
    assert text in str(found[1])
    assert found[2:] == [[b"GET", b"a"], [b"PING"]]
    assert parser.held_bytes == 0


def test_the_bytes_of_a_command_that_is_too_large_are_not_stored() -> None:
    parser = RequestParser(SMALL)
    parser.feed(b"*5\r\n" + b"$90\r\n%b\r\n" % (b"x" * 90) * 4 + b"$90\r\n")
    assert parser.take(1) == []
    assert parser.held_bytes == 0
    parser.feed(b"y" * 91)
    assert parser.take(1) == []
    parser.feed(b"\n")
    with pytest.raises(CommandTooLarge):
        parser.take(1)
