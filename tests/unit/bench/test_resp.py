"""Replies of the Redis protocol, whole and in pieces."""

import pytest

from pydsm.bench.resp import ErrorReply, RespReader, RespReply, encode_command
from pydsm.core.types.errors import PeerProtocolError

STREAM = b"+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n$0\r\n\r\n*3\r\n:1\r\n$1\r\nx\r\n*0\r\n*-1\r\n"
REPLIES: list[RespReply] = [b"OK", ErrorReply("ERR no"), -7, b"a\r\nbc", None, b"", [1, b"x", []], None]


def test_command_is_an_array_of_bulk_strings() -> None:
    assert encode_command(b"SET", b"key", b"") == b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n"


def test_replies_in_one_piece() -> None:
    assert RespReader().feed(STREAM) == REPLIES


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_replies_in_small_pieces(size: int) -> None:
    reader, replies = RespReader(), list[RespReply]()
    for start in range(0, len(STREAM), size):
        replies += reader.feed(STREAM[start : start + size])
    assert replies == REPLIES


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400\r\n", b":x\r\n", b"?1\r\n"])
def test_what_is_no_reply_is_a_fault(garbage: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="which is not a reply"):
        RespReader().feed(garbage)
