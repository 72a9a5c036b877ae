"""Every kind of answer in both protocols."""

import pytest

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.machines.base import CommandFailed
from pydsm.server.limits import RespLimits
from pydsm.server.replies import encode_reply

LIMITS = RespLimits(reply_bytes_max=100)


@pytest.mark.parametrize(
    ("answer", "resp2", "resp3"),
    [
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", None),
        (b"", b"$0\r\n\r\n", None),
        ("OK", b"+OK\r\n", None),
        (-7, b":-7\r\n", None),
        (None, b"$-1\r\n", b"_\r\n"),
        ([1, b"a", None, []], b"*4\r\n:1\r\n$1\r\na\r\n$-1\r\n*0\r\n", b"*4\r\n:1\r\n$1\r\na\r\n_\r\n*0\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (CommandFailed("ERR no"), b"-ERR no\r\n", None),
        (CommandFailed("no such luck"), b"-ERR no such luck\r\n", None),
        (CommandFailed("WRONGTYPE a\r\n+OK"), b"-WRONGTYPE a  +OK\r\n", None),
    ],
)
def test_answer(answer: Answer, resp2: bytes, resp3: bytes | None) -> None:
    assert encode_reply(answer, 2, LIMITS) == resp2
    assert encode_reply(answer, 3, LIMITS) == (resp3 or resp2)


def test_refusals_are_try_again_errors_that_state_that_nothing_was_executed() -> None:
    aborted = encode_reply(Aborted("five nops"), 2, LIMITS)
    overloaded = encode_reply(Overloaded("full"), 2, LIMITS)
    assert aborted == b"-TRYAGAIN the command was not executed and never will be, send it again: five nops\r\n"
    assert overloaded == b"-TRYAGAIN the command was not taken and not executed, send it again later: full\r\n"


def test_a_reply_over_the_limit_is_replaced_by_an_error_before_it_is_encoded() -> None:
    value = b"x" * 40
    assert encode_reply([value], 2, LIMITS).startswith(b"*1")
    said = encode_reply([value] * 3, 2, LIMITS)
    assert said == b"-ERR the reply has at least 168 bytes, over the limit of 100; request less data\r\n"


def test_a_result_that_cannot_be_encoded_is_an_error() -> None:
    said = encode_reply(object(), 2, LIMITS)
    assert said == b"-ERR the command was executed, but its result, a object, has no form in this protocol\r\n"
